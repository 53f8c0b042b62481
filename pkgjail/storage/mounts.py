"""The mounts of this process, from proc_pid_mountinfo(5). Entering a jail imports this module."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    # Its number, what is mounted (device and directory there), and the mount point.
    Mount = tuple[bytes, bytes, bytes, bytes]

TABLE = "/proc/self/mountinfo"


def read_mounts(table: str = TABLE) -> list[Mount]:
    """Return for each mount, in the order of mounting: number, device, directory shown, mount point."""
    mounts = []
    with open(table, "rb") as lines:
        for line in lines:
            number, _, device, root, point, _ = line.split(b" ", 5)
            if b"\\" in line:
                root, point = _unescaped(root), _unescaped(point)
            mounts.append((number, device, root, point))
    return mounts


def mounts_below(directory: bytes, table: str = TABLE) -> list[bytes]:
    """Return the mount points below `directory`, a real path.

    An overlay and a bind mount show one file system: what is mounted further down is not in it, and
    within a user namespace the kernel refuses such a layer altogether.
    """
    prefix = directory.rstrip(b"/") + b"/"
    points = [mount[3] for mount in read_mounts(table)]
    return [point for point in points if point.startswith(prefix) and point != prefix]


def automounts_below(directory: bytes, table: str = TABLE) -> tuple[list[bytes], bool]:
    """Return the mount points of autofs(5) at which, or below which, mounts appear below a real path.

    The second value tells whether a mount namespace that was copied from this one receives these mounts:
    each of the mount points is shared or a slave, mount_namespaces(7).
    """
    prefix = directory.rstrip(b"/") + b"/"
    points, is_received = [], True
    with open(table, "rb") as lines:
        for line in lines:
            fields, _, kind = line.partition(b" - ")
            if not kind.startswith(b"autofs "):
                continue
            _, _, _, _, point, *rest = fields.split(b" ")
            point = _unescaped(point)
            is_indirect = b"indirect" in kind.rstrip().rpartition(b" ")[2].split(b",")
            if point.startswith(prefix) or (point + b"/" == prefix and is_indirect):
                points.append(point)
                is_received &= any(field.startswith((b"shared:", b"master:")) for field in rest)
    return points, is_received


def _unescaped(field: bytes) -> bytes:
    """Decode a path: the kernel writes white space and backslashes as octal numbers."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)
