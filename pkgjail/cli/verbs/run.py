"""`pkgjail run`: a command in the jail of a manifest."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING, Any

from pkgjail.cli.limit_options import add_limit_options, has_limits, limits_of
from pkgjail.cli.output import JSON_ERRORS, words_want_json
from pkgjail.cli.parser import Parser
from pkgjail.cli.results import never
from pkgjail.cli.verbs.resolve import add_policy_arguments, resolve_arguments
from pkgjail.core.errors import UsageError
from pkgjail.jail.replay import bind_source, remember
from pkgjail.storage.baseline import publisher_of
from pkgjail.storage.fingerprint import observe_settled

if TYPE_CHECKING:
    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import JailOptions, Manifest, UserBind
    from pkgjail.jail.run import Jail
    from pkgjail.storage.baseline import Publisher

_DESCRIPTION = """\
Run a command in a jail that shows exactly the files of a manifest, read-only, and nothing else of
the host: no root, no daemon. /tmp is private, /dev minimal, the environment clean, every
capability dropped. What is not in the manifest answers ENOENT.
"""
_EPILOG = """\
examples:
  pkgjail run --cwd spack.manifest.jsonl -- gcc -o hello hello.c
  pkgjail run --no-network --bind /scratch/build:/build spack.manifest.jsonl -- make -C /build
  pkgjail run --memory 4G --cpus 2 --pids 500 --cwd spack -- make -j2
  pkgjail run spack -- python3 -c 'import ssl'          (a whitelist, resolved on the spot)

The exit status is the command's, 128 + n after signal n; 125 where pkgjail failed (bad usage, a
bad manifest, no jail on this host), 126 where the command cannot be executed, 127 where the jail
has no such command, 137 where it was killed at its limit of memory.
"""


_TEXTS: dict[str, Any] = {
    "usage": "pkgjail run [options] MANIFEST [options] -- COMMAND [ARGUMENT ...]",
    "description": _DESCRIPTION,
    "epilog": _EPILOG,
}
# What may stand behind the second colon of a bind.
_BIND_OPTIONS = ("", "ro", "rw")
MANIFEST_HELP = "a manifest, or a whitelist's name or path"


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("run", help="run a command in the jail of a manifest", **_TEXTS)
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    _add_rest(parser)


def _add_rest(parser: argparse.ArgumentParser) -> None:
    """Add all that may stand behind MANIFEST."""
    add_jail_options(parser)
    add_command(parser)
    parser.set_defaults(run=run, report_changes=report_changes, failure=125, result_is_output=never)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the command to run, and what says how."""
    parser.add_argument("--json", action="store_true", help=JSON_ERRORS)
    parser.add_argument("--tty", "-t", action="store_true", help="give the command a terminal of its own")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")


def command_words(arguments: argparse.Namespace, rest: Parser) -> list[str]:
    """The command's words; options between MANIFEST and them are added to `arguments` by `rest`.

    argparse gives all that follows MANIFEST to `command`, options of ours among it.
    """
    words: list[str] = arguments.command
    rest.as_json = words_want_json(arguments.words)
    if words and words[0] != "--" and words[0].startswith("-"):
        words = rest.parse_args(words, namespace=arguments).command
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise UsageError("there is no command to run; write it behind '--'")
    return words


def add_jail_options(parser: argparse.ArgumentParser, *, resolving: bool = True) -> None:
    """Add the options that say which jail, and what of the host is bound into it.

    With `resolving` also those that say what a whitelist is resolved against.
    """
    parser.add_argument(
        "--cwd", action="store_true", help="bind the current directory, writable, and start in it"
    )
    add_sight_options(parser)
    parser.add_argument(
        "--plan",
        choices=("auto", "tree", "mask", "whole", "binds"),
        default="auto",
        help="how files are shown: by an overlay per large directory (tree, mask), by a bind mount per "
        "directory where it can be (whole) or per file (binds), or by what works here first (auto)",
    )
    parser.add_argument(
        "--verify",
        nargs="?",
        const="all",
        default="",
        choices=("all", "hash"),
        help="compare every file with the manifest before entering, not only those in changed directories; "
        "=hash: its content too",
    )
    parser.add_argument(
        "--allow-drift",
        action="store_true",
        help="enter the host as it is now, even if it differs from the manifest, and report what differs",
    )
    parser.add_argument(
        "--strict-exit",
        action="store_true",
        help="if the host's files changed while the command ran, fail with 125 instead of a warning",
    )
    add_limit_options(parser)
    if resolving:
        add_policy_arguments(parser)


def add_sight_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a jail shows besides its manifest."""
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="SRC[:DST[:ro]]",
        help="show a directory or file of the host in the jail, writable without ':ro' (may be repeated); "
        "write a colon in a path as \\:",
    )
    parser.add_argument(
        "--ro-bind", action="append", default=[], metavar="SRC[:DST]", help="the same, read-only"
    )
    parser.add_argument("--no-network", action="store_true", help="no network but a loopback of its own")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable, or pass the caller's on (may be repeated)",
    )


def _command(arguments: argparse.Namespace) -> list[str]:
    rest = Parser(prog="pkgjail run", **_TEXTS)
    _add_rest(rest)
    return command_words(arguments, rest)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    command = _command(arguments)
    places = [bind_source(os.fsencode(path)) for path in (arguments.manifest, arguments.root)]
    before = observe_settled(filter(os.path.lexists, places[0][:2]))  # ere it is read
    jail = open_jail(arguments, load_manifest(arguments))
    if before and jail.lasting and may_be_kept(arguments) and not _is_whitelist(arguments.manifest):
        jail.prepared.watched += before
        jail.prepared.sources += tuple(places)
        with contextlib.suppress(OSError):  # the next entry takes the long way again
            _remember(arguments, jail)
    return jail.run(command, terminal=arguments.tty)


def open_jail(arguments: argparse.Namespace, manifest: Manifest) -> Jail:
    """The jail of `manifest` as the arguments of `add_jail_options` say; drift that they allow is told."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.jail.run import prepare_jail

    root = os.fsencode(os.path.realpath(arguments.root))
    options, publisher = jail_options(arguments), _publisher(arguments)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        return prepare_jail(manifest, options, root=root, publisher=publisher, reporter=reporter)


def report_changes(arguments: argparse.Namespace, status: int) -> None:
    """Warn of files of the manifest that changed while the command ran, or raise `ExitDriftError`."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.jail.drift import Check
    from pkgjail.jail.run import report_changes as report

    _command(arguments)  # reads the options that stand behind MANIFEST
    manifest = load_manifest(arguments)
    check = Check(publisher=_publisher(arguments), reporter=ConsoleReporter(as_json=arguments.json))
    root = os.fsencode(os.path.realpath(arguments.root))
    report(manifest, root, check, strict=arguments.strict_exit, status=status)


def _publisher(arguments: argparse.Namespace) -> Publisher | None:
    """Who decides what the manifest is; nobody for a whitelist, which is resolved each time."""
    name = arguments.manifest
    return None if _is_whitelist(name) else publisher_of(os.fsencode(name))


def _remember(arguments: argparse.Namespace, jail: Jail) -> None:
    """Keep the jail for the next entry with the same words."""
    variables = passed_variables(arguments)
    remember(arguments.words, jail.prepared, terminal=arguments.tty, variables=variables)


def may_be_kept(arguments: argparse.Namespace) -> bool:
    """Whether the jail of these arguments may be entered by the same words without their being read.

    With limits a jail may fail after its command has started, and must not be entered again for it.
    """
    return not (arguments.verify or arguments.allow_drift or has_limits(arguments))


def passed_variables(arguments: argparse.Namespace) -> list[str]:
    """The names of the caller's variables that are passed on."""
    return [text for text in arguments.env if "=" not in text]


def load_manifest(arguments: argparse.Namespace) -> Manifest:
    """Read the manifest, or resolve the whitelist that stands in its place (without digests)."""
    name: str = arguments.manifest
    if _is_whitelist(name):
        return resolve_arguments(arguments, [name], hashed=False)
    if arguments.blacklist or arguments.recommends or arguments.essential is not None:
        raise UsageError(
            f"{name} is a manifest, which is complete: --blacklist, --recommends and --no-essential "
            "go with a whitelist; give them to 'pkgjail resolve'"
        )
    from pkgjail.manifest import read_manifest

    return read_manifest(name)


def _is_whitelist(name: str) -> bool:
    """Whether what stands in the manifest's place is a whitelist.

    Its jail rests on more than is looked at when one is entered again: on what it includes, on
    blacklists, on the package database.
    """
    is_list = name.endswith(".toml") or not ("/" in name or os.path.exists(name))
    return is_list and not name.endswith(".jsonl")


def jail_options(arguments: argparse.Namespace) -> JailOptions:
    """The options of `add_jail_options` as the library takes them."""
    from pkgjail.core.model import JailOptions, UserBind
    from pkgjail.jail.run import default_environment

    binds = named_binds(arguments)
    cwd = b"/"
    if arguments.cwd:
        cwd = os.getcwdb()
        binds.append(UserBind(source=cwd, destination=cwd, writable=True))
    environment = {**default_environment(), **named_variables(arguments)}
    return JailOptions(
        binds=tuple(binds),
        cwd=cwd,
        network=not arguments.no_network,
        environment=environment,
        plan=arguments.plan,
        verify=arguments.verify,
        allow_drift=arguments.allow_drift,
        strict_exit=arguments.strict_exit,
        limits=limits_of(arguments),
        inputs=_inputs(arguments),
    )


def _inputs(arguments: argparse.Namespace) -> tuple[bytes, ...]:
    """The files that say which jail: the manifest, or the lists in its place; none for an environment."""
    name: str | None = getattr(arguments, "manifest", None)
    if name is None:
        return ()
    if not _is_whitelist(name):
        return (os.path.abspath(os.fsencode(name)),)
    from pkgjail.policy import list_files

    return list_files([name], arguments.blacklist)


def named_binds(arguments: argparse.Namespace) -> list[UserBind]:
    """The binds that `add_sight_options` names."""
    binds = [parse_bind(text, writable=True) for text in arguments.bind]
    return binds + [parse_bind(text, writable=False) for text in arguments.ro_bind]


def named_variables(arguments: argparse.Namespace) -> dict[str, str]:
    """The variables that `add_sight_options` names."""
    return dict(filter(None, map(_variable, arguments.env)))


def parse_bind(text: str, *, writable: bool) -> UserBind:
    r"""`SRC[:DST[:OPTION]]`; the source may be relative and is where it is on the host by default.

    OPTION is `ro` or `rw`; without one `writable` counts. In a path `\:` is a colon and `\\` a
    backslash; any other backslash is itself.

    Raises:
        UsageError: it is something else, or asks for a writable bind where none may be.

    """
    from pkgjail.core.model import UserBind

    parts = _parts(text)
    source, destination, option = (*parts, "", "")[:3]
    if (
        len(parts) > len(("SRC", "DST", "OPTION"))
        or not source
        or (destination and not destination.startswith("/"))
    ):
        raise UsageError(
            f"cannot bind {text!r}: write SRC, SRC:DST or SRC:DST:OPTION, with an absolute path for DST, and "
            "\\: for a colon in a path"
        )
    if option not in _BIND_OPTIONS:
        raise UsageError(
            f"cannot bind {text!r}: there is no option {option!r}; the options are ro and rw, and a colon in "
            "a path is written \\:"
        )
    if option == "rw" and not writable:
        raise UsageError(f"cannot bind {text!r} read-only: it says rw; use --bind, or leave rw out")
    absolute = os.path.abspath(os.fsencode(source))
    place = os.path.normpath(os.fsencode(destination)) if destination else absolute
    return UserBind(source=absolute, destination=place, writable=writable and option != "ro")


def _parts(text: str) -> list[str]:
    """The words between colons; a backslash keeps a colon, or another backslash, in a word."""
    parts = [""]
    letters = iter(text)
    for letter in letters:
        if letter == ":":
            parts.append("")
        elif letter == "\\":
            following = next(letters, "")
            parts[-1] += following if following in (":", "\\") else letter + following
        else:
            parts[-1] += letter
    return parts


def _variable(text: str) -> tuple[str, str] | None:
    """`NAME=VALUE`, or `NAME` for the caller's own value (nothing where it has none)."""
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"cannot set {text!r}: write NAME or NAME=VALUE")
    if equals:
        return name, value
    return (name, os.environ[name]) if name in os.environ else None
