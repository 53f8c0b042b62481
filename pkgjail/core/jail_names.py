"""The paths and names that every jail has, whatever its manifest says: pure data, shared by all rooms.

The sandbox imports nothing of pkgjail, so it has lists of its own that are here too; a test compares them.
"""

from __future__ import annotations

KERNEL_DIRECTORIES = (b"/dev", b"/proc", b"/sys")
"""The mount points of the kernel's file systems."""

TMP = b"/tmp"
SCRATCH_DIRECTORIES = (TMP, b"/var/tmp")
"""The private, writable directories. Every jail has /tmp; /var/tmp is one if the manifest has it, empty."""

RUN = b"/run"
"""Files that services make while a system runs. No package has them; FHS 3.0, section 3.15."""

LD_CACHE = b"/etc/ld.so.cache"
LDCONFIG = (b"/usr/sbin/ldconfig", b"/sbin/ldconfig")
"""The places of the program that makes `LD_CACHE`."""

RESOLV_CONF = b"/etc/resolv.conf"
ENTRY_FILES = (b"/etc/group", b"/etc/hosts", b"/etc/nsswitch.conf", b"/etc/passwd", RESOLV_CONF)
"""The files that pkgjail writes when a jail is entered. `LD_CACHE` is made at entry too, by ldconfig(8)."""

DOCUMENTATION = tuple(
    b"/usr/share/" + name + b"/"
    for name in (b"devhelp", b"doc", b"doc-base", b"gtk-doc", b"help", b"info", b"javadoc", b"man", b"ri")
)
"""The directories of documentation, which no program needs to run; FHS 3.0, section 4.11."""

SHARED_MEMORY = b"/dev/shm"
"""POSIX shared memory: shm_overview(7)."""

DEVICES = (b"full", b"null", b"random", b"tty", b"urandom", b"zero")
"""The devices in `/dev`, the same in every jail."""

PROC_READ_ONLY = (b"acpi", b"bus", b"fs", b"irq", b"scsi", b"sys", b"sysrq-trigger")
"""What is read-only in /proc: a process of the host's root may write there without any capability."""

PROC_HIDDEN = (
    b"kcore", b"keys", b"key-users", b"latency_stats", b"sched_debug", b"timer_list", b"timer_stats",
)  # fmt: skip
"""What is hidden in /proc."""

SYS_ROOT_ONLY = (
    b"class/zram-control", b"devices/virtual/dmi", b"devices/virtual/powercap", b"firmware", b"fs/bpf",
    b"fs/fuse", b"fs/pstore", b"hypervisor", b"kernel/config", b"kernel/debug", b"kernel/mm/damon",
    b"kernel/security", b"kernel/slab", b"kernel/tracing", b"module", b"power",
)  # fmt: skip
"""What is hidden in /sys if root enters, besides PCI buses (`SYS_BUSES`): root alone may read it."""
SYS_BUSES = b"devices/pci*"

HOSTNAME = "pkgjail"
"""The host name in a jail."""

ROOT_CAPABILITIES = 0xFB
"""The capabilities of a command that is root in its jail (`JailOptions.map_root`), as bits."""
ROOT_CAPABILITY_NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
)  # fmt: skip
"""The names of `ROOT_CAPABILITIES`, in the order of their bits; capabilities(7)."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The `PATH` of a command in a jail."""
