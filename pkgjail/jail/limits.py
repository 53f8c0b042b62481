"""The limits that a jail's options ask for: whether they make sense, and how they would be held here.

Apart from `jail`, which needs this only where there are limits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.core.model import text_path
from pkgjail.jail.diagnosis import HOW_TO_DELEGATE
from pkgjail.sandbox import limits as stage
from pkgjail.sandbox.cgroups import mount_points

if TYPE_CHECKING:
    from pkgjail.core.model import JailOptions

_NAMES = ("memory", "cpus", "pids")
_LEAST = (1, 0.01, 1)  # of a processor's time the kernel measures out no less
_TOO_MUCH = 1 << 63  # what the kernel has no number for


def limits_asked(options: JailOptions) -> stage.Limits:
    """The options' limits as the stage takes them.

    Raises:
        JailError: one of them is no limit, or a writable bind would let the command lift them.

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


def how_limited(options: JailOptions) -> dict[str, str]:
    """For each limit that the options ask for, in words, by what it would be held here, or why not."""
    limits = limits_asked(options)
    told = {}
    for name, value, controller in zip(_NAMES, limits, stage.CONTROLLERS):
        if value is not None:
            way, what = stage.ways(limits)[controller]
            held = {"cgroup": "by a control group in ", "rlimit": "by ", "": "cannot be held: "}[way]
            told[name] = f"{value}, {held}{what}" + ("" if way else f"; {HOW_TO_DELEGATE}")
    return told


def _lies_in(path: bytes, directory: bytes) -> bool:
    inner, outer = (os.path.realpath(place).rstrip(b"/") + b"/" for place in (path, directory))
    return inner.startswith(outer)
