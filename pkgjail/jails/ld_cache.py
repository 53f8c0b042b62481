"""The ld.so cache of a jail, /etc/ld.so.cache, for exactly the libraries of its file set.

The file set's own ldconfig(8) makes it, in a jail of the file set. The directories that ldconfig searches
are built into it and differ between distributions, so the host's ldconfig would not do for another root.
If another user owns the root, this runs that user's program. What it writes is a hint to the dynamic
loader in jails of that root, which could have that user's libraries anyway. It reaches no other jail: the
key of a stored ld.so cache has all that its content depends on, including the root and ldconfig.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError, os_error_text
from pkgjail.core.jail_names import LD_CACHE, LDCONFIG, TMP
from pkgjail.core.options import JailOptions
from pkgjail.core.programs import UnansweredError, capture_output
from pkgjail.core.text import printable, text_path
from pkgjail.jails.diagnosis import diagnose
from pkgjail.jails.emulation import runs_by_emulation
from pkgjail.jails.plan import plan_jail
from pkgjail.jails.scratch import runtime_scratch
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import run
from pkgjail.sandbox.steps import Bind, Command, Tmpfs, assemble
from pkgjail.storage.atomic import write_own_file
from pkgjail.storage.fingerprint import is_lasting, take_fingerprint, take_settled_fingerprint
from pkgjail.storage.locations import cache_directory, runtime_directory
from pkgjail.storage.locks import layer_directories, lock_shared, unlock
from pkgjail.storage.marshal_store import digest
from pkgjail.storage.own_files import read_own_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.sandbox.rootfs import Program
    from pkgjail.sandbox.steps import Plan, Step
    from pkgjail.storage.fingerprint import State

# Raised whenever the way to make it changes.
_FORMAT = 1
# The first bytes of an ld.so cache, in the new and the old format (glibc's dl-cache.h), and its maximum size.
_MAGIC = (b"glibc-ld.so.cache", b"ld.so-1.7.0")
_MOST_BYTES = 1 << 26
# The seconds that ldconfig may take (it takes less than one), and the bytes of its output in a message.
_TIMEOUT, _MOST_OUTPUT = 60, 300
# No links are made, and no cache of ldconfig's own is used.
_OPTIONS = ("-X", "-i", "-C")


def make_ld_cache(  # noqa: PLR0913 - the last two by keyword
    manifest: Manifest,
    entry_files: Mapping[bytes, bytes],
    root: bytes,
    directory_steps: Callable[[], Mapping[bytes, Step]] = dict,
    *,
    user_namespace: bool = True,
    run_ldconfig: Callable[[Plan, Sequence[str], bytes], int] | None = None,
) -> bytes:
    """Return the content of ld.so.cache for exactly the file set, as its own ldconfig(8) makes it in a jail.

    It is stored in the user's cache directory. It is empty, which ld.so(8) takes as none, if the file set
    has no ldconfig.

    Args:
        manifest: the file set.
        entry_files: the content of the other files that are made at entry.
        root: the directory of the manifest's files, a real path.
        directory_steps: returns the argument of that name for `plan_jail`; called only if nothing is stored.
        user_namespace: as `JailOptions` has it.
        run_ldconfig: runs ldconfig elsewhere than in a jail. It gets the plan of the jail, the command, and a
            directory that the command may write to, and returns its exit status.

    Raises:
        JailError: that jail cannot be set up here, ldconfig fails or does not end, or it is for an
            architecture whose programs do not run here.

    """
    names = {entry.path for entry in manifest.files}
    ldconfig = next((path for path in LDCONFIG if path in names), None)
    if ldconfig is None:
        return b""
    paths = [root, *_inputs(manifest, root)]
    states = take_fingerprint(paths)
    if is_lasting(states):
        with contextlib.suppress(OSError):
            return read_own_file(_stored_path(manifest, root, states))
    runs_by_emulation(
        manifest, what=f"make {text_path(LD_CACHE)} by the manifest's own {text_path(ldconfig)}"
    )
    states = take_settled_fingerprint(paths)
    plan = plan_jail(
        manifest,
        JailOptions(network=False, user_namespace=user_namespace),
        entry_files=entry_files,
        root=root,
        hostname=os.uname().nodename,  # nothing there asks for it
        directory_steps=directory_steps(),
    )
    content = _run_ldconfig(plan, text_path(ldconfig), run_ldconfig)
    if is_lasting(states) and take_fingerprint(paths) == states:
        with contextlib.suppress(OSError):  # if it cannot be stored, the next entry makes it again
            write_own_file(_stored_path(manifest, root, states), content)
    return content


def _inputs(manifest: Manifest, root: bytes) -> list[bytes]:
    """Return the host's files that the result depends on: libraries, ldconfig and its configuration."""
    prefix = root.rstrip(b"/")
    paths = (prefix + entry.path for entry in manifest.files if _is_input(entry))
    return list(filter(os.path.lexists, paths))


def _is_input(entry: FileEntry) -> bool:
    directory, _, name = entry.path.rpartition(b"/")
    return entry.origin != "entry" and (
        b".so" in name or name.startswith(b"ldconfig") or (name.endswith(b".conf") and b"ld.so" in directory)
    )


def _stored_path(manifest: Manifest, root: bytes, states: tuple[State, ...]) -> str:
    """Return the path of the stored ld.so cache, which depends on the file set, the root and `_inputs`."""
    rows = [(e.path, e.kind, e.mode, e.size, e.target, e.sha256, e.origin) for e in manifest.files]
    facts = (_FORMAT, os.geteuid(), root, rows, states)
    return f"{cache_directory()}/ld.so.cache/{digest(facts)}"


def _run_ldconfig(
    plan: Plan, ldconfig: str, elsewhere: Callable[[Plan, Sequence[str], bytes], int] | None
) -> bytes:
    """Run ldconfig in the jail of this plan, or elsewhere, and return what it writes."""
    with _scratch() as directory:
        out = os.fsencode(directory)
        if elsewhere is None:
            run_it = _in_jail(plan, ldconfig, out)
        else:
            run_it = partial(elsewhere, plan, (ldconfig, *_OPTIONS, f"{directory}/ld.so.cache"), out)
        try:
            ran = capture_output(run_it, seconds=_TIMEOUT)
        except UnansweredError as error:
            raise _failed(f"{ldconfig} of the file set: {error}") from error
        if ran.status:
            output = printable(ran.err[-_MOST_OUTPUT:].decode("utf-8", "replace").strip())
            why = f"{ldconfig} of the file set ended with status {ran.status}"
            raise _failed(f"{why}: {output}" if output else why)
        return _read(f"{directory}/ld.so.cache", ldconfig)


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """Make a new directory that no jail can write to, and remove it at the end. Raises `JailError`."""
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(runtime_scratch())
        except OSError as error:
            raise _failed(os_error_text(error)) from error
        yield directory


def _in_jail(plan: Plan, ldconfig: str, out: bytes) -> Callable[[], int]:
    """Return a function that runs ldconfig in the jail of a plan, which shows the directory `out` as /tmp."""
    steps = tuple(
        Bind(step.path, out, writable=True) if isinstance(step, Tmpfs) and step.path == TMP else step
        for step in plan.steps
    )
    program = assemble(plan._replace(steps=steps))

    def enter() -> int:
        """Return the exit status."""
        locks = lock_shared(layer_directories(program[1]))
        try:
            return _enter(program, ldconfig)
        finally:
            unlock(locks)

    return enter


def _enter(program: Program, ldconfig: str) -> int:
    """Run ldconfig in its jail and return its exit status. Raises `JailError`."""
    argv = (ldconfig, *_OPTIONS, "/tmp/ld.so.cache")  # noqa: S108 - in the jail
    try:
        return run(program, Command(argv, b"/", (), terminal=False))
    except SetupError as failure:
        raise diagnose(failure, ldconfig) from failure


def _read(path: str, ldconfig: str) -> bytes:
    """Return what ldconfig wrote. It can be another user's program, so check the file.

    A symbolic link is not followed: it could lead out of the jail.
    """
    try:
        content = read_own_file(path) if os.lstat(path).st_size <= _MOST_BYTES else b""
    except OSError as error:
        raise _failed(
            f"{ldconfig} of the file set made no file that can be read: {os_error_text(error)}"
        ) from error
    if not content.startswith(_MAGIC):
        raise _failed(f"the file that {ldconfig} of the file set wrote is no ld.so cache")
    return content


def _failed(why: str) -> JailError:
    return JailError(
        f"cannot make {text_path(LD_CACHE)} for the jail: {why}; check that there is room in "
        f"{runtime_directory()} (XDG_RUNTIME_DIR), and that no limit applies to the size of files (ulimit -f)"
    )
