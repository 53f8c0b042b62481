"""The directories that pkgjail writes to: whether it can, what they are on, and how much room they have."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import os_error_text
from pkgjail.core.text import shell_quote
from pkgjail.doctor.model import DirectoryReport, Finding, Remedy
from pkgjail.storage.filesystems import identity
from pkgjail.storage.locations import (
    cache_directory,
    rejected_runtime_base,
    replaceable_part,
    runtime_directory,
    temporary_directory,
)
from pkgjail.storage.own_files import open_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTS = "/proc/self/mountinfo"
"""The mounts of this process."""
_TRIAL = 256 << 10  # bytes that are written and removed
# Below these, the layers of a few jails do not fit: each has a name for each of the manifest's.
_LEAST_BYTES, _LEAST_NAMES = 64 << 20, 20_000
_NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "ceph", "cifs", "smb3", "afs", "9p")
_MEMORY = ("tmpfs", "ramfs")
_ATTRIBUTE = "user.pkgjail.trial"


class _Trial(NamedTuple):
    """What came of writing a file: an error, or None, and whether it could have a user attribute."""

    error: OSError | None
    attributes: bool | None


def examine_directories() -> tuple[DirectoryReport, ...]:
    """Look at the cache, the runtime directory, the directory for temporary files, and the home directory."""
    home = os.path.expanduser("~")
    return (
        _examine("cache", cache_directory(), own=True),
        _examine("runtime", runtime_directory(), own=True),
        _examine("temporary", temporary_directory(), own=False),
        *([_examine("home", os.path.realpath(home), own=False)] if os.path.isabs(home) else []),
    )


def _examine(role: str, path: str, *, own: bool) -> DirectoryReport:
    """Examine one directory. `own` directories are pkgjail's, and made when they are first needed."""
    exists = os.path.isdir(path)
    place = _existing(path)
    kind = filesystem_of(place)
    found = os.statvfs(place)
    trial = _Trial(None, None) if role == "home" else _try(path, place, own=own and exists)
    noexec = bool(found.f_flag & os.ST_NOEXEC)
    # As most file systems without a fixed number of files have it, 0 of 0 is no limit.
    names = found.f_favail if found.f_files else -1
    report = DirectoryReport(
        role=role,
        path=path,
        exists=exists,
        filesystem=kind,
        free=found.f_bavail * found.f_frsize,
        names=names,
        noexec=noexec,
        attributes=trial.attributes,
    )
    findings = tuple(_findings(report, trial))
    return replace(report, findings=findings)


def _existing(path: str) -> str:
    """Return a directory, or the nearest one above it that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _try(path: str, place: str, *, own: bool) -> _Trial:
    """Write a file to the directory `place`, and remove it. If it is `own`, nobody else may write there."""
    try:
        if own:
            os.close(open_directory(path))
        elif part := replaceable_part(os.path.realpath(place)):
            why = f"another user could put something else in the place of {part}"
            raise PermissionError(errno.EPERM, why, path)
        return _write(place)
    except OSError as error:
        return _Trial(error, None)


def _write(place: str) -> _Trial:
    attributes = True
    try:
        with tempfile.NamedTemporaryFile(prefix=".pkgjail-trial-", dir=place, buffering=0) as file:
            try:
                os.setxattr(file.name, _ATTRIBUTE, b"1")
            except OSError:
                attributes = False
            rest = memoryview(bytes(_TRIAL))
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = place
        raise
    return _Trial(None, attributes)


def _findings(report: DirectoryReport, trial: _Trial) -> Iterator[Finding]:
    if report.role == "runtime":
        base, fault = rejected_runtime_base()
        if fault:
            yield _rejected(base, fault)
    if trial.error is not None:
        yield _unwritable(report, trial.error)
    elif report.role in {"cache", "runtime"}:
        yield from _little_room(report)
    if report.role == "runtime" and trial.attributes is False:
        yield Finding(
            what=f"files in {report.path} cannot have user attributes ({report.filesystem}), so the "
            "strategies tree and mask do not work: large directories are shown by more mounts",
            remedies=(_in_memory(),),
            serious=False,
        )
    if report.role == "cache" and report.noexec:
        yield Finding(
            what=f"{report.path} is mounted noexec, so the engines (bwrap, podman, runc, nspawn) cannot run "
            "programs from the copy of the files there",
            remedies=(_elsewhere("XDG_CACHE_HOME", "a directory of yours from which programs can be run"),),
            serious=False,
        )
    yield from _of_kind(report)


def _rejected(base: str, fault: str) -> Finding:
    return Finding(
        what=f"XDG_RUNTIME_DIR names {base}, which is not used: {fault}",
        remedies=(_in_memory(),),
        serious=False,
    )


def _unwritable(report: DirectoryReport, error: OSError) -> Finding:
    """Return the finding for a directory that cannot be written to."""
    return Finding(
        what=f"cannot write to the {report.role} directory: {os_error_text(error, report.path)}",
        remedies=tuple(_for_writing(report, error.errno or 0)),
        serious=report.role != "cache",
    )


def _for_writing(report: DirectoryReport, number: int) -> Iterator[Remedy]:
    variable = {"cache": "XDG_CACHE_HOME", "temporary": "TMPDIR"}.get(report.role, "XDG_RUNTIME_DIR")
    place = shell_quote(report.path)
    if number in {errno.ENOSPC, errno.EDQUOT}:
        if report.role in {"cache", "runtime"}:
            yield Remedy(what="Remove what no jail uses", who="user", lines=("pkgjail cache prune",))
        if report.filesystem in _MEMORY:
            point = shell_quote(mount_point_of(_existing(report.path)))
            lines = (f"mount -o remount,size=4G,nr_inodes=1M {point}",)
            yield Remedy(what="Give the file system in memory more room", who="administrator", lines=lines)
    elif (
        number in {errno.EACCES, errno.EPERM}
        and report.exists
        and os.stat(report.path).st_uid == os.geteuid()
    ):
        yield Remedy(
            what="Make the directory yours alone to write to", who="user", lines=(f"chmod 0700 {place}",)
        )
    yield _in_memory() if variable == "XDG_RUNTIME_DIR" else _elsewhere(variable, "a directory of yours")


def _in_memory() -> Remedy:
    """Return how to have the runtime directory in its usual place in memory."""
    if os.access("/dev/shm", os.W_OK):  # noqa: S108 - what is there is checked
        return Remedy(
            what="Use the usual place in memory, below /dev/shm", who="user", lines=("unset XDG_RUNTIME_DIR",)
        )
    return _elsewhere("XDG_RUNTIME_DIR", "a directory of yours, in memory if there is one")


def _elsewhere(variable: str, what: str) -> Remedy:
    lines = (f"mkdir -m 0700 -p DIRECTORY && export {variable}=DIRECTORY",)
    return Remedy(what=f"Use {what}", who="user", lines=lines)


def _little_room(report: DirectoryReport) -> Iterator[Finding]:
    few = 0 <= report.names < _LEAST_NAMES
    if report.free < _LEAST_BYTES or few:
        what = f"{report.names:,} more files" if few else f"{report.free >> 20} MiB"
        prune = Remedy(what="Remove what no jail uses", who="user", lines=("pkgjail cache prune",))
        yield Finding(
            what=f"there is little room in the {report.role} directory {report.path}: {what}",
            remedies=(prune,),
            serious=False,
        )


def _of_kind(report: DirectoryReport) -> Iterator[Finding]:
    """Yield what the type of file system means for jails."""
    if report.role not in {"cache", "home", "runtime"}:
        return
    if report.filesystem.startswith("fuse"):
        yield Finding(
            what=f"{report.path} is on a FUSE file system ({report.filesystem}): other users, root and "
            "pkgjaild among them, may not see into it, and files are compared by content, not by times",
            serious=False,
        )
    elif report.filesystem in _NETWORK:
        yield Finding(
            what=f"{report.path} is on a network file system ({report.filesystem}): root of this host, and "
            "pkgjaild, may have no access to it",
            serious=False,
        )
    elif report.role != "home" and identity(os.fsencode(_existing(report.path))) is None:
        yield Finding(
            what=f"{report.path} is on {report.filesystem}, whose times prove nothing: files are compared by "
            "content at each entry, which takes longer",
            serious=False,
        )


# --- mounts ---------------------------------------------------------------------------------------


def filesystem_of(path: str) -> str:
    """Return the type of the file system that a directory is on, as mount(8) shows it; "" if unknown."""
    return _mount_of(path)[1]


def mount_point_of(path: str) -> str:
    """Return the mount point of the file system that a directory is on; "/" if unknown."""
    return _mount_of(path)[0]


def _mount_of(path: str) -> tuple[str, str]:
    """Return mount point and type of the last mount that shows a path: proc_pid_mountinfo(5)."""
    real = os.path.realpath(path)
    best = ("/", "")
    with contextlib.suppress(OSError):
        for line in Path(MOUNTS).read_text("utf-8", "surrogateescape").splitlines():
            fields, _, rest = line.partition(" - ")
            point = _unescaped(fields.split(" ")[4])
            inside = f"{real}/".startswith(f"{point.rstrip('/')}/")
            if inside and len(point) >= len(best[0]):
                best = (point, rest.split(" ")[0])
    return best


def _unescaped(field: str) -> str:
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
