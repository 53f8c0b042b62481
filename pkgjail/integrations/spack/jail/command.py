"""The command `spack jail`: its arguments and its output. The extension that Spack loads calls it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from pkgjail.cli.machine_options import add_kept_machine_options, kept_stage
from pkgjail.core.errors import InputError, PkgjailError, Problem, os_error_text
from pkgjail.core.stage_names import DEFAULT
from pkgjail.core.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.integrations.spack.active import ActiveEnvironment
    from pkgjail.integrations.spack.instance.model import Instance
    from pkgjail.integrations.spack.jail.environment import BuildOptions
    from pkgjail.integrations.spack.jail.sources import Shown

_EPILOG = """\
While an environment is active for this Spack, every other spack command runs inside. See docs/spack.md in
pkgjail's sources.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `spack jail` to a parser of Spack."""
    parser.epilog = _EPILOG
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument(
        "--build-environment",
        metavar="PATH",
        help="build an environment in PATH, a new or empty directory, and activate it",
    )
    actions.add_argument("--remove-environment", action="store_true", help="remove the active environment")
    actions.add_argument(
        "--stop-machine",
        action="store_true",
        help="stop the active environment's virtual machine; the next command starts it again",
    )
    actions.add_argument("--cli", action="store_true", help="start a shell in the active environment")
    actions.add_argument(
        "--run",
        action="store_true",
        help="run COMMAND in the active environment: --run -- COMMAND [ARGUMENT ...]",
    )
    actions.add_argument(
        "--status",
        action="store_true",
        help="print which environment is active, and whether this is inside (default)",
    )
    actions.add_argument(
        "--landlock",
        action="store_true",
        help="print rules for the sandbox of Spack 1.2 that allow the files of --manifest or --whitelist, "
        "or of the active environment",
    )
    actions.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    _add_build_options(parser)
    parser.add_argument(
        "--audit",
        metavar="FILE",
        help="with --run or --cli: record what the command looks for; 'pkgjail audit show FILE' reports it",
    )
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command of --run")


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --build-environment")
    group.add_argument(
        "--tarball",
        metavar="T",
        help="show the files of an image, not the host's: import T, an archive of a root directory or of a "
        "container, into the store of images (see 'pkgjail image')",
    )
    group.add_argument(
        "--source",
        metavar="SOURCE",
        help="where the files are: host (default), dir:PATH, or image:NAME of the store",
    )
    group.add_argument("--manifest", metavar="M", help="a manifest from 'pkgjail resolve'")
    group.add_argument(
        "--whitelist",
        action="append",
        metavar="NAME",
        help="a shipped whitelist, or the path of one (can be repeated; default: spack, or all of an image)",
    )
    group.add_argument(
        "--blacklist",
        action="append",
        metavar="NAME",
        help="a shipped blacklist, or the path of one (can be repeated; default without --whitelist: docs)",
    )
    group.add_argument(
        "--no-network", action="store_true", help="give commands inside no network but a loopback"
    )
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="SRC[:DST[:ro]]",
        help="show a directory or file, writable unless :ro follows (can be repeated)",
    )
    group.add_argument(
        "--ro-bind",
        action="append",
        default=[],
        metavar="SRC[:DST]",
        help="show a directory or file read-only (can be repeated)",
    )
    group.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable for commands inside, or pass on what each command's caller has (can be "
        "repeated); a NAME with * or ? passes on all that match, except those that lead programs to files",
    )
    group.add_argument(
        "--copy", action="store_true", help="copy the files, so that upgrades of the host do not affect them"
    )
    group.add_argument(
        "--permanent", action="store_true", help="also make mount points, and print lines for fstab(5)"
    )
    group.add_argument(
        "-f", "--force", action="store_true", help="replace the active environment, or one in PATH"
    )
    add_kept_machine_options(parser, "with --build-environment; all but the first with --stage vm")


def run(
    name: str,
    arguments: argparse.Namespace,
    failure: Callable[[str, str | None], Exception],
) -> int:
    """Run the command `name` ("spack jail") with these arguments; return the exit status.

    `failure` makes Spack's own error from a message and more lines.
    """
    try:
        status = _run(name, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has ended, as with `| head`; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PkgjailError as error:
        from pkgjail.integrations.spack.messages import with_options

        raise failure(*_split_message(with_options(str(error)))) from error
    except OSError as error:
        raise failure(os_error_text(error), None) from error
    return status


def _split_message(message: str) -> tuple[str, str | None]:
    first, _, rest = message.partition("\n")
    return first, "    " + rest.replace("\n", "\n    ") if rest else None


def _run(name: str, arguments: argparse.Namespace) -> int:
    from pkgjail.integrations.spack.instance.description import describe
    from pkgjail.integrations.spack.instance.model import parse_instance
    from pkgjail.integrations.spack.jail import environment

    if arguments.argv and not arguments.run:
        raise InputError([Problem("", f"unexpected argument {arguments.argv[0]!r}; a command needs --run")])
    if arguments.audit and not (arguments.run or arguments.cli):
        raise InputError([Problem("", "--audit goes with --run or --cli, which run a command")])
    if arguments.describe:
        print(json.dumps(describe()))
        return 0
    instance = parse_instance(describe())
    active = environment.active_environment(instance.root)
    if arguments.build_environment is not None:
        return _build(name, arguments, instance)
    if arguments.remove_environment or arguments.stop_machine or arguments.cli or arguments.run:
        return _use(arguments, _require(name, active), instance)
    if arguments.landlock:
        return _landlock(arguments, active, instance)
    return _print_status(name, active, instance)


def _require(name: str, active: ActiveEnvironment | None) -> ActiveEnvironment:
    if active is None:
        raise InputError(
            [
                Problem(
                    "",
                    "no environment is active for this Spack; build one with "
                    f"'{name} --build-environment PATH'",
                )
            ]
        )
    return active


def _build(name: str, arguments: argparse.Namespace, instance: Instance) -> int:
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.integrations.spack.caller.argv import split_argv
    from pkgjail.integrations.spack.jail import environment
    from pkgjail.integrations.spack.jail.sources import shown_files
    from pkgjail.integrations.spack.jail.users import closed_to_users, is_for_all
    from pkgjail.integrations.spack.messages import print_warning
    from pkgjail.jails.groups import unmapped_groups

    path, replace = arguments.build_environment, arguments.force
    environment.refuse_early(path, instance, replace=replace)
    kept_stage(arguments)  # refused before anything is made
    with ConsoleReporter() as reporter, shown_files(arguments, reporter) as shown:
        spack_options, _ = split_argv(sys.argv[1:])
        options = _build_options(arguments, shown)
        built = environment.build(path, options, instance, spack_options, reporter)
    for tool in built.uncovered:
        print_warning(str(tool))
    for group in unmapped_groups(instance.groups):
        print_warning(
            f"Spack gives packages to the group {group} (permissions), which the jail does not have: start "
            f"Spack with sg {group} -c 'spack …', or have the line USER:GID:1 added to /etc/subgid"
        )
    path = built.active.environment
    if is_for_all(built.active, instance.root) and (closed := closed_to_users(instance.root, path)):
        print_warning(
            f"other users of this Spack cannot enter {path}, so none of their commands will run: they may "
            f"not enter {closed}; let them, or build in another directory"
        )
    if arguments.permanent:
        _print_fstab(built.active)
    out = sys.stderr if arguments.permanent else sys.stdout
    state = f"{path} is active" + ("" if is_for_all(built.active, instance.root) else " for you")
    if hooks := " and ".join(_hooks()):
        print(f"{state}: spack commands run inside, by {hooks}", file=out)
    else:
        print(state, file=out)
        print_warning(
            "Spack's commands still run outside: this Spack does not call pkgjail's entry point "
            "'spack.config'; set SPACK_PYTHON to the program 'pkgjail-spack-python'"
        )
    if shown.image is not None and not arguments.copy:
        print(f"it shows the image {shown.image.name}, which stays in the store as long", file=out)
    print(f"to remove it, use '{name} --remove-environment'", file=out)
    return 0


def _use(arguments: argparse.Namespace, active: ActiveEnvironment, instance: Instance) -> int:
    if arguments.remove_environment:
        return _remove(active, instance)
    return _stop_machine(active) if arguments.stop_machine else _enter(arguments, active, instance)


def _remove(active: ActiveEnvironment, instance: Instance) -> int:
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.integrations.spack.jail import environment

    with ConsoleReporter() as reporter:
        removed = environment.remove(active, instance.root, reporter)
    now = environment.active_environment(instance.root)
    rest = "nothing is active" if now is None else f"{now.environment} is active, as for others"
    done = f"{counted(removed.deleted, 'name')} deleted" if removed.deleted else "was gone already"
    print(f"{active.environment}: {done}; {rest}")
    return 0


def _stop_machine(active: ActiveEnvironment) -> int:
    from pkgjail.environments.machine import stop_idle_machine

    stopped = stop_idle_machine(os.fsencode(active.environment))
    print(f"{active.environment}: its machine {'is stopped' if stopped else 'did not run'}")
    return 0


def _build_options(arguments: argparse.Namespace, shown: Shown) -> BuildOptions:
    from pkgjail.cli.jail_options import check_variables, named_binds
    from pkgjail.integrations.spack.jail.environment import BuildOptions

    if arguments.copy and arguments.permanent:
        raise InputError([Problem("", "--copy and --permanent are two forms of an environment; choose one")])
    check_variables(arguments.env)
    stage, machine = kept_stage(arguments)
    fixed = [word.partition("=") for word in arguments.env if "=" in word]
    return BuildOptions(
        manifest=shown.manifest,
        root=shown.source.root,
        machine=machine,
        stage=stage,
        form="copy" if arguments.copy else "fstab" if arguments.permanent else "host",
        binds=tuple(named_binds(arguments)),
        network=not arguments.no_network,
        variables=tuple((name, value) for name, _, value in fixed),
        passed=tuple(word for word in arguments.env if "=" not in word),
        replace=arguments.force,
    )


def _print_fstab(active: ActiveEnvironment) -> None:
    from pkgjail.environments.directory import read_header
    from pkgjail.environments.enter import read_built_manifest
    from pkgjail.export import export_manifest

    directory = os.fsencode(active.environment)
    manifest, root = read_built_manifest(directory), read_header(directory).root
    sys.stdout.buffer.write(export_manifest(manifest, "fstab", root=root, at=directory + b"/root"))
    sys.stdout.flush()


def _enter(arguments: argparse.Namespace, active: ActiveEnvironment, instance: Instance) -> int:
    from pkgjail.integrations.spack.caller.request import request_of
    from pkgjail.integrations.spack.enter import enter
    from pkgjail.integrations.spack.jail.environment import refuse_inside

    refuse_inside("enter the environment")
    argv = ["bash"] if arguments.cli else arguments.argv
    argv = argv[1:] if argv[:1] == ["--"] else argv
    if not argv:
        raise InputError([Problem("", "there is no command to run; write it after '--run --'")])
    with _advising(active):
        return enter(active, instance, argv, request_of(active, "", []), record=arguments.audit or "")


@contextlib.contextmanager
def _advising(active: ActiveEnvironment) -> Iterator[None]:
    """Say in errors what a user can do who may neither enter the environment nor change it."""
    from pkgjail.integrations.spack.active import may_change
    from pkgjail.integrations.spack.jail.users import leaving_advice

    try:
        yield
    except InputError as error:
        if may_change(active):
            raise
        raise PkgjailError(f"{error}\n{leaving_advice(active)}") from error


def _landlock(arguments: argparse.Namespace, active: ActiveEnvironment | None, instance: Instance) -> int:
    from pkgjail.environments.directory import read_header
    from pkgjail.environments.enter import read_built_manifest
    from pkgjail.integrations.spack.jail.sandbox import refuse_without_sandbox, sandbox_settings
    from pkgjail.integrations.spack.jail.sources import manifest_of_host

    refuse_without_sandbox(instance)
    if arguments.tarball is not None or arguments.source is not None:
        why = "Spack's sandbox allows files of the host: --landlock excludes --tarball and --source"
        raise InputError([Problem("", why)])
    if arguments.manifest or arguments.whitelist or arguments.blacklist or active is None:
        settings = sandbox_settings(manifest_of_host(arguments), instance)
    else:
        directory = os.fsencode(active.environment)
        settings = sandbox_settings(read_built_manifest(directory), instance, read_header(directory).binds)
    sys.stdout.buffer.write(settings)
    sys.stdout.flush()
    return 0


def _print_status(name: str, active: ActiveEnvironment | None, instance: Instance) -> int:
    from pkgjail.integrations.spack.instance.cache import uncovered_tools
    from pkgjail.integrations.spack.jail.users import removal_advice
    from pkgjail.jails.detect import is_isolated

    inside = is_isolated()
    if active is None:
        print("inside of a jail that is not this Spack's" if inside else "outside; no environment is active")
        return 0
    print(f"{'inside' if inside else 'outside'}; active: {active.environment}")
    if inside:
        return 0
    if active.removing:
        print(f"its removal was interrupted; {removal_advice(active, name)}")
        return 0
    with _advising(active):
        print(_contents(active))
        for line in machine_lines(active):
            print(line)
        for tool in uncovered_tools(active, instance):
            print(tool)
    hooks = " and ".join(_hooks())
    print(f"spack commands run inside, by {hooks}" if hooks else "spack commands still run outside")
    return 0


def _contents(active: ActiveEnvironment) -> str:
    from pkgjail.environments.directory import read_header
    from pkgjail.environments.enter import read_built_manifest

    directory = os.fsencode(active.environment)
    header, manifest = read_header(directory), read_built_manifest(directory)
    network = "the host's network" if header.network else "no network"
    source = f" of {manifest.header.source}" if manifest.header.source else ""
    stage = "" if header.stage == DEFAULT else f", the stage {header.stage}"
    counts = f"{counted(len(manifest.packages), 'package')}, {counted(len(manifest.files), 'name')}"
    names = f"{counts}{source}{stage}"
    return f"{names}, {network}; {header.manifest}"


def machine_lines(active: ActiveEnvironment) -> Iterator[str]:
    """Yield what there is to say of the environment's machine."""
    from pkgjail.environments.directory import read_header
    from pkgjail.environments.machine import machine_of

    directory = os.fsencode(active.environment)
    if read_header(directory).machine is None:
        return
    found = machine_of(directory)
    if found is None:
        yield "virtual machine: does not run; the next command starts it"
        return
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.started))
    how = "by KVM" if found.accelerator == "kvm" else "emulated"
    what = f"{found.architecture}, Linux {found.kernel}, {how}, process {found.pid}"
    yield f"virtual machine: runs since {since}, {what}"
    if found.commands:
        yield f"{counted(found.commands, 'command')} running in it"
    else:
        yield f"no command for {found.waited:.0f} s; it stops after {found.idle:g}"


def _hooks() -> list[str]:
    """Return the hooks by which Spack's other commands run inside, in words."""
    from pkgjail.integrations.spack.hook import is_called
    from pkgjail.integrations.spack.wrapper import NAME

    hooks = ["the entry point 'spack.config'"] if is_called() else []
    if os.path.basename(os.environ.get("SPACK_PYTHON", "")) == NAME:
        hooks.append("SPACK_PYTHON")
    return hooks
