"""Agents on networks: REINFORCE, and Q-learning, SARSA and Monte Carlo by action values.

What an algorithm descends is here, with action heads, targets and optimisers; what it learns from
is kept by `agents/experience`. Imports torch, networks, experience, and of the tables their
arithmetic only. A new algorithm is one file here and a line in `agents/registry`.
"""
