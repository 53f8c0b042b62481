"""Filter system calls that reach what namespaces do not separate; see seccomp(2).

- Keys: any process of the user that guesses a keyring's number can read it, in any user namespace
  (keyrings(7): only names have namespaces). The calls return ENOSYS.
- Terminals: TIOCSTI and TIOCLINUX push input into a terminal. A process in the jail can make a terminal that
  no session controls its controlling terminal. They return EPERM.
- io_uring(7): the operations of a ring, such as opening sockets, are no system calls, so a filter does not
  see them. The calls return ENOSYS, and programs do without.
- clone3(2): with CLONE_INTO_CGROUP it can start a process in any control group that its user may write to,
  even through a read-only mount, and so outside of the jail's limits. Its flags are in memory, where no
  filter sees them. It returns ENOSYS, and programs use clone(2).
- Without network, sockets of all families except those that network namespaces separate, and the kernel's
  ciphers. This concerns above all vsock(7), but also qrtr, IUCV and future ones. They return EAFNOSUPPORT.

The filter refuses these calls and allows all others. It is no list of harmless calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from pkgjail.sandbox import syscalls as sc

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    _Abi = tuple[int, tuple[int, ...], int, int, int]
    # struct sock_filter: code, jump if true, jump if false, value.
    _Instruction = tuple[int, int, int, int]

# From linux/bpf_common.h and linux/seccomp.h; the offsets are those of struct seccomp_data.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_ALG. The last reaches no network; see socket(2).
_NAMESPACED_FAMILIES = (1, 2, 10, 16, 17, 38)
# These have the same numbers on all architectures, as all newer calls have.
_IO_URING = (425, 426, 427)
_CLONE3 = 435
_SOCKETCALL_SOCKET = 1  # its arguments are in memory, where no filter sees them
_X32 = 0x40000000
# The ABIs of kernels, each with its AUDIT_ARCH (linux/audit.h) and the numbers of its calls: those for
# keys, ioctl, socket, and socketcall (0 if there is none).
_X86_64 = (0xC000003E, (248, 249, 250), 16, 41, 0)
_X86 = (_X86_64, (0x40000003, (286, 287, 288), 54, 359, 102))
_ARM = ((0xC00000B7, (217, 218, 219), 29, 198, 0), (0x40000028, (309, 310, 311), 54, 281, 0))
_RISCV = tuple((audit, (217, 218, 219), 29, 198, 0) for audit in (0xC00000F3, 0x400000F3))
_LOONGARCH = ((0xC0000102, (217, 218, 219), 29, 198, 0),)
_POWER = tuple((audit, (269, 270, 271), 54, 326, 102) for audit in (0xC0000015, 0x80000015, 0x00000014))
_S390 = tuple((audit, (278, 279, 280), 54, 359, 102) for audit in (0x80000016, 0x00000016))
# All ABIs of each machine: its 32-bit programs have other numbers.
_ABIS = {
    "x86_64": _X86, "i386": _X86, "i686": _X86, "aarch64": _ARM, "armv7l": _ARM, "armv8l": _ARM,
    "riscv64": _RISCV, "loongarch64": _LOONGARCH, "ppc64le": _POWER, "ppc64": _POWER, "s390x": _S390,
}  # fmt: skip


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(*, network: bool) -> None:
    """Install the filter for this process and all its descendants. It cannot be removed.

    Raises:
        OSError: the kernel has no filters (EINVAL), or the call numbers of this machine are unknown (ENOSYS).

    """
    machine = os.uname().machine
    if machine not in _ABIS:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), f"seccomp on {machine}")
    instructions = _program(_ABIS[machine], network=network)
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), packed)
    sc.prctl(sc.PR_SET_SECCOMP, sc.SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _program(abis: tuple[_Abi, ...], *, network: bool) -> list[_Instruction]:
    instructions: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for abi in abis:
        instructions += _when(abi[0], _calls(abi, network=network))
    return [*instructions, _refuse(errno.ENOSYS)]  # no ABI of this machine


def _calls(abi: _Abi, *, network: bool) -> list[_Instruction]:
    _, keys, ioctl, socket, socketcall = abi
    calls: list[_Instruction] = [(_LOAD, 0, 0, _NUMBER)]
    if abi is _X86_64:
        calls += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.ENOSYS)]
    for number in (*keys, *_IO_URING, _CLONE3):
        calls += _when(number, [_refuse(errno.ENOSYS)])
    pushes = [*_when(_TIOCSTI, [_refuse(errno.EPERM)]), *_when(_TIOCLINUX, [_refuse(errno.EPERM)])]
    calls += _when(ioctl, [_argument(1), *pushes, _allow()])
    if not network:
        namespaced = [step for family in _NAMESPACED_FAMILIES for step in _when(family, [_allow()])]
        calls += _when(socket, [_argument(0), *namespaced, _refuse(errno.EAFNOSUPPORT)])
        if socketcall:
            sockets = _when(_SOCKETCALL_SOCKET, [_refuse(errno.EAFNOSUPPORT)])
            calls += _when(socketcall, [_argument(0), *sockets, _allow()])
    return [*calls, _allow()]


def _when(value: int, then: list[_Instruction]) -> list[_Instruction]:
    """Return instructions that run `then` if the loaded value is `value`, and otherwise skip it."""
    return [(_EQUAL, 0, len(then), value), *then]


def _argument(position: int) -> _Instruction:
    """Load the lower half of an argument: the kernel ignores the upper half of ioctl and socket numbers."""
    lower = 4 if sys.byteorder == "big" else 0
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * position + lower)


def _refuse(number: int) -> _Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)


def _allow() -> _Instruction:
    return (_RETURN, 0, 0, _ALLOW)
