"""Diagnosis of networks: the contract, vital signs, and the activity of the memory.

Imports core and networks; nothing here changes a network. A new property that every network must
have is a function in `check`.
"""
