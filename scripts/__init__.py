"""The command line: read arguments, build the parts, call training."""
