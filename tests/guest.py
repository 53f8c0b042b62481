"""A virtual machine with a kernel, busybox, Python and pkgjail: what the host's own state must not spoil.

Emulated, so that it needs no /dev/kvm; it boots in seconds, from memory, without modules or a disk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.kernels import kernel

SYSTEM_PYTHON = Path("/usr/bin/python3")
_LEFT_OUT = ("test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "config-*", "dist-packages")
# The first root is the kernel's own, which pivot_root(2) cannot leave; so all moves to a tmpfs.
_INIT = """#!/bin/sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o mode=0755 root /new
for name in /*; do [ $name = /new ] || /bin/busybox cp -a $name /new; done
exec /bin/busybox switch_root /new /bin/sh /started
"""
_STARTED = """#!/bin/sh
export PATH=/bin:/usr/bin PYTHONPATH=/library LANG=C.UTF-8
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /run /home
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
python3 /library/program.py 2>&1
poweroff -f
"""


def run_in_guest(place: Path, program: Path, library: Path, *, timeout: int) -> str:
    """Boot, run `program` as root with the packages of `library` at hand, and return what it printed."""
    root = place / "root"
    _fill(root, program, library)
    image = place / "root.cpio"
    names = b"".join(os.fsencode(path.relative_to(root)) + b"\0" for path in sorted(root.rglob("*")))
    with image.open("wb") as out:
        pack = ["bsdcpio", "-0o", "-H", "newc", "--quiet", "-R", "0:0"]
        subprocess.run(pack, cwd=root, input=names, stdout=out, check=True)
    image_of_kernel = _kernel()
    command: list[str | Path] = [
        *("qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-nographic", "-no-reboot", "-nodefaults"),
        *("-serial", "stdio", "-kernel", image_of_kernel, "-initrd", image),
        *("-append", "console=ttyS0 loglevel=0 panic=-1"),
    ]
    said = subprocess.check_output(command, stdin=subprocess.DEVNULL, text=True, timeout=timeout)
    return said.replace("\r\n", "\n")


def _fill(root: Path, program: Path, library: Path) -> None:
    for name in ("bin", "usr/bin", "library"):
        (root / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("/bin/busybox")
    python = SYSTEM_PYTHON.resolve()
    shutil.copy2(python, root / "usr/bin/python3")
    modules = Path(f"/usr/lib/{python.name}")
    shutil.copytree(
        modules, root / modules.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT)
    )
    for needing in (python, *modules.glob("lib-dynload/_ctypes.*")):
        for needed in _libraries(needing):
            (root / needed.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(needed, root / needed.relative_to("/"))
    shutil.copytree(library / "pkgjail", root / "library/pkgjail")
    shutil.copy2(program, root / "library/program.py")
    for name, content in (("init", _INIT), ("started", _STARTED)):
        (root / name).write_text(content)
        (root / name).chmod(0o755)


def _libraries(program: Path) -> list[Path]:
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]


def _kernel() -> Path:
    """The newest of this machine that may be read, or else the distribution's, without installing it."""
    here = [path for path in Path("/boot").glob("vmlinuz-*") if os.access(path, os.R_OK)]
    if here:
        return max(here, key=lambda path: path.stat().st_mtime)
    return next(kernel().glob("boot/vmlinuz-*"))
