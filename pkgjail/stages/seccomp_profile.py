"""The jail's filter of system calls (`pkgjail.sandbox.seccomp`) as OCI engines take it, by names of calls.

The form is that of `linux.seccomp` in config.json of the OCI runtime specification, which podman and Docker
take as a profile too.
"""

from __future__ import annotations

import errno
import os
from typing import Any

_ARCHITECTURES = {
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
}
_KEYRINGS = ["add_key", "keyctl", "request_key"]
_IO_URING = ["io_uring_enter", "io_uring_register", "io_uring_setup"]
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_LOW = 0xFFFFFFFF  # the kernel ignores the upper half of an ioctl's number
# Flags of clone(2) and unshare(2).
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000


def seccomp_profile(*, keep_names: bool) -> dict[str, Any]:
    """Return the filter. With `keep_names`, it also refuses new mount and user namespaces."""
    rules = [
        _refused([*_KEYRINGS, *_IO_URING, "clone3"], errno.ENOSYS),
        *(_refused(["ioctl"], errno.EPERM, 1, _LOW, number) for number in (_TIOCSTI, _TIOCLINUX)),
    ]
    if keep_names:
        # s390 has the flags of clone(2) in its second argument.
        of_clone = 1 if os.uname().machine.startswith("s390") else 0
        for flag in (_NEW_MOUNTS, _NEW_USER):
            rules.append(_refused(["unshare"], errno.EPERM, 0, flag, flag))
            rules.append(_refused(["clone"], errno.EPERM, of_clone, flag, flag))
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": _ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": rules,
    }


def _refused(
    names: list[str], number: int, position: int = -1, mask: int = 0, value: int = 0
) -> dict[str, Any]:
    """Return a rule: the calls return an error, always or if an argument has this value under the mask."""
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number}
    if position >= 0:
        argument = {"index": position, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        rule["args"] = [argument]
    return rule
