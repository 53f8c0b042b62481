"""Create an image by mmdebstrap(1), which installs packages of Debian's archive into a new root.

It writes a tar archive to a pipe, from which the image is imported. So the store has the image only if all of
that was right.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pkgjail.core.architectures import architecture_named, runs_natively
from pkgjail.core.binfmt import obstacle, refusal
from pkgjail.core.errors import PkgjailError, UsageError
from pkgjail.core.model import record
from pkgjail.core.text import printable
from pkgjail.core.untrusted import shortened
from pkgjail.images.importing import import_pieces
from pkgjail.images.store import check_name, refuse_taken_name
from pkgjail.images.streams import PIECE, started

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.core.architectures import Architecture
    from pkgjail.core.model import Requirement
    from pkgjail.core.reporter import Reporter
    from pkgjail.images.model import Image, ImageLimits

PROGRAM = "mmdebstrap"
VARIANTS = ("apt", "buildd", "essential", "important", "minbase", "required", "standard")
"""What mmdebstrap installs besides the packages that are named: all variants that have dpkg in the image."""

# The host's apt installs what satisfies the requirements, as it does for mmdebstrap itself. They are in the
# environment, as one text in the syntax of Depends, which the shell that runs this only passes on. Then those
# files go that mmdebstrap copies from the host.
_HOOK = (
    'if [ -n "$PKGJAIL_REQUIREMENTS" ]; then APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes '
    '-o APT::Install-Recommends="$PKGJAIL_RECOMMENDS" -o Dir::Bin::dpkg=env '
    "-o DPkg::Options::=--unset=TMPDIR -o DPkg::Options::=dpkg "
    '-o DPkg::Chroot-Directory="$1" satisfy "$PKGJAIL_REQUIREMENTS"; fi '
    '&& rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
)
_REQUIREMENTS, _RECOMMENDS = "PKGJAIL_REQUIREMENTS", "PKGJAIL_RECOMMENDS"
# 2 January 1980, as in `pkgjail.export.image.tar`: a fixed date gives the same /etc/shadow on each day.
_TIME = "315619200"
_MOST_LINES = 12  # of what the program said, in an error
_MOST_KEPT = 200
_MOST_OF_A_LINE = 300
_NEWS, _WARNING = "I: ", "W: "
_REPEATED = "E: setup failed: "  # mmdebstrap repeats the command that failed
# apt's own progress, which says nothing about a failure.
_PROGRESS = ("Reading ", "Building ", "Get:", "Hit:", "Ign:")


@record
class Recipe:
    """What an image is made of.

    `requirements` have texts in the syntax of Depends. `include` are packages as apt-get(8) takes them.
    `mirrors` are addresses, lines of sources.list(5) or files with such lines; if there are none, mmdebstrap
    chooses. `architecture` is in any system's words, or several with commas between them, of which the first
    is the image's own; "" for this machine's.
    """

    suite: str
    variant: str
    requirements: Sequence[Requirement] = ()
    include: Sequence[str] = ()
    mirrors: Sequence[str] = ()
    architecture: str = ""
    recommends: bool = False


def create_from_recipe(  # noqa: PLR0913 - what and where; the rest is by name
    recipe: Recipe,
    name: str,
    *,
    store: str,
    replace: bool,
    limits: ImageLimits | None,
    reporter: Reporter,
    listen: Callable[[str], object],
) -> Image:
    """Create an image and import it under a name; `listen` receives mmdebstrap's messages, line by line.

    Raises:
        ImageError: the image has more than the limits allow.
        PkgjailError: another image has the name, mmdebstrap is missing, or it failed; programs of the
            architecture do not run here.
        UsageError: the name is none that an image may have, or the recipe has what mmdebstrap would take for
            something else.
        OSError: the store cannot be written.

    """
    check_name(name)
    if not replace:
        refuse_taken_name(name, store)
    command = command_of(recipe)
    refuse_foreign_image(recipe)
    environment = {
        "SOURCE_DATE_EPOCH": _TIME,
        **os.environ,
        _REQUIREMENTS: ", ".join(requirement.text for requirement in recipe.requirements),
        _RECOMMENDS: str(recipe.recommends).lower(),
    }
    with _written_by(command, environment, listen, recipe.requirements) as pieces:
        return import_pieces(
            pieces, name, PROGRAM, store=store, replace=replace, limits=limits, reporter=reporter
        )


def command_of(recipe: Recipe) -> list[str]:
    """Return the command line that writes an image's archive to standard output.

    As root, mmdebstrap chooses how it works. For others it unshares namespaces: by fakechroot, scripts of
    packages would see the host.

    Raises:
        UsageError: the recipe has what mmdebstrap would take for something else, or an unknown architecture.

    """
    if recipe.variant not in VARIANTS:
        raise UsageError(
            f"cannot create an image of the variant {printable(recipe.variant)!r}: the variants are "
            f"{', '.join(VARIANTS)}"
        )
    for mirror in recipe.mirrors:
        if "://" not in mirror and not mirror.startswith("deb ") and not os.path.isfile(mirror):
            raise UsageError(
                f"cannot use the mirror {printable(mirror)!r}: name an address (http://…), a line of "
                "sources.list(5), or a file with such lines"
            )
    wanted = _architectures(recipe)
    return [
        PROGRAM,
        f"--mode={'auto' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={recipe.variant}",
        # That its programs run here was found by trying: arch-test(1) is not needed.
        *([f"--architectures={','.join(map(str, wanted))}", "--skip=check/qemu"] if wanted else ()),
        *(f"--include={package}" for package in recipe.include),
        f"--customize-hook={_HOOK}",
        "--",
        recipe.suite,
        "-",
        *recipe.mirrors,
    ]


def refuse_foreign_image(recipe: Recipe) -> None:
    """Refuse an image whose packages' scripts do not run here, before anything is downloaded.

    Raises:
        PkgjailError: its programs run neither natively nor by emulation.
        UsageError: there is no such architecture.

    """
    for architecture in _architectures(recipe)[:1]:
        if runs_natively(architecture):
            return
        if fault := obstacle(architecture):
            raise PkgjailError(refusal(architecture, fault, what="create the image", machine=False))


def _architectures(recipe: Recipe) -> list[Architecture]:
    return (
        [architecture_named(word) for word in recipe.architecture.split(",")] if recipe.architecture else []
    )


@contextmanager
def _written_by(
    command: Sequence[str],
    environment: dict[str, str],
    listen: Callable[[str], object],
    requirements: Sequence[Requirement],
) -> Iterator[Iterator[bytes]]:
    """Yield the pieces that mmdebstrap writes. If the caller is not interested any more, it is stopped.

    Raises, also while they are read:
        PkgjailError: it is missing, or failed.

    """
    program = shutil.which(command[0])
    if program is None:
        raise PkgjailError(
            f"cannot create an image: the program {PROGRAM} is not in PATH; install it (Debian's package "
            f"{PROGRAM}, and uidmap for ordinary users)"
        )
    # In a session of its own, since only a signal to all of its processes stops it: then it cleans up.
    with subprocess.Popen(
        (program, *command[1:]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        bufsize=0,
        start_new_session=True,
    ) as process:
        said: deque[str] = deque(maxlen=_MOST_KEPT)
        threads: list[threading.Thread] = []
        try:
            threads.append(started(_hear, process, said, listen))
            yield _pieces(process, threads[0], said, requirements)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            process.stdout.close()
            process.wait()
            for thread in threads:
                thread.join()


def _pieces(
    process: subprocess.Popen[bytes],
    thread: threading.Thread,
    said: deque[str],
    requirements: Sequence[Requirement],
) -> Iterator[bytes]:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    while piece := process.stdout.read(PIECE):
        yield piece
    thread.join()
    if process.wait():
        raise PkgjailError(_failure(process.returncode, list(said), requirements))


def _hear(process: subprocess.Popen[bytes], said: deque[str], listen: Callable[[str], object]) -> None:
    """Keep the last lines that the program says, and pass its own messages on; apt's and dpkg's are many."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    for raw in process.stderr:
        line = raw.decode("utf-8", "replace").rstrip()
        said.append(line)
        if line.startswith((_NEWS, _WARNING)) and _HOOK not in line:
            listen(line)


def _failure(status: int, said: Sequence[str], requirements: Sequence[Requirement]) -> str:
    """Return an error with the last lines that say something about it, and the places of requirements."""
    lines = [line for line in said if line and not line.startswith((_NEWS, *_PROGRESS))]
    end = next((number for number, line in enumerate(lines) if line.startswith(_REPEATED)), 0)
    lines = lines[: end or None][-_MOST_LINES:]
    unmet = [each for each in requirements if any(_names_first(each, line) for line in lines)]
    rows = [f"{each.origin}: cannot satisfy {each.text!r}" for each in unmet]
    rows += [f"  {printable(shortened(line, _MOST_OF_A_LINE))}" for line in lines]
    if any("/etc/subuid" in line for line in lines):
        rows.append("an ordinary user needs subordinate ids: usermod(8), --add-subuids and --add-subgids")
    head = f"cannot create the image: {PROGRAM} ended with status {status}, and nothing was imported:"
    return "\n".join([head, *rows])


def _names_first(requirement: Requirement, line: str) -> bool:
    """Return whether a line of apt's says that the first alternative of a requirement is not to be had."""
    return f" Depends: {requirement.text.partition('|')[0].rstrip()} but " in line
