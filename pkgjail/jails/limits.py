"""Check the limits in a jail's options, and describe how they would be enforced on this host.

A module of its own, as only jails with limits need it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.core.text import text_path
from pkgjail.jails.diagnosis import HOW_TO_DELEGATE
from pkgjail.sandbox import limits as sandbox
from pkgjail.sandbox.cgroups import mount_points

if TYPE_CHECKING:
    from pkgjail.core.options import JailOptions

_NAMES = ("memory", "cpus", "pids")
_LEAST = (1, 0.01, 1)  # the kernel allots no smaller share of a processor
_MECHANISMS: dict[sandbox.Mechanism, str] = {
    "cgroup": "by a control group in ",
    "rlimit": "by ",
    "": "cannot be enforced: ",
}
_TOO_MUCH = 1 << 63  # does not fit into the kernel's numbers


def checked_limits(options: JailOptions) -> sandbox.Limits:
    """Return the options' limits as the sandbox takes them.

    Raises:
        JailError: a number is out of range, or a writable bind would let the command lift the limits.

    """
    limits = (options.limits.memory, options.limits.cpus, options.limits.pids)
    wrong = [
        f"{name} {value} is less than {least}" if value < least else f"{name} {value} is too much"
        for name, value, least in zip(_NAMES, limits, _LEAST)
        if value is not None and not least <= value < _TOO_MUCH
    ]
    if wrong:
        raise JailError(f"cannot limit the jail: {', '.join(wrong)}; give other numbers")
    for bind in (bind for bind in options.binds if bind.writable):
        for point in mount_points():
            if _lies_in(point, bind.source) or _lies_in(bind.source, point):
                raise JailError(
                    f"cannot bind {text_path(bind.source)} writable: control groups are mounted at "
                    f"{text_path(point)}, where the command could lift its limits; bind it read-only"
                )
    return limits


def describe_limits(options: JailOptions) -> dict[str, str]:
    """Describe for each limit how it would be enforced here, or why it cannot be."""
    limits = checked_limits(options)
    described = {}
    for name, value, controller in zip(_NAMES, limits, sandbox.CONTROLLERS):
        if value is not None:
            mechanism, detail = sandbox.mechanisms(limits)[controller]
            how = _MECHANISMS[mechanism]
            described[name] = f"{value}, {how}{detail}" + ("" if mechanism else f"; {HOW_TO_DELEGATE}")
    return described


def _lies_in(path: bytes, directory: bytes) -> bool:
    inner, outer = (os.path.realpath(each).rstrip(b"/") + b"/" for each in (path, directory))
    return inner.startswith(outer)
