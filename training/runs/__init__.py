"""Runs in their folders: config, log, checkpoints, early stopping, and many runs at once.

Imports pictures, loop, agents and envs. A run's folder is what comparison reads; a new file in it
is a file here.
"""
