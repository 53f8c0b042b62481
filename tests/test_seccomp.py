"""The filter of system calls, interpreted for each machine: which calls it allows and refuses."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pkgjail.sandbox import seccomp

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORDS = {seccomp._NUMBER: 0, seccomp._ARCHITECTURE: 1}


def _evaluate(machine: str, call: Sequence[int], *, network: bool) -> str:
    """Return the filter's answer to a call: its number, architecture and two arguments."""
    program = seccomp._program(seccomp._ABIS[machine], network=network)
    position = loaded = 0
    while True:
        code, true, false, value = program[position]
        position += 1
        if code == seccomp._RETURN:
            return "allowed" if value == seccomp._ALLOW else errno.errorcode[value & 0xFFFF]
        if code == seccomp._LOAD:
            loaded = call[_WORDS[value] if value in _WORDS else 2 + (value - seccomp._ARGUMENTS) // 8]
        elif code == seccomp._EQUAL:
            position += true if loaded == value else false
        else:
            assert code == seccomp._AT_LEAST
            position += true if loaded >= value else false


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


def test_an_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_ABIS", {})
    with pytest.raises(OSError, match="not implemented"):
        seccomp.install(network=True)
