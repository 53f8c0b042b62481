"""Enter an environment: its record and manifest are held against it, then a jail is made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.errors import SurpriseError
from pkgjail.core.model import JailOptions, text_path
from pkgjail.core.reporter import SILENT
from pkgjail.environments.compare import tampered
from pkgjail.environments.copied_manifest import copied_manifest
from pkgjail.environments.directory import locked, opened, read_file, read_head, whole_record
from pkgjail.environments.record import MANIFEST, TREE
from pkgjail.jail.drift import Check
from pkgjail.jail.protection import protected_environment, refuse_open
from pkgjail.jail.run import default_environment, prepare_jail, report_changes
from pkgjail.manifest import manifest_digest, parse_manifest
from pkgjail.storage.baseline import publisher_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import Place
    from pkgjail.environments.record import Head, Record
    from pkgjail.jail.run import Jail


def enter_environment(
    directory: bytes,
    argv: Sequence[str],
    options: JailOptions | None = None,
    *,
    terminal: bool = False,
    reporter: Reporter = SILENT,
) -> int:
    """Run `argv` in the jail of an environment, and wait for its end.

    Args:
        directory: the environment's.
        argv: as `run_in_jail` takes it.
        options: what this entry has besides what the environment was built with. Its `environment`
            comes on top of `default_environment` and the environment's own variables.
        terminal: as `run_in_jail` takes it.
        reporter: likewise.

    Returns:
        The command's exit status, or 128 + n when signal n ended it.

    Raises:
        InputError: there is no environment, or its build or removal was interrupted.
        SurpriseError: its manifest or its tree is not as it was built.
        PkgjailError: another process removes it.
        CommandError, DriftError, JailError: as `run_in_jail`.

    """
    with opened(directory, "enter") as place, locked(place, "enter", alone=False):
        jail, _ = jail_in(place, options or JailOptions(), reporter)
        return jail.run(argv, terminal=terminal)


def jail_in(place: Place, options: JailOptions, reporter: Reporter = SILENT) -> tuple[Jail, str]:
    """The jail of an environment whose directory is held and locked, and its form.

    Raises:
        PkgjailError: as `enter_environment`.

    """
    whole = whole_record(place)
    manifest = _manifest(place, whole)
    merged = _merged(whole.head, options)
    refuse_open(merged.binds, [protected_environment(place.path)])
    if whole.head.form == "copy":
        # The tree was just compared with the environment's record, so no digest needs to be.
        tree = place.path + b"/" + TREE
        jail = prepare_jail(copied_manifest(manifest), merged, root=tree, recorded=True, reporter=reporter)
    else:
        publisher = publisher_of(place.path + b"/" + MANIFEST)
        root = whole.head.root
        jail = prepare_jail(manifest, merged, root=root, publisher=publisher, reporter=reporter)
    return jail, whole.head.form


def report_changes_in(directory: bytes, status: int, *, strict: bool, reporter: Reporter) -> None:
    """Warn of entries of an environment that changed on the host while a command ran.

    Args:
        directory: the environment's.
        status: what the command ended with.
        strict: they are an error.
        reporter: gets the warning.

    Raises:
        ExitDriftError: there are some, with `strict`.
        PkgjailError: the environment's record cannot be read any more.

    """
    with opened(directory, "enter") as place:
        whole = whole_record(place)
        check = Check(publisher=publisher_of(place.path + b"/" + MANIFEST), reporter=reporter)
        manifest = _manifest(place, whole)
    report_changes(manifest, whole.head.root, check, strict=strict, status=status)


def _manifest(place: Place, whole: Record) -> Manifest:
    """The manifest, after it and the tree were held against the record."""
    found = tampered(place, whole.made)
    data = read_file(place, MANIFEST)
    if not found and (data is None or manifest_digest(data) != whole.head.manifest):
        found = [(MANIFEST, "is not the manifest that it was built of")]
    if data is None or found:
        raise SurpriseError(
            f"enter {text_path(place.path)}",
            tuple(found),
            "undo the change, or remove the environment and build it again",
        )
    return parse_manifest(data, text_path(place.path + b"/" + MANIFEST))


def _merged(head: Head, options: JailOptions) -> JailOptions:
    return replace(
        options,
        binds=(*head.binds, *options.binds),
        network=head.network and options.network,
        environment={**default_environment(), **head.variables, **options.environment},
    )


def read_built_manifest(directory: bytes) -> Manifest:
    """The manifest that an environment was built of.

    Raises:
        InputError, SurpriseError: as `enter_environment`.

    """
    with opened(directory, "enter") as place:
        return _manifest(place, whole_record(place))


def bound_directory(directory: bytes, wanted: bytes) -> bytes:
    """`wanted` where the binds that the environment was built with show it at that path, else `/`.

    Raises:
        InputError: there is no environment.

    """
    head = read_head(directory)
    shown = (bind.destination for bind in head.binds if bind.source == bind.destination)
    return wanted if any((wanted + b"/").startswith(path.rstrip(b"/") + b"/") for path in shown) else b"/"
