"""Environments: directories that a jail can be entered from again and again.

`build.build_environment` makes one, `enter.enter_environment` runs a command in it,
`remove.remove_environment` takes it away; `isolation` has the three functions that Spack's
developers know. docs/environments.md tells what lies in the directory, and what removal promises.
"""
