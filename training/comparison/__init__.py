"""Comparisons of algorithms: finished runs read, tested and reported.

Imports runs, to read their folders, and the statistics. A new kind of report is one file here.
"""
