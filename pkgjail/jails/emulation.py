"""Manifests of other architectures: whether their programs run in a jail here, natively or by emulation.

Whether they do is found by trying: a jail with nothing but a tiny program of that architecture. What
binfmt_misc says explains a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.architectures import is_host_word, known_architecture, runs_natively, tiny_program
from pkgjail.core.errors import JailError
from pkgjail.core.reporter import SILENT

if TYPE_CHECKING:
    from pkgjail.core.architectures import Architecture
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.sandbox.steps import Plan

_PROGRAM = b"/program"
_TIMEOUT = 60
_WHAT = "run programs of the manifest"


def runs_by_emulation(manifest: Manifest, reporter: Reporter = SILENT, *, what: str = "") -> bool:
    """Return whether a manifest's programs run in a jail here by emulation, of which it warns, or natively.

    One of this host's architecture costs a comparison of words. `what` is what they are needed for besides a
    command; a virtual machine is no way to that.

    Raises:
        JailError: they do not run; it names both ways out: an emulator, and a virtual machine.

    """
    word = manifest.header.architecture
    if is_host_word(word):
        return False
    architecture = known_architecture(word)
    if architecture is None or runs_natively(architecture):
        return False  # of an unknown one, the kernel knows more
    reporter.warn(
        f"the manifest is for {architecture}: its programs run by emulation{_emulator(architecture, what)}"
    )
    return True


def _emulator(architecture: Architecture, what: str) -> str:
    """Return the name of the emulator that runs programs of an architecture in a jail, in parentheses."""
    from pkgjail.core import binfmt  # for other architectures alone
    from pkgjail.core.text import printable

    fault = binfmt.obstacle(architecture)
    found = binfmt.registration_for(architecture)
    if fault is None and not runs_in_jail(architecture):
        emulator = f"the emulator {printable(found.interpreter)}" if found else "the emulator of this host"
        fault = binfmt.Obstacle(f"{emulator} does not run a program in a jail, which was tried", "replace it")
    if fault is not None:
        raise JailError(binfmt.refusal(architecture, fault, what=what or _WHAT, machine=not what))
    return f" ({printable(found.name)})" if found else ""


def runs_in_jail(architecture: Architecture) -> bool:
    """Return whether a program of an architecture runs in a jail that has nothing else, by trying.

    Raises:
        JailError: no jail can be made here.

    """
    from pkgjail.core.exit_programs import STATUS
    from pkgjail.core.programs import UnansweredError, capture_output

    content = tiny_program(architecture)
    try:
        return capture_output(lambda: _run(content), seconds=_TIMEOUT).status == STATUS
    except UnansweredError:
        return False


def _run(content: bytes) -> int:
    from pkgjail.jails.diagnosis import diagnose
    from pkgjail.sandbox.job import SetupError
    from pkgjail.sandbox.launch import run
    from pkgjail.sandbox.steps import Command, assemble

    program = assemble(_plan(content))
    try:
        return run(program, Command((_PROGRAM.decode(),), b"/", (), terminal=False))
    except SetupError as failure:
        raise diagnose(failure, _PROGRAM.decode()) from failure


def _plan(content: bytes) -> Plan:
    from pkgjail.core.jail_names import HOSTNAME, KERNEL_DIRECTORIES, TMP
    from pkgjail.sandbox import steps as to

    directories = [to.Directory(path, 0o755) for path in (b"/", *KERNEL_DIRECTORIES, TMP)]
    kernel = (to.Proc(b"/proc"), to.Sys(b"/sys"), to.Devices(b"/dev"), to.Tmpfs(TMP, 0o1777))
    file = to.Content(_PROGRAM, 0o755, content)
    return to.Plan(b"/", (*directories, file, to.Seal(), *kernel), network=True, hostname=HOSTNAME)
