"""What the attempts share: how one is named, run and judged. Runs inside a jail, standard library alone.

An attempt is a function that tries one way out. It raises `OSError` when the kernel refuses it,
`Refused` when it got nothing worth having, and returns a text that says what it reached when it
succeeded. Whatever else happens (a mistake in the attempt) counts as neither, and fails the test.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 10
Try = Callable[[], str]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# The numbers of calls that the C library does not wrap: x86_64, and the table of newer ports.
_NUMBERS = {
    "add_key": (248, 217), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "kexec_load": (246, 104), "finit_module": (313, 273), "kcmp": (312, 272),
    "ioprio_set": (251, 30), "migrate_pages": (256, 238), "get_robust_list": (274, 100),
    "nfsservctl": (180, 42), "rt_sigqueueinfo": (129, 138), "tgkill": (234, 131), "acct": (163, 89),
    "pivot_root": (155, 41), "quotactl": (179, 60), "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "pidfd_open": (434, 434), "openat2": (437, 437),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "quotactl_fd": (443, 443),
    "kexec_file_load": (320, 294),
    "sched_setattr": (314, 274), "listns": (470, 470), "clone3": (435, 435),
}  # fmt: skip


class Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """The call may have gone through, and gave nothing of the host; the text says what it gave."""


class Attempt(NamedTuple):
    """One row of the table. `control`: the same attempt outside the jail is expected to succeed.

    `network`: what it reaches is the network's, which the jail shares unless it is told not to.
    """

    name: str
    tries: str
    success: str
    run: Try
    control: bool
    network: bool


TABLE: list[Attempt] = []
# What the test outside tells: where its canaries are, the ids of its processes, and so on.
facts: dict[str, Any] = {}


def attempt(
    name: str, tries: str, success: str, *, control: bool = False, network: bool = False
) -> Callable[[Try], Try]:
    """Enter a function in the table."""

    def enter(function: Try) -> Try:
        TABLE.append(Attempt(name, tries, success, function, control, network))
        return function

    return enter


def opened(path: str, flags: int) -> str:
    """Open a path, and report that as the success that it would be."""
    descriptor = os.open(path, flags)
    os.close(descriptor)
    return f"opened {path}"


def read(path: str) -> str:
    """Read what only the host has; nothing to read is a refusal."""
    with open(path, "rb") as file:
        content = file.read(200)
    if not content:
        raise Refused("empty")
    return f"read {content[:60]!r}"


def checked(result: int, name: str) -> int:
    """The result of a C function, or its `errno` as an `OSError`."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def call(name: str, *arguments: int | bytes | ctypes.Array[Any] | ctypes.Structure | None) -> int:
    """A system call by its name."""
    number = _NUMBERS[name][platform.machine() != "x86_64"]
    return checked(libc.syscall(ctypes.c_long(number), *map(_argument, arguments)), name)


def _argument(value: int | bytes | ctypes.Array[Any] | ctypes.Structure | None) -> object:
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, (ctypes.Array, ctypes.Structure)):
        return ctypes.byref(value)
    return ctypes.c_char_p(value)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    texts = (source.encode(), target.encode(), kind.encode() if kind else None)
    checked(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() or None), "mount")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    checked(libc.umount2(target.encode(), flags), "umount2")


def unshare(flags: int) -> None:
    """unshare(2)."""
    checked(libc.unshare(flags), "unshare")


def run_table(only: Callable[[Attempt], bool]) -> list[tuple[str, ...]]:
    """Run the attempts that `only` picks, each in a process of its own; their rows with the outcome."""
    return [(row.name, row.tries, row.success, *_outcome(row)) for row in TABLE if only(row)]


def _outcome(row: Attempt) -> tuple[str, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()  # what it kills by group is itself
        os.write(writing, json.dumps(_judge(row.run)).encode())
        os._exit(0)
    os.close(writing)
    try:
        if not select.select([reading], [], [], _SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        answer = os.read(reading, 65536)
    finally:
        os.close(reading)
    status = os.waitpid(child, 0)[1]
    if not answer:
        return "refused", signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "ended"
    outcome, detail = json.loads(answer)
    return outcome, detail


def _judge(run: Try) -> tuple[str, str]:
    try:
        return "SUCCEEDED", run()
    except OSError as error:
        return "refused", errno.errorcode.get(error.errno or 0, str(error))
    except Refused as nothing:
        return "refused", str(nothing)
    except BaseException as mistake:  # noqa: BLE001 - reported, and fails the test
        return "MISTAKEN", repr(mistake)


def _wait_for_the_host() -> None:
    """Let the host change something now that the jail is entered."""
    bind = facts["bind"]
    os.close(os.open(bind + "/started", os.O_CREAT | os.O_WRONLY))
    while not os.path.exists(bind + "/go"):
        time.sleep(0.01)


def main(arguments: Sequence[str]) -> None:
    """`FACTS RESULT all|control`: run the table, and leave the outcomes in RESULT as JSON."""
    with open(arguments[0], encoding="utf-8") as told:
        facts.update(json.load(told))
    if arguments[2] == "all":
        _wait_for_the_host()
    picks: dict[str, Callable[[Attempt], bool]] = {
        "all": lambda _row: True,
        "control": lambda row: row.control,
    }
    outcomes = run_table(picks[arguments[2]])
    with open(arguments[1], "w", encoding="utf-8") as result:
        json.dump(outcomes, result)
    sys.stdout.write(f"{len(outcomes)} attempts\n")
