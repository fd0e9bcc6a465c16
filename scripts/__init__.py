"""The command line: parse arguments, build the parts of a run, call training."""
