"""Find a kernel for a machine: the one that was named, the source's own, or the host's.

Distributions put kernels into /boot, or beside their modules. What is there is told by its content. A source
may be hostile: no link leads out of it, and its kernel runs in the machine alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.parameters import parameter
from pkgjail.core.paths import resolve_inside
from pkgjail.core.text import first_of, printable
from pkgjail.core.untrusted import names_below, opened_below, shortened
from pkgjail.machine.kernel_images import NoKernelError, is_release, recognize
from pkgjail.machine.kernel_packages import ARCHIVE, unpacked_package
from pkgjail.machine.model import Kernel, MachineError
from pkgjail.machine.modules import ModuleFiles, load_modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["NEEDED", "find_kernel", "load_modules"]

NEEDED = ("virtio_pci", "virtio_blk", "virtio_console", "squashfs", "overlay")
"""The modules without which a machine does not work."""

_BOOT = b"/boot"
_MODULES = (b"/usr/lib/modules", b"/lib/modules")
_IN_BOOT = re.compile(rb"(?:vmlinuz|vmlinux|Image|kernel)-(.+)")
_BESIDE_MODULES = (b"vmlinuz", b"vmlinux", b"Image")
_MOST_TRIED = 64
_MOST_LISTED, _MOST_SAID = 8, 300
_PACKAGES = {
    "amd64": "linux-image-cloud-amd64",
    "arm64": "linux-image-cloud-arm64",
    "armhf": "linux-image-armmp",
    "i386": "linux-image-686",
    "ppc64el": "linux-image-powerpc64le",
}
# "~" comes before the end of a version, and that before all else: 6.12~rc1, 6.12, 6.12.5.
_PART = re.compile(r"~|[0-9]+|[^~0-9]+")


class _Place(NamedTuple):
    """A file that may be a kernel, below a root; `release` is what its name says."""

    root: bytes
    path: bytes
    release: bytes


def find_kernel(architecture: str, *, named: str = "", root: bytes = b"/") -> Kernel:
    """Return a kernel for an architecture: the newest that has what a machine needs, or else the newest.

    Args:
        architecture: Debian's word, such as "arm64".
        named: a kernel's file, a Debian package with one (which is unpacked into the cache), or a directory
            like a root, in which one is looked for.
        root: the source, whose own kernels come before the host's.

    Raises:
        MachineError: there is none; the message says what was looked at and what to do.
        PkgjailError: a program that unpacks the package is missing.

    """
    looked: list[str] = []
    if named:
        found = _named(architecture, os.path.realpath(os.fsencode(named)), looked)
    else:
        roots = dict.fromkeys([os.path.realpath(root), b"/"])
        found = next(filter(None, (_best(architecture, each, looked) for each in roots)), None)
    if found is None:
        raise MachineError(_nothing(architecture, named, looked))
    return found


def missing_modules(kernel: Kernel) -> list[str]:
    """Return which of the modules that a machine needs a kernel has not. Raises `MachineError`."""
    files = ModuleFiles(kernel.modules)
    return [name for name in NEEDED if not files.has(name)]


def release_key(release: str) -> list[tuple[int, int, str]]:
    """Return a key by which the releases of kernels are sorted: by numbers, and not by digits."""
    parts = _PART.findall(release.replace("-rc", "~rc"))
    keys = [
        (-1, 0, "") if part == "~" else (2, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in parts
    ]
    return [*keys, (0, 0, "")]


def _named(architecture: str, path: bytes, looked: list[str]) -> Kernel | None:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return _best(architecture, path, looked)
        if _is_package(path):
            return _packaged(architecture, path, looked)
    except OSError as error:
        looked.append(f"{printable(path)}: {error.strerror}")
        return None
    directory = os.path.dirname(path)
    if is_release(os.path.basename(directory)):  # in lib/modules/RELEASE
        return _usable(
            architecture,
            _Place(b"/", path, os.path.basename(directory)),
            [os.path.dirname(directory)],
            looked,
        )
    match = _IN_BOOT.fullmatch(os.path.basename(path))
    beside = [os.path.dirname(directory) + each for each in _MODULES] if directory.endswith(_BOOT) else []
    place = _Place(b"/", path, match[1] if match else b"")
    return _usable(architecture, place, [*beside, *_MODULES], looked)


def _is_package(path: bytes) -> bool:
    with opened_below(b"/", path) as descriptor:
        return os.read(descriptor, len(ARCHIVE)) == ARCHIVE


def _packaged(architecture: str, path: bytes, looked: list[str]) -> Kernel | None:
    found = _best(architecture, unpacked_package(path), looked)
    if found is None and not looked:
        looked.append(f"{printable(path)} has none, but may depend on a package that has")
    return found


def _best(architecture: str, root: bytes, looked: list[str]) -> Kernel | None:
    """Return the best kernel below a root, or None."""
    first = None
    places = sorted(_places(root, looked), key=lambda each: release_key(os.fsdecode(each.release)))
    for place in places[::-1][:_MOST_TRIED]:
        found = _usable(architecture, place, _MODULES, looked)
        if found is not None:
            first = first or found
            if not missing_modules(found):
                return found
    return first


def _places(root: bytes, looked: list[str]) -> Iterator[_Place]:
    for name in _names(root, _BOOT, looked):
        if match := _IN_BOOT.fullmatch(name):
            yield _Place(root, _join(root, _BOOT, name), match[1])
    seen = set()
    for modules in _MODULES:
        for release in _names(root, modules, looked):
            if is_release(release) and release not in seen:
                seen.add(release)
                for name in _names(root, modules + b"/" + release, looked):
                    if name in _BESIDE_MODULES:
                        yield _Place(root, _join(root, modules, release, name), release)


def _names(root: bytes, directory: bytes, looked: list[str]) -> list[bytes]:
    """Return the names in a directory below a root, none if there is no such directory."""
    path = _join(root, directory)
    try:
        return sorted(names_below(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        looked.append(f"{printable(path)}: {error.strerror}")
        return []


def _usable(architecture: str, place: _Place, modules: Sequence[bytes], looked: list[str]) -> Kernel | None:
    """Return the kernel at a place, with the first directory that has its modules, or None."""
    name = printable(place.path)
    try:
        with opened_below(place.root, place.path) as descriptor:
            real = os.readlink(b"/proc/self/fd/%d" % descriptor)
            image = recognize(descriptor, place.path)
    except (OSError, NoKernelError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        looked.append(f"{name}: {why}")
        return None
    if image.architecture != architecture:
        looked.append(f"{name}: it is for {image.architecture}")
        return None
    release = image.release or (os.fsdecode(place.release) if is_release(place.release) else "")
    if not release:
        looked.append(f"{name}: neither its content nor its name has a release")
        return None
    directory = _modules_of(release, place.root, modules)
    return Kernel(image=real, release=release, modules=directory, architecture=architecture)


def _modules_of(release: str, root: bytes, places: Sequence[bytes]) -> bytes:
    """Return the real path of a release's modules, within the root; b"" if there are none."""
    for place in places:
        with contextlib.suppress(OSError):
            directory = resolve_inside(root, place + b"/" + os.fsencode(release))
            if stat.S_ISDIR(os.stat(directory, follow_symlinks=False).st_mode):
                return directory
    return b""


def _join(root: bytes, *below: bytes) -> bytes:
    return b"/".join([root.rstrip(b"/"), *(each.lstrip(b"/") for each in below)])


def _nothing(architecture: str, named: str, looked: Sequence[str]) -> str:
    """Return the message that there is no kernel: what was looked at, and what to do."""
    seen = "; ".join(first_of([shortened(each, _MOST_SAID) for each in looked], _MOST_LISTED))
    if named:
        seen = seen or f"{printable(named)} has none in /boot or /usr/lib/modules"
    else:
        seen = seen or "there is none in /boot or /usr/lib/modules"
    package = _PACKAGES.get(architecture, f"linux-image-{architecture}")
    return (
        f"cannot find a kernel for {printable(architecture)} that this user can read: {seen}; install one "
        f"({package} of Debian, kernel-core of Fedora, linux of Arch), or download it (apt-get download; "
        f"{package} depends on it) and name its file by {parameter('kernel')}"
    )
