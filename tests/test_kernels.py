"""Which kernel a machine starts, told by contents, and which of its modules are loaded, in which order."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pkgjail.core.untrusted import in_memory
from pkgjail.machine import modules as modules_of_kernels
from pkgjail.machine.kernel_images import NoKernelError, is_release, recognize
from pkgjail.machine.kernels import NEEDED, find_kernel, load_modules, missing_modules, release_key
from pkgjail.machine.model import Kernel, MachineError
from pkgjail.machine.modules import module_facts
from tests.kernel_files import RELEASE, arm64_kernel, elf_kernel, make_kernel, module, x86_kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALL_BUILT_IN = {"modules.builtin": "".join(f"kernel/{name}.ko\n" for name in NEEDED).encode()}


def recognized(content: bytes) -> tuple[str, str]:
    """Return what a file with this content is taken for."""
    with in_memory(content) as file:
        image = recognize(file.fileno(), b"kernel")
    return image.architecture, image.release


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (x86_kernel(), ("amd64", RELEASE)),
        (x86_kernel("6.1.0-57-686", bits=32), ("i386", "6.1.0-57-686")),
        (x86_kernel("../../etc"), ("amd64", "")),
        (arm64_kernel(), ("arm64", "6.1.0-57-cloud-arm64")),
        (gzip.compress(arm64_kernel("6.8.0")), ("arm64", "6.8.0")),
        (arm64_kernel("../x"), ("arm64", "")),
        (elf_kernel(2, 1, 62), ("amd64", "6.1.0")),
        (elf_kernel(2, 1, 21), ("ppc64el", "6.1.0")),
        (elf_kernel(2, 2, 22), ("s390x", "6.1.0")),
        (bytes(0x30) + b"RISCV\0\0\0Linux version 6.1.0 (", ("riscv64", "6.1.0")),
        (bytes(0x24) + b"\x18\x28\x6f\x01", ("armhf", "")),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else "-".join(value),
)
def test_an_image_is_told_by_its_content(content: bytes, expected: tuple[str, str]) -> None:
    """Protects that a kernel of another architecture is never started, whatever its file is called."""
    assert recognized(content) == expected


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no kernel of a known form"),
        (b"MZ\0\0zimg" + bytes(100), "compressed for UEFI alone"),
        (b"\x1f\x8b\x08", "damaged"),
        (elf_kernel(2, 1, 9999), "no kernel of a known form"),
    ],
)
def test_other_files_are_no_kernels(content: bytes, why: str) -> None:
    """Protects the message for a file that no machine can start."""
    with pytest.raises(NoKernelError, match=why):
        recognized(content)


@given(
    st.binary(max_size=600),
    st.sampled_from([x86_kernel(), arm64_kernel(), elf_kernel(2, 1, 62), b"\x1f\x8b", gzip.compress(b"a")]),
    st.integers(0, 0x400),
)
def test_any_image_gives_an_answer(noise: bytes, head: bytes, at: int) -> None:
    """Protects against a file that ends the program without a message, and releases that are paths."""
    try:
        architecture, release = recognized(head[:at] + noise + head[at + len(noise) :])
    except NoKernelError:
        return
    assert architecture.isalnum()
    assert not release or (is_release(release.encode()) and "/" not in release)


# --- the choice -----------------------------------------------------------------------------------


def test_the_newest_is_taken(tmp_path: Path) -> None:
    """Protects the order of releases by numbers: 6.9 is older than 6.12."""
    for release in ("6.9.0-1-amd64", "6.12.3-1-amd64", "6.12.0-rc1-amd64"):
        make_kernel(tmp_path, release, modules=ALL_BUILT_IN)
    found = find_kernel("amd64", root=bytes(tmp_path))
    assert found == Kernel(
        image=bytes(tmp_path / "boot/vmlinuz-6.12.3-1-amd64"),
        release="6.12.3-1-amd64",
        modules=bytes(tmp_path / "lib/modules/6.12.3-1-amd64"),
        architecture="amd64",
    )


@pytest.mark.parametrize(
    "releases",
    [
        ["6.9.0", "6.12~rc1", "6.12-rc2", "6.12", "6.12.1", "6.12.1-1-amd64"],
        ["6.1.0-9-cloud-amd64", "6.1.0-57-amd64", "6.1.0-57-cloud-amd64", "6.1.0-100-amd64"],
    ],
)
def test_releases_are_sorted_as_versions(releases: list[str]) -> None:
    """Protects the comparison of releases: by numbers, candidates before what they became."""
    assert sorted(set(releases), key=release_key) == releases


def test_one_with_all_modules_is_preferred(tmp_path: Path) -> None:
    """Protects against a newer kernel whose modules are gone, or that has no virtio."""
    make_kernel(tmp_path, "6.1.0", modules={f"kernel/{name}.ko": module() for name in NEEDED})
    make_kernel(tmp_path, "6.2.0", modules={"kernel/overlay.ko": module()})
    found = find_kernel("amd64", root=bytes(tmp_path))
    assert (found.release, missing_modules(found)) == ("6.1.0", [])
    (tmp_path / "boot/vmlinuz-6.1.0").unlink()
    found = find_kernel("amd64", root=bytes(tmp_path))
    assert found.release == "6.2.0"
    assert missing_modules(found) == ["virtio_pci", "virtio_blk", "virtio_console", "squashfs"]


def test_a_kernel_beside_its_modules_is_found(tmp_path: Path) -> None:
    """Protects Fedora and Arch, which have nothing in /boot, or a name without a release there."""
    place = tmp_path / "usr/lib/modules/6.10.1-arch1-1"
    place.mkdir(parents=True)
    (place / "vmlinuz").write_bytes(x86_kernel("6.10.1-arch1-1"))
    (tmp_path / "lib").symlink_to("usr/lib")
    found = find_kernel("amd64", root=bytes(tmp_path))
    assert (found.image, found.modules) == (bytes(place / "vmlinuz"), bytes(place))
    assert find_kernel("amd64", named=str(place / "vmlinuz")) == found


def test_the_name_serves_if_the_content_has_no_release(tmp_path: Path) -> None:
    """Protects compressed images of 32-bit ARM, in which the release cannot be read."""
    make_kernel(tmp_path, "6.1.0-armmp", image=bytes(0x24) + b"\x18\x28\x6f\x01")
    assert find_kernel("armhf", root=bytes(tmp_path)).release == "6.1.0-armmp"
    os.rename(tmp_path / "boot/vmlinuz-6.1.0-armmp", tmp_path / "boot/vmlinuz-x")
    with pytest.raises(MachineError, match="vmlinuz-x: neither its content nor its name has a release"):
        find_kernel("armhf", named=str(tmp_path))


def test_a_named_file_is_used(tmp_path: Path) -> None:
    """Protects `--kernel FILE`: the modules are those beside its boot directory."""
    make_kernel(tmp_path, modules=ALL_BUILT_IN)
    make_kernel(tmp_path / "other", "6.9.0")
    found = find_kernel("amd64", named=str(tmp_path / f"boot/vmlinuz-{RELEASE}"))
    assert found.modules == bytes(tmp_path / "lib/modules" / RELEASE)
    alone = tmp_path / "alone"
    alone.write_bytes(x86_kernel("1.2.3-nowhere"))
    assert find_kernel("amd64", named=str(alone)).modules == b""


def test_no_link_leads_out_of_the_root(tmp_path: Path) -> None:
    """Protects the host's files from an image whose /boot or modules are links."""
    outside = tmp_path / "outside"
    make_kernel(outside, modules=ALL_BUILT_IN)
    root = tmp_path / "root"
    make_kernel(root, "6.0.0")
    (root / "boot/vmlinuz-7.0.0").symlink_to(outside / f"boot/vmlinuz-{RELEASE}")
    (root / "boot/vmlinuz-6.0.0").write_bytes(x86_kernel("6.0.0"))
    os.rmdir(root / "lib/modules/6.0.0")
    (root / "lib/modules/6.0.0").symlink_to(outside / "lib/modules" / RELEASE)
    found = find_kernel("amd64", named=str(root))
    assert (found.image, found.modules) == (bytes(root / "boot/vmlinuz-6.0.0"), b"")
    (root / "usr").mkdir()
    (root / "usr/lib").symlink_to(outside / "lib")
    os.rename(outside / "lib/modules" / RELEASE, outside / "lib/modules/6.0.0")
    assert find_kernel("amd64", named=str(root)).modules == b""
    (root / "boot/vmlinuz-6.0.0").unlink()
    with pytest.raises(MachineError, match=r"vmlinuz-7.0.0: No such file or directory"):
        find_kernel("amd64", named=str(root))


def test_links_within_the_root_are_followed(tmp_path: Path) -> None:
    """Protects images in which /boot/vmlinuz-X is an absolute link to a place of their own."""
    make_kernel(tmp_path)
    os.rename(tmp_path / f"boot/vmlinuz-{RELEASE}", tmp_path / "real")
    (tmp_path / f"boot/vmlinuz-{RELEASE}").symlink_to("/real")
    assert find_kernel("amd64", named=str(tmp_path)).image == bytes(tmp_path / "real")


def test_what_was_looked_at_is_said(tmp_path: Path) -> None:
    """Protects the message: each file with its reason, and what to do."""
    make_kernel(tmp_path, "6.1.0-arm", image=arm64_kernel())
    (tmp_path / "boot/vmlinuz-6.1.0-fifo").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "boot/vmlinuz-6.1.0-fifo")
    with pytest.raises(MachineError) as refused:
        find_kernel("amd64", named=str(tmp_path))
    said = str(refused.value)
    assert "vmlinuz-6.1.0-arm: it is for arm64" in said
    assert "vmlinuz-6.1.0-fifo: it is a FIFO" in said
    assert "install one (linux-image-cloud-amd64 of Debian" in said
    assert "by `kernel`" in said


@pytest.mark.parametrize("names", [["/nonexistent"], ["/dev/null"], []])
def test_nothing_is_said_too(names: list[str], tmp_path: Path) -> None:
    """Protects the message if there is nothing to look at."""
    with pytest.raises(MachineError, match="cannot find a kernel for arm64"):
        find_kernel("arm64", named=names[0] if names else str(tmp_path))


def test_thousands_of_wrong_files_are_not_all_said(tmp_path: Path) -> None:
    """Protects the time, and the message, from a root that is full of names like a kernel's."""
    (tmp_path / "boot").mkdir()
    for number in range(500):
        (tmp_path / f"boot/vmlinuz-{number}").write_bytes(b"")
    with pytest.raises(MachineError, match="and 56 more") as refused:
        find_kernel("amd64", named=str(tmp_path))
    assert len(str(refused.value)) < 3000


# --- modules --------------------------------------------------------------------------------------


def kernel_with(directory: Path, files: dict[str, bytes]) -> Kernel:
    """Return a kernel with these files in the directory of its modules."""
    made = make_kernel(directory, modules=files)
    return Kernel(image=b"/boot/vmlinuz", release=RELEASE, modules=bytes(made), architecture="amd64")


def loaded(kernel: Kernel, *names: str) -> list[str]:
    """Return the names of the modules that are loaded, in order."""
    return [each.name for each in load_modules(kernel, names)[0]]


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    """Protects the order of loading, over "-" and "_", each module once, and the names that are missing."""
    kernel = kernel_with(
        tmp_path,
        {
            "kernel/drivers/block/virtio_blk.ko": module("license=GPL", "depends=virtio,virtio_ring"),
            "kernel/drivers/virtio/virtio.ko": module("depends="),
            "kernel/drivers/virtio/virtio_ring.ko": module("depends=virtio"),
            "kernel/drivers/rng/virtio-rng.ko": module("depends=virtio_ring"),
            "modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
        },
    )
    found, missing = load_modules(kernel, ["virtio-blk", "ext4", "9p", "virtio_rng", "virtio"])
    assert [each.name for each in found] == ["virtio", "virtio_ring", "virtio_blk", "virtio_rng"]
    assert missing == ("9p",)
    assert found[0].content == module("depends=")


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (
            ".zst",
            lambda data: subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout,
        ),
    ],
)
def test_compressed_modules_are_unpacked(suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Protects the distributions that compress their modules."""
    kernel = kernel_with(tmp_path, {f"kernel/a.ko{suffix}": pack(module("depends="))})
    assert load_modules(kernel, ["a"])[0][0].content == module("depends=")


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("order", [1, 2])
def test_modules_of_every_kind_of_machine_are_read(bits: int, order: int) -> None:
    """Protects 32-bit and big-endian machines."""
    facts = list(module_facts(module("depends=a,b", "softdep=pre: c", bits=bits, order=order)))
    assert facts == [("depends", "a,b"), ("softdep", "pre: c")]


def test_soft_dependencies_are_loaded_if_they_are_there(tmp_path: Path) -> None:
    """Protects file systems that need a checksum under its other name; one that is missing is no error."""
    kernel = kernel_with(
        tmp_path,
        {
            "kernel/ext4.ko": module("depends=", "softdep=pre: crc32c absent other post: late"),
            "kernel/crc32c_generic.ko": module("depends="),
            "kernel/real.ko": module("depends="),
            "kernel/late.ko": module("depends="),
            "modules.alias": b"alias x y\nalias other real\n",
        },
    )
    assert loaded(kernel, "ext4") == ["crc32c_generic", "real", "ext4"]


def test_updates_win(tmp_path: Path) -> None:
    """Protects modules that an administrator has built in the place of the kernel's own."""
    files = {f"{top}/a.ko": module(f"from={top}", "depends=") for top in ("extra", "kernel", "updates")}
    kernel = kernel_with(tmp_path, files)
    assert load_modules(kernel, ["a"])[0][0].content == files["updates/a.ko"]


def test_circles_end(tmp_path: Path) -> None:
    """Protects against modules that need each other."""
    names = {"a": "b", "b": "c", "c": "a"}
    kernel = kernel_with(tmp_path, {f"{name}.ko": module(f"depends={need}") for name, need in names.items()})
    assert loaded(kernel, "a") == ["c", "b", "a"]


def test_links_among_modules_are_not_followed(tmp_path: Path) -> None:
    """Protects the host's files from a link in the place of a module or a directory of them."""
    kernel = kernel_with(tmp_path, {"kernel/a.ko": module()})
    place = tmp_path / "lib/modules" / RELEASE
    (place / "b.ko").symlink_to("/etc/passwd")
    (place / "build").symlink_to("/usr")
    assert load_modules(kernel, ["a", "b"])[1] == ("b",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no module", "it is no ELF file"),
        (module()[:70], "it is truncated"),
        (module().replace(b".modinfo", b".modinfx"), "it has no section .modinfo"),
        (module("depends=absent"), "it needs absent, which is not there"),
        (b"\x1f\x8b\x08", "damaged"),
        (b"\xfd7zXZ\0", "damaged"),
    ],
)
def test_damaged_modules_are_named(content: bytes, why: str, tmp_path: Path) -> None:
    """Protects the message: which file, and why."""
    kernel = kernel_with(tmp_path, {"kernel/a.ko": content})
    with pytest.raises(MachineError, match=f"modules/{RELEASE}/kernel/a.ko: .*{why}"):
        load_modules(kernel, ["a"])


def test_endless_needs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the memory of the host, and of the machine, from modules without end."""
    monkeypatch.setattr(modules_of_kernels, "_MOST_MODULES", 3)
    kernel = kernel_with(tmp_path, {f"m{n}.ko": module(f"depends=m{n + 1}") for n in range(5)})
    with pytest.raises(MachineError, match="more than 3 modules"):
        load_modules(kernel, ["m0"])


def test_endless_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the time from a directory of modules with millions of names."""
    monkeypatch.setattr(modules_of_kernels, "_MOST_FILES", 3)
    kernel = kernel_with(tmp_path, {f"{n}.ko": b"" for n in range(5)})
    with pytest.raises(MachineError, match="there are more than 3 names"):
        load_modules(kernel, ["m0"])


def test_unreadable_directories_are_named() -> None:
    """Protects the message if the directory of modules went away."""
    kernel = Kernel(image=b"/x", release="1", modules=b"/nonexistent", architecture="amd64")
    with pytest.raises(MachineError, match="modules in /nonexistent: No such file"):
        load_modules(kernel, ["a"])


def test_a_kernel_without_modules_has_none() -> None:
    """Protects kernels that have everything built in."""
    assert load_modules(Kernel(image=b"/x", release="1", modules=b"", architecture="amd64"), ["a"]) == (
        (),
        ("a",),
    )


@given(st.binary(max_size=40), st.integers(0, 400), st.integers(1, 2), st.integers(1, 2))
@example(b"\xff" * 8, 0x28, 2, 1)
def test_any_module_gives_an_answer(noise: bytes, at: int, bits: int, order: int) -> None:
    """Protects against a module that ends the program without a message."""
    whole = module("depends=a", bits=bits, order=order)
    try:
        facts = list(module_facts(whole[:at] + noise + whole[at + len(noise) :]))
    except ValueError:
        return
    assert all(isinstance(part, str) for fact in facts for part in fact)
