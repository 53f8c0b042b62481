"""Enter a jail: from a manifest and options to a running command and its exit status.

Kept apart from `api` because entering must start quickly: nothing here, nor what it imports, pulls
in networkx, rich or a backend.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.cache import cache_directory, tree_directory
from pkgjail.drift import refuse_drift
from pkgjail.errors import JailError
from pkgjail.explain import explain
from pkgjail.model import JailOptions, text_path
from pkgjail.mounts import Account, entry_files, plan_jail
from pkgjail.probe import cannot_overlay, mount_below
from pkgjail.sandbox.stage import StageError, run
from pkgjail.sandbox.steps import Bind, Command, Tmpfs, assemble
from pkgjail.trees import ensure_tree, trees_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.model import Manifest
    from pkgjail.sandbox.steps import Plan

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOME = "/tmp"  # noqa: S108 - the jail's own
_LOADER_CACHE = b"/etc/ld.so.cache"
_LDCONFIG = (b"/usr/sbin/ldconfig", b"/sbin/ldconfig")


def default_environment() -> dict[str, str]:
    """The environment that a command in the jail gets: nothing of the caller's but TERM.

    LD_*, LIBRARY_PATH, CPATH, PKG_CONFIG_PATH and their like are a leak of their own, so what is
    wanted is named in `JailOptions.environment`.
    """
    account = current_account()
    environment = {
        "HOME": _HOME,
        "LANG": "C.UTF-8",
        "LOGNAME": account.name,
        "PATH": _PATH,
        "SHELL": "/bin/sh",
        "USER": account.name,
    }
    if "TERM" in os.environ:
        environment["TERM"] = os.environ["TERM"]
    return environment


def current_account() -> Account:
    """The calling user as passwd(5) and group(5) know them, or "user" where they do not."""
    uid, gid = os.geteuid(), os.getegid()
    name = group = "user"
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return Account(name=name, uid=uid, gid=gid, group=group, home=_HOME)


def run_in_jail(
    manifest: Manifest,
    argv: Sequence[str],
    options: JailOptions | None = None,
    *,
    root: bytes = b"/",
    terminal: bool = False,
) -> int:
    """Run `argv` in a jail that shows exactly `manifest`, and wait for its end.

    Args:
        manifest: what the jail holds.
        argv: the command; its first word is looked for along the PATH of the environment inside.
        options: binds, working directory, network, environment; None is a closed jail with the
            host's network and `default_environment`.
        root: the directory that the manifest was resolved from.
        terminal: give the command a terminal of the jail's own, relayed to the caller's.

    Returns:
        The command's exit status, or 128 + n when signal n ended it.

    Raises:
        CommandError: there is no such command in the jail, or it cannot be executed.
        DriftError: files of the host are not as the manifest says.
        JailError: the jail cannot be set up here; the message says which setting is at fault.

    """
    if options is None:
        options = JailOptions(environment=default_environment())
    plan = prepare(manifest, options, root=root)
    command = Command(
        argv=tuple(argv),
        cwd=options.cwd,
        environment=tuple(sorted(options.environment.items())),
        terminal=terminal,
    )
    return _run(plan, command)


def prepare(manifest: Manifest, options: JailOptions, *, root: bytes = b"/") -> Plan:
    """The plan that `run_in_jail` carries out, with the files that are made at entry.

    Raises:
        JailError: as `run_in_jail`.

    """
    root = os.path.realpath(root)
    _refuse_open_cache(options)
    refuse_drift(manifest.files, root)
    trees = {} if options.plan == "binds" else _trees(manifest, root, required=options.plan == "tree")
    resolver = b""
    with contextlib.suppress(OSError):
        resolver = Path("/etc/resolv.conf").read_bytes()
    made = entry_files(current_account(), host_resolver=resolver, network=options.network)
    if any(entry.path == _LOADER_CACHE and entry.origin == "entry" for entry in manifest.files):
        made[_LOADER_CACHE] = _loader_cache(manifest, made, root)
    return plan_jail(manifest, options, made_at_entry=made, root=root, trees=trees)


def _refuse_open_cache(options: JailOptions) -> None:
    """Refuse to let a command write to the cache: later jails are made from what lies there."""
    caches = [bytes(place().resolve()) + b"/" for place in (cache_directory, tree_directory)]
    for bind in filter(lambda bind: bind.writable, options.binds):
        source = os.path.realpath(bind.source).rstrip(b"/") + b"/"
        for cache in caches:
            if cache.startswith(source) or source.startswith(cache):
                raise JailError(
                    f"cannot bind {text_path(bind.source)} writable: pkgjail's cache {text_path(cache[:-1])} "
                    "lies there, and later jails are made from it; bind a directory further down, or set "
                    "XDG_CACHE_HOME or XDG_RUNTIME_DIR to a place of its own"
                )


def why_no_tree(manifest: Manifest, root: bytes) -> dict[bytes, str]:
    """The large directories of the manifest, and for each why this host cannot show it as a tree.

    The reason is "" where it can. `root` is a real path.
    """
    why = {}
    for top in trees_of(manifest):
        reason = cannot_overlay(tree_directory())
        if not reason and (mount := mount_below(root.rstrip(b"/") + top)) is not None:
            reason = f"{text_path(mount)} is a mount of its own"
        why[top] = reason
    return why


def _trees(manifest: Manifest, root: bytes, *, required: bool) -> dict[bytes, bytes]:
    """The metadata trees of the manifest's large directories.

    Where this host cannot have one it is left out, or with `required` refused.
    """
    why = why_no_tree(manifest, root)
    trees = {}
    for top, entries in trees_of(manifest).items():
        if not why[top]:
            try:
                trees[top] = bytes(ensure_tree(entries, root, tree_directory().resolve()))
            except OSError as error:  # a full runtime directory, say
                why[top] = f"{tree_directory()}: {error.strerror}"
        if why[top] and required:
            raise JailError(
                f"cannot use the plan 'tree' for {text_path(top)}: {why[top]}; use '--plan binds' or 'auto'"
            )
    return trees


def _run(plan: Plan, command: Command) -> int:
    try:
        return run(assemble(plan), command)
    except StageError as failure:
        raise explain(failure, command.argv[0]) from failure


def _loader_cache(manifest: Manifest, made: dict[bytes, bytes], root: bytes) -> bytes:
    """The content of ld.so.cache for exactly the set: made by its own ldconfig(8), in a jail.

    Kept in the user's cache directory by what it depends on. Empty (which ld.so(8) takes as none)
    where the set has no ldconfig.
    """
    names = {entry.path for entry in manifest.files}
    ldconfig = next((path for path in _LDCONFIG if path in names), None)
    if ldconfig is None:
        return b""
    stored = cache_directory() / "ld.so.cache" / _libraries_digest(manifest)
    with contextlib.suppress(OSError):
        return stored.read_bytes()
    content = _run_ldconfig(manifest, made, root, text_path(ldconfig))
    with contextlib.suppress(OSError):  # not kept, then made again
        stored.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=stored.parent, delete=False) as new:
            new.write(content)
        os.replace(new.name, stored)
    return content


def _libraries_digest(manifest: Manifest) -> str:
    """Changes whenever a library of the set, or ldconfig's configuration, does."""
    state = hashlib.sha256()
    for entry in manifest.files:
        if b".so" in entry.path:
            state.update(repr((entry.path, entry.target, entry.size, entry.sha256)).encode())
    return state.hexdigest()


def _run_ldconfig(manifest: Manifest, made: dict[bytes, bytes], root: bytes, ldconfig: str) -> bytes:
    plan = plan_jail(manifest, JailOptions(network=False), made_at_entry=made, root=root)
    with tempfile.TemporaryDirectory(prefix="pkgjail-") as scratch:
        out = os.fsencode(os.path.realpath(scratch))
        steps = tuple(
            Bind(step.path, out, writable=True) if isinstance(step, Tmpfs) and step.path == b"/tmp" else step
            for step in plan.steps
        )
        argv = (ldconfig, "-X", "-i", "-C", "/tmp/ld.so.cache")  # noqa: S108 - in the jail
        _run(plan._replace(steps=steps), Command(argv, b"/", (), terminal=False))
        try:
            return (Path(scratch) / "ld.so.cache").read_bytes()
        except OSError:
            return b""
