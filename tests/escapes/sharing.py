"""Attempts on what processes share: keys, IPC, shared memory, sockets."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import platform
import signal
import socket
import struct
import subprocess

from tests.escapes.harness import Refused, attempt, call, checked, facts, libc

_NET_ADMIN = "a setting of the host's network"


@attempt("session keyring", "search the session keyring for the caller's key", "the key", control=True)
def session_keyring() -> str:
    return f"key {call('keyctl', 10, -3, b'user', b'pkgjail-canary', 0)}"


@attempt("key by its number", "read the caller's key by its number", "the secret", control=True)
def key_by_number() -> str:
    buffer = ctypes.create_string_buffer(100)
    call("keyctl", 11, facts["key"], buffer, 100)
    return f"read {buffer.value!r}"


@attempt(
    "keyring by its number", "link the caller's user keyring and read a key in it", "the secret", control=True
)
def keyring_by_number() -> str:
    """A keyring of the user's may be linked by whoever is that user, in whatever user namespace."""
    call("keyctl", 8, facts["keyring"], -3)
    buffer = ctypes.create_string_buffer(100)
    call("keyctl", 11, facts["user_key"], buffer, 100)
    return f"read {buffer.value!r}"


@attempt("user keyring", "search the user keyring for the caller's key", "the key", control=True)
def user_keyring() -> str:
    return f"key {call('keyctl', 10, -4, b'user', facts['user_key_name'].encode(), 0)}"


@attempt("persistent keyring", "get the user's persistent keyring", "Kerberos tickets of the host")
def persistent_keyring() -> str:
    """A keyring of the jail's own user namespace, if any: it must not be the one outside."""
    found = call("keyctl", 22, -1, -3)
    if found == facts["persistent"]:
        return "the caller's"
    raise Refused("the jail's own")


@attempt("join a named keyring", "join the caller's session keyring by its name", "its keys")
def named_keyring() -> str:
    call("keyctl", 1, b"pkgjail-session")
    return f"key {call('keyctl', 10, -3, b'user', b'pkgjail-canary', 0)}"


@attempt("give the parent a keyring", "KEYCTL_SESSION_TO_PARENT", "the caller's session keyring")
def keyring_to_parent() -> str:
    """Within the jail it is no escape: the driver of the attempts is the parent."""
    call("keyctl", 18)
    raise Refused("the driver's own")


@attempt("SysV shared memory", "attach the caller's segment", "its content", control=True)
def shared_memory() -> str:
    libc.shmat.restype = ctypes.c_void_p
    address: int = libc.shmat(facts["shm"], None, 0o10000)
    if address == ctypes.c_void_p(-1).value:
        checked(-1, "shmat")
    return f"read {ctypes.string_at(address, 6)!r}"


@attempt("SysV segment by key", "find the caller's segment by its key", "it", control=True)
def shared_memory_by_key() -> str:
    return f"segment {checked(libc.shmget(facts['ipc_key'], 0, 0), 'shmget')}"


@attempt("SysV semaphore", "change the caller's semaphore", "its value", control=True)
def semaphore() -> str:
    return f"value {checked(libc.semctl(facts['sem'], 0, 12), 'semctl')}"


@attempt("SysV message queue", "take a message from the caller's queue", "it", control=True)
def message_queue() -> str:
    buffer = ctypes.create_string_buffer(64)
    taken = libc.msgrcv(facts["msg"], buffer, ctypes.c_size_t(32), ctypes.c_long(0), 0o44000)
    return f"{checked(taken, 'msgrcv')} bytes"


@attempt("POSIX message queue", "open the caller's queue", "it", control=True)
def posix_queue() -> str:
    return f"descriptor {checked(libc.mq_open(facts['mq'].encode(), os.O_RDONLY), 'mq_open')}"


@attempt("POSIX shared memory", "open the caller's file in /dev/shm", "its content", control=True)
def posix_shared_memory() -> str:
    with open(facts["dev_shm"], "rb") as file:
        return f"read {file.read()!r}"


@attempt("abstract socket", "connect to an abstract socket of the host", "it", control=True, network=True)
def abstract_socket() -> str:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect("\0" + facts["abstract"])
        return f"read {ours.recv(6)!r}"


@attempt("descriptor of a peer", "SO_PEERPIDFD of an abstract socket, then pidfd_getfd(2)", "its descriptor")
def peer_descriptor() -> str:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect("\0" + facts["abstract"])
        peer = ours.getsockopt(socket.SOL_SOCKET, 77)
    return f"descriptor {call('pidfd_getfd', peer, 0, 0)}"


@attempt("signal a peer", "SO_PEERPIDFD of an abstract socket, then pidfd_send_signal(2)", "a signal outside")
def signal_peer() -> str:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect("\0" + facts["abstract"])
        call("pidfd_send_signal", ours.getsockopt(socket.SOL_SOCKET, 77), 0, None, 0)
    return "signalled"


@attempt("namespaces of a peer", "SO_PEERPIDFD of an abstract socket, then setns(2)", "its namespaces")
def namespaces_of_peer() -> str:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect("\0" + facts["abstract"])
        checked(libc.setns(ours.getsockopt(socket.SOL_SOCKET, 77), 0x10000000), "setns")
    return "entered"


@attempt("path socket", "connect to a socket of the host by its path", "it", control=True)
def path_socket() -> str:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(facts["path_socket"])
        return f"read {ours.recv(6)!r}"


@attempt("TCP on localhost", "connect to a service on 127.0.0.1", "it", control=True, network=True)
def localhost() -> str:
    with socket.create_connection(("127.0.0.1", facts["tcp"]), 2) as ours:
        return f"read {ours.recv(6)!r}"


@attempt("vsock", "connect to a vsock service of this machine", "it", network=True)
def vsock() -> str:
    """Not of a network namespace; where the machine has the local transport a service answers."""
    with socket.socket(socket.AF_VSOCK) as ours:
        ours.settimeout(2)
        ours.connect((1, facts["vsock"]))
        return f"read {ours.recv(6)!r}"


@attempt(
    "vsock to the hypervisor",
    "bind a vsock port of this machine",
    "a port that the hypervisor sees",
    network=True,
)
def vsock_port() -> str:
    with socket.socket(socket.AF_VSOCK) as ours:
        ours.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        return f"bound {ours.getsockname()}"


@attempt("raw socket", "open a raw socket", "the host's packets")
def raw_socket() -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "open"


@attempt("packet socket", "open a packet socket", "the host's packets")
def packet_socket() -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    return "open"


@attempt("netlink", "take the loopback interface down", _NET_ADMIN)
def netlink() -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        body = struct.pack("BxHiII", 0, 0, 1, 0, 1)
        route.sendall(struct.pack("IHHII", 16 + len(body), 16, 5, 1, 0) + body)
        number = struct.unpack_from("i", route.recv(4096), 16)[0]
    if number:
        raise OSError(-number, os.strerror(-number))
    return "changed"


@attempt("uevents", "send a device event as the kernel would", "the host's device manager moved")
def uevents() -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as events:
        events.bind((0, 0))
        events.sendto(b"add@/devices/x\0ACTION=add\0", (0, 1))
    return "sent"


@attempt("audit", "ask the audit system for its state", "the host's audit")
def audit() -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as log:
        log.sendall(struct.pack("IHHII", 16, 1000, 5, 1, 0))
        number = struct.unpack_from("i", log.recv(4096), 16)[0]
    if number:
        raise OSError(-number, os.strerror(-number))
    return "told"


@attempt("low port", "listen on port 1", "a service in the host's name")
def low_port() -> str:
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 1))
    return "bound"


def _socket_by_ring(family: int) -> int:
    """Have a ring open a stream socket, as liburing(3) would; IORING_OP_SOCKET, Linux 5.19.

    A kernel that has rings switched off (kernel.io_uring_disabled) is one without them.
    """
    given = ctypes.create_string_buffer(120)  # struct io_uring_params
    try:
        ring = call("io_uring_setup", 4, given)
    except PermissionError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    entries, cq_entries = struct.unpack_from("II", given)
    sq = dict(
        zip(
            ("head", "tail", "mask", "entries", "flags", "dropped", "array"),
            struct.unpack_from("7I", given, 40),
        )
    )
    cq = dict(
        zip(("head", "tail", "mask", "entries", "overflow", "cqes"), struct.unpack_from("6I", given, 80))
    )
    submit = mmap.mmap(ring, sq["array"] + 4 * entries, offset=0)
    done = mmap.mmap(ring, cq["cqes"] + 16 * cq_entries, offset=0x8000000)
    asked = mmap.mmap(ring, 64 * entries, offset=0x10000000)
    # A struct io_uring_sqe: the family is where a descriptor is else, the type where an offset is.
    struct.pack_into("BBHiQQIIQ", asked, 0, 45, 0, 0, family, socket.SOCK_STREAM, 0, 0, 0, 7)
    struct.pack_into("I", submit, sq["array"], 0)
    struct.pack_into("I", submit, sq["tail"], 1)
    call("io_uring_enter", ring, 1, 1, 1, None, 0)
    answer = int(struct.unpack_from("QiI", done, cq["cqes"])[1])
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer


@attempt("io_uring", "have a ring open a Unix socket", "a call that no filter sees", control=True)
def io_uring() -> str:
    with socket.socket(fileno=_socket_by_ring(socket.AF_UNIX)) as ours:
        return f"a socket of family {ours.family}"


@attempt(
    "vsock by io_uring", "have a ring open a vsock socket, and bind it", "a port that the hypervisor sees"
)
def vsock_by_ring() -> str:
    with socket.socket(fileno=_socket_by_ring(socket.AF_VSOCK)) as ours:
        ours.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        return f"bound {ours.getsockname()}"


@attempt("ring of another", "register a file with a ring by number", "a ring at work")
def ring_of_another() -> str:
    return f"{call('io_uring_register', 0, 0, None, 0)}"


@attempt("vsock by socketpair", "make a pair of vsock sockets", "one of them", network=True)
def vsock_pair() -> str:
    socket.socketpair(socket.AF_VSOCK, socket.SOCK_STREAM)
    return "made"


# Of no network namespace, or of the first alone: bluetooth, IUCV, NFC, qrtr, RDS; and what is to come.
_UNDIVIDED = (21, 31, 32, 39, 42, *range(47, 64))


@attempt(
    "sockets of no namespace", "open one of each family that namespaces do not divide", "one", network=True
)
def undivided() -> str:
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)
    for family, kind in itertools.product(_UNDIVIDED, kinds):
        try:
            socket.socket(family, kind).close()
        except OSError as error:  # noqa: PERF203 - as meant
            if error.errno not in {errno.EAFNOSUPPORT, errno.EINVAL}:  # EINVAL: beyond the last family
                raise
        else:
            return f"family {family}"
    raise Refused("none")


def _compiled(source: str, *arguments: int) -> str:
    """Compile a program in the jail and run it; it ends with the errno of its one call."""
    place = f"{facts['bind']}/compiled-{os.getpid()}"
    subprocess.run(["gcc", "-x", "c", "-o", place, "-"], input=source.encode(), check=True)
    number = subprocess.run([place, *map(str, arguments)], check=False).returncode
    os.unlink(place)
    if number < 0:
        raise Refused(signal.Signals(-number).name)
    if number:
        raise OSError(number, os.strerror(number))
    return "linked"


_INT_80 = """
#include <stdlib.h>
int main(int n, char **a) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r)
                     : "a"(atoi(a[1])), "b"(atoi(a[2])), "c"(atoi(a[3])), "d"(atoi(a[4])) : "memory");
    return r < 0 ? -r : 0;
}
"""


def _by_32_bits(*words: int) -> str:
    """A call by int 0x80, where numbers differ."""
    if platform.machine() != "x86_64":
        raise Refused("no such call on this machine")
    return _compiled(_INT_80, *words)


@attempt("keyring by a 32-bit call", "link the user keyring by int 0x80, where numbers differ", "its keys")
def keyring_by_32_bits() -> str:
    return _by_32_bits(288, 8, facts["keyring"], -3)


@attempt("io_uring by a 32-bit call", "make a ring by int 0x80", "a ring")
def io_uring_by_32_bits() -> str:
    return _by_32_bits(425, 4, 0, 0)


@attempt("vsock by a 32-bit call", "open a vsock socket by int 0x80", "one", network=True)
def vsock_by_32_bits() -> str:
    return _by_32_bits(359, socket.AF_VSOCK, socket.SOCK_STREAM, 0)


@attempt("vsock by socketcall", "open a vsock socket by the 32-bit socketcall(2)", "one", network=True)
def vsock_by_socketcall() -> str:
    """The call's arguments would be read from address 0, so without a filter it is EFAULT."""
    return _by_32_bits(102, 1, 0, 0)


@attempt("io_uring by an x32 call", "make a ring with the x32 bit in the number", "a ring")
def io_uring_by_x32() -> str:
    if platform.machine() != "x86_64":
        raise Refused("no such call on this machine")
    checked(
        libc.syscall(ctypes.c_long(0x40000000 | 425), 4, ctypes.create_string_buffer(120)), "io_uring_setup"
    )
    return "a ring"


@attempt("keyring by an x32 call", "link the user keyring with the x32 bit in the number", "its keys")
def keyring_by_x32() -> str:
    if platform.machine() != "x86_64":
        raise Refused("no such call on this machine")
    checked(libc.syscall(ctypes.c_long(0x40000000 | 250), 8, facts["keyring"], -3), "keyctl")
    return "linked"
