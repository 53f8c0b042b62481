"""Where pkgjail keeps what it can make again: the user's cache directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/pkgjail` or `~/.cache/pkgjail` (XDG Base Directory Specification).

    It may not be there. A relative XDG_CACHE_HOME is ignored, as the specification asks.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "pkgjail"
