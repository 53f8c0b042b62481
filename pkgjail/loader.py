"""The dynamic loader's cache of a jail, /etc/ld.so.cache, for exactly the libraries of its set."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from typing import TYPE_CHECKING

from pkgjail.cache import cache_directory
from pkgjail.explain import explain
from pkgjail.model import JailOptions, text_path
from pkgjail.mounts import plan_jail
from pkgjail.places import keep, read_kept
from pkgjail.sandbox.stage import StageError, run
from pkgjail.sandbox.steps import Bind, Command, Tmpfs, assemble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.model import Manifest

LOADER_CACHE = b"/etc/ld.so.cache"
_LDCONFIG = (b"/usr/sbin/ldconfig", b"/sbin/ldconfig")


def loader_cache(manifest: Manifest, made: Mapping[bytes, bytes], root: bytes) -> bytes:
    """The content of ld.so.cache for exactly the set: made by its own ldconfig(8), in a jail.

    Kept in the user's cache directory by what it depends on. Empty (which ld.so(8) takes as none)
    where the set has no ldconfig. `made` are the other files that are made at entry.

    Raises:
        JailError: that jail cannot be set up here.

    """
    names = {entry.path for entry in manifest.files}
    ldconfig = next((path for path in _LDCONFIG if path in names), None)
    if ldconfig is None:
        return b""
    stored = cache_directory() / "ld.so.cache" / _libraries_digest(manifest)
    with contextlib.suppress(OSError):
        return read_kept(str(stored))
    content = _run_ldconfig(manifest, made, root, text_path(ldconfig))
    with contextlib.suppress(OSError):  # not kept, then made again
        keep(str(stored), content)
    return content


def _libraries_digest(manifest: Manifest) -> str:
    """Changes whenever a library of the set, or ldconfig's configuration, does."""
    state = hashlib.sha256()
    for entry in manifest.files:
        if b".so" in entry.path:
            state.update(repr((entry.path, entry.target, entry.size, entry.sha256)).encode())
    return state.hexdigest()


def _run_ldconfig(manifest: Manifest, made: Mapping[bytes, bytes], root: bytes, ldconfig: str) -> bytes:
    plan = plan_jail(manifest, JailOptions(network=False), made_at_entry=made, root=root)
    with tempfile.TemporaryDirectory(prefix="pkgjail-") as scratch:
        out = os.fsencode(os.path.realpath(scratch))
        steps = tuple(
            Bind(step.path, out, writable=True) if isinstance(step, Tmpfs) and step.path == b"/tmp" else step
            for step in plan.steps
        )
        argv = (ldconfig, "-X", "-i", "-C", "/tmp/ld.so.cache")  # noqa: S108 - in the jail
        try:
            run(assemble(plan._replace(steps=steps)), Command(argv, b"/", (), terminal=False))
        except StageError as failure:
            raise explain(failure, ldconfig) from failure
        try:
            # Not through a link, which a program of the set may have made: it would lead out of the jail.
            return read_kept(f"{scratch}/ld.so.cache")
        except OSError:
            return b""
