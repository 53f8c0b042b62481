"""Review of manifests: reasons, differences, closedness, and the comparison with a host.

`why`, `diff` and `graph` are pure functions from manifests to frozen records. `check` and `verify` compare a
manifest with a host; `report` writes a page. The command line chooses words and colours.
"""
