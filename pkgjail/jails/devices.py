"""The devices that a jail shows besides those that every jail has."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pkgjail.core.devices import absence_reason, find_devices, is_own, pattern_fault
from pkgjail.core.entries import noun_of
from pkgjail.core.errors import JailError
from pkgjail.core.parameters import parameter
from pkgjail.core.text import first_of, raw_path, text_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.devices import Device
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions


def device_patterns(manifest: Manifest, options: JailOptions) -> tuple[bytes, ...]:
    """Return the patterns of the devices of a jail: those of the manifest, and of the options.

    Raises:
        JailError: the options name a device that the host lacks, or that no jail can show; or a set
            (`pkgjail.jails.device_sets`) that the host or the manifest lacks.

    """
    for pattern in options.devices:
        fault = pattern_fault(pattern)
        if fault:
            raise JailError(f"cannot show the device {text_path(pattern)}: it {fault}")
        if not is_own(pattern) and not find_devices((pattern,)):
            raise JailError(f"cannot show the device {text_path(pattern)}: {absence_reason(pattern)}")
    allowed = tuple(raw_path(device.pattern) for device in manifest.devices)
    if not options.device_sets:
        return (*allowed, *options.devices)
    from pkgjail.jails.device_sets import set_patterns  # reads whitelists

    return (*allowed, *options.devices, *set_patterns(manifest, options.device_sets))


def show_devices(manifest: Manifest, options: JailOptions) -> tuple[Device, ...]:
    """Return the devices of a jail, and the links to them. Raises as `device_patterns`."""
    return find_devices(device_patterns(manifest, options))


def absent_devices(manifest: Manifest) -> Iterator[str]:
    """Yield a warning for each whitelist that allows devices of which this host has none."""
    patterns: dict[str, list[str]] = {}
    for device in manifest.devices:
        patterns.setdefault(device.rule.rpartition(":")[0], []).append(device.pattern)
    for name, allowed in patterns.items():
        if not find_devices(map(raw_path, allowed)):
            yield f"this host has none of the devices that {name} allows: {', '.join(first_of(allowed))}"


def device_advice(source: bytes, mode: int) -> str:
    """Say how to show a device that a bind cannot show, for the end of a message; "" if it is none."""
    if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
        return ""
    return (
        f"it is a {noun_of(mode)}, which no bind can open; show it at its own path with "
        f"{parameter('devices')} {text_path(source)}"
    )
