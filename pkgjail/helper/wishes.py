"""What a client wishes: a command, the options of its jail and its source, as JSON, checked when it is read.

This says only whether a wish is well formed. `refusals` says what the policy does not allow.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pkgjail.core.model import record
from pkgjail.core.options import JailOptions, Limits, UserBind
from pkgjail.core.parameters import parameter
from pkgjail.core.text import printable, raw_path, text_path
from pkgjail.helper.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pkgjail.core.model import Manifest
    from pkgjail.helper.policy import Policy

_MOST_PATH = 4096
_MOST_BINDS = 256
_MOST_WORDS = 1 << 17
_PLANS = ("auto", "tree", "mask", "whole", "binds")
_VERIFY = ("", "all", "hash")
_SET = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FIELDS = frozenset({
    "allow_drift", "argv", "binds", "cwd", "device_sets", "devices", "environment", "inputs", "network",
    "paths", "plan", "root", "share_ipc", "strict_exit", "verify", "warn_of_inputs",
})  # fmt: skip


@record
class Wish:
    """A command, the options of its jail, and the directory that its manifest's files are in."""

    argv: tuple[str, ...]
    options: JailOptions
    root: bytes


def wish_record(wish: Wish) -> dict[str, Any]:
    """Return a wish as data for JSON. What no jail of the service has (`map_root`, limits) is left out."""
    options = wish.options
    return {
        "argv": list(wish.argv),
        "root": text_path(wish.root),
        "binds": [[text_path(b.source), text_path(b.destination), b.writable] for b in options.binds],
        "devices": list(map(text_path, options.devices)),
        "device_sets": list(options.device_sets),
        "cwd": text_path(options.cwd),
        "paths": list(map(text_path, options.paths)),
        "network": options.network,
        "environment": dict(options.environment),
        "plan": options.plan,
        "verify": options.verify,
        "allow_drift": options.allow_drift,
        "strict_exit": options.strict_exit,
        "share_ipc": options.share_ipc,
        "inputs": list(map(text_path, options.inputs)),
        "warn_of_inputs": options.warn_of_inputs,
    }


def wish_of(data: Mapping[str, Any]) -> Wish:
    """Return the wish of such data.

    Raises:
        RequestError: it is not well formed.

    """
    if set(data) != _FIELDS:
        raise _wrong("the options", "another set of fields")
    argv = _list(data, "argv", _text)
    if not argv:
        raise _wrong("argv", "no command")
    options = JailOptions(
        binds=_binds(data),
        devices=_list(data, "devices", _path),
        device_sets=_list(data, "device_sets", _set),
        cwd=_path(data["cwd"], "cwd"),
        paths=_list(data, "paths", _path),
        network=_flag(data, "network"),
        environment=_environment(data),
        plan=_one_of(data, "plan", _PLANS),  # type: ignore[arg-type]
        verify=_one_of(data, "verify", _VERIFY),  # type: ignore[arg-type]
        allow_drift=_flag(data, "allow_drift"),
        strict_exit=_flag(data, "strict_exit"),
        share_ipc=_flag(data, "share_ipc"),
        user_namespace=False,
        limits=Limits(),
        inputs=_list(data, "inputs", _path),
        warn_of_inputs=_flag(data, "warn_of_inputs"),
    )
    return Wish(argv=argv, options=options, root=_path(data["root"], "root"))


def refusals(wish: Wish, manifest: Manifest, policy: Policy) -> list[str]:
    """Return what of a wish the policy does not allow, except for paths, which only the jail resolves."""
    options, problems = wish.options, []
    if options.network and not policy.network:
        problems.append("the host's network; use --no-network")
    if options.share_ipc and not policy.share_ipc:
        problems.append("shared memory with processes outside (--share-ipc)")
    if options.allow_drift and not policy.drift:
        problems.append(f"files that differ from the manifest ({parameter('allow_drift=True')})")
    asked = {text_path(each) for each in options.devices}
    asked.update(device.pattern for device in manifest.devices)
    allowed = tuple(map(text_path, policy.devices))
    refused = sorted(each for each in asked if not any(_covers(pattern, each) for pattern in allowed))
    if refused:
        problems.append(f"the devices {', '.join(map(printable, refused))}")
    if options.device_sets and not policy.devices:
        problems.append("graphics cards and other sets of devices (--gpus, --fabric)")
    return problems


def _covers(pattern: str, asked: str) -> bool:
    """Return whether what is asked for, a path or a pattern, is among what a pattern allows."""
    return asked == pattern or asked.startswith(pattern.rstrip("/") + "/") or fnmatchcase(asked, pattern)


def _wrong(place: str, why: str) -> RequestError:
    return RequestError(f"the request is not well formed: {place}: {why}")


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(place, "no text")
    return value


def _path(value: object, place: str) -> bytes:
    text = _text(value, place)
    try:
        path = raw_path(text)
    except UnicodeEncodeError:
        raise _wrong(place, "no path") from None
    if not path.startswith(b"/") or len(path) > _MOST_PATH:
        raise _wrong(place, "no absolute path")
    return path


def _set(value: object, place: str) -> str:
    text = _text(value, place)
    if not _SET.fullmatch(text):
        raise _wrong(place, "no name of a list")
    return text


def _list(data: Mapping[str, Any], name: str, check: Callable[[object, str], Any]) -> tuple[Any, ...]:
    value = data[name]
    if not isinstance(value, list) or len(value) > _MOST_WORDS:
        raise _wrong(name, "no list, or too long")
    return tuple(check(each, name) for each in value)


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data[name]
    if not isinstance(value, bool):
        raise _wrong(name, "neither true nor false")
    return value


def _one_of(data: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = data[name]
    if value not in known:
        raise _wrong(name, "none of its values")
    return str(value)


def _environment(data: Mapping[str, Any]) -> dict[str, str]:
    value = data["environment"]
    if not isinstance(value, dict) or len(value) > _MOST_WORDS:
        raise _wrong("environment", "no object, or too large")
    made = {_text(name, "environment"): _text(text, "environment") for name, text in value.items()}
    if any(not name or "=" in name for name in made):
        raise _wrong("environment", "no name of a variable")
    return made


def _binds(data: Mapping[str, Any]) -> tuple[UserBind, ...]:
    value = data["binds"]
    if not isinstance(value, list) or len(value) > _MOST_BINDS:
        raise _wrong("binds", f"no list, or more than {_MOST_BINDS}")
    return tuple(map(_bind, value))


def _bind(value: object) -> UserBind:
    if not isinstance(value, list) or len(value) != len(("source", "destination", "writable")):
        raise _wrong("binds", "no bind")
    source, destination, writable = value
    if not isinstance(writable, bool):
        raise _wrong("binds", "neither writable nor read-only")
    return UserBind(source=_path(source, "binds"), destination=_path(destination, "binds"), writable=writable)
