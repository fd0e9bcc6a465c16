"""Searches of settings: trials that are runs, drawn and pruned by Optuna, and what they leave.

Imports comparison, which scores runs, and engines, which execute them. A new form of range is in
`space`, a pruner in `study`.
"""
