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
- Calls with user or group ids that the jail does not have. They return EPERM, as outside; see `id_calls`.
- Without a user namespace of the jail's own, new user namespaces, in which the command would have
  capabilities. They return EPERM. Nor can it have the descriptor of a process at the other end of a socket,
  which a user namespace would keep it from using (pidfd_getfd(2)): the options return ENOPROTOOPT.
- Without network, sockets of all families except those that network namespaces separate, and the kernel's
  ciphers. This concerns above all vsock(7), but also qrtr, IUCV and future ones. They return EAFNOSUPPORT.

The filter refuses these calls and allows all others. It is no list of harmless calls.

In an audit, another process also sees every call with a path before the kernel goes on with it
(`path_calls`), except stat(2) of an open file (AT_EMPTY_PATH), and it refuses io_uring_setup(2), to count it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.id_calls import SHAPES

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from pkgjail.sandbox.id_calls import Ids, Ranges, Shape

    _Abi = tuple[int, tuple[int, ...], int, int, int]
    # struct sock_filter: code, jump if true, jump if false, value.
    _Instruction = tuple[int, int, int, int]

# From linux/bpf_common.h and linux/seccomp.h; the offsets are those of struct seccomp_data.
_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
_JUMP, _AND, _HAS_BITS = 0x05, 0x54, 0x45
_ALLOW, _ERRNO, _ASK = 0x7FFF0000, 0x00050000, 0x7FC00000
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


_NEW_USER = 0x10000000  # CLONE_NEWUSER, of clone(2)
_SOL_SOCKET, _SO_PASSPIDFD, _SO_PEERPIDFD = 1, 76, 77
_SOCKETCALL_OPTIONS = (14, 15)  # setsockopt(2) and getsockopt(2)
_GENERIC_CALLS = (220, 0, 97, 209, 208)
_POWER_CALLS, _S390_CALLS = (120, 0, 282, 340, 339), (120, 1, 303, 365, 366)
# By AUDIT_ARCH: the number of clone(2), the position of its flags, and the numbers of unshare(2),
# getsockopt(2) and setsockopt(2).
_CALLS_OF_ROOT: dict[int, tuple[int, int, int, int, int]] = {
    0xC000003E: (56, 0, 272, 55, 54), 0x40000003: (120, 0, 310, 365, 366), 0xC00000B7: _GENERIC_CALLS,
    0x40000028: (120, 0, 337, 295, 294), 0xC00000F3: _GENERIC_CALLS, 0x400000F3: _GENERIC_CALLS,
    0xC0000102: _GENERIC_CALLS, 0xC0000015: _POWER_CALLS, 0x80000015: _POWER_CALLS, 0x00000014: _POWER_CALLS,
    0x80000016: _S390_CALLS, 0x00000016: _S390_CALLS,
}  # fmt: skip

# For a supervised command. Requests of ioctl(2) that change a file by any descriptor of its owner's, those of
# Btrfs, by which a directory can be copied to another place, and of these the usual two of cp(1).
_PUSHES = (_TIOCSTI, _TIOCLINUX)
_ATTRIBUTES = (0x40086602, 0x40046602, 0x401C5820, 0x40087602, 0x800C6613)
_BTRFS = 0x9400
_CLONES = (0x40049409, 0x4020940D)
_AF_UNIX = 1
_DATAGRAMS = (2, 3)  # SOCK_DGRAM, SOCK_RAW, which is the same for Unix sockets
_SET_DUMPABLE = 4
_NAMESPACES = 0x7E020000
_NEW_TIME = 0x80  # for unshare(2) alone: for clone(2), it is a part of a signal's number


class Supervised:
    """The calls of a supervised command, by their numbers.

    Another process is asked about `asked`, and about `asked_unless_zero` unless the argument at this position
    is zero. `refused` has the errors of others. The rest are the numbers of single calls.
    """

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        *,
        asked: tuple[int, ...],
        asked_unless_zero: tuple[tuple[int, int], ...],
        refused: dict[int, int],
        prctl: int,
        unshare: int,
        clone: int,
        socketpair: int,
    ) -> None:
        self.asked = asked
        self.asked_unless_zero = asked_unless_zero
        self.refused = refused
        self.prctl = prctl
        self.unshare = unshare
        self.clone = clone
        self.socketpair = socketpair


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(*, network: bool, ids: Ids | None = None, nested: bool = True) -> int:
    """Install the filter for this process and all its descendants. It cannot be removed.

    Args:
        network: whether the jail shares the host's network.
        ids: the user ids and the group ids that the jail has; None for all.
        nested: whether user namespaces may be made.

    Returns:
        A descriptor for `id_calls.answer_calls`, or -1 if no call is to be answered by a process: if all ids
        are mapped, or if an outer filter has such a process already. (Then these calls get EPERM even in user
        namespaces that the command makes.)

    Raises:
        OSError: the kernel has no filters (EINVAL), or the call numbers of this machine are unknown (ENOSYS).

    """
    abis = _abis()
    if ids is not None:
        try:
            return _install(
                _program(abis, network=network, ids=ids, answer=_ASK, nested=nested), listener=True
            )
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    _install(
        _program(abis, network=network, ids=ids, answer=_ERRNO | errno.EPERM, nested=nested), listener=False
    )
    return -1


def install_audited(*, network: bool, ids: Ids | None = None, nested: bool = True) -> int:
    """Install the filter as `install`, with all calls of an audit. Return the listener that sees them.

    Raises:
        OSError: as `install`, or EBUSY: an outer filter has a process that answers already.

    """
    return _install(_program(_abis(), network=network, ids=ids, audited=True, nested=nested), listener=True)


def install_supervised(calls: Supervised, *, network: bool) -> int:
    """Install the filter of a supervised command for this process; return the listener that is asked.

    Without network, sockets can only be Unix sockets.

    Raises:
        OSError: as `install_audited`.

    """
    return _install(_supervised(_abis()[0], calls, network=network), listener=True)


def compiled(*, network: bool) -> bytes:
    """Return the filter for another program to install: an array of struct sock_filter, without ids.

    Raises:
        OSError: the call numbers of this machine are unknown (ENOSYS).

    """
    return _packed(_program(_abis(), network=network))


def _abis() -> tuple[_Abi, ...]:
    machine = os.uname().machine
    if machine not in _ABIS:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), f"seccomp on {machine}")
    return _ABIS[machine]


def _packed(instructions: list[_Instruction]) -> bytes:
    return b"".join([struct.pack("=HBBI", *instruction) for instruction in instructions])


def _install(instructions: list[_Instruction], *, listener: bool) -> int:
    program = _Program(len(instructions), _packed(instructions))
    return sc.seccomp_filter(ctypes.addressof(program), listener=listener)


def _program(  # noqa: PLR0913 - all but one by keyword
    abis: tuple[_Abi, ...],
    *,
    network: bool,
    ids: Ids | None = None,
    answer: int = _ASK,
    audited: bool = False,
    nested: bool = True,
) -> list[_Instruction]:
    """Return the filter. `answer` is what calls with ids that are not mapped get."""
    instructions: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for abi in abis:
        owners = [] if ids is None else _owners(abi, ids, answer)
        paths = _path_calls(abi[0]) if audited else []
        namespaces = [] if nested else _without_user_namespace(abi)
        calls = _calls(abi, network=network, further=[*paths, *owners, *namespaces])
        instructions += [(_EQUAL, 1, 0, abi[0]), (_JUMP, 0, 0, len(calls)), *calls]
    return [*instructions, _refuse(errno.ENOSYS)]  # no ABI of this machine


def _calls(abi: _Abi, *, network: bool, further: list[_Instruction]) -> list[_Instruction]:
    """Return the instructions for an ABI. `further` can ask about calls that the others refuse."""
    _, keys, ioctl, socket, socketcall = abi
    calls: list[_Instruction] = [(_LOAD, 0, 0, _NUMBER)]
    if abi is _X86_64:
        calls += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.ENOSYS)]
    calls += further
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


def _path_calls(architecture: int) -> list[_Instruction]:
    """Return instructions that ask about calls with paths, and skip all others."""
    from pkgjail.sandbox import path_calls as paths  # imported only for an audit

    made: list[_Instruction] = []
    plain = [paths.SET_UP_RING]
    for number, (kind, _, flags) in paths.shapes(architecture).items():
        if kind == paths.LOOK and flags >= 0:
            of_open_file = [(_HAS_BITS, 0, 1, sc.AT_EMPTY_PATH), _allow()]
            made += _when(number, [_argument(flags), *of_open_file, (_RETURN, 0, 0, _ASK)])
        else:
            plain.append(number)
    return [*made, *_when_any(tuple(plain), [(_RETURN, 0, 0, _ASK)])]


def _without_user_namespace(abi: _Abi) -> list[_Instruction]:
    """Return instructions for a jail that has no user namespace of its own, which skip all other calls."""
    clone, position, unshare, getsockopt, setsockopt = _CALLS_OF_ROOT[abi[0]]
    refused = [(_HAS_BITS, 0, 1, _NEW_USER), _refuse(errno.EPERM), _allow()]
    made = [*_when(clone, [_argument(position), *refused]), *_when(unshare, [_argument(0), *refused])]
    for number, option in ((getsockopt, _SO_PEERPIDFD), (setsockopt, _SO_PASSPIDFD)):
        of_socket = [_argument(2), *_when(option, [_refuse(errno.ENOPROTOOPT)]), _allow()]
        made += _when(number, [_argument(1), *_when(_SOL_SOCKET, of_socket), _allow()])
    if abi[4]:  # its arguments are in memory, so all options are refused
        options = [_argument(0), *_when_any(_SOCKETCALL_OPTIONS, [_refuse(errno.ENOPROTOOPT)])]
        made += _when(abi[4], [*options, (_LOAD, 0, 0, _NUMBER)])
    return made


def _supervised(abi: _Abi, calls: Supervised, *, network: bool) -> list[_Instruction]:
    """Return the filter of a supervised command. Programs of other ABIs than `abi` cannot run under it."""
    _, keys, ioctl, socket, _ = abi
    ask: list[_Instruction] = [(_RETURN, 0, 0, _ASK)]
    made: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, abi[0]), _refuse(errno.ENOSYS)]
    made.append((_LOAD, 0, 0, _NUMBER))
    if abi is _X86_64:
        made += [(_AT_LEAST, 0, 1, _X32), _refuse(errno.ENOSYS)]
    by_error = dict.fromkeys((*keys, *_IO_URING, _CLONE3), errno.ENOSYS)
    by_error.update(calls.refused)
    for error in sorted(set(by_error.values())):
        made += _when_any(tuple(each for each in by_error if by_error[each] == error), [_refuse(error)])
    for number, position in calls.asked_unless_zero:
        made += _when(number, [_argument(position), *_when(0, [_allow()]), *ask])
    for number, bits in ((calls.unshare, _NAMESPACES | _NEW_TIME), (calls.clone, _NAMESPACES)):
        namespaces = [(_HAS_BITS, 0, 1, bits), _refuse(errno.EPERM)]
        made += _when(number, [_argument(0), *namespaces, _allow()])
    # The supervisor reads the memory of the processes, so they stay readable for it; 0 is success.
    made += _when(calls.prctl, [_argument(0), *_when(_SET_DUMPABLE, [_refuse(0)]), _allow()])
    refused_requests = [step for request in _PUSHES for step in _when(request, [_refuse(errno.EPERM)])]
    refused_requests += [step for request in _ATTRIBUTES for step in _when(request, [_refuse(errno.ENOTTY)])]
    refused_requests += [step for request in _CLONES for step in _when(request, [_allow()])]
    of_btrfs = [(_AND, 0, 0, 0xFF00), *_when(_BTRFS, [_refuse(errno.ENOTTY)])]
    made += _when(ioctl, [_argument(1), *refused_requests, *of_btrfs, _allow()])
    for number in (socket, calls.socketpair):
        made += _when(number, _sockets(network=network))
    return [*made, *_when_any(calls.asked, ask), _allow()]


def _sockets(*, network: bool) -> list[_Instruction]:
    """Return instructions for socket(2): no Unix sockets of datagrams, which take an address in memory."""
    others = [_allow()] if network else [_refuse(errno.EAFNOSUPPORT)]
    kinds = [_argument(1), (_AND, 0, 0, 0xF)]
    for kind in _DATAGRAMS:
        kinds += _when(kind, [_refuse(errno.ESOCKTNOSUPPORT)])
    return [_argument(0), (_EQUAL, len(others), 0, _AF_UNIX), *others, *kinds, _allow()]


def _owners(abi: _Abi, ids: Ids, answer: int) -> list[_Instruction]:
    """Return instructions for calls with ids, which skip all other calls."""
    wide, narrow = SHAPES[abi[0]]
    made: list[_Instruction] = []
    for shapes, bits in ((wide, 32), (narrow, 16)):
        for shape in shapes:
            made += _when_any(shape[0], [*_mapped(shape, ids, bits, answer), _allow()])
    return made


def _mapped(shape: Shape, ids: Ids, bits: int, answer: int) -> list[_Instruction]:
    """Return instructions that give `answer` if an argument is an id that is not mapped."""
    made: list[_Instruction] = []
    unchanged = (1 << bits) - 1  # -1 leaves an id as it is
    for positions, ranges in zip(shape[1:], ids):
        for position in positions:
            made += [_argument(position), *([(_AND, 0, 0, unchanged)] if bits < 32 else [])]  # noqa: PLR2004
            made += _unless_in(((unchanged, unchanged), *ranges), (_RETURN, 0, 0, answer))
    return made


def _unless_in(ranges: Ranges, then: _Instruction) -> list[_Instruction]:
    """Return instructions that run `then` if the loaded value is in none of these ranges."""
    made = [then]
    for first, last in reversed(ranges):
        if first == last:
            made.insert(0, (_EQUAL, len(made), 0, first))
        else:
            made[:0] = [(_AT_LEAST, 0, 1, first), (_ABOVE, 0, len(made), last)]
    return made


def _when_any(values: tuple[int, ...], then: list[_Instruction]) -> list[_Instruction]:
    """Return instructions that run `then` if the loaded value is one of `values`, and otherwise skip it."""
    others = [(_EQUAL, len(values) - 1 - position, 0, value) for position, value in enumerate(values[:-1])]
    return [*others, *_when(values[-1], then)]


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
