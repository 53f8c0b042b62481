"""Options of the verbs that enter a jail, and their translation for the library."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.cli.limit_options import add_limit_options, has_limits, limits_of, size
from pkgjail.cli.manifests import STDIN, names_environment, read_manifest
from pkgjail.cli.output import JSON_ERRORS, argv_wants_json, print_warning, wants_json
from pkgjail.cli.parser import PACKAGES_ALONE, WHOLE_IMAGE, Parser
from pkgjail.cli.policy_options import add_policy_arguments, resolve_arguments, root_of
from pkgjail.cli.project import project_inputs
from pkgjail.cli.verbosity import take_verbosity
from pkgjail.core.errors import UsageError
from pkgjail.core.given import names_list
from pkgjail.core.stage_names import AUTO, DEFAULT, RUNGS, STAGE_NAMES
from pkgjail.core.working_directory import path_of_working_directory
from pkgjail.storage.baseline import publisher_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions, UserBind
    from pkgjail.jails.run import Jail
    from pkgjail.machine.model import MachineOptions
    from pkgjail.storage.baseline import Publisher

# What may follow the second colon of a bind.
_BIND_OPTIONS = ("", "ro", "rw")
STRATEGIES = ("auto", "tree", "mask", "whole", "binds")
"""The values of `--strategy`."""
_OF_USERS = "root"  # the stage that runs a command with another user's rights
MANIFEST_HELP = "a manifest (- for standard input), or a whitelist's name or path"


class _FormerStrategy(argparse.Action):
    """The former name of `--strategy`: it still works, with a warning. A plan is a package plan."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del option_string
        print_warning("the option --plan is now called --strategy", as_json=getattr(parser, "as_json", False))
        namespace.plan = values


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the command to run, and the options of the run itself."""
    parser.add_argument("--json", action="store_true", help=JSON_ERRORS)
    parser.add_argument("--tty", "-t", action="store_true", help="give the command a terminal of its own")
    add_command_alone(parser)


def add_command_alone(parser: argparse.ArgumentParser) -> None:
    """Add the command to run."""
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")


def command_of(arguments: argparse.Namespace, rest: Parser) -> list[str]:
    """Return the command to run.

    argparse puts everything after MANIFEST into `command`, including options of pkgjail: `rest` parses
    those and adds them to `arguments`.

    Raises:
        UsageError: there is no command.

    """
    words: list[str] = arguments.command
    rest.as_json = argv_wants_json(arguments.words)
    if words and words[0] != "--" and words[0].startswith("-"):
        words = rest.parse_args(words, namespace=arguments).command
        take_verbosity(arguments)
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise UsageError("there is no command to run; write it after '--' ('-- bash' for a shell)")
    return words


def add_jail_options(parser: argparse.ArgumentParser, *, resolving: bool = True) -> None:
    """Add the options that describe the jail and the binds of the host.

    With `resolving`, also add those that say what a whitelist is resolved against.
    """
    parser.add_argument(
        "--cwd", action="store_true", help="bind the current directory, writable, and start in it"
    )
    add_sight_options(parser)
    parser.add_argument(
        "--share-ipc",
        action="store_true",
        help="share System V IPC and /dev/shm with your processes outside and in other jails that do so, as "
        "processes of an MPI program need, each in a jail of its own; this weakens the jail",
    )
    parser.add_argument(
        "--strategy",
        dest="plan",
        choices=STRATEGIES,
        default="auto",
        help="how files are shown: by an overlay per large directory (tree, mask), by a bind mount per "
        "directory where it can be (whole) or per file (binds), or by what works here first (auto)",
    )
    parser.add_argument(
        "--plan",
        action=_FormerStrategy,
        default=argparse.SUPPRESS,
        choices=STRATEGIES,
        help=argparse.SUPPRESS,
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
    parser.add_argument(
        "--map-root",
        action="store_true",
        help="run the command as user 0, with your subordinate ids as the other ids, among which it may "
        "change owners and users",
    )
    add_limit_options(parser)
    if resolving:
        add_policy_arguments(parser)


def add_sight_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what a jail shows besides its manifest."""
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
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="PATH",
        help="show a device of the host at its own path below /dev, or the devices in a directory, such as "
        "/dev/fuse or /dev/dri (may be repeated; PATH may be a pattern)",
    )
    parser.add_argument(
        "--gpus",
        action="append",
        default=[],
        choices=("nvidia", "amd", "intel"),
        help="show the graphics cards of a vendor; the manifest must have the driver's libraries, which the "
        "whitelists gpu-nvidia, gpu-amd and gpu-intel bring (may be repeated)",
    )
    parser.add_argument(
        "--fabric",
        action="store_true",
        help="show the devices of InfiniBand and other networks of clusters; the manifest must have the "
        "libraries, which the whitelist fabric brings",
    )
    parser.add_argument("--no-network", action="store_true", help="no network but a loopback of its own")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable, or pass the caller's on (may be repeated); a NAME with * or ? passes on all "
        "that match, except those that lead programs to files, such as LD_PRELOAD and PYTHONPATH",
    )


def add_stage_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for another stage than the jail of namespaces."""
    parser.add_argument(
        "--stage",
        default="",
        metavar="STAGE",
        choices=(*STAGE_NAMES, AUTO),
        help="run the command in another way than in a jail of namespaces: root makes the jail without user "
        "namespaces; auto takes the strongest of pkgjail's own ways that works here; engines and vm show a "
        "copy of the files, kept in the cache; what a stage cannot keep is refused; 'pkgjail stages' lists "
        "them (default: PKGJAIL_STAGE, or that of the settings, or namespaces)",
    )
    parser.add_argument(
        "--user",
        default="",
        metavar="NAME",
        help="with --stage root: whose rights and ids the command gets (default: who called sudo)",
    )
    machine = parser.add_argument_group("virtual machine", "with --stage vm, besides --memory and --cpus")
    machine.add_argument(
        "--kernel",
        metavar="PATH",
        default="",
        help="a kernel's file, a directory with boot/ and lib/modules/, or a Debian package of one (default: "
        "the newest of the source or of this host)",
    )
    machine.add_argument(
        "--scratch",
        metavar="SIZE",
        type=size,
        default=0,
        help="put what the command writes outside of binds on a disk of this size, as 20G (default: memory)",
    )
    machine.add_argument(
        "--share",
        choices=("auto", "9p", "copy"),
        default="auto",
        help="how directories of --bind are shown: shared, or copied and brought back at the end (default: "
        "shared if the kernel can)",
    )


def add_arch_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the architecture that a manifest must have."""
    parser.add_argument(
        "--arch",
        default="",
        help="refuse a manifest or an image for another architecture, such as arm64 or aarch64 (in "
        "any system's words); without it, the manifest's is taken, by emulation if it is not this host's",
    )


def add_audit_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for a record of what the command looks for."""
    parser.add_argument(
        "--audit",
        metavar="FILE",
        help="record in FILE every path that the command asks for, and what this system has there that the "
        "jail does not; 'pkgjail audit show FILE' reports it",
    )


def run_audited_in(
    jail: Jail, command: Sequence[str], record: str, *, source: bytes = b"", terminal: bool
) -> int:
    """Run a command in a jail, and write the record of its audit to a file; return the exit status.

    `source` is as `pkgjail.audit.run.audit_in` takes it.
    """
    from pkgjail.audit.record import refuse_target, write_audit
    from pkgjail.audit.run import audit_in

    refuse_target(record)  # before a long build
    audit = audit_in(jail, command, source=source, terminal=terminal)
    write_audit(audit, record)
    return audit.status


def stage_of(arguments: argparse.Namespace) -> str:
    """Return the stage that `add_stage_option` or the settings name; it may be "auto".

    Raises:
        SettingsError: a file of settings is wrong.
        UsageError: the settings exclude the stage, or name none.

    """
    from pkgjail.settings.read import read_settings

    settings = read_settings()
    name: str = arguments.stage or settings.stage
    if name != AUTO:
        settings.refuse_excluded(name)
    if arguments.user and name not in {_OF_USERS, AUTO}:
        raise UsageError(f"--user goes with the stage {_OF_USERS}, and not with {name}; leave it out")
    return name


def climb(arguments: argparse.Namespace, manifest: Manifest, options: JailOptions) -> str:
    """Return the strongest stage that can run a jail of `manifest` here; warn if it is not the default."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.stages import choose_stage
    from pkgjail.stages.model import Request

    with ConsoleReporter(as_json=arguments.json) as reporter:
        request = Request(manifest=manifest, argv=(), options=options, user=arguments.user, reporter=reporter)
        return choose_stage(AUTO, request)


def run_in_named_stage(  # noqa: PLR0913 - all but three by keyword
    arguments: argparse.Namespace,
    stage: str,
    command: Sequence[str],
    *,
    manifest: Manifest | None = None,
    options: JailOptions | None = None,
    terminal: bool,
) -> int:
    """Run a command in a stage that is not "auto"; return its exit status.

    `manifest` and `options` are those of the arguments, if they are there already.
    """
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.stages import run_in_stage

    if arguments.audit:
        raise UsageError(
            f"cannot audit a command in the stage {stage}: only the stage {DEFAULT} lets another process see "
            f"its calls; use '--stage {DEFAULT}', or leave out --audit"
        )
    with ConsoleReporter(as_json=arguments.json) as reporter:
        return run_in_stage(
            load_manifest(arguments, hashed=needs_digests(stage)) if manifest is None else manifest,
            command,
            jail_options(arguments) if options is None else options,
            stage=stage,
            root=root_of(arguments),
            publisher=publisher_of_manifest(arguments),
            terminal=terminal,
            machine=machine_options(arguments),
            user=arguments.user,
            reporter=reporter,
        )


def needs_digests(stage: str) -> bool:
    """Return whether a stage shows a copy of the files, which is compared with the manifest's digests."""
    return stage not in {*RUNGS, AUTO}


def machine_options(arguments: argparse.Namespace) -> MachineOptions:
    """Return the machine of `add_stage_option`."""
    from pkgjail.machine.model import MachineOptions

    return MachineOptions(kernel=arguments.kernel, scratch=arguments.scratch, share=arguments.share)


def open_jail(arguments: argparse.Namespace, manifest: Manifest, options: JailOptions | None = None) -> Jail:
    """Prepare the jail of `manifest`; warn of drift that the options allow.

    `options` are those of `add_jail_options`, if they are there already.
    """
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.jails.run import prepare_jail

    root = root_of(arguments)
    options = jail_options(arguments) if options is None else options
    publisher = publisher_of_manifest(arguments)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        return prepare_jail(manifest, options, root=root, publisher=publisher, reporter=reporter)


def can_replay(arguments: argparse.Namespace) -> bool:
    """Return whether the same command line may replay this entry, without being parsed again.

    A jail with limits may fail after its command has started, and must not be entered a second time then.
    """
    return not (arguments.verify or arguments.allow_drift or has_limits(arguments))


def load_manifest(arguments: argparse.Namespace, *, hashed: bool = False) -> Manifest:
    """Read the manifest, or resolve the whitelist given in its place, by default without digests.

    The whitelists of demanded devices are resolved with it. Refuses another architecture than that of
    `add_arch_option`.
    """
    manifest = _loaded(arguments, hashed=hashed)
    if asked := getattr(arguments, "arch", ""):
        from pkgjail.core.architectures import refuse_other

        refuse_other(manifest.header.architecture, asked)
    return manifest


def _loaded(arguments: argparse.Namespace, *, hashed: bool) -> Manifest:
    name: str = arguments.manifest
    if name == WHOLE_IMAGE:
        return _whole_image(arguments)
    if is_whitelist(name):
        lists = [] if name == PACKAGES_ALONE else [name]
        project = getattr(arguments, "project", None)
        lists += [] if project is None else project.lists
        return resolve_arguments(arguments, [*lists, *named_sets(arguments)], hashed=hashed)
    off = (arguments.essential, arguments.package_database)
    if arguments.packages or arguments.blacklist or arguments.recommends or off != (None, None):
        raise UsageError(
            f"{name} is a manifest, which is complete: --package, --blacklist, --recommends, --no-essential "
            "and --no-package-database go with a whitelist; give them to 'pkgjail resolve'"
        )
    return read_manifest(name)


def _whole_image(arguments: argparse.Namespace) -> Manifest:
    from pkgjail.api import whole_image
    from pkgjail.core.sources import source_at
    from pkgjail.images.store import find_image

    if source_at(root_of(arguments)).kind != "image":
        raise UsageError(
            "there is no manifest: name one, or a whitelist; only an image (--source image:NAME) can be "
            "entered as a whole"
        )
    return whole_image(find_image(arguments.source.partition(":")[2]))


def is_whitelist(name: str) -> bool:
    """Return whether a whitelist was given in the manifest's place.

    Its jail depends on more than a replay checks: on the lists that it includes, on blacklists, and on the
    package database.
    """
    return name not in {WHOLE_IMAGE, STDIN} and names_list(name) and not names_environment(name)


def jail_options(arguments: argparse.Namespace, defaults: Mapping[str, str] | None = None) -> JailOptions:
    """Return the options of `add_jail_options` as the library takes them.

    `defaults` are variables that those of the options are added to; None for `default_environment`.
    """
    from pkgjail.core.options import JailOptions, UserBind
    from pkgjail.jails.run import default_environment

    binds = named_binds(arguments)
    cwd = b"/"
    if arguments.cwd:
        cwd, real = path_of_working_directory(), os.getcwdb()
        binds.append(UserBind(source=real, destination=real, writable=True))
    defaults = default_environment(map_root=arguments.map_root) if defaults is None else defaults
    environment = {**defaults, **named_variables(arguments)}
    return JailOptions(
        binds=tuple(binds),
        devices=named_devices(arguments),
        device_sets=named_sets(arguments),
        cwd=cwd,
        paths=_paths(),
        network=not arguments.no_network,
        environment=environment,
        plan=arguments.plan,
        verify=arguments.verify,
        allow_drift=arguments.allow_drift,
        strict_exit=arguments.strict_exit,
        share_ipc=arguments.share_ipc,
        map_root=arguments.map_root,
        limits=limits_of(arguments),
        inputs=_inputs(arguments),
        warn_of_inputs=getattr(arguments, "project", None) is None,
    )


def _paths() -> tuple[bytes, ...]:
    """Return the working directory's path, by which a command may name what a bind shows."""
    with contextlib.suppress(FileNotFoundError):  # it was deleted
        return (path_of_working_directory(),)
    return ()


def _inputs(arguments: argparse.Namespace) -> tuple[bytes, ...]:
    """Return the files that define the jail: the manifest, or the lists in its place."""
    name: str | None = getattr(arguments, "manifest", None)
    if getattr(arguments, "project", None) is not None:
        return project_inputs(arguments.project)
    if name is None or name in {WHOLE_IMAGE, STDIN}:
        return ()
    if not is_whitelist(name):
        return (os.path.abspath(os.fsencode(name)),)
    from pkgjail.policy import list_files

    return list_files([] if name == PACKAGES_ALONE else [name], arguments.blacklist)


def named_binds(arguments: argparse.Namespace) -> list[UserBind]:
    """Return the binds of `add_sight_options`."""
    binds = [parse_bind(text, writable=True) for text in arguments.bind]
    return binds + [parse_bind(text, writable=False) for text in arguments.ro_bind]


def named_devices(arguments: argparse.Namespace) -> tuple[bytes, ...]:
    """Return the devices of `add_sight_options`. A shell completes the name of a directory with a slash."""
    return tuple(os.fsencode(text).rstrip(b"/") for text in arguments.device)


def named_sets(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the whitelists whose devices `add_sight_options` demand."""
    vendors = tuple(f"gpu-{vendor}" for vendor in dict.fromkeys(arguments.gpus))
    return (*vendors, "fabric") if arguments.fabric else vendors


def named_variables(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the variables of `add_sight_options`; warn of those that are not passed on.

    Raises:
        UsageError: as `check_variables`.

    """
    from pkgjail.jails.variables import choose_variables

    check_variables(arguments.env)
    chosen = choose_variables(arguments.env, os.environ)
    warnings = [
        *(f"'--env {name}' passes nothing on: no such variable is set" for name in chosen.unset),
        *(
            f"'--env {pattern}' does not pass on {', '.join(names)}, which lead programs to files of the "
            "host; to pass one on, name it"
            for pattern, names in chosen.withheld.items()
        ),
    ]
    for warning in warnings:
        print_warning(warning, as_json=wants_json(arguments))
    return chosen.values


def check_variables(words: Sequence[str]) -> None:
    """Check the values of `--env`.

    Raises:
        UsageError: a variable has no name, or a pattern has a value.

    """
    from pkgjail.jails.variables import is_pattern

    for text in words:
        name, equals, _ = text.partition("=")
        if not name:
            raise UsageError(f"cannot set {text!r}: write NAME or NAME=VALUE")
        if equals and is_pattern(name):
            raise UsageError(f"cannot set {text!r}: a name with * or ? takes no value; name one variable")


def parse_bind(text: str, *, writable: bool) -> UserBind:
    r"""Parse `SRC[:DST[:OPTION]]`. The source may be relative; the destination is by default the same path.

    OPTION is `ro` or `rw`; without one, `writable` decides. In a path `\:` is a colon and `\\` a
    backslash; any other backslash stands for itself.

    Raises:
        UsageError: the text has another form, or asks for a writable bind where none is allowed.

    """
    from pkgjail.core.options import UserBind

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
    """Split a text at its colons; a backslash escapes a colon or another backslash."""
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


def publisher_of_manifest(arguments: argparse.Namespace) -> Publisher | None:
    """Return who may publish a baseline of the manifest; None for a whitelist."""
    name = arguments.manifest
    if name in {WHOLE_IMAGE, STDIN} or is_whitelist(name):
        return None
    return publisher_of(os.fsencode(name))
