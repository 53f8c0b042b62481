"""Named sets of devices: those of a shipped whitelist, demanded of a host and of a manifest.

The whitelists `gpu-nvidia`, `gpu-amd`, `gpu-intel` and `fabric` have the devices, and the files by which the
libraries for them are found. The libraries must be in the manifest: the devices alone would be of no use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.devices import find_devices
from pkgjail.core.errors import JailError
from pkgjail.core.globs import expand
from pkgjail.core.parameters import parameter
from pkgjail.core.text import first_of, raw_path, text_path
from pkgjail.policy.lists import WHITELIST, ListProblems, find
from pkgjail.policy.whitelist import read_whitelist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest

_MOST_SHOWN = 3  # patterns of files


def set_patterns(manifest: Manifest, names: Sequence[str]) -> tuple[bytes, ...]:
    """Return the patterns of the devices of shipped whitelists.

    Raises:
        JailError: there is no such whitelist, the host has none of the devices of one, or the manifest has
            none of the files by which its libraries are found.

    """
    patterns: list[bytes] = []
    for name in names:
        devices, owners = _read(name)
        shown = ", ".join(first_of(owners, _MOST_SHOWN))
        wanted = tuple(map(raw_path, devices))
        # Cards of every vendor are in this directory, so it proves nothing beside others.
        telling = [pattern for pattern in wanted if not pattern.startswith(b"/dev/dri/")]
        if not find_devices(telling or wanted):
            needed = ", ".join(map(text_path, telling or wanted))
            raise JailError(
                f"cannot show the devices of {name}: this host has none ({needed}); see whether "
                "the driver is loaded, and whether its devices are made"
            )
        if not _has_any(manifest, owners):
            raise JailError(
                f"cannot show the devices of {name}: the manifest has none of the files by which their "
                f"libraries are found ({shown}); resolve it together with the whitelist {name}, or show the "
                f"devices alone with {parameter('devices')} {devices[0]}"
            )
        patterns += wanted
    return tuple(patterns)


def _read(name: str) -> tuple[list[str], list[str]]:
    """Return the patterns of devices and of files in a shipped whitelist."""
    problems = ListProblems(name)
    try:
        own = read_whitelist(find(WHITELIST, name, None).read(), "", problems)
    except ValueError as error:
        raise JailError(f"cannot show the devices of {name}: {error}") from None
    if own is None or not own.devices:
        raise JailError(f"cannot show the devices of {name}: this whitelist has no devices")
    return [entry.text for entry in own.devices], [entry.text for entry in own.owners]


def _has_any(manifest: Manifest, patterns: Sequence[str]) -> bool:
    """Return whether the manifest has a name that one of the patterns matches."""
    names: dict[bytes, list[bytes]] = {}
    for entry in manifest.files:
        names.setdefault(entry.path.rpartition(b"/")[0], []).append(entry.path)

    def paths_in(directory: bytes) -> list[bytes]:
        return names.get(directory, [])

    return any(True for pattern in patterns for _ in expand(raw_path(pattern), paths_in))
