"""Kernels of Debian packages that are not installed."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pkgjail.machine import kernel_packages
from pkgjail.machine.kernels import NEEDED, find_kernel, load_modules
from pkgjail.machine.model import MachineError
from tests.kernel_files import RELEASE, module, x86_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FILES = {
    f"./boot/vmlinuz-{RELEASE}": x86_kernel(),
    "./usr/share/doc/x": b"documentation",
    f"./lib/modules/{RELEASE}/kernel/a.ko": module("depends="),
    f"./lib/modules/{RELEASE}/modules.builtin": "".join(f"kernel/{name}.ko\n" for name in NEEDED).encode(),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pkgjail/layers"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files; one whose content is empty is a link to /etc/passwd."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if not content:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def package_of(members: Mapping[str, bytes]) -> bytes:
    """Return an archive of ar(1)."""
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out


def package(files: Mapping[str, bytes], pack: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    """Return a package that has files, and a member after them."""
    data = {"debian-binary": b"2.0\n", "control.tar.gz": b"odd", "data.tar.gz": pack(tar_of(files))}
    return package_of({**data, "_later": b"x"})


def zstd(data: bytes) -> bytes:
    """Compress by zstd(1)."""
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zstd])
def test_a_package_is_unpacked_once(pack: Callable[[bytes], bytes], tmp_path: Path, cache: Path) -> None:
    """Protects `--kernel FILE.deb`, in all compressions of packages, and the time of later runs."""
    deb = tmp_path / "linux.deb"
    deb.write_bytes(package(FILES, pack))
    found = find_kernel("amd64", named=str(deb))
    assert found.release == RELEASE
    assert [each.name for each in load_modules(found, ["a", "overlay"])[0]] == ["a"]
    inode = os.stat(found.image).st_ino
    assert find_kernel("amd64", named=str(deb)) == found
    assert os.stat(found.image).st_ino == inode
    assert len(list(cache.glob("kernel-*"))) == 1
    assert not list(cache.glob("kernel-*/layer/usr/share"))


def test_another_package_is_another_kernel(tmp_path: Path) -> None:
    """Protects against the kernel of a package of the same name that was there before."""
    deb = tmp_path / "linux.deb"
    deb.write_bytes(package(FILES))
    find_kernel("amd64", named=str(deb))
    deb.write_bytes(package({"./boot/vmlinuz-9.9": x86_kernel("9.9")}))
    assert find_kernel("amd64", named=str(deb)).release == "9.9"


def test_nothing_leads_out_of_it(tmp_path: Path, cache: Path) -> None:
    """Protects the user's files from a package with such names, and from its links."""
    deb = tmp_path / "linux.deb"
    for name in ("./boot/../../../x", "boot/../../x"):
        deb.write_bytes(package({**FILES, name: b"out"}))
        with pytest.raises(MachineError, match=r"cannot unpack .*linux.deb: .*download it again"):
            find_kernel("amd64", named=str(deb))
    deb.write_bytes(package({"./boot/vmlinuz-1.0": b""}))
    with pytest.raises(MachineError, match=r"vmlinuz-1.0: No such file or directory"):
        find_kernel("amd64", named=str(deb))
    assert not list(tmp_path.rglob("x"))
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (package_of({"control.tar": b""}), "no package of Debian, or damaged"),
        (package(FILES)[:300], "truncated"),
        (package_of({"data.tar.xz": b"odd"}), "truncated: within a header"),
        (package({"./usr/share/doc/x": b"x"}), "has none, but may depend on a package that has"),
        (b"!<arch>\n" + b"x" * 60, "no package of Debian, or damaged"),
    ],
    ids=["no-data", "cut", "no-tar", "no-kernel", "no-member"],
)
def test_other_packages_are_refused(content: bytes, why: str, tmp_path: Path) -> None:
    """Protects the message for a damaged package, and for one that only depends on a kernel."""
    deb = tmp_path / "linux.deb"
    deb.write_bytes(content)
    with pytest.raises(MachineError, match=why):
        find_kernel("amd64", named=str(deb))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the message, with what to do."""
    deb = tmp_path / "linux.deb"
    deb.write_bytes(package(FILES))

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(kernel_packages, "_unpack", fail)
    with pytest.raises(MachineError, match=r"cannot unpack .*linux.deb: .*No space.*; set XDG_CACHE_HOME"):
        find_kernel("amd64", named=str(deb))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100), st.integers(0, 500))
def test_any_package_gives_an_answer(tmp_path: Path, noise: bytes, at: int) -> None:
    """Protects against a package that ends the program without a message."""
    whole = package(FILES)
    deb = tmp_path / "any.deb"
    deb.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    try:
        found = find_kernel("amd64", named=str(deb))
    except MachineError:
        return
    assert found.image.startswith(bytes(tmp_path / "cache"))
