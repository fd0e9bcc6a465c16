"""Q-learning, SARSA and Monte Carlo on tables.

An algorithm is a plain function over scalars and arrays, in a file of its own, called for one step
of one environment after the other; Numba compiles the same functions (see `compilable`). Imports
core and the agents' schedules, never torch. A new algorithm is one file here and a line in
`agents/registry`; one more in `compilable` compiles its turns.
"""
