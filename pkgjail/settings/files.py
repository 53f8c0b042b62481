"""Where settings are, and whether they have changed. Every entry imports this."""

from __future__ import annotations

import os

from pkgjail.storage.fingerprint import changed_directories, take_settled_fingerprint
from pkgjail.storage.locations import configuration_base

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from pkgjail.storage.fingerprint import Fingerprint

    # The files that exist, with what their links lead to, and the paths that do not exist.
    SettingsState = tuple[Fingerprint, tuple[str, ...]]

SITE = "/etc/pkgjail.toml"
"""The file of the site's administrators."""
VARIABLE = "PKGJAIL_STAGE"
"""The environment variable that names the default stage."""


def user_file() -> str:
    """Return `$XDG_CONFIG_HOME/pkgjail.toml` or `~/.config/pkgjail.toml`; "" without a home directory."""
    base = configuration_base()
    return f"{base}/pkgjail.toml" if os.path.isabs(base) else ""


def settings_files() -> tuple[str, ...]:
    """Return the paths of the site's and of the user's settings; neither need exist."""
    return tuple(filter(None, (SITE, user_file())))


def settings_state() -> SettingsState:
    """Return the state of both files, to be compared later. Take it before they are read.

    Raises:
        OSError: a file cannot be looked at, or disappears meanwhile.

    """
    existing: list[str] = []
    absent: list[str] = []
    for path in settings_files():
        (existing if os.path.lexists(path) else absent).append(path)
    paths = {os.fsencode(each) for path in existing for each in (path, os.path.realpath(path))}
    return (take_settled_fingerprint(sorted(paths)) if paths else ()), tuple(absent)


def settings_changed(state: SettingsState) -> bool:
    """Return whether a file was written, replaced, removed or made since its state was taken."""
    fingerprint, absent = state
    return any(map(os.path.lexists, absent)) or bool(changed_directories(fingerprint))
