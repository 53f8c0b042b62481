"""Read the settings of a site and of a user: TOML as docs/settings.md describes it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.errors import Problem, SettingsError, UsageError
from pkgjail.core.stage_names import AUTO, STAGE_NAMES
from pkgjail.settings import files
from pkgjail.settings.model import AllowedStages, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.policy.lists import Entry
    from pkgjail.policy.toml_reader import TableReader

_CHOICES = (*STAGE_NAMES, AUTO)


class _File(NamedTuple):
    """The values of one file, with their lines."""

    name: str
    default: Entry | None
    allow: AllowedStages | None

    def origin(self, line: int) -> str:
        """Return the place of a line."""
        return f"{self.name}:{line}"


def read_settings(
    *, site: str | None = None, user: str | None = None, variables: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings that apply to this process.

    The variable PKGJAIL_STAGE takes precedence over the user's file for the default stage, and that over the
    site's. What both files allow is allowed.

    Args:
        site: the site's file; by default `/etc/pkgjail.toml`.
        user: the user's; by default `$XDG_CONFIG_HOME/pkgjail.toml` or `~/.config/pkgjail.toml`.
        variables: the environment variables; by default those of this process.

    Raises:
        SettingsError: a file is wrong, cannot be read, or may have been written by somebody else; it has
            all problems of both.
        UsageError: PKGJAIL_STAGE names no stage.

    """
    site = files.SITE if site is None else site
    user = files.user_file() if user is None else user
    problems: list[Problem] = []
    found = [each for path in (site, user) if path and (each := _read(path, problems, of_site=path == site))]
    if problems:
        raise SettingsError(problems)
    settings = Settings(allowed=tuple(each.allow for each in found if each.allow is not None))
    variable = _variable(os.environ if variables is None else variables)
    if variable:
        return Settings(stage=variable, origin=files.VARIABLE, allowed=settings.allowed)
    for each in reversed(found):
        if each.default is not None:
            origin = each.origin(each.default.line)
            return Settings(stage=each.default.text, origin=origin, allowed=settings.allowed)
    return settings


def _variable(variables: Mapping[str, str]) -> str:
    name = variables.get(files.VARIABLE, "")
    if name and name not in _CHOICES:
        from pkgjail.policy.lists import nearest

        raise UsageError(
            f"the environment variable {files.VARIABLE} names no stage: {name!r}{nearest(name, _CHOICES)}"
        )
    return name


def _read(path: str, problems: list[Problem], *, of_site: bool) -> _File | None:
    """Read one file; None if it does not exist, or has problems, which are added to `problems`."""
    try:
        os.lstat(path)
        data = _content(path, of_site=of_site)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.lexists(path):  # a link to nothing
            problems.append(_unreadable(path, error))
        return None
    except PermissionError as error:
        # A home directory that this user may not enter has no settings for them, as after su(1).
        if of_site or os.path.lexists(path):
            problems.append(_unreadable(path, error))
        return None
    except OSError as error:
        problems.append(_unreadable(path, error))
        return None
    if isinstance(data, Problem):
        problems.append(data)
        return None
    return _parsed(path, data, problems)


def _content(path: str, *, of_site: bool) -> bytes | Problem:
    """Return the content of a file, or what is wrong with its owner or its mode. Raises `OSError`."""
    from pkgjail.core.untrusted import SETTINGS, opened_below, read_descriptor  # few have settings

    with opened_below(b"/", os.fsencode(path)) as descriptor:
        fault = _writable_by_others(os.fstat(descriptor), path, of_site=of_site)
        return fault or read_descriptor(descriptor, path, SETTINGS)


def _unreadable(path: str, error: OSError) -> Problem:
    advice = "let everybody read it" if isinstance(error, PermissionError) else "repair it"
    return Problem(path, f"cannot read these settings: {error.strerror}; {advice}, or remove it")


def _writable_by_others(found: os.stat_result, path: str, *, of_site: bool) -> Problem | None:
    """Return the problem of a file that another user may have written, or None.

    In a user namespace, the owner of "/" counts as root. A user's own group may write to the user's file, as
    distributions with a group for each user have it.
    """
    owners = {0, os.lstat("/").st_uid} | (set() if of_site else {os.geteuid()})
    group = stat.S_IWGRP if of_site and found.st_gid else 0
    if found.st_uid not in owners:
        whose = "root" if of_site else "you"
        advice = f"chown {whose} it" if of_site else "set HOME or XDG_CONFIG_HOME to a directory of yours"
        return Problem(path, f"these settings belong to another user than {whose}; {advice}, or remove them")
    if found.st_mode & (stat.S_IWOTH | group):
        return Problem(path, "other users may write to these settings; check them, and chmod go-w the file")
    return None


def _parsed(path: str, data: bytes, problems: list[Problem]) -> _File | None:
    """Return the values of a file; None if it has problems, which are added to `problems`."""
    from pkgjail.policy.lists import ListProblems
    from pkgjail.policy.toml_reader import TableReader, read_document

    noted = ListProblems(path)
    document = read_document(data, "settings file", noted)
    values = None
    if document is not None:
        reader = TableReader(noted, document.lines)
        reader.check_keys((), document.table, ("stage",))
        values = _stage_values(path, reader, reader.table(document.table, "stage"))
    found = noted.in_order()
    problems.extend(found)
    return None if found else values


def _stage_values(path: str, reader: TableReader, table: Mapping[str, Any]) -> _File:
    """Return the values of the table [stage], and report what is wrong with them."""
    reader.check_keys(("stage",), table, ("default", "allow"))
    default = reader.string(("stage", "default"), table)
    _check_names(reader, _CHOICES, filter(None, (default,)))
    names = reader.strings(("stage", "allow"), table)
    _check_names(reader, STAGE_NAMES, names)
    if "allow" not in table:
        return _File(path, default, None)
    line = reader.lines["stage", "allow"]
    if table["allow"] == []:
        reader.problems.add(line, "'allow' is empty, so no command could run; name stages, or leave it out")
    allowed = tuple(name.text for name in names)
    if allowed and default is not None and default.text in STAGE_NAMES and default.text not in allowed:
        reader.problems.add(default.line, f"the default {default.text!r} is not in 'allow', line {line}")
    return _File(path, default, AllowedStages(stages=allowed, origin=f"{path}:{line}"))


def _check_names(reader: TableReader, known: tuple[str, ...], names: Iterable[Entry]) -> None:
    from pkgjail.policy.lists import nearest

    for name in names:
        if name.text not in known:
            reader.problems.add(name.line, f"unknown stage {name.text!r}{nearest(name.text, known)}")
