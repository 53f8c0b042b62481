"""The command `spack jail`: its arguments, and what it prints. Spack's extension calls it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import InputError, PkgjailError, Problem, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import Manifest
    from pkgjail.integrations.spack.actions import Wish
    from pkgjail.integrations.spack.instance import Instance
    from pkgjail.integrations.spack.state import State

_EPILOG = """\
While an environment is active for this Spack, every other spack command runs inside. docs/spack.md of
pkgjail is the guide.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `spack jail` to a parser of Spack's."""
    parser.epilog = _EPILOG
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--build-environment",
        metavar="PATH",
        help="make an environment in PATH, which must not be there or be empty, and make it active",
    )
    what.add_argument("--remove-environment", action="store_true", help="take the active one away")
    what.add_argument("--cli", action="store_true", help="a shell in the active environment")
    what.add_argument("--run", action="store_true", help="run COMMAND there: --run -- COMMAND [ARGUMENT ...]")
    what.add_argument(
        "--status", action="store_true", help="tell what is active, and where you are (the default)"
    )
    what.add_argument(
        "--landlock",
        action="store_true",
        help="print the files as rules for the sandbox of Spack 1.2: those of --manifest or --whitelist, "
        "else of the active environment",
    )
    what.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    _add_building(parser)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what --run runs")


def _add_building(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --build-environment")
    group.add_argument("--manifest", metavar="M", help="a manifest that 'pkgjail resolve' made")
    group.add_argument(
        "--whitelist",
        action="append",
        metavar="NAME",
        help="a shipped whitelist, or the path of one (may be repeated; default: spack)",
    )
    group.add_argument(
        "--blacklist",
        action="append",
        metavar="NAME",
        help="a shipped blacklist, or the path of one (may be repeated; default, without --whitelist: docs)",
    )
    group.add_argument("--no-network", action="store_true", help="no network inside but a loopback")
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="SRC[:DST[:ro]]",
        help="show a directory, writable unless ro is said",
    )
    group.add_argument(
        "--ro-bind", action="append", default=[], metavar="SRC[:DST]", help="the same, read-only"
    )
    group.add_argument(
        "--env", action="append", default=[], metavar="NAME[=VALUE]", help="set a variable, or pass it on"
    )
    group.add_argument(
        "--copy", action="store_true", help="copy the files; upgrades of the host do not count"
    )
    group.add_argument(
        "--permanent", action="store_true", help="also make mount points, and print the lines for fstab(5)"
    )
    group.add_argument("-f", "--force", action="store_true", help="replace the environment that is there")


def run(
    name: str,
    arguments: argparse.Namespace,
    describe: Callable[[], dict[str, Any]],
    failure: Callable[[str, str | None], Exception],
) -> int:
    """Do what the arguments say; returns the exit status.

    `describe` tells of this Spack, and `failure` is Spack's own error (a message, and more lines).
    """
    try:
        status = _run(name, arguments, describe)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone, as with `| head`; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PkgjailError as error:
        raise failure(*_in_two(str(error))) from error
    except OSError as error:
        raise failure(told(error), None) from error
    return status


def _in_two(message: str) -> tuple[str, str | None]:
    first, _, rest = message.partition("\n")
    return first, "    " + rest.replace("\n", "\n    ") if rest else None


def _run(name: str, arguments: argparse.Namespace, describe: Callable[[], dict[str, Any]]) -> int:
    from pkgjail.integrations.spack import actions
    from pkgjail.integrations.spack.instance import parse_instance

    if arguments.words and not arguments.run:
        raise InputError([Problem("", f"what is {arguments.words[0]!r}? A command goes with --run")])
    if arguments.describe:
        print(json.dumps(describe()))
        return 0
    instance = parse_instance(describe())
    state = actions.active(instance.root)
    if arguments.build_environment is not None:
        return _build(name, arguments, instance)
    if arguments.remove_environment:
        from pkgjail.cli.console import ConsoleReporter

        with ConsoleReporter() as reporter:
            removed = actions.remove(_required(name, state), instance.root, reporter)
        print(f"{_required(name, state).environment}: {removed.deleted:,} names deleted; nothing is active")
        return 0
    if arguments.cli or arguments.run:
        return _enter(arguments, _required(name, state), instance)
    if arguments.landlock:
        return _landlock(name, arguments, state)
    return _tell(name, state)


def _required(name: str, state: State | None) -> State:
    if state is None:
        raise InputError(
            [
                Problem(
                    "",
                    f"no environment is active for this Spack; '{name} --build-environment PATH' makes one",
                )
            ]
        )
    return state


def _build(name: str, arguments: argparse.Namespace, instance: Instance) -> int:
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.integrations.spack import actions
    from pkgjail.integrations.spack.hook import warn

    actions.refuse_inside("build an environment")
    with ConsoleReporter() as reporter:
        built = actions.build(arguments.build_environment, _wish(arguments), instance, reporter)
    for text in built.outside:
        warn(text)
    if arguments.permanent:
        _print_fstab(built.state)
    hooks = _hooks()
    print(
        f"{built.state.environment} is active: spack commands run inside, by {' and '.join(hooks)}"
        if hooks
        else f"{built.state.environment} is active",
        file=sys.stderr if arguments.permanent else sys.stdout,
    )
    if not hooks:
        warn(
            "nothing leads Spack's commands inside: this Spack calls no entry point 'spack.config' of "
            "pkgjail's; set SPACK_PYTHON to the program 'pkgjail-spack-python'"
        )
    print(f"'{name} --remove-environment' ends it", file=sys.stderr if arguments.permanent else sys.stdout)
    return 0


def _wish(arguments: argparse.Namespace) -> Wish:
    from pkgjail.cli.jail_options import named_binds, named_variables
    from pkgjail.integrations.spack.actions import Wish

    if arguments.copy and arguments.permanent:
        raise InputError([Problem("", "--copy and --permanent are two forms of an environment; choose one")])
    return Wish(
        manifest=_manifest(arguments),
        form="copy" if arguments.copy else "fstab" if arguments.permanent else "host",
        binds=tuple(named_binds(arguments)),
        network=not arguments.no_network,
        variables=tuple(named_variables(arguments).items()),
        replace=arguments.force,
    )


def _manifest(arguments: argparse.Namespace) -> Manifest:
    """The manifest that is named, else what the lists come to."""
    if arguments.manifest is not None:
        if arguments.whitelist or arguments.blacklist:
            raise InputError(
                [Problem("", "a manifest is complete: --whitelist and --blacklist do not go with it")]
            )
        from pkgjail.manifest import read_manifest

        return read_manifest(arguments.manifest)
    from pkgjail.api import resolve

    blacklists = arguments.blacklist or ([] if arguments.whitelist else ["docs"])
    return resolve(arguments.whitelist or ["spack"], blacklists, hashed=True)


def _print_fstab(state: State) -> None:
    from pkgjail.environments.enter import read_built_manifest
    from pkgjail.export import export_manifest

    directory = os.fsencode(state.environment)
    sys.stdout.buffer.write(
        export_manifest(read_built_manifest(directory), "fstab", root=b"/", at=directory + b"/root")
    )
    sys.stdout.flush()


def _enter(arguments: argparse.Namespace, state: State, instance: Instance) -> int:
    from pkgjail.integrations.spack.actions import refuse_inside
    from pkgjail.integrations.spack.enter import enter

    refuse_inside("enter the environment")
    words = ["bash"] if arguments.cli else arguments.words
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise InputError([Problem("", "there is no command to run; write it behind '--run --'")])
    return enter(state, instance, words)


def _landlock(name: str, arguments: argparse.Namespace, state: State | None) -> int:
    from pkgjail.environments.enter import read_built_manifest
    from pkgjail.export import export_manifest

    if arguments.manifest or arguments.whitelist or arguments.blacklist or state is None:
        manifest = _manifest(arguments)
    else:
        manifest = read_built_manifest(os.fsencode(_required(name, state).environment))
    sys.stdout.buffer.write(export_manifest(manifest, "landlock", root=b"/"))
    sys.stdout.flush()
    return 0


def _tell(name: str, state: State | None) -> int:
    from pkgjail.jail.detect import is_isolated

    inside = is_isolated()
    if state is None:
        print(
            "outside; no environment is active" if not inside else "inside of a jail that is not this Spack's"
        )
        return 0
    print(f"{'inside' if inside else 'outside'}; active: {state.environment}")
    if inside:
        return 0
    if state.removing:
        print(f"its removal was interrupted; '{name} --remove-environment' ends it")
        return 0
    print(_contents(state))
    hooks = _hooks()
    print(
        f"spack commands run inside, by {' and '.join(hooks)}"
        if hooks
        else "nothing leads spack commands inside"
    )
    return 0


def _contents(state: State) -> str:
    from pkgjail.environments.directory import read_header
    from pkgjail.environments.enter import read_built_manifest

    directory = os.fsencode(state.environment)
    header, manifest = read_header(directory), read_built_manifest(directory)
    network = "the host's network" if header.network else "no network"
    return f"{len(manifest.packages):,} packages, {len(manifest.files):,} names, {network}; {header.manifest}"


def _hooks() -> list[str]:
    """What leads Spack's other commands inside, in words."""
    from pkgjail.integrations.spack.hook import is_called
    from pkgjail.integrations.spack.wrapper import NAME

    found = ["the entry point 'spack.config'"] if is_called() else []
    if os.path.basename(os.environ.get("SPACK_PYTHON", "")) == NAME:
        found.append("SPACK_PYTHON")
    return found
