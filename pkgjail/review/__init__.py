"""Review of manifests: why something is in, what differs between two, whether one is closed or still holds.

`why`, `diff` and `graph` are pure functions from manifests to frozen records. `check` and `verify` compare a
manifest with a host; `report` writes a page. The command line chooses words and colours.
"""
