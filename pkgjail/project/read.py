"""Read the file of a project: TOML as docs/projects.md describes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.untrusted import LIST, read_named
from pkgjail.policy.lists import ListProblems
from pkgjail.policy.toml_reader import TableReader, read_document
from pkgjail.project.model import FILE, PYPROJECT, Project

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYS = ("lists", "packages", "blacklists", "run")
_RUN_KEYS = ("bind", "ro-bind", "env", "cwd", "network")


def read_project() -> Project | None:
    """Return the project of the working directory; None if it has none.

    The file must be the user's own or root's, because it says what of the host a command may change. There
    may be one file alone: a command could add another one to the directory.

    Raises:
        InputError: the file is wrong, cannot be read, is another user's, or is not the only one; it has all
            problems.

    """
    found = [project for name in (FILE, PYPROJECT) if os.path.lexists(name) and (project := _read(name))]
    if len(found) > 1:
        raise InputError([Problem(PYPROJECT, f"[tool.pkgjail] is there besides {FILE}; remove one of them")])
    return found[0] if found else None


def _read(name: str) -> Project | None:
    problems = ListProblems(name)
    project = None
    try:
        owner = os.stat(name).st_uid
        data = read_named(name, LIST)
    except OSError as error:
        problems.add(1, f"cannot read it: {error.strerror}")
    except ValueError as error:
        problems.add(1, str(error))
    else:
        project = _parsed(name, data, problems)
        if project is not None and owner not in {0, os.geteuid()}:
            problems.add(1, f"it belongs to another user, {owner}; copy it, if you trust what it says")
    if found := problems.in_order():
        raise InputError(found)
    return project


def _parsed(name: str, data: bytes, problems: ListProblems) -> Project | None:
    document = read_document(data, "project's file", problems)
    if document is None:
        return None
    reader = TableReader(problems, document.lines)
    if name == FILE:
        return _project(name, (), document.table, reader)
    tool = document.table.get("tool", {})
    own = tool.get("pkgjail") if isinstance(tool, dict) else None
    return _project(name, ("tool", "pkgjail"), own, reader) if isinstance(own, dict) else None


def _project(name: str, place: tuple[str, ...], table: Mapping[str, Any], reader: TableReader) -> Project:
    reader.check_keys(place, table, _KEYS)
    run = table.get("run", {})
    if not isinstance(run, dict):
        reader.wrong((*place, "run"), "'run' must be a table", run)
        run = {}
    inner = (*place, "run")
    reader.check_keys(inner, run, _RUN_KEYS)

    def texts(key: str) -> tuple[str, ...]:
        return tuple(entry.text for entry in reader.strings((*place, key), table))

    def of_run(key: str) -> tuple[str, ...]:
        return tuple(entry.text for entry in reader.strings((*inner, key), run))

    project = Project(
        file=name,
        lists=texts("lists"),
        packages=texts("packages"),
        blacklists=texts("blacklists"),
        bind=of_run("bind"),
        ro_bind=of_run("ro-bind"),
        env=of_run("env"),
        cwd=reader.boolean((*inner, "cwd"), run) is not False,
        network=reader.boolean((*inner, "network"), run) is not False,
    )
    if not project.lists and not project.packages and not reader.problems.in_order():
        reader.problems.add(1, 'it asks for nothing; add lists = ["build"], or packages = ["gcc"]')
    return project
