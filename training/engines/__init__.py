"""Where many runs are executed: processes of this machine, or those of a Ray cluster.

Imports runs, whose folders come back as a run leaves them. Another engine is one file here, and its
name in `choice`.
"""
