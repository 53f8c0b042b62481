"""What Spack calls at the start of every command, and goes on from in the jail.

`go_inside` is the entry point `spack.config`. It imports little, so that it is quick when no environment is
active.
"""

from __future__ import annotations

import os
import sys

from pkgjail.environments.process import process_argv
from pkgjail.integrations.spack import replay
from pkgjail.integrations.spack.argv import is_own_command, split_words
from pkgjail.integrations.spack.extensions import has_isolate, loaded_root
from pkgjail.integrations.spack.state import load_state
from pkgjail.jail.detect import is_isolated

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.integrations.spack.state import State

# Whether Spack has called `go_inside` in this process.
_called = False
# Warned about are the tools that a build would miss; other commands need none.
_BUILDING = frozenset({"build-env", "ci", "dev-build", "install", "test-env"})


def go_inside() -> None:
    """Run this command of Spack's in the active environment, and end as that does.

    Returns where there is none, where this is in the jail already, and for `spack jail` itself.

    Else the process ends here, at once. `SystemExit` would not do: Spack's main catches it and asks
    its configuration, which calls this once more.
    """
    global _called  # noqa: PLW0603 - what Spack did in this process
    _called = True
    root = loaded_root()
    if root is None:
        return
    status = run_inside(root, sys.executable, process_argv()[1:], sys.argv[1:])
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_inside(root: str, python: str, script: Sequence[str], words: Sequence[str]) -> int | None:
    """Run a command of Spack's in the environment that is active for the Spack in `root`.

    Args:
        root: Spack's.
        python: its interpreter.
        script: what the interpreter is given: Spack's script, and `words`.
        words: the command line of Spack.

    Returns:
        The command's exit status, or 1 where the environment cannot be entered, and 130 after Ctrl-C
        there; both are told on standard error as Spack tells errors. None where the command is to run here.

    """
    if is_isolated():
        return None
    try:
        state = load_state(root, os.environ)
    except ValueError as error:
        return complain(str(error))
    _, command = split_words(words)
    if state is None or is_own_command(command, has_isolate=has_isolate(root)):
        return None
    if state.removing:
        warn(
            f"{state.environment} is being removed, or that was interrupted: this command runs outside; "
            "'spack jail --remove-environment' ends it"
        )
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    argv = [python, *script]
    facts = replay.facts_of(state, python, words)
    try:
        status = replay.enter(state, facts, argv)
        return _enter(state, root, argv, words, facts) if status is None else status
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "interrupted")
        return 130


def _enter(state: State, root: str, argv: Sequence[str], words: Sequence[str], facts: Sequence[str]) -> int:
    from pkgjail.core.errors import DriftError, PkgjailError
    from pkgjail.integrations.spack.enter import enter
    from pkgjail.integrations.spack.instance_cache import know

    try:
        known = know(state, root, argv[0], words)
        if split_words(words)[1] in _BUILDING:
            for text in known.outside:
                warn(text)
        # Nothing would be told by an entry that is kept, and none kept be right about files that may change.
        if known.outside or not known.states:
            return enter(state, known.instance, argv)
        return enter(state, known.instance, argv, facts=facts, watched=known.states)
    except DriftError as error:
        again = f"'spack jail --build-environment {state.environment} --force'"
        return complain(f"{error}\nor build the environment anew with {again}")
    except PkgjailError as error:
        return complain(f"{error}\n'spack jail --remove-environment' has Spack run outside again")
    except OSError as error:
        return complain(f"cannot enter {state.environment}: {error}")


def is_called() -> bool:
    """Whether this process's Spack calls the entry point `spack.config` of pkgjail's."""
    return _called


def complain(message: str) -> int:
    """Tell an error as Spack does; returns the exit status."""
    _say("Error", message)
    return 1


def warn(message: str) -> None:
    """Tell a warning as Spack does."""
    _say("Warning", message)


def _say(kind: str, message: str) -> None:
    from pkgjail.core.text import printable

    lines = map(printable, message.split("\n"))
    sys.stderr.write(f"==> {kind}: " + "\n    ".join(lines) + "\n")
    sys.stderr.flush()
