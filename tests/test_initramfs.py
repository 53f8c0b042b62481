"""The archive that a kernel unpacks into memory."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.machine.initramfs import initramfs

_NAMES = st.binary(min_size=1, max_size=5).filter(
    lambda name: not {b"\0"[0], b"/"[0]} & set(name) and name not in (b".", b"..")
)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map(lambda names: b"/" + b"/".join(names))
_FILES = st.dictionaries(_PATHS, st.tuples(st.integers(0, 0o7777), st.binary(max_size=20)), max_size=6)
Member = tuple[bytes, int, bytes]


def members(archive: bytes) -> list[Member]:
    """Read an archive as the kernel does: names, modes and contents, until the last."""
    found, at = list[Member](), 0
    while True:
        assert archive[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name_at = at + 110
        name = archive[name_at : name_at + fields[11] - 1]
        assert archive[name_at + fields[11] - 1] == 0
        data_at = -(-(name_at + fields[11]) // 4) * 4
        at = -(-(data_at + fields[6]) // 4) * 4
        if name == b"TRAILER!!!":
            assert at == len(archive)
            return found
        assert fields[2:4] == [0, 0], "it belongs to root"
        found.append((name, fields[1], archive[data_at : data_at + fields[6]]))


def is_consistent(files: dict[bytes, tuple[int, bytes]]) -> bool:
    """Return whether no file is below another one."""
    return not any(other.startswith(path + b"/") for path in files for other in files)


@given(_FILES.filter(is_consistent))
def test_everything_is_in_it(files: dict[bytes, tuple[int, bytes]]) -> None:
    """Protects names of any bytes, modes and contents, and that each directory comes before what is in it."""
    archive = initramfs(files)
    assert archive == initramfs(dict(reversed(files.items())))
    directories = set[bytes]()
    regular = {}
    for name, mode, content in members(archive):
        above = name.rpartition(b"/")[0]
        assert not above or above in directories
        if mode == 0o040755:
            directories.add(name)
        else:
            assert mode >> 12 == 0o10
            regular[b"/" + name] = (mode & 0o7777, content)
    assert regular == files
    assert all(any(path.startswith(b"/" + each + b"/") for path in files) for each in directories)


def test_another_program_reads_it() -> None:
    """Protects the format: what libarchive makes of it."""
    archive = initramfs({b"/init": (0o755, b"#!"), b"/lib/modules/a.ko": (0o644, b"12345")})
    listed = subprocess.run(["bsdtar", "-tvf", "-"], input=archive, capture_output=True, check=True).stdout
    rows = [line.split() for line in listed.decode().splitlines()]
    assert [(row[0], row[2], row[4], row[-1]) for row in rows] == [
        ("-rwxr-xr-x", "0", "2", "init"),
        ("drwxr-xr-x", "0", "0", "lib"),
        ("drwxr-xr-x", "0", "0", "lib/modules"),
        ("-rw-r--r--", "0", "5", "lib/modules/a.ko"),
    ]


@pytest.mark.parametrize("path", [b"init", b"", b"/", b"/a/", b"//a", b"/a/../b", b"/./a", b"/a\0b"])
def test_other_paths_are_refused(path: bytes) -> None:
    """Protects against an archive that the kernel would unpack in another way."""
    with pytest.raises(ValueError, match="is not absolute and normal"):
        initramfs({path: (0o644, b"")})


def test_a_file_below_a_file_is_refused() -> None:
    """Protects against one of two names winning in silence."""
    with pytest.raises(ValueError, match="'/a/b/c' is below another file"):
        initramfs({b"/a/b/c": (0o644, b""), b"/a": (0o644, b"")})
