"""What a command must know of its Spack before it goes inside: asked of Spack once, then kept.

Kept until a file of Spack's configuration, a variable, or an option that decides about the
configuration is another.
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
from pkgjail.integrations.spack.argv import extension_option, split_words
from pkgjail.integrations.spack.extensions import extension_paths
from pkgjail.integrations.spack.instance import Instance, binds_of, make_directories, parse_instance
from pkgjail.integrations.spack.replay import passed
from pkgjail.integrations.spack.state import load_cache, save_cache
from pkgjail.integrations.spack.uncovered import find_outside
from pkgjail.storage.fingerprint import TICKS_NS, changed_directories, take_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.environments.enter import States
    from pkgjail.integrations.spack.state import State

_MOST = 16


class Known(NamedTuple):
    """A Spack, and for each tool of its configuration outside of the jail a sentence that tells it.

    `states` are those of the files that both rest on, as `observe` has them; none where one of them
    was being changed.
    """

    instance: Instance
    outside: tuple[str, ...]
    states: States = ()


def know(state: State, root: str, python: str, words: Sequence[str]) -> Known:
    """What the Spack in `root` needs, for the command line `words`.

    Raises:
        PkgjailError: Spack does not tell; its own message is in it.

    """
    telling, _ = split_words(words)
    key = _key(state, python, telling, os.environ)
    kept = load_cache(state)
    known = _read(kept.get(key))
    if known is not None:
        return known
    start = time.time_ns() - TICKS_NS
    instance = parse_instance(_ask(root, python, telling))
    return _keep(state, key, _with_outside(state, instance), start)


def remember(state: State, instance: Instance) -> Known:
    """The same for an instance that Spack has just told of, for later commands with no such options."""
    key = _key(state, instance.python, [], os.environ)
    return _keep(state, key, _with_outside(state, instance), time.time_ns() - TICKS_NS)


def _with_outside(state: State, instance: Instance) -> Known:
    make_directories(instance)
    from pkgjail.environments.enter import read_built_manifest

    directory = os.fsencode(state.environment)
    binds = (*read_header(directory).binds, *binds_of(instance))
    found = find_outside(instance.tools, read_built_manifest(directory), binds)
    return Known(instance, tuple(map(str, found)))


def _keep(state: State, key: str, known: Known, start: int) -> Known:
    """Keep it, unless something that it rests on was changed meanwhile (by time, ns)."""
    watched = [os.fsencode(path) for path in known.instance.watched if os.path.lexists(path)]
    states = take_fingerprint(watched)
    if all(ctime < start for *_, ctime in states):
        values = {
            "instance": asdict(known.instance),
            "outside": known.outside,
            "states": [[os.fsdecode(path), *numbers] for path, *numbers in states],
        }
        kept = dict(list(load_cache(state).items())[-_MOST:])
        save_cache(state, {**kept, key: values})
        return known._replace(states=states)
    return known


def _read(values: object) -> Known | None:
    """What was kept, if all that it rests on is as it was."""
    if not isinstance(values, dict):
        return None
    try:
        states = tuple(_read_state(*each) for each in values["states"])
        instance = parse_instance(_with_tools(values["instance"]))
        outside = tuple(map(str, values["outside"]))
    except (KeyError, TypeError, ValueError):
        return None
    return None if changed_directories(states) else Known(instance, outside, states)


def _read_state(path: str, *numbers: int) -> tuple[bytes, int, int, int, int]:
    device, inode, mtime, ctime = map(int, numbers)
    return os.fsencode(path), device, inode, mtime, ctime


def _with_tools(values: dict[str, Any]) -> dict[str, Any]:
    tools = [{"name": name, "paths": paths} for name, paths in values["tools"]]
    return {**values, "tools": tools}


def _key(state: State, python: str, telling: Sequence[str], variables: Mapping[str, str]) -> str:
    """What Spack's answer depends on, besides files."""
    counting = {**passed(variables), "USER": variables.get("USER", "")}
    # Options may have relative paths.
    where = os.getcwd() if telling else ""
    host = os.uname()  # whose user may have the same home elsewhere
    facts = [
        __version__,
        host.nodename,
        host.machine,
        state.environment,
        state.made,
        python,
        os.geteuid(),
        where,
        list(telling),
        sorted(counting.items()),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _ask(root: str, python: str, telling: Sequence[str]) -> dict[str, Any]:
    """Have Spack load the extension and tell; once with what is installed, else with the folder named."""
    script = os.path.join(root, "bin", "spack")
    import subprocess

    done = None
    for more in ([], extension_option(extension_paths(root)[0])):
        command = [python, script, *telling, *more, "jail", "--describe"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            try:
                found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            except (ValueError, IndexError):
                continue
            return found
    said = done.stderr.strip() if done is not None else ""
    raise PkgjailError(
        f"cannot learn from {script} what it needs in the jail: it said: {said or 'nothing'}; "
        "see whether 'spack jail --describe' works, and add pkgjail's extension to 'config:extensions'"
    )
