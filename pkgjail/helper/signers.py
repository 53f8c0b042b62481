"""Whether somebody whom the policy names signed a manifest: ssh-keygen(1), run as nobody, without a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pkgjail.core.untrusted import LIST, in_memory, read_named
from pkgjail.helper.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NAMESPACE = "pkgjail-manifest"
"""The namespace of a signature: ssh-keygen -Y sign -n pkgjail-manifest -f KEY MANIFEST."""
SUFFIX = b".sig"
MOST_BYTES = 16 << 10
"""The most bytes of a signature."""
_SECONDS = 10
_NOBODY = 65534
_PATH = "/usr/bin:/bin"


def signer_of(manifest: bytes, signature: bytes, signers: str) -> str:
    """Return the name of the principal who signed a manifest.

    Args:
        manifest: its bytes.
        signature: the content of the file that ssh-keygen wrote.
        signers: the path of the file of those who are allowed to.

    Raises:
        RequestError: nobody of them signed these bytes.

    """
    program = shutil.which("ssh-keygen", path=_PATH)
    if program is None:
        raise RequestError("pkgjaild cannot check the signature: there is no ssh-keygen")
    with ExitStack() as stack:
        allowed = stack.enter_context(in_memory(read_named(signers, LIST))).fileno()
        signed = stack.enter_context(in_memory(signature)).fileno()
        common = ("-s", _path(signed), "-f", _path(allowed))
        found = _run(program, ("-Y", "find-principals", *common), b"", (allowed, signed))
        for name in (found or "").splitlines():
            verify = ("-Y", "verify", "-I", name, "-n", NAMESPACE, *common)
            if _run(program, verify, manifest, (allowed, signed)) is not None:
                return name
    raise RequestError("nobody whom the administrator allows has signed this manifest")


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _run(program: str, words: Sequence[str], given: bytes, passed: Sequence[int]) -> str | None:
    """Run ssh-keygen, and return its output; None if it failed."""
    ids: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()} if os.geteuid() == 0 else {}
    for descriptor in passed:
        os.fchmod(descriptor, 0o644)
        os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        done = subprocess.run(
            (program, *words),
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": _PATH, "LC_ALL": "C"},
            cwd="/",
            pass_fds=tuple(passed),
            timeout=_SECONDS,
            check=False,
            **ids,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
