"""Attempts on files: to read the host's, and to write what is shown read-only."""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import stat
import subprocess

from tests.escapes.harness import Refused, attempt, call, facts, libc, opened, read
from tests.escapes.harness import checked as checked_

# What every jail of the test holds, and the host's own owner of it may write outside.
SHOWN = "/usr/bin/env"
_CANARY = "the content of the canary, which lies outside"


@attempt("absolute path", "read a host file by its absolute path", _CANARY, control=True)
def absolute() -> str:
    return read(facts["canary"])


@attempt("dots above the root", "read it by 64 times '..' from /", _CANARY, control=True)
def dots() -> str:
    return read("/" + "../" * 64 + facts["canary"].lstrip("/"))


@attempt("dots from a bind", "read it by '..' from the writable bind", _CANARY, control=True)
def dots_from_bind() -> str:
    os.chdir(facts["bind"])
    return read("../secret/canary")


@attempt("symlink in a bind", "make a link to it in the bind and follow it", _CANARY, control=True)
def link_in_bind() -> str:
    place = facts["bind"] + "/link-out"
    os.symlink(facts["canary"], place)
    try:
        return read(place)
    finally:
        os.unlink(place)


@attempt("relative symlink in a bind", "follow a link to '../secret/canary' there", _CANARY, control=True)
def relative_link() -> str:
    place = facts["bind"] + "/relative-out"
    os.symlink("../secret/canary", place)
    try:
        return read(place)
    finally:
        os.unlink(place)


@attempt(
    "symlink laid by the host", "follow a link to it that the host has in the bind", _CANARY, control=True
)
def hosts_link() -> str:
    return read(facts["bind"] + "/hosts-link")


@attempt("late link", "follow a name that the host adds to a shown directory meanwhile", "that name")
def late_name() -> str:
    return opened(facts["late"], os.O_RDONLY)


@attempt("hidden neighbour", "read a host file of a shown directory that the manifest lacks", "the file")
def neighbour() -> str:
    return opened(facts["neighbour"], os.O_PATH)


@attempt("shadow", "open /etc/shadow", "the host's passwords")
def shadow() -> str:
    return opened("/etc/shadow", os.O_RDONLY)


@attempt("bind escape by rename", "stand in a bind of a subdirectory, move it up, and walk '..'", _CANARY)
def rename_out() -> str:
    """The walk leaves the root of the second bind, where '..' is not stopped by a mount."""
    deep = facts["inner"] + "/x/y"
    os.makedirs(deep)
    os.chdir(deep)
    os.rename(facts["bind"] + "/inner/x", facts["bind"] + "/x-moved")
    try:
        return read("../../../secret/canary")
    finally:
        os.rename(facts["bind"] + "/x-moved", facts["bind"] + "/inner/x")
        for name in ("/x/y", "/x"):
            os.rmdir(facts["bind"] + "/inner" + name)


@attempt("hard link out of the set", "link a shown file into the bind", "the host's inode, by another name")
def hard_link() -> str:
    os.link(SHOWN, facts["bind"] + "/env")
    return "linked"


@attempt("hard link by descriptor", "linkat(AT_EMPTY_PATH) of a shown file into the bind", "its inode there")
def hard_link_by_descriptor() -> str:
    source = os.open(SHOWN, os.O_RDONLY)
    target = (facts["bind"] + "/env").encode()
    checked_(libc.linkat(source, b"", -100, target, 0x1000), "linkat")
    return "linked"


def _writes(name: str, flags: int) -> None:
    @attempt(f"open {name}", f"open a shown file with {name}", "a writable descriptor")
    def writes() -> str:
        return opened(SHOWN, flags)


_writes("O_WRONLY", os.O_WRONLY)
_writes("O_RDWR", os.O_RDWR)
_writes("O_TRUNC", os.O_RDONLY | os.O_TRUNC)
_writes("O_APPEND", os.O_WRONLY | os.O_APPEND)


@attempt("create", "create a file in /usr/bin", "a new name on the host")
def create() -> str:
    return opened("/usr/bin/pkgjail-new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


@attempt("O_TMPFILE", "make a nameless file in /usr/bin", "a writable inode of the host's filesystem")
def tmpfile() -> str:
    return opened("/usr/bin", os.O_TMPFILE | os.O_WRONLY)


@attempt("truncate", "truncate(2) a shown file", "an empty host file")
def truncate() -> str:
    os.truncate(SHOWN, 0)
    return "truncated"


@attempt("chmod", "chmod(2) a shown file", "another mode on the host")
def chmod() -> str:
    os.chmod(SHOWN, 0o4777)  # noqa: S103 - meant
    return "changed"


@attempt("fchmod of a read descriptor", "fchmod(2) of a shown file opened to read", "another mode")
def fchmod() -> str:
    os.fchmod(os.open(SHOWN, os.O_RDONLY), 0o4777)
    return "changed"


@attempt("chown", "chown(2) a shown file to oneself", "another owner on the host")
def chown() -> str:
    os.chown(SHOWN, os.getuid(), os.getgid())
    return "changed"


@attempt("utimes", "set a shown file's times", "other times on the host")
def utimes() -> str:
    os.utime(SHOWN, (0, 0))
    return "changed"


@attempt("access time", "read a shown file and look whether its access time moves", "a written inode")
def access_time() -> str:
    place = os.open(SHOWN, os.O_RDONLY)
    before = os.fstat(place).st_atime_ns
    os.read(place, 4096)
    if os.fstat(place).st_atime_ns == before:
        raise Refused("unmoved")
    return "moved"


@attempt("rename", "rename a shown file", "another name on the host")
def rename() -> str:
    os.rename(SHOWN, SHOWN + "-moved")
    return "renamed"


@attempt("unlink", "remove a shown file", "its name gone on the host")
def unlink() -> str:
    os.unlink(SHOWN)
    return "removed"


@attempt("rmdir", "remove a shown directory", "its name gone")
def rmdir() -> str:
    os.rmdir("/usr/bin")
    return "removed"


@attempt("setxattr", "set a user attribute on a shown file", "an attribute on the host")
def setxattr() -> str:
    os.setxattr(SHOWN, "user.pkgjail", b"x")
    return "set"


@attempt("file capabilities", "give a file of one's own CAP_SYS_ADMIN", "a program that gains it")
def file_capabilities() -> str:
    place = facts["bind"] + "/capable"
    os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o755))
    value = b"\x01\x00\x00\x02" + b"\xff\xff\xff\xff" * 4
    os.setxattr(place, "security.capability", value)
    return "set"


@attempt("fallocate", "punch a hole into a shown file through a read descriptor", "zeroes on the host")
def fallocate() -> str:
    shown = os.open(SHOWN, os.O_RDONLY)
    checked_(libc.fallocate(shown, 3, ctypes.c_long(0), ctypes.c_long(4096)), "fallocate")
    return "punched"


@attempt("shared writable map", "mmap(2) a shown file shared and writable", "its pages, writable")
def shared_map() -> str:
    mmap.mmap(os.open(SHOWN, os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    return "mapped"


@attempt("/proc/self/mem over a private map", "write a read-only private map by force", "the file written")
def forced_write() -> str:
    """A copy on write, unless the kernel errs (CVE-2016-5195)."""
    shown = os.open(SHOWN, os.O_RDONLY)
    before = os.pread(shown, 4, 0)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, shown, ctypes.c_long(0))
    memory = os.open("/proc/self/mem", os.O_RDWR)
    os.pwrite(memory, b"XXXX", address)
    if os.pread(shown, 4, 0) == before:
        raise Refused("a private copy was written")
    return "the file was written"


@attempt("splice into the page cache", "write a pipe that holds a shown file's page", "the file written")
def dirty_pipe() -> str:
    """CVE-2022-0847."""
    shown = os.open(SHOWN, os.O_RDONLY)
    before = os.pread(shown, 8, 0)
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, 1032)  # F_GETPIPE_SZ: each buffer must have been full once
    os.write(writing, b"x" * size)
    os.read(reading, size)
    checked_(libc.splice(shown, ctypes.byref(ctypes.c_long(1)), writing, None, 1, 0), "splice")
    os.write(writing, b"XXXX")
    if os.pread(shown, 8, 0) == before:
        raise Refused("the file is as it was")
    return "the file was written"


@attempt("immutable flag", "ioctl FS_IOC_SETFLAGS on a shown file", "a file that nobody can change")
def set_flags() -> str:
    fcntl.ioctl(os.open(SHOWN, os.O_RDONLY), 0x40086602, array.array("l", [0x10]))
    return "set"


@attempt("freeze the filesystem", "ioctl FIFREEZE on /usr", "a host that cannot write")
def freeze() -> str:
    fcntl.ioctl(os.open("/usr", os.O_RDONLY), 0xC0045877, 0)
    return "frozen"


@attempt("clone over", "ioctl FICLONE onto a read descriptor of a shown file", "its content replaced")
def clone_over() -> str:
    fcntl.ioctl(os.open(SHOWN, os.O_RDONLY), 0x40049409, os.open("/usr/bin/python3", os.O_RDONLY))
    return "cloned"


@attempt(
    "reopen for writing", "open a read descriptor of a shown file again through /proc/self/fd", "a writer"
)
def reopen() -> str:
    return opened(f"/proc/self/fd/{os.open(SHOWN, os.O_RDONLY)}", os.O_WRONLY)


@attempt("reopen O_PATH for writing", "the same from an O_PATH descriptor", "a writer")
def reopen_path() -> str:
    return opened(f"/proc/self/fd/{os.open(SHOWN, os.O_PATH)}", os.O_RDWR)


@attempt("write through /proc/self/exe", "open the running program for writing", "a writer of a host file")
def own_program() -> str:
    return opened("/proc/self/exe", os.O_WRONLY)


@attempt("read-only bind", "create a file in a bind that was asked for read-only", "a new name on the host")
def read_only_bind() -> str:
    return opened(facts["shown"] + "/new", os.O_CREAT | os.O_WRONLY)


@attempt("read-only bind, existing file", "write a file of the read-only bind", "other content")
def read_only_file() -> str:
    return opened(facts["shown"] + "/file", os.O_WRONLY)


@attempt("handle", "open_by_handle_at(2) with a handle of the root directory's inode", "the host's root")
def handle() -> str:
    """The way out of early containers: inode 2 is the root of ext4, 128 or 64 of xfs, 256 of btrfs."""
    refused = OSError(2, "none")
    for number in (2, 64, 96, 128, 256):
        blob = ctypes.create_string_buffer(64)
        ctypes.memmove(blob, array.array("I", [8, 1, number, 0]).tobytes(), 16)
        directory = os.open(facts["bind"], os.O_RDONLY)
        try:
            return f"a descriptor {checked_(libc.open_by_handle_at(directory, blob, 0), 'handle')}"
        except OSError as error:
            refused = error
    raise refused


@attempt("handle of a neighbour", "a handle made here (name_to_handle_at) opened again", "an open by inode")
def own_handle() -> str:
    blob = ctypes.create_string_buffer(136)
    ctypes.memmove(blob, array.array("I", [128]).tobytes(), 4)
    number = ctypes.c_int()
    made = libc.name_to_handle_at(-100, facts["bind"].encode(), blob, ctypes.byref(number), 0)
    checked_(made, "name_to_handle_at")
    directory = os.open(facts["bind"], os.O_RDONLY)
    return f"descriptor {checked_(libc.open_by_handle_at(directory, blob, 0), 'handle')}"


@attempt("set-user-ID of the set", "run su(1) of the set, which is root's and set-user-ID", "another user id")
def set_user_id_of_the_set() -> str:
    ran = subprocess.run(
        ["/usr/bin/su", "-c", "id -u"], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    if ran.returncode == 0 and os.getuid() != 0:
        return ran.stdout.decode()
    if any(int(line.split()[2]) != os.geteuid() for line in _status_of_su()):
        return "su had another effective user id"
    raise Refused("no other user id")


def _status_of_su() -> list[str]:
    """The Uid lines of su while it waits for a password that never comes."""
    reading, writing = os.pipe()
    child = subprocess.Popen(["/usr/bin/su", "-c", "true"], stdin=reading, stderr=subprocess.DEVNULL)
    try:
        with open(f"/proc/{child.pid}/status", encoding="ascii") as record:
            return [line for line in record if line.startswith("Uid:")]
    finally:
        child.kill()
        child.wait()
        os.close(writing)


@attempt("set-user-ID of one's own", "compile a program, chmod u+s, and run it as another", "another user id")
def set_user_id_of_ones_own() -> str:
    place = facts["bind"] + "/setuid"
    source = "#include <stdio.h>\n#include <unistd.h>\n"
    source += 'int main(void) { setuid(0); printf("%d %d", getuid(), geteuid()); return 0; }\n'
    subprocess.run(["gcc", "-x", "c", "-o", place, "-"], input=source.encode(), check=True)
    os.chmod(place, 0o6755)  # noqa: S103 - meant
    found = subprocess.run([place], capture_output=True, check=True).stdout.decode()
    os.unlink(place)
    if found == f"{os.getuid()} {os.getuid()}":
        raise Refused("no other user id")
    return found


@attempt(
    "set-user-ID program of the host", "run the host's own set-user-ID program in the bind", "its owner's id"
)
def set_user_id_of_the_host() -> str:
    found = subprocess.run([facts["bind"] + "/hosts-setuid", "-u"], capture_output=True, check=True).stdout
    if int(found) == os.getuid():
        raise Refused("no other user id")
    return found.decode()


@attempt("device in a bind", "open a device node that the host has in the bind", "the device")
def device_in_bind() -> str:
    return opened(facts["bind"] + "/hosts-device", os.O_RDONLY)


def _makes(name: str, kind: int, major: int, minor: int) -> None:
    @attempt(f"mknod {name}", f"make the device {name} in /tmp and open it", "the device")
    def makes() -> str:
        place = f"/tmp/{name}"
        os.mknod(place, kind | 0o600, os.makedev(major, minor))
        return opened(place, os.O_RDONLY)


_makes("mem", stat.S_IFCHR, 1, 1)
_makes("kmsg", stat.S_IFCHR, 1, 11)
_makes("vda", stat.S_IFBLK, 254, 0)
_makes("sda", stat.S_IFBLK, 8, 0)
_makes("fuse", stat.S_IFCHR, 10, 229)


def _opens(name: str) -> None:
    @attempt(f"/dev/{name}", f"open /dev/{name}", "the host's device")
    def opens() -> str:
        return opened(f"/dev/{name}", os.O_RDONLY)


for _name in ("mem", "kmem", "port", "sda", "vda", "fuse", "kvm", "loop-control", "kmsg", "tty", "console",
              "tty0", "mapper/control", "userfaultfd", "vsock", "net/tun"):  # fmt: skip
    _opens(_name)


@attempt("mode of a device", "chmod(2) the host's /dev/null", "another mode on the host")
def device_mode() -> str:
    os.chmod("/dev/null", 0o666)  # noqa: S103 - what it is
    return "changed"


@attempt("entropy of the host", "ioctl RNDCLEARPOOL on /dev/random", "the host's random pool emptied")
def entropy() -> str:
    fcntl.ioctl(os.open("/dev/random", os.O_RDONLY), 0x5206)
    return "cleared"


@attempt("openat2 out", "openat2(2) of the canary by a descriptor of the bind, nothing forbidden", _CANARY)
def openat2() -> str:
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
    bind = os.open(facts["bind"], os.O_PATH)
    return f"descriptor {call('openat2', bind, b'../secret/canary', how, 24)}"
