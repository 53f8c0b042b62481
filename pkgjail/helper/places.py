"""The directories of the service, and the caches of its users.

    /var/cache/pkgjaild          root's, closed to all others
      UID/cache, UID/run-BOOT    the user's caches of jails

What pkgjail caches is believed when it is read again, so it must not be the user's to write by other means.
Only a worker sees the user's own directory: it mounts it over the closed one, in its own mount namespace.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

from pkgjail.core.errors import os_error_text
from pkgjail.helper.errors import ServiceError
from pkgjail.sandbox import syscalls as sc
from pkgjail.storage.locations import replaceable_part

STATE = "/var/cache/pkgjaild"
"""The default place of the users' caches."""

_CACHE, _RUN = "cache", "run-"
_SHARED = "PKGJAIL_SHARED_DIR"
_BIND = 0x1000  # MS_BIND


def make_state(state: str) -> None:
    """Make the directory of all caches, root's alone, and remove what belongs to an earlier boot.

    Raises:
        ServiceError: it cannot be made, or others could replace it.

    """
    try:
        os.makedirs(state, 0o700, exist_ok=True)
        found = os.lstat(state)
    except OSError as error:
        raise ServiceError(f"cannot start: {os_error_text(error, state)}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or os.path.realpath(state) != state:
        raise ServiceError(f"cannot start: {state} is no directory of root's, or a link leads to it")
    if part := replaceable_part(os.path.dirname(state)):
        raise ServiceError(f"cannot start: others can replace {part}, in which the caches are")
    os.chmod(state, 0o700)
    current = _run_name()
    for user in os.listdir(state):
        with suppress(OSError):
            for name in os.listdir(f"{state}/{user}"):
                if name.startswith(_RUN) and name != current:
                    shutil.rmtree(f"{state}/{user}/{name}", ignore_errors=True)


def make_own(state: str, uid: int, gid: int) -> str:
    """Make the directory of a user, and return it."""
    own = f"{state}/{uid}"
    with suppress(FileExistsError):
        os.mkdir(own, 0o700)
    os.chown(own, uid, gid, follow_symlinks=False)  # also after a crash between the two
    return own


def show_own(state: str, own: str) -> None:
    """In a mount namespace of this process's own: show the user's directory alone at the state's place."""
    sc.mount(os.fsencode(own), os.fsencode(state), None, _BIND)
    flags = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOEXEC
    sc.mount_setattr(sc.AT_FDCWD, os.fsencode(state), flags)


def variables(state: str, home: str) -> dict[str, str]:
    """Return the environment of a worker: where pkgjail keeps its caches, and no variable of a client's.

    Where users publish baselines (PKGJAIL_SHARED_DIR) is as the daemon's environment says.
    """
    for name in (_CACHE, _run_name()):
        os.makedirs(f"{state}/{name}", 0o700, exist_ok=True)
    shared = {name: os.environ[name] for name in (_SHARED,) if name in os.environ}
    return {
        **shared,
        "HOME": home,
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "XDG_CACHE_HOME": f"{state}/{_CACHE}",
        "XDG_RUNTIME_DIR": f"{state}/{_run_name()}",
    }


def _run_name() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return _RUN + file.read().strip()
