"""The loop of agent and environments, stepped or compiled, and the evaluation that uses it.

Imports agents and envs; knows no algorithm, no file and no picture. What happens every so many
env steps is a callback, in the wing where its subject is.
"""
