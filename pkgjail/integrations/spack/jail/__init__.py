"""The command `spack jail`."""
