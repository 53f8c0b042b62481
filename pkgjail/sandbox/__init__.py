"""The namespace stage, on the standard library alone: plain steps in, a running command out.

`steps` is the data, `stage.run` carries it out; `build` makes the root, `terminal` and `waiting`
connect the caller, `syscalls` has what Python does not wrap.
"""
