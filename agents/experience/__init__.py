"""What agents on networks learn from: steps and episodes in arrays, and batches picked from them.

Replay, rollouts and whole episodes keep what they are given and never decide when to learn.
Imports core only. A new store is one file here.
"""
