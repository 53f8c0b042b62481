"""Find the processes that hold a lock on a file (flock(2)), for a message that a user can act on."""

from __future__ import annotations

import os

from pkgjail.core.text import escape_ascii

# Anybody may hold a lock, in as many processes and with as long a command line as they like.
_MOST_PROCESSES = 10
_MOST_BYTES = 1000


def lock_holders(descriptor: int) -> list[str]:
    """Return a phrase for each process that holds a lock on the file: "process 123 (spack install zlib)".

    The processes come from proc_locks(5). Those that this process may not see, or that have ended
    meanwhile, are left out.
    """
    try:
        found = os.fstat(descriptor)
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return []
    locked = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = []
    for line in lines:
        # "7: FLOCK ADVISORY READ 4711 fe:00:12345 0 EOF"; waiting ones have "->" after the number.
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[5:6] == [locked] and int(fields[4]) > 0:
            pids.append(int(fields[4]))
    commands = {pid: _command(pid) for pid in sorted(set(pids))[:_MOST_PROCESSES]}
    return [f"process {pid} ({command})" for pid, command in commands.items() if command]


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = file.read(_MOST_BYTES).rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return " ".join(escape_ascii(os.fsdecode(argument)) for argument in argv)
