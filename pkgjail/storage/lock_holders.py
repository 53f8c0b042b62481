"""Who holds a lock of flock(2) on a file: for a message that a user can act on."""

from __future__ import annotations

import os

# Anybody may hold a lock, in as many processes and by as long a command line as they like.
_MOST_TOLD = 10
_MOST_BYTES = 1000


def holders(descriptor: int) -> list[str]:
    """A phrase for each process that holds a lock on the file: "process 123 (spack install zlib)".

    Told by proc_locks(5). Processes that this one may not see, or that ended meanwhile, are left out.
    """
    try:
        found = os.fstat(descriptor)
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = []
    for line in lines:
        # "7: FLOCK ADVISORY READ 4711 fe:00:12345 0 EOF"; those that wait have "->" behind the number.
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[5:6] == [place] and int(fields[4]) > 0:
            pids.append(int(fields[4]))
    return [
        f"process {pid} ({command})" for pid in sorted(set(pids))[:_MOST_TOLD] if (command := _command(pid))
    ]


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(_MOST_BYTES).rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return " ".join(ascii(os.fsdecode(word))[1:-1] for word in words)
