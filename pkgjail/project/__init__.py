"""A project's own jail: a file beside its sources says what it has, and a lock keeps its manifest.

model   what a project asks for, and where it is kept
read    reads `pkgjail.toml`, or `[tool.pkgjail]` of `pyproject.toml`
lock    makes the manifest and keeps it
begin   the text of a file to begin with
"""
