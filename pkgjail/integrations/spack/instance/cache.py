"""A cache of what Spacks need in the jail, so that not every command must ask its Spack.

An answer is used until a file of Spack's configuration, a variable, or an option that affects the
configuration changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail import __version__
from pkgjail.core.errors import PkgjailError
from pkgjail.environments.directory import read_header
from pkgjail.integrations.spack.active import load_cache, save_cache
from pkgjail.integrations.spack.caller.argv import extension_option
from pkgjail.integrations.spack.caller.variables import configuring_variables
from pkgjail.integrations.spack.extensions import extension_paths
from pkgjail.integrations.spack.instance.headers import find_without_headers
from pkgjail.integrations.spack.instance.model import (
    Instance,
    Tool,
    instance_binds,
    make_directories,
    parse_instance,
)
from pkgjail.integrations.spack.instance.uncovered import UncoveredTool, find_uncovered
from pkgjail.storage.fingerprint import TICKS_NS, changed_directories, take_fingerprint

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping, Sequence

    from pkgjail.environments.enter import States
    from pkgjail.integrations.spack.active import ActiveEnvironment

_MOST_ENTRIES = 16


class CachedInstance(NamedTuple):
    """A Spack, and the tools of its configuration that the jail does not show.

    `states` are those of the files that both depend on, as `take_fingerprint` returns them; empty if one of
    them was changing.
    """

    instance: Instance
    uncovered: tuple[UncoveredTool, ...]
    states: States = ()


class RefusedOptions(PkgjailError):  # noqa: N818 - what Spack says
    """Spack's own error for options such as `-e`, without which it answers; `status` is its exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def load_or_describe(
    active: ActiveEnvironment, root: str, python: str, options: Sequence[str]
) -> CachedInstance:
    """Return what the Spack in `root` needs with these options, from the cache if it is there.

    Raises:
        RefusedOptions: Spack refuses the options, such as the name of an environment that does not exist.
        PkgjailError: Spack did not answer; its own message is included.

    """
    key = _key(active, python, options, os.environ)
    cached = _parse(load_cache(active).get(key))
    if cached is not None:
        return cached
    start = time.time_ns() - TICKS_NS
    instance = parse_instance(_describe(root, python, options))
    return _store(active, key, _with_uncovered(active, instance), start)


def store_instance(active: ActiveEnvironment, instance: Instance, options: Sequence[str]) -> CachedInstance:
    """Store what Spack has just described with these options, for later commands with the same."""
    key = _key(active, instance.python, options, os.environ)
    return _store(active, key, _with_uncovered(active, instance), time.time_ns() - TICKS_NS)


def uncovered_tools(active: ActiveEnvironment, instance: Instance) -> tuple[UncoveredTool, ...]:
    """Return the tools of a Spack's configuration that the jail does not show, or not completely.

    Raises:
        PkgjailError: the environment, or the host's package database, cannot be read.

    """
    from pkgjail.environments.enter import read_built_manifest

    directory = os.fsencode(active.environment)
    binds = (*read_header(directory).binds, *instance_binds(instance))
    manifest = read_built_manifest(directory)
    uncovered = find_uncovered(instance.tools, manifest, binds)
    return (*uncovered, *find_without_headers(instance.tools, manifest, binds))


def _with_uncovered(active: ActiveEnvironment, instance: Instance) -> CachedInstance:
    make_directories(instance)
    return CachedInstance(instance, uncovered_tools(active, instance))


def _store(active: ActiveEnvironment, key: str, cached: CachedInstance, start: int) -> CachedInstance:
    """Store an entry, unless something that it depends on has changed since `start` (ns)."""
    watched = [os.fsencode(path) for path in cached.instance.watched if os.path.lexists(path)]
    states = take_fingerprint(watched)
    if all(ctime < start for *_, ctime in states):
        values = {
            "instance": asdict(cached.instance),
            "uncovered": cached.uncovered,
            "states": [[os.fsdecode(path), *numbers] for path, *numbers in states],
            "values": _values_of(cached.instance.variables),
        }
        entries = dict(list(load_cache(active).items())[-_MOST_ENTRIES:])
        save_cache(active, {**entries, key: values})
        return cached._replace(states=states)
    return cached


def _parse(values: object) -> CachedInstance | None:
    """Return an entry of the cache, unless something that it depends on has changed: files, or variables."""
    if not isinstance(values, dict):
        return None
    try:
        states = tuple(_parse_state(*each) for each in values["states"])
        instance = parse_instance(_with_tools(values["instance"]))
        uncovered = tuple(UncoveredTool(*tool) for tool in values["uncovered"])
        same = values["values"] == _values_of(instance.variables)
    except (KeyError, TypeError, ValueError):
        return None
    return None if not same or changed_directories(states) else CachedInstance(instance, uncovered, states)


def _values_of(names: Iterable[str]) -> dict[str, str | None]:
    """Return the present values of variables."""
    return {name: os.environ.get(name) for name in names}


def _parse_state(path: str, *numbers: int) -> tuple[bytes, int, int, int, int]:
    device, inode, mtime, ctime = map(int, numbers)
    return os.fsencode(path), device, inode, mtime, ctime


def _with_tools(values: dict[str, Any]) -> dict[str, Any]:
    tools = [dict(zip(Tool._fields, tool)) for tool in values["tools"]]
    return {**values, "tools": tools}


def _key(active: ActiveEnvironment, python: str, options: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return a digest of what Spack's answer depends on, besides files."""
    # Options may have relative paths.
    directory = os.getcwd() if options else ""
    host = os.uname()  # another host may have the same home
    inputs = [
        __version__,
        host.nodename,
        host.machine,
        active.environment,
        active.built,
        python,
        os.geteuid(),
        directory,
        list(options),
        list(configuring_variables(variables, options).items()),
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _describe(root: str, python: str, options: Sequence[str]) -> dict[str, Any]:
    """Make Spack describe itself with these options."""
    answer, done = _ask(root, python, options)
    if answer is not None:
        return answer
    if options and _ask(root, python, [])[0] is not None:
        raise RefusedOptions(done.stderr, done.returncode)
    output = done.stderr.strip() or "nothing"
    raise PkgjailError(
        f"cannot learn from {root} what it needs in the jail; it printed: {output}; "
        "check that 'spack jail --describe' works, and add pkgjail's extension to 'config:extensions'"
    )


def _ask(
    root: str, python: str, options: Sequence[str]
) -> tuple[dict[str, Any] | None, subprocess.CompletedProcess[str]]:
    """Run `spack jail --describe`; return its answer, or None, and how the last attempt ended.

    The first attempt uses the installed entry points, the second names the extension's folder.
    """
    import subprocess

    script = os.path.join(root, "bin", "spack")
    for more in ([], extension_option(extension_paths(root)[0])):
        command = [python, script, *options, *more, "jail", "--describe"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            try:
                return json.loads(done.stdout.splitlines()[-1]), done
            except (ValueError, IndexError):
                continue
    return None, done
