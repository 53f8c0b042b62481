"""The dynamic loader's cache of a jail, /etc/ld.so.cache, for exactly the libraries of its set.

It is made by the set's own ldconfig(8), in a jail of the set: which directories are searched is built
into it, and differs between distributions, so the host's own would not do for another root. With a
stranger's root that is a stranger's program. What it writes is a hint to the loader of jails of that
root, which could hold the stranger's libraries anyway, and reaches no others: a cache is kept by all
that its content depends on, the root and ldconfig among it.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError, told
from pkgjail.core.model import JailOptions, text_path
from pkgjail.core.programs import UnansweredError, listen
from pkgjail.core.text import shown
from pkgjail.jail.diagnosis import explain
from pkgjail.jail.plan import plan_jail
from pkgjail.sandbox.launch import StageError, run
from pkgjail.sandbox.steps import Bind, Command, Tmpfs, assemble
from pkgjail.storage.cache import cache_directory, tree_directory
from pkgjail.storage.fingerprint import is_lasting, observe, observe_settled
from pkgjail.storage.locations import NEW, keep, opened, read_kept
from pkgjail.storage.locks import hold, places_of, release
from pkgjail.storage.removal import make_in_use, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.sandbox.rootfs import Program
    from pkgjail.sandbox.steps import Plan, Step
    from pkgjail.storage.fingerprint import State

LOADER_CACHE = b"/etc/ld.so.cache"
_LDCONFIG = (b"/usr/sbin/ldconfig", b"/sbin/ldconfig")
# Changes with the way in which it is made.
_FORMAT = 1
# What a cache begins with, of the new form and the old one (glibc's dl-cache.h), and how large it is at most.
_BEGINNINGS = (b"glibc-ld.so.cache", b"ld.so-1.7.0")
_LARGEST = 1 << 26
# Seconds that ldconfig may take, of which it takes less than one, and bytes of what it says that are told.
_LONGEST, _MOST_TOLD = 60, 300


def loader_cache(
    manifest: Manifest,
    made: Mapping[bytes, bytes],
    root: bytes,
    instead: Callable[[], Mapping[bytes, Step]] = dict,
) -> bytes:
    """The content of ld.so.cache for exactly the set: made by its own ldconfig(8), in a jail.

    Kept in the user's cache directory by what it depends on. Empty (which ld.so(8) takes as none)
    where the set has no ldconfig.

    Args:
        manifest: the set.
        made: the other files that are made at entry.
        root: where the set's files are, a real path.
        instead: asked, where there is none yet, how a jail shows directories, as `plan_jail` takes it.

    Raises:
        JailError: that jail cannot be set up here, or ldconfig fails, or does not end.

    """
    names = {entry.path for entry in manifest.files}
    ldconfig = next((path for path in _LDCONFIG if path in names), None)
    if ldconfig is None:
        return b""
    paths = [root, *_inputs(manifest, root)]
    states = observe(paths)
    stored = _place(manifest, root, states)
    if is_lasting(states):
        with contextlib.suppress(OSError):
            return read_kept(str(stored))
    states = observe_settled(paths)
    plan = plan_jail(manifest, JailOptions(network=False), made_at_entry=made, root=root, instead=instead())
    content = _run_ldconfig(plan, text_path(ldconfig))
    if is_lasting(states) and observe(paths) == states:
        with contextlib.suppress(OSError):  # not kept, then made again
            keep(str(_place(manifest, root, states)), content)
    return content


def _inputs(manifest: Manifest, root: bytes) -> list[bytes]:
    """Where the files of the host are whose content counts: libraries, ldconfig, and its configuration."""
    prefix = root.rstrip(b"/")
    found = (prefix + entry.path for entry in manifest.files if _counts(entry))
    return list(filter(os.path.lexists, found))


def _counts(entry: FileEntry) -> bool:
    directory, _, name = entry.path.rpartition(b"/")
    return entry.origin != "entry" and (
        b".so" in name or name.startswith(b"ldconfig") or (name.endswith(b".conf") and b"ld.so" in directory)
    )


def _place(manifest: Manifest, root: bytes, states: tuple[State, ...]) -> Path:
    """Another one whenever anything of the set is, its root, ldconfig, or a library as the host has it."""
    rows = [(e.path, e.kind, e.mode, e.size, e.target, e.sha256, e.origin) for e in manifest.files]
    facts = (_FORMAT, os.geteuid(), root, rows, states)
    return cache_directory() / "ld.so.cache" / hashlib.sha256(marshal.dumps(facts, 2)).hexdigest()


def _run_ldconfig(plan: Plan, ldconfig: str) -> bytes:
    """What ldconfig writes in the jail of this plan."""
    with _scratch() as place:
        out = os.fsencode(place)
        steps = tuple(
            Bind(step.path, out, writable=True) if isinstance(step, Tmpfs) and step.path == b"/tmp" else step
            for step in plan.steps
        )
        program = assemble(plan._replace(steps=steps))
        held = hold(places_of(program[1]))
        try:
            ran = listen(lambda: _enter(program, ldconfig), seconds=_LONGEST)
        except UnansweredError as error:
            raise _failed(f"{ldconfig} of the set: {error}") from error
        finally:
            release(held)
        if ran.status:
            said = shown(ran.err[-_MOST_TOLD:].decode("utf-8", "replace").strip())
            raise _failed(f"{ldconfig} of the set ended with status {ran.status}{said and f': {said}'}")
        return _read(f"{place}/ld.so.cache", ldconfig)


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A new directory in the user's runtime directory, removed at the end.

    Not in TMPDIR: a command in a jail that shows that could write something else there.

    Raises:
        JailError: none can be made.

    """
    top = str(tree_directory())
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(opened(top, make=True))
            name = f"{NEW}{os.urandom(8).hex()}"
            used = make_in_use(directory, name)
        except OSError as error:
            raise _failed(told(error)) from error
        stack.callback(remove_tree, directory, name)
        stack.callback(os.close, used)
        yield f"{top}/{name}"


def _enter(program: Program, ldconfig: str) -> int:
    """Run ldconfig in its jail; its status. Raises `JailError`."""
    argv = (ldconfig, "-X", "-i", "-C", "/tmp/ld.so.cache")  # noqa: S108 - in the jail
    try:
        return run(program, Command(argv, b"/", (), terminal=False))
    except StageError as failure:
        raise explain(failure, ldconfig) from failure


def _read(path: str, ldconfig: str) -> bytes:
    """What ldconfig wrote, which may be a stranger's program.

    Not through a link, which it may have made: that would lead out of the jail.
    """
    try:
        content = read_kept(path) if os.lstat(path).st_size <= _LARGEST else b""
    except OSError as error:
        raise _failed(f"{ldconfig} of the set made no file that can be read: {told(error)}") from error
    if not content.startswith(_BEGINNINGS):
        raise _failed(f"{ldconfig} of the set wrote something else")
    return content


def _failed(why: str) -> JailError:
    return JailError(
        f"cannot make {text_path(LOADER_CACHE)} for the jail: {why}; see that there is room in "
        f"{tree_directory()} (XDG_RUNTIME_DIR), and that no limit is on the size of files (ulimit -f)"
    )
