"""Environments: directories from which a jail can be entered again and again.

`build.build_environment` builds one, `enter.enter_environment` runs a command in it, and
`remove.remove_environment` removes it. `isolate` has the three functions of the 2017 paper that Spack's
developers know. docs/environments.md describes the directory, and what a removal promises.
"""
