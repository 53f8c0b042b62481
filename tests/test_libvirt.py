"""The machine of a manifest as a domain of libvirt: the same machine, in XML that its schema accepts."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pkgjail.cli.main import main
from pkgjail.core.errors import DriftError, InputError, NamesError
from pkgjail.core.reporter import SILENT
from pkgjail.machine import libvirt
from pkgjail.machine.boot import first_files
from pkgjail.machine.libvirt import domain_xml, export_domain
from pkgjail.machine.model import MachineError
from pkgjail.machine.qemu import PORT, Hardware, command_line, kernel_arguments
from pkgjail.machine.root_disk import root_disk
from pkgjail.manifest import write_manifest
from tests.kernel_files import make_kernel, module, x86_kernel
from tests.test_export import directory, manifest_of, regular

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "squashfs", "overlay")
HARDWARE = [("amd64", "tcg"), ("amd64", "kvm"), ("arm64", "tcg")]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A manifest of one file, below `root`."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_bytes(b"content")
    (tmp_path / "root/f").chmod(0o644)
    return manifest_of(directory(b"/"), regular(b"/f", b"content"))


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    """A directory with a kernel that has the modules of a machine."""
    make_kernel(tmp_path / "linux", modules={f"kernel/{name}.ko": module("depends=") for name in MODULES})
    return str(tmp_path / "linux")


def hardware(architecture: str, accelerator: str) -> Hardware:
    """Return a machine whose files are not opened."""
    return Hardware(
        architecture=architecture,
        kernel=-1,
        initramfs=-1,
        disks=((-1, False),),
        channel=-1,
        memory=(1 << 30) + 1,
        processors=3,
        accelerator=accelerator,
        arguments="extra=1",
    )


def text(domain: ET.Element, path: str) -> str:
    """Return the content of an element."""
    return domain.findtext(path) or ""


@pytest.mark.parametrize(("architecture", "accelerator"), HARDWARE)
def test_a_domain_is_the_machine_that_qemu_is_told(architecture: str, accelerator: str) -> None:
    """Protects that a domain and `--stage vm` are one machine: each of its parts has its counterpart."""
    made = hardware(architecture, accelerator)
    domain = ET.fromstring(domain_xml(made, "name", "/srv/a & b"))  # noqa: S314 - just written
    words = command_line(made)
    assert domain.get("type") == {"tcg": "qemu", "kvm": "kvm"}[accelerator]
    system = domain.find("os/type")
    assert system is not None
    assert words[0] == f"qemu-system-{system.get('arch')}"
    assert f"{system.get('machine')},accel={accelerator}" in words
    assert f"{text(domain, 'memory')}M" in words
    assert words[words.index("-smp") + 1] == text(domain, "vcpu") == "3"
    assert words[words.index("-append") + 1] == text(domain, "os/cmdline") == kernel_arguments(made)
    assert [text(domain, f"os/{name}") for name in ("kernel", "initrd")] == [
        "/srv/a & b/kernel",
        "/srv/a & b/initramfs",
    ]
    (disk,) = domain.findall("devices/disk")
    assert disk.find("readonly") is not None
    source, target, port = disk.find("source"), disk.find("target"), domain.find("devices/channel/target")
    assert source is not None
    assert source.get("file") == "/srv/a & b/root.squashfs"
    assert target is not None
    assert (target.get("bus"), target.get("dev")) == ("virtio", "vda")
    assert port is not None
    assert (port.get("type"), port.get("name")) == ("virtio", PORT)
    assert domain.find("devices/interface") is None


def test_a_domain_has_its_files(tmp_path: Path, manifest: Manifest, kernel: str) -> None:
    """Protects that the files are those of the machine, and their paths."""
    out = tmp_path / "out"
    export_domain(manifest, str(out), root=bytes(tmp_path / "root"), kernel=kernel)
    assert sorted(path.name for path in out.iterdir()) == [
        "domain.xml",
        "initramfs",
        "kernel",
        "root.squashfs",
    ]
    assert (out / "kernel").read_bytes() == x86_kernel()
    listed = subprocess.run(["bsdtar", "-tf", out / "initramfs"], capture_output=True, text=True, check=True)
    names = [f"modules/{place:03}-{name}.ko" for place, name in enumerate(MODULES)]
    assert listed.stdout.split() == ["init", "modules", *names]
    with root_disk(manifest, bytes(tmp_path / "root"), SILENT) as disk, open(disk, "rb") as file:
        assert (out / "root.squashfs").read_bytes() == file.read()
    domain = ET.parse(out / "domain.xml").getroot()  # noqa: S314 - just written
    assert text(domain, "os/kernel") == str(out / "kernel")


@pytest.mark.parametrize("word", ["x86_64", ""])
def test_other_words_of_an_architecture_are_known(
    tmp_path: Path, manifest: Manifest, kernel: str, word: str
) -> None:
    """Protects manifests of rpm and pacman, and those without packages, which name no architecture."""
    other = replace(manifest, header=replace(manifest.header, architecture=word))
    export_domain(other, str(tmp_path / "out"), root=bytes(tmp_path / "root"), kernel=kernel)
    domain = ET.parse(tmp_path / "out/domain.xml").getroot()  # noqa: S314 - just written
    found = domain.find("os/type")
    assert found is not None
    assert found.get("arch") == os.uname().machine


def test_the_command_writes_a_domain(
    tmp_path: Path, manifest: Manifest, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects `pkgjail export --format libvirt`, its output, and the refusals of its options."""
    write_manifest(manifest, tmp_path / "m.jsonl")
    command = ["export", str(tmp_path / "m.jsonl"), "--root", str(tmp_path / "root"), "--format"]
    out = str(tmp_path / "out")
    assert main([*command, "libvirt", "-o", out, "--kernel", kernel]) == 0
    assert capsys.readouterr().out == f"{out}/domain.xml\n"
    assert main([*command, "libvirt", "-o", f"{out}2", "--kernel", kernel, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"file": f"{out}2", "format": "libvirt", "domain": f"{out}2/domain.xml"}
    assert main([*command, "libvirt", "--kernel", kernel]) == 2
    assert "--format libvirt needs -o FILE" in capsys.readouterr().err
    assert main([*command, "tar", "-o", f"{out}3", "--kernel", kernel]) == 2
    assert "--kernel goes with the format libvirt" in capsys.readouterr().err


def test_a_failure_leaves_nothing(tmp_path: Path, manifest: Manifest, kernel: str) -> None:
    """Protects against half a domain: without a kernel, with changed files, and without a digest."""
    root = bytes(tmp_path / "root")
    out = str(tmp_path / "out")
    with pytest.raises(MachineError, match="cannot find a kernel for amd64"):
        export_domain(manifest, out, root=root, kernel=str(tmp_path / "root"))
    (tmp_path / "root/f").write_bytes(b"CONTENT")
    with pytest.raises(DriftError):
        export_domain(manifest, out, root=root, kernel=kernel)
    undigested = manifest_of(directory(b"/"), regular(b"/f", b"")._replace(sha256=None))
    with pytest.raises(NamesError, match="cannot export /f to libvirt: the manifest has no digest"):
        export_domain(undigested, out, root=root, kernel=kernel)
    with pytest.raises(InputError, match="XML cannot have such a name"):
        export_domain(manifest, f"{out}\x01", root=root, kernel=kernel)
    assert sorted(os.listdir(tmp_path)) == ["cache", "linux", "root"]


def test_a_kernel_that_went_away_is_named(
    tmp_path: Path, manifest: Manifest, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the message if the kernel is removed while the domain is written."""

    def files(*arguments: object) -> bytes:
        for path in (tmp_path / "linux/boot").iterdir():
            path.unlink()
        return first_files(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(libvirt, "first_files", files)
    with pytest.raises(MachineError, match=r"cannot copy the kernel: .*No such file"):
        export_domain(manifest, str(tmp_path / "out"), root=bytes(tmp_path / "root"), kernel=kernel)


@pytest.mark.long
@pytest.mark.parametrize(("architecture", "accelerator"), HARDWARE)
def test_libvirt_accepts_a_domain(architecture: str, accelerator: str, tmp_path: Path) -> None:
    """Protects the XML: libvirt's own schema."""
    path = tmp_path / "domain.xml"
    path.write_bytes(domain_xml(hardware(architecture, accelerator), "pkgjail-1", "/srv/a & b"))
    done = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
