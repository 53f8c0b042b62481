"""What an environment of a Spack shows, as `spack jail` names it: a manifest, and the source of its files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.sources import source_at

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.core.sources import Source
    from pkgjail.images.model import Image


class Shown(NamedTuple):
    """What an environment shows: the files of `manifest` at `source`; `image` is that, if it is one."""

    manifest: Manifest
    source: Source
    image: Image | None


@contextlib.contextmanager
def shown_files(arguments: argparse.Namespace, reporter: Reporter) -> Iterator[Shown]:
    """Yield what --tarball, --source, --manifest and the lists name; an image is not removed meanwhile.

    Without a manifest and lists, it is the whole image, or the whitelist `spack` of another source.

    Raises:
        InputError: the arguments contradict each other.
        PkgjailError, OSError: as `import_image`, `find_source`, `read_manifest` and `resolve`.

    """
    from pkgjail.images.store import lock_source

    _refuse_contradictions(arguments)
    source, image = _source(arguments, reporter)
    with contextlib.ExitStack() as locks:
        for descriptor in lock_source(source):
            locks.callback(os.close, descriptor)
        yield Shown(_manifest(arguments, source, image), source, image)


def manifest_of_host(arguments: argparse.Namespace) -> Manifest:
    """Return the manifest of --manifest, or resolve that of the lists on this host."""
    _refuse_contradictions(arguments)
    return _manifest(arguments, source_at(b"/"), None)


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    if arguments.tarball is not None and arguments.source is not None:
        raise InputError([Problem("", "a tarball is a source: --tarball excludes --source")])
    if arguments.manifest is not None and (arguments.whitelist or arguments.blacklist):
        raise InputError(
            [Problem("", "a manifest is complete: --manifest excludes --whitelist and --blacklist")]
        )


def _source(arguments: argparse.Namespace, reporter: Reporter) -> tuple[Source, Image | None]:
    from pkgjail.images.importing import import_image
    from pkgjail.images.store import find_image, find_source

    if arguments.tarball is not None:
        image = import_image(arguments.tarball, rename=True, reporter=reporter)
        return source_at(image.root), image
    text = arguments.source or "host"
    kind, _, name = text.partition(":")
    return find_source(text), find_image(name) if kind == "image" and name else None


def _manifest(arguments: argparse.Namespace, source: Source, image: Image | None) -> Manifest:
    from pkgjail.api import resolve, whole_image

    if arguments.manifest is not None:
        from pkgjail.manifest import read_manifest

        return read_manifest(arguments.manifest)
    if image is not None and not (arguments.whitelist or arguments.blacklist):
        return whole_image(image)
    blacklists = arguments.blacklist or ([] if arguments.whitelist else ["docs"])
    return resolve(arguments.whitelist or ["spack"], blacklists, root=source.root, hashed=True)
