"""The only module that imports libsolv's binding for Python."""

from __future__ import annotations

import warnings
from typing import Any

from pkgjail.core.errors import DatabaseError


def load_solv() -> Any:
    """Return the module `solv`. Raises `DatabaseError` if it cannot be imported.

    From Python 3.12 on, the types that SWIG made give a warning each, at import and when the process ends. If
    such a warning is an error, the binding does not notice, and crashes.
    """
    warnings.filterwarnings("ignore", r"builtin type [Ss]wig\w+ has no __module__", DeprecationWarning)
    try:
        import solv  # pyright: ignore[reportMissingImports]  (not on every host)
    except ImportError as error:
        raise DatabaseError(
            f"cannot plan from a repository's metadata: libsolv's binding cannot be imported ({error}); "
            "install python3-solv (Debian) and use the distribution's own python3, or a virtual environment "
            "of it with system site packages"
        ) from error
    return solv
