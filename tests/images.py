"""File systems in a file, made with fixed times: two of them differ in content alone."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAKE = {
    "squashfs": (
        "mksquashfs", "{tree}", "{image}", "-quiet", "-no-progress", "-mkfs-time", "0", "-all-time", "0"
    ),
    "erofs": ("mkfs.erofs", "--quiet", "-T0", "-U00000000-0000-0000-0000-000000000000", "{image}", "{tree}"),
    "ext4": ("mke2fs", "-q", "-t", "ext4", "-d", "{tree}", "{image}", "4M"),
}  # fmt: skip
# Without privileges an image is shown by a program.
KERNEL = os.geteuid() == 0
KINDS = (*_MAKE, "fuse", "overlay") if KERNEL else ("fuse",)


@contextmanager
def shown(kind: str, tree: Path, place: Path) -> Iterator[None]:
    """Show an image of `tree` at `place`, made with all times at 1970."""
    image = place.with_name(f"{tree.name}.{kind}")
    form = {"fuse": "squashfs", "overlay": "squashfs"}.get(kind, kind)
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (0, 0))
    made = [word.format(tree=tree, image=image) for word in _MAKE[form]]
    subprocess.run(
        made, check=True, env={**os.environ, "E2FSPROGS_FAKE_TIME": "1"}, stdout=subprocess.DEVNULL
    )
    place.mkdir(exist_ok=True)
    with _mounted(image, place if kind != "overlay" else _empty(place, "lower"), kind):
        if kind == "overlay":
            parts = [_empty(place, name) for name in ("lower", "upper", "work")]
            options = "lowerdir={},upperdir={},workdir={}".format(*parts)
            subprocess.run(("mount", "-t", "overlay", "overlay", "-o", options, place), check=True)
        try:
            yield
        finally:
            if kind == "overlay":
                subprocess.run(("umount", place), check=True)


def _empty(place: Path, name: str) -> Path:
    directory = place.with_name(f"{place.name}-{name}")
    directory.mkdir(exist_ok=True)
    return directory


@contextmanager
def _mounted(image: Path, place: Path, kind: str) -> Iterator[None]:
    command = ("squashfuse", image, place) if kind == "fuse" else ("mount", "-o", "loop,ro", image, place)
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        end = ("umount", place) if KERNEL else ("fusermount", "-u", place)
        while subprocess.run(end, check=False, stderr=subprocess.DEVNULL).returncode:
            time.sleep(0.01)  # busy for a moment: what reads it has just ended
