"""Pictures and films of what an agent does, for TensorBoard and for files.

Imports the loop, to play an episode, and matplotlib where something is drawn. A new picture is a
function here and a line in `picture_logger`.
"""
