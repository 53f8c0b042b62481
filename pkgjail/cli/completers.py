"""What a shell completes besides commands and options: lists, manifests, packages of a manifest, images.

argcomplete calls these as `completer(prefix, parsed_args)`. None may print or fail: a shell would show it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from pkgjail.cli.jail_options import MANIFEST_HELP

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

_MOST_BYTES = 64 << 20  # of a manifest that is read while somebody types
_NEEDS_MANIFEST = ("manifest", "old", "audit")


def _files(prefix: str, ends: tuple[str, ...]) -> list[str]:
    """Return the files and directories that a path may become."""
    directory, name = os.path.split(prefix)
    found = []
    with contextlib.suppress(OSError), os.scandir(os.path.expanduser(directory) or ".") as entries:
        for entry in entries:
            if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
                continue
            path = os.path.join(directory, entry.name)
            if entry.is_dir():
                found.append(path + "/")
            elif entry.name.endswith(ends):
                found.append(path)
    return sorted(found)


def _begins(words: Iterable[str], prefix: str) -> list[str]:
    return sorted(word for word in words if word.startswith(prefix))


def complete_whitelists(prefix: str, **_: Any) -> list[str]:
    """Complete names of shipped whitelists, and paths of others."""
    from pkgjail.policy.lists import WHITELIST

    return [*_begins(WHITELIST.shipped(), prefix), *_files(prefix, (".toml",))]


def complete_blacklists(prefix: str, **_: Any) -> list[str]:
    """Complete names of shipped blacklists, and paths of others."""
    from pkgjail.policy.lists import BLACKLIST

    return [*_begins(BLACKLIST.shipped(), prefix), *_files(prefix, (".ignore",))]


def complete_manifests(prefix: str, **_: Any) -> list[str]:
    """Complete paths of manifests."""
    return _files(prefix, (".jsonl", ".jsonl.gz"))


def complete_jails(prefix: str, **_: Any) -> list[str]:
    """Complete what a jail can be of: manifests, and whitelists that are resolved on the spot."""
    return [*complete_manifests(prefix), *complete_whitelists(prefix)]


def complete_packages(prefix: str, parsed_args: Any = None, **_: Any) -> list[str]:
    """Complete names of the packages in the manifest that is on the command line."""
    named = next((getattr(parsed_args, each, None) for each in _NEEDS_MANIFEST), None)
    if not isinstance(named, str) or prefix.startswith("/"):
        return _files(prefix, ("",)) if prefix.startswith("/") else []
    with contextlib.suppress(Exception):
        if os.path.getsize(named) <= _MOST_BYTES:
            from pkgjail.manifest import read_manifest

            return _begins({package.name for package in read_manifest(named).packages}, prefix)
    return []


def complete_installed(prefix: str, **_: Any) -> list[str]:
    """Complete names of the host's packages."""
    with contextlib.suppress(Exception):
        from pkgjail.api import open_database

        return _begins({package.name for package in open_database(b"/").packages.values()}, prefix)
    return []


def complete_images(prefix: str, **_: Any) -> list[str]:
    """Complete names of images."""
    with contextlib.suppress(Exception):
        from pkgjail.images.store import list_images

        return _begins({image.name for image in list_images("") if image.name}, prefix)
    return []


def complete_sources(prefix: str, **_: Any) -> list[str]:
    """Complete `host`, `dir:PATH` and `image:NAME`."""
    kind, colon, rest = prefix.partition(":")
    if not colon:
        return _begins(("host", "dir:", "image:"), prefix)
    found = complete_images(rest) if kind == "image" else _files(rest, ("/",)) if kind == "dir" else []
    return [f"{kind}:{each}" for each in found]


_BY_METAVAR: dict[str, Callable[..., list[str]]] = {
    "IMAGE": complete_images,
    "MANIFEST": complete_manifests,
    "NAME|PATH": complete_packages,
    "NEW": complete_manifests,
    "OLD": complete_manifests,
    "PKG": complete_packages,
    "SOURCE": complete_sources,
    "WHITELIST": complete_whitelists,
}
_BY_DEST = {
    "blacklist": complete_blacklists,
    "packages": complete_installed,
}


def attach(parsers: Iterable[argparse.ArgumentParser], verbs: Iterable[str]) -> None:
    """Give each argument of these parsers its completer, by what stands for its value in usages.

    `verbs` are completed after `help`.
    """

    def complete_verbs(prefix: str, **_: Any) -> list[str]:
        return _begins(verbs, prefix)

    for parser in parsers:
        for action in parser._actions:  # noqa: SLF001 - argparse has no public name for them
            found = _BY_DEST.get(action.dest) or _BY_METAVAR.get(str(action.metavar))
            if action.dest == "topic":
                found = complete_verbs
            if found is complete_manifests and action.help == MANIFEST_HELP:
                found = complete_jails
            if found is not None:
                action.completer = found  # type: ignore[attr-defined]  # where argcomplete looks
