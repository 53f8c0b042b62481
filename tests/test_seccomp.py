"""The filter of system calls, interpreted for each machine: which calls it allows and refuses."""

from __future__ import annotations

import ctypes
import errno
import functools
from typing import TYPE_CHECKING

import pytest

from pkgjail.sandbox import path_calls, seccomp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.sandbox.id_calls import Ids

_WORDS = {seccomp._NUMBER: 0, seccomp._ARCHITECTURE: 1}


@functools.cache
def _program(
    machine: str, *, network: bool, ids: Ids | None, answer: int, audited: bool
) -> list[seccomp._Instruction]:
    abis = seccomp._ABIS[machine]
    return seccomp._program(abis, network=network, ids=ids, answer=answer, audited=audited)


def _evaluate(  # noqa: PLR0913 - as the filter's function
    machine: str,
    call: Sequence[int],
    *,
    network: bool,
    ids: Ids | None = None,
    answer: int = seccomp._ASK,
    audited: bool = False,
) -> str:
    """Return the filter's answer to a call: its number, architecture and arguments."""
    program = _program(machine, network=network, ids=ids, answer=answer, audited=audited)
    position = loaded = 0
    while True:
        code, true, false, value = program[position]
        position += 1
        if code == seccomp._RETURN:
            if value in {seccomp._ALLOW, seccomp._ASK}:
                return "allowed" if value == seccomp._ALLOW else "asked"
            return errno.errorcode[value & 0xFFFF]
        if code == seccomp._LOAD:
            number = call[_WORDS[value] if value in _WORDS else 2 + (value - seccomp._ARGUMENTS) // 8]
            loaded = number & 0xFFFFFFFF
        elif code == seccomp._JUMP:
            position += value
        elif code == seccomp._AND:
            loaded &= value
        else:
            holds = {
                seccomp._EQUAL: loaded == value,
                seccomp._AT_LEAST: loaded >= value,
                seccomp._ABOVE: loaded > value,
                seccomp._HAS_BITS: loaded & value != 0,
            }[code]
            position += true if holds else false


@pytest.mark.parametrize("machine", sorted(seccomp._ABIS))
def test_refused_calls_on_each_machine(machine: str) -> None:
    """For every architecture that the machine's kernel runs, with and without network."""
    for audit, keys, ioctl, socket, socketcall in seccomp._ABIS[machine]:
        for number in (*keys, 425, 426, 427, 435):
            for network in (True, False):
                assert _evaluate(machine, (number, audit, 0, 0), network=network) == "ENOSYS"
        families = {
            n for n in range(50) if _evaluate(machine, (socket, audit, n, 1), network=False) == "allowed"
        }
        assert families == {1, 2, 10, 16, 17, 38}
        assert _evaluate(machine, (socket, audit, 0xFFFFFFFF, 1), network=False) == "EAFNOSUPPORT"
        rows = [
            ((ioctl, audit, 0, 0x5412), "EPERM", "EPERM"),
            ((ioctl, audit, 0, 0x541C), "EPERM", "EPERM"),
            ((ioctl, audit, 0, 0x5401), "allowed", "allowed"),
            ((socket, audit, 40, 1), "allowed", "EAFNOSUPPORT"),
            ((socket, audit, 1, 1), "allowed", "allowed"),
            (
                (socketcall or 1, audit, 1, 0),
                "allowed",
                "EAFNOSUPPORT" if socketcall else "allowed",
            ),
            ((socketcall or 1, audit, 2, 0), "allowed", "allowed"),
            ((1, audit, 0x5412, 40), "allowed", "allowed"),
            ((1, 0x40000008, 0, 0), "ENOSYS", "ENOSYS"),
        ]
        for call, on, off in rows:
            answers = (_evaluate(machine, call, network=True), _evaluate(machine, call, network=False))
            assert answers == (on, off), (hex(audit), call)


def test_the_numbers_of_x32_are_refused() -> None:
    """They are those of x86_64 with one bit set, so each refused call would have a second number."""
    assert _evaluate("x86_64", (0x40000000 | 250, 0xC000003E, 0, 0), network=True) == "ENOSYS"


# The calls with ids by their names in libseccomp, and the positions of user and group ids in each.
_SET_IDS = {
    f"{prefix}{kind}id": (range(count), ()) if kind == "u" else ((), range(count))
    for count, prefix in enumerate(("set", "setre", "setres"), 1)
    for kind in "ug"
}
_OWNERS = {**dict.fromkeys(("chown", "lchown", "fchown"), ((1,), (2,))), **_SET_IDS}
_ONE_USER: Ids = (((1000, 1000),), ((100, 100),))
_RANGES: Ids = (((0, 0), (10, 20)), ((5, 5), (30, 40)))


def _cases(ids: Ids) -> list[tuple[tuple[int, int], tuple[str, str]]]:
    """Return pairs of a user id and a group id, and for each whether it is mapped."""
    users = {-1: "allowed", 0xFFFE: "asked"}
    groups = dict(users)
    for into, ranges in ((users, ids[0]), (groups, ids[1])):
        for first, last in ranges:
            into.update({first - 1: into.get(first - 1, "asked"), first: "allowed", last: "allowed"})
            into.setdefault(last + 1, "asked")
    return [((u, g), (users[u], groups[g])) for u in users for g in groups if min(u, g) >= -1]


def _libseccomp(audit: int, name: str) -> int:
    """Return a call's number, as libseccomp has it; negative if there is none."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    return int(resolve(ctypes.c_uint32(audit), name.encode()))


def _name_of(audit: int, number: int) -> str:
    """Return the name of the call with a number, as libseccomp has it; "" if there is none."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_char_p
    return (resolve(ctypes.c_uint32(audit), number) or b"").decode()


@pytest.mark.parametrize("ids", [_ONE_USER, _RANGES])
@pytest.mark.parametrize("machine", sorted(seccomp._ABIS))
def test_calls_with_ids_that_are_not_mapped_are_answered(machine: str, ids: Ids) -> None:
    """By the numbers that libseccomp has for each ABI; -1 stands for an id that stays as it is."""
    for audit, *_ in seccomp._ABIS[machine]:
        if _libseccomp(audit, "chown") == -1:  # it knows no such ABI: 32-bit RISC-V, LoongArch
            continue
        old = _libseccomp(audit, "chown32") > 0
        table = {name + suffix: where for name, where in _OWNERS.items() for suffix in ("", "32")}
        table["fchownat"] = ((2,), (3,))
        for name, (of_users, of_groups) in table.items():
            if (number := _libseccomp(audit, name)) < 0:
                continue
            mask = 0xFFFF if old and not name.endswith("32") and name != "fchownat" else 0xFFFFFFFF
            for (user, group), (user_answer, group_answer) in _cases(ids):
                call = [number, audit, 7, 7, 7, 7, 7, 7]
                for where, value in (*[(n, user) for n in of_users], *[(n, group) for n in of_groups]):
                    call[2 + where] = (value & mask) | (0xABCD << 48)  # the kernel ignores the upper half
                expected = "allowed"
                if (of_users and user_answer == "asked") or (of_groups and group_answer == "asked"):
                    expected = "asked"
                found = _evaluate(machine, call, network=True, ids=ids)
                assert found == expected, (hex(audit), name, user, group)


def test_without_a_process_that_answers_calls_are_refused() -> None:
    call = (92, 0xC000003E, 0, 7, 0)
    refused = seccomp._ERRNO | errno.EPERM
    assert _evaluate("x86_64", call, network=True, ids=_ONE_USER, answer=refused) == "EPERM"
    assert _evaluate("x86_64", call, network=True) == "allowed"


def test_an_outer_filter_that_answers_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel allows one such filter in a process, and a container's engine may have it (LXD)."""
    installed = []

    def install(instructions: list[seccomp._Instruction], *, listener: bool) -> int:
        if listener:
            raise OSError(errno.EBUSY, "busy")
        installed.append({value for code, _, _, value in instructions if code == seccomp._RETURN})
        return -1

    monkeypatch.setattr(seccomp, "_install", install)
    assert seccomp.install(network=True, ids=_ONE_USER) == -1
    assert [seccomp._ASK in values for values in installed] == [False]


def test_an_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_ABIS", {})
    with pytest.raises(OSError, match="not implemented"):
        seccomp.install(network=True)


# Where libseccomp has another name, by the width of the ABI's numbers.
_OTHER_NAMES = {"newfstatat": ("fstatat64",), "chown32": ("chown",), "lchown32": ("lchown",)}
# What no libseccomp of Debian 12 knows yet; their numbers are the same everywhere (asm-generic/unistd.h).
_NEWER = {"getxattrat": 464, "listxattrat": 465, "setxattrat": 463, "removexattrat": 466}


@pytest.mark.parametrize("machine", sorted(seccomp._ABIS))
def test_the_numbers_of_calls_with_paths(machine: str) -> None:
    """Each number of each ABI is that of libseccomp, and no call of the table is missing where it has one."""
    for audit, *_ in seccomp._ABIS[machine]:
        if _libseccomp(audit, "execve") == -1:  # it knows no such ABI: 32-bit RISC-V, LoongArch
            continue
        ours = path_calls.shapes(audit)
        theirs: dict[int, set[str]] = {}
        for name in (row[0] for row in path_calls.ROWS):
            for each in (name, *_OTHER_NAMES.get(name, ())):
                number = _NEWER.get(name, _libseccomp(audit, each))
                if number >= 0:
                    theirs.setdefault(number, set()).add(name)
        assert ours.keys() >= theirs.keys(), [theirs[n] for n in theirs.keys() - ours.keys()]
        # A 64-bit ABI shares a column with its 32-bit one: the further numbers are those of no call.
        assert [found for number in ours.keys() - theirs.keys() if (found := _name_of(audit, number))] == []


@pytest.mark.parametrize("machine", sorted(seccomp._ABIS))
def test_an_audit_sees_calls_with_paths_and_changes_no_other(machine: str) -> None:
    """All calls with a path, but not stat(2) of an open file; io_uring_setup(2) too, which is counted."""
    for audit, *_ in seccomp._ABIS[machine]:
        paths = path_calls.shapes(audit)
        for number, (kind, _, flags) in paths.items():
            call = [number, audit, 0, 0, 0, 0, 0, 0]
            assert _evaluate(machine, call, network=False, audited=True) == "asked"
            if flags >= 0:
                call[2 + flags] = 0x1100  # AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW
                expected = "allowed" if kind == path_calls.LOOK else "asked"
                assert _evaluate(machine, call, network=False, audited=True) == expected
        assert _evaluate(machine, [425, audit, 0], network=True, audited=True) == "asked"
        for number in {*range(470)} - paths.keys() - {425}:
            call = [number, audit, 3, 3, 3, 3, 3, 3]
            plain = _evaluate(machine, call, network=False, ids=_RANGES)
            assert _evaluate(machine, call, network=False, ids=_RANGES, audited=True) == plain, number
