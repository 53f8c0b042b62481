"""The machine of a manifest as a domain of libvirt: its XML, and the files that this names.

libvirt is not needed to write them. The domain is the same machine that `pkgjail.machine.boot` starts: the
same kernel and arguments, the same first files and the same root disk, without a network and without shares.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET  # only to write
from typing import TYPE_CHECKING

from pkgjail.core.architectures import architecture_named
from pkgjail.core.errors import InputError, Problem, os_error_text
from pkgjail.core.given import path_bytes, path_text
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import is_visible, printable
from pkgjail.export.common import refuse_other_kinds
from pkgjail.export.copied import refuse_undigested
from pkgjail.machine.accelerator import failed_before, why_no_kvm
from pkgjail.machine.boot import EMULATED, MEMORY, architecture_of, first_files
from pkgjail.machine.kernels import find_kernel
from pkgjail.machine.model import MachineError
from pkgjail.machine.qemu import PORT, Hardware, board_of, kernel_arguments
from pkgjail.machine.root_disk import NAME, write_root_disk
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.storage.atomic import new_directory, new_file, write_all
from pkgjail.storage.copying import copy_content

if TYPE_CHECKING:
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter

DOMAIN = "domain.xml"
"""The name of the file with the XML; the others are beside it."""

_KERNEL, _FIRST_FILES = "kernel", "initramfs"
_FORM = "libvirt"
_NAME_DIGITS = 12
_MIB = 1 << 20


def export_domain(
    manifest: Manifest,
    destination: AnyPath,
    *,
    root: AnyPath = b"/",
    kernel: AnyPath = "",
    reporter: Reporter = SILENT,
) -> None:
    """Write a directory with a domain: `domain.xml`, `kernel`, `initramfs` and `root.squashfs`.

    Args:
        manifest: the files, with digests.
        destination: the directory, which must be empty or not exist. It is complete, or as it was before. The
            XML has its absolute path.
        root: the directory with the manifest's files.
        kernel: a kernel, as `pkgjail.machine.kernels.find_kernel` takes it.
        reporter: receives the progress.

    Raises:
        InputError: the destination is something else, or XML cannot have its name.
        NamesError: files have no digest, or something that is no directory is where a jail mounts its own.
        DriftError: the files differ from the manifest.
        MachineError: there is no kernel, no compiler for the agent, or no machine of that architecture.
        SourceError: the manifest was made from another source.
        PkgjailError: a program is missing, or failed.
        OSError: something cannot be read or written.

    """
    destination = path_text(destination, "destination")
    root = path_bytes(root, "root")
    kernel = path_text(kernel, "kernel")
    place = os.path.abspath(destination)
    if not is_visible(place):
        why = f"cannot write a domain to {printable(place)}: XML cannot have such a name; name another path"
        raise InputError([Problem("", why)])
    architecture = architecture_of(manifest)
    board_of(architecture)
    refuse_undigested(_FORM, manifest)
    refuse_other_kinds(_FORM, manifest)
    found = find_kernel(architecture, named=kernel, root=root)
    emulated = bool(why_no_kvm(architecture)) or failed_before(found)
    hardware = Hardware(
        architecture=architecture,
        kernel=-1,
        initramfs=-1,
        disks=(),
        channel=-1,
        memory=MEMORY,
        processors=len(os.sched_getaffinity(0)),
        accelerator="tcg" if emulated else "kvm",
        arguments=EMULATED if emulated else "",
    )
    name = f"pkgjail-{manifest_digest(dump_manifest(manifest)).rpartition(':')[2][:_NAME_DIGITS]}"
    with new_directory(destination) as directory:
        _write(os.path.join(directory, _FIRST_FILES), first_files(found))
        _copy_kernel(found.image, os.path.join(directory, _KERNEL))
        write_root_disk(manifest, os.path.realpath(root), os.path.join(directory, NAME), reporter)
        _write(os.path.join(directory, DOMAIN), domain_xml(hardware, name, place))


def domain_xml(hardware: Hardware, name: str, place: str) -> bytes:
    """Return the XML of a domain, whose files are in the directory `place`.

    Raises:
        MachineError: there is no machine of that architecture.

    """
    board = board_of(hardware.architecture)
    is_emulated = hardware.accelerator != "kvm"
    domain = ET.Element("domain", type="qemu" if is_emulated else "kvm")
    _add(domain, "name", name)
    _add(domain, "memory", str(-(-hardware.memory // _MIB)), unit="MiB")
    _add(domain, "vcpu", str(hardware.processors))
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch=architecture_named(hardware.architecture).machine, machine=board.machine)
    _add(system, "kernel", os.path.join(place, _KERNEL))
    _add(system, "initrd", os.path.join(place, _FIRST_FILES))
    _add(system, "cmdline", kernel_arguments(hardware))
    if architecture_named(hardware.architecture).debian == "amd64":
        _add(_add(domain, "features"), "acpi")  # without UEFI, arm64 has none
    _add(domain, "cpu", mode="maximum" if is_emulated else "host-passthrough")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(domain, event, "destroy")
    _add_devices(_add(domain, "devices"), place)
    ET.indent(domain)
    written: bytes = ET.tostring(domain, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _add_devices(devices: ET.Element, place: str) -> None:
    disk = _add(devices, "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type="raw")
    _add(disk, "source", file=os.path.join(place, NAME))
    _add(disk, "target", dev="vda", bus="virtio")
    _add(disk, "readonly")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "source", mode="bind")  # at a path that libvirt chooses
    _add(channel, "target", type="virtio", name=PORT)
    _add(devices, "console", type="pty")
    random = _add(devices, "rng", model="virtio")
    _add(random, "backend", "/dev/urandom", model="random")
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "memballoon", model="none")


def _add(parent: ET.Element, tag: str, content: str | None = None, /, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = content
    return element


def _write(path: str, content: bytes) -> None:
    with new_file(path) as descriptor:
        write_all(descriptor, content)


def _copy_kernel(image: bytes, path: str) -> None:
    try:
        source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"cannot copy the kernel: {os_error_text(error)}") from error
    try:
        with new_file(path) as descriptor:
            copy_content(source, descriptor)
    finally:
        os.close(source)
