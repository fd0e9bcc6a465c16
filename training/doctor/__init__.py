"""Checks of environment, network and agent before a run, each finding with its remedy.

Imports the environments' and networks' own checks, and the parts of a run. A new check is a
function that returns findings, called in `examine`.
"""
