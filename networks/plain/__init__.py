"""Small networks in NumPy: a forward pass, or forward and backward, without torch's overhead.

All results equal torch's up to rounding. Imports core and networks. A new kind of
layer is a line in `numpy_layers`.
"""
