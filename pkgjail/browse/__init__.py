"""Browse a manifest on a terminal: packages by size and cost, what each brings, why, and its files.

`contents` indexes a manifest, `directories` sums its files, and `views` makes lists of text of both; none of
them knows a terminal. `app` and `listing` show the views and take keys; only they import Textual, which is
optional: the extra `browse` of pkgjail's package.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import shell_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pkgjail.core.model import Manifest

_LIBRARY = "textual"


def browse(manifest: Manifest, explain: Callable[[str], Sequence[str]]) -> None:
    """Show a manifest on the terminal of this process until the user quits.

    Args:
        manifest: what is shown.
        explain: returns the lines that say why a package's key, or a path as `text_path` writes it, is in it.

    Raises:
        PkgjailError: the library Textual is not installed.

    """
    try:
        from pkgjail.browse.app import Browser
    except ImportError as error:
        if (error.name or "").partition(".")[0] != _LIBRARY:
            raise
        raise PkgjailError(
            f"cannot browse the manifest: the library {error.name!r} is not installed; "
            f"install it with: {shell_quote(sys.executable or 'python3')} -m pip install {_LIBRARY}"
        ) from error
    Browser(manifest, explain).run()
