"""Our own tasks, one file each, written once for N episodes in NumPy and on a device.

Imports core and the batched environment. A new task is one file here, with its right answers and
reference scores, and a line in `envs/registry`. `rows`, `generated` and `files` are the data that
`Samples` and `NextToken` are made of; `turns` and `vocabulary` those of `Corpus`. Token tasks are
`replies`, judged by `rewards`; `guesses` has the scores of policies that guess.
"""
