"""The binds for the places that a command takes from its caller, or the reasons why there are none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, JailError, Problem
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.text import text_path
from pkgjail.core.working_directory import path_of_working_directory
from pkgjail.environments.directory import read_header
from pkgjail.environments.enter import read_built_manifest, shows
from pkgjail.integrations.spack.caller.places import is_in_system, is_setting, named_places, why_not_whole
from pkgjail.integrations.spack.caller.request import OF_WORKING_DIRECTORY
from pkgjail.jails.protected_paths import protected_paths
from pkgjail.jails.protection import refuse_unprotectable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.integrations.spack.caller.places import Place
    from pkgjail.integrations.spack.caller.request import Request


class Shown(NamedTuple):
    """The binds for a command's places, its working directory in the jail, and warnings for the caller."""

    binds: tuple[UserBind, ...]
    cwd: bytes
    warnings: tuple[str, ...]


def find_places(request: Request, environment: bytes, binds: Sequence[UserBind]) -> Shown:
    """Return how a machine shows a command's places: it shows what it shows to all commands, or not at all.

    Args:
        request: what the command asks for.
        environment: the directory of the environment, which has a machine.
        binds: those that the machine has for Spack.

    Raises:
        InputError: the command would look for a place, or write to it, and the machine does not show it.

    """
    return _Search(request, environment, binds, ()).found()


def show_places(
    request: Request, environment: bytes, binds: Sequence[UserBind], inputs: Sequence[bytes]
) -> Shown:
    """Return what the jail shows for a command's places.

    Args:
        request: what the command asks for.
        environment: the directory of the environment.
        binds: those that the jail has for Spack.
        inputs: what no command may change (`JailOptions.inputs`).

    Raises:
        InputError: the command would look for a place, or write to it, and the jail cannot show it.

    """
    return _Search(request, environment, binds, inputs).shown()


class _Search:
    def __init__(
        self, request: Request, environment: bytes, binds: Sequence[UserBind], inputs: Sequence[bytes]
    ) -> None:
        self._request = request
        self._environment = environment
        self._given = (*read_header(environment).binds, *binds)
        self._inputs = tuple(inputs)
        self._added: list[UserBind] = []
        self._warnings: list[str] = []

    def shown(self) -> Shown:
        """Return what `show_places` does."""
        path = self._working_directory()
        for place in self._request.places:
            self._show(place)
        for file in self._request.files:
            self._show_file(os.fsencode(file))
        return Shown(tuple(self._added), self._cwd(path), tuple(self._warnings))

    def found(self) -> Shown:
        """Return what `find_places` does."""
        try:
            path = path_of_working_directory()
        except FileNotFoundError:  # it was deleted
            path = b"/"
        is_shown = self._shows(path)
        places = named_places(self._request.words, os.fsdecode(path) if is_shown else "")
        if not is_shown and self._request.command in OF_WORKING_DIRECTORY and not places:
            raise _not_in_machine(path)
        if not is_shown and self._request.command is None:
            self._warnings.append(f"{_NOT_SHOWN.format(text_path(path))}; the command starts in /")
        for place in places:
            if self._shows(os.fsencode(place.path)):
                continue
            if not is_in_system(place.source):
                raise _not_in_machine(os.fsencode(place.path))
            self._warn_of_system(place)
        return Shown((), path if is_shown else b"/", tuple(self._warnings))

    def _working_directory(self) -> bytes:
        """Bind the working directory if it may be bound, and return its path."""
        try:
            path = path_of_working_directory()
        except FileNotFoundError:  # it was deleted
            return b"/"
        if self._shows(path):
            return path
        why = why_not_whole(os.fsdecode(path)) or self._why_not_writable(path)
        if not why:
            self._add(path, writable=True)
        elif self._request.command in OF_WORKING_DIRECTORY and not self._request.places:
            raise _refusal(
                f"run 'spack {self._request.command}' in {text_path(path)}",
                f"the jail does not show it: {why}",
                "change to a directory in it, or name one",
            )
        return path

    def _show(self, place: Place) -> None:
        if self._shows(os.fsencode(place.path)):
            return
        source = place.source
        if is_in_system(source):
            self._warn_of_system(place)
            return
        whole = os.path.isdir(source)
        why = why_not_whole(source) if whole else ""
        if why and place.kind == "missing":
            raise _refusal(
                f"show {text_path(os.fsencode(place.path))} in the jail",
                f"it does not exist, and {source} is not shown: {why}",
                "make it first",
            )
        path = os.fsencode(place.path if place.kind == "file" and why else source)
        if place.kind == "file":
            why = ""  # the file alone
        why = why or self._why_not_writable(path)
        if why:
            raise _refusal(f"show {text_path(path)} in the jail", why, "name a directory in it")
        self._add(path, writable=True)

    def _warn_of_system(self, place: Place) -> None:
        """Warn of a path of the system that the manifest does not have."""
        path = os.fsencode(place.path)
        if not self._has(path):
            self._warn(path)

    def _warn(self, path: bytes) -> None:
        name = text_path(path)
        self._warnings.append(
            f"{name} is outside of the jail: {why_not_whole(os.fsdecode(path))}; to show it, add its package "
            f"to the whitelist, or use 'spack jail --build-environment' with --ro-bind {name}"
        )

    def _show_file(self, path: bytes) -> None:
        name = os.fsdecode(path)
        if self._shows(path) or (is_in_system(name) and self._has(path)):
            return
        if is_in_system(name) and not is_setting(name):
            self._warn(path)
        else:
            self._add(path, writable=False)

    def _cwd(self, path: bytes) -> bytes:
        """Return the working directory in the jail: `/` if there is no such directory."""
        real = os.path.realpath(path)
        if self._shows(path):
            return path
        below = real.rstrip(b"/") + b"/"
        binds = (*self._given, *self._added)
        exists = any(os.path.realpath(bind.destination).startswith(below) for bind in binds)
        return real if exists else b"/"

    def _add(self, path: bytes, *, writable: bool) -> None:
        self._added.append(UserBind(source=path, destination=path, writable=writable))

    def _shows(self, path: bytes) -> bool:
        return shows((*self._given, *self._added), path)

    def _has(self, path: bytes) -> bool:
        """Check whether the manifest has the path, which may lead through links."""
        names = {entry.path for entry in read_built_manifest(self._environment).files}
        directory, name = os.path.split(path)
        return bool({path, os.path.join(os.path.realpath(directory), name), os.path.realpath(path)} & names)

    def _why_not_writable(self, path: bytes) -> str:
        bind = UserBind(source=path, destination=path, writable=True)
        try:
            refuse_unprotectable(bind, protected_paths(JailOptions(inputs=self._inputs)))
        except JailError as error:
            return str(error)
        return ""


_NOT_SHOWN = (
    "the machine does not show {0}: it shows Spack's directories, and those of the build; to show it, use "
    "'spack jail --build-environment' with --bind {0}"
)


def _not_in_machine(path: bytes) -> InputError:
    return InputError([Problem("", _NOT_SHOWN.format(text_path(path)))])


def _refusal(what: str, why: str, advice: str) -> InputError:
    return InputError([Problem("", f"cannot {what}: {why}; {advice}")])
