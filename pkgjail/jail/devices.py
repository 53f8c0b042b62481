"""The devices that a jail shows besides those that every jail has."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pkgjail.core.devices import absence_reason, find_devices, is_own, pattern_fault
from pkgjail.core.entries import noun_of
from pkgjail.core.errors import JailError
from pkgjail.core.model import text_path
from pkgjail.core.parameters import parameter

if TYPE_CHECKING:
    from pkgjail.core.devices import Device
    from pkgjail.core.model import JailOptions


def device_patterns(options: JailOptions) -> tuple[bytes, ...]:
    """Return the patterns of the devices of a jail.

    Raises:
        JailError: the options name a device that the host lacks, or that no jail can show.

    """
    for pattern in options.devices:
        fault = pattern_fault(pattern)
        if fault:
            raise JailError(f"cannot show the device {text_path(pattern)}: it {fault}")
        if not is_own(pattern) and not find_devices((pattern,)):
            raise JailError(f"cannot show the device {text_path(pattern)}: {absence_reason(pattern)}")
    return options.devices


def show_devices(options: JailOptions) -> tuple[Device, ...]:
    """Return the devices of a jail, and the links to them. Raises as `device_patterns`."""
    return find_devices(device_patterns(options))


def device_advice(source: bytes, mode: int) -> str:
    """Say how to show a device that a bind cannot show, for the end of a message; "" if it is none."""
    if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
        return ""
    return (
        f"it is a {noun_of(mode)}, which no bind can open; show it at its own path with "
        f"{parameter('devices')} {text_path(source)}"
    )
