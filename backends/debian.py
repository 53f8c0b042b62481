"""A Debian system's installed state, from dpkg's own records: all that the apt and dpkg backends share.

The two differ in who cuts the status file into stanzas and who orders versions (`Reader`); the
rules are here. In the order of this file: relations (Debian Policy chapter 7), the status file,
Multi-Arch (dpkg's lib/dpkg/depcon.c), file lists and diversions (dpkg-divert(1)), alternatives
(update-alternatives(1)), os-release(5), and the allow-list of files that no package owns.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from functools import cached_property, partial
from itertools import islice
from operator import contains
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from pkgjail.backends import resolve_inside
from pkgjail.errors import DatabaseError
from pkgjail.model import (
    AlternativeChoice,
    AlternativeGroup,
    DependencyGroup,
    Distribution,
    Generated,
    Package,
    Relation,
    record,
    text_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# What a reader hands over of each stanza; the requirements' fields are read later, when asked for.
FIELDS = frozenset({
    "Package", "Status", "Version", "Architecture", "Multi-Arch", "Essential", "Protected",
    "Installed-Size", "Provides", "Depends", "Pre-Depends", "Recommends", "Conffiles",
})  # fmt: skip

_T = TypeVar("_T")

_ADMIN = b"/var/lib/dpkg"
_ETC_ALTERNATIVES = b"/etc/alternatives/"


class Reader(Protocol):
    """What the backends differ in."""

    @property
    def name(self) -> str:
        """The backend's name."""
        ...

    def stanzas(self, file: BinaryIO) -> Iterable[Mapping[str, str]]:
        """Those of `FIELDS` that each stanza has, in its own order. Raises `ValueError`."""
        ...

    def compare(self, left: str, right: str) -> int:
        """Compare two well-formed versions by deb-version(7): negative, 0 or positive."""
        ...


def text_field(value: bytes) -> str:
    """A field's value as text: UTF-8, other bytes as lone surrogates, no white space around it."""
    return text_path(value.strip())


# --- relations ------------------------------------------------------------------------------

# dpkg takes `_` and capitals too, which Policy 5.6.1 does not; old packages have them.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# deb-version(7): [epoch:]upstream[-revision]; a colon needs an epoch. `is_version` sees to the
# revision. The lengths keep a number within what dpkg and Python's int() take.
_VERSION = re.compile(
    r"(?=.{1,1024}\Z)(?:[0-9]{1,9}:[A-Za-z0-9.+~][A-Za-z0-9.+~:-]*|[A-Za-z0-9.+~][A-Za-z0-9.+~-]*)"
)
_ALTERNATIVE = re.compile(
    rf"(?P<name>{_NAME.pattern})(?::(?P<architecture>{_ARCHITECTURE.pattern}))?"
    r"\s*(?:\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^\s()]+)\s*\))?",
    re.ASCII,
)
# What dpkg still takes in a package's own fields, and how (deb-control(5) calls it obsolete).
_OBSOLETE = {"<": "<=", ">": ">="}


def is_version(text: str) -> bool:
    """Whether `text` is a version by deb-version(7) that every comparison reads alike."""
    # What follows the last hyphen is the revision: it is not empty and has no colon.
    _, hyphen, revision = text.rpartition("-")
    sound = bool(revision) and ":" not in revision if hyphen else True
    return sound and _VERSION.fullmatch(text) is not None


def parse_alternative(text: str, *, lenient: bool = False) -> Relation:
    """Read `name[:architecture] [(operator version)]`.

    With `lenient`, the operators `<` and `>` are read as dpkg does, for `<=` and `>=`. Raises
    `ValueError` with what is wrong with `text`.
    """
    text = text.strip()
    match = _ALTERNATIVE.fullmatch(text)
    operator = match["operator"] or "" if match else ""
    if match is None or (operator in _OBSOLETE and not lenient) or not is_version(match["version"] or "0"):
        raise ValueError(next(_faults_of_alternative(" ".join(text.split()))))
    return Relation(
        name=match["name"],
        architecture=match["architecture"] or "",
        operator=_OBSOLETE.get(operator, operator),
        version=match["version"] or "",
    )


def parse_group(text: str, kind: str, *, lenient: bool = False) -> DependencyGroup:
    """Read one requirement, `alternative | alternative …`. Raises `ValueError`."""
    parts = text.split("|")
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ValueError(f"a package name is missing beside a '|' in {text!r}")
    alternatives = tuple(parse_alternative(part, lenient=lenient) for part in parts)
    return DependencyGroup(kind=kind, alternatives=alternatives, text=" ".join(text.split()))


def _faults_of_alternative(text: str) -> Iterator[str]:
    """What is wrong with a text that `_ALTERNATIVE` or its version do not fit, the plainest first."""
    head, bracket, rest = text.partition("(")
    name, colon, architecture = head.rstrip().partition(":")
    if not text:
        yield "a package name is missing"
    if "[" in text or "<" in head:
        yield f"{text!r} has a restriction of build dependencies, '[…]' or '<…>'; it has no meaning here"
    if not name:
        yield f"a package name is missing in {text!r}"
    if len(head.split()) > 1:
        yield f"{head.strip()!r} is more than one package name; write an entry for each"
    if _NAME.fullmatch(name) is None:
        yield f"{name!r} is not a package name: letters, digits, '+', '-', '.', the first no sign"
    if colon and not architecture:
        yield f"an architecture is missing after ':' in {text!r}"
    if colon and _ARCHITECTURE.fullmatch(architecture) is None:
        yield f"{architecture!r} is not an architecture in {text!r}; write 'any' or one like 'amd64'"
    yield _version_fault(text, rest) if bracket else f"{text!r} is not a requirement (Debian Policy 7.1)"


def _version_fault(text: str, rest: str) -> str:
    """What is wrong after the `(` of an alternative."""
    inner, closing, after = rest.partition(")")
    found = re.match(r"\s*([<=>]*)\s*(.*)", inner, re.DOTALL)
    operator, version = (found[1], found[2].strip()) if found else ("", inner)
    if not closing:
        return f"{text!r} has a '(' that nothing closes"
    if after.strip():
        return f"{after.strip()!r} stands after the version in {text!r}; write an entry for each package"
    if operator not in {"<<", "<=", "=", ">=", ">>"}:
        said = f"{operator!r} is not an operator" if operator else "an operator is missing"
        return f"{said} in {text!r}; use one of <<, <=, =, >=, >>"
    if not version:
        return f"a version is missing after {operator!r} in {text!r}"
    return f"{version!r} is not a version in {text!r}; see deb-version(7)"


# --- the status file ------------------------------------------------------------------------

# A line of the status file that is neither a field, nor the continuation of one, nor empty. Such
# lines the two readers would drop or join, each in its own way.
_BAD_LINE = re.compile(rb"^(?![A-Za-z0-9][!-9;-~]*:|[ \t]+[^ \t\n]|\n|\Z)", re.MULTILINE)
# A continuation of no field, and an end of a stanza that apt does not see.
_STRAYS = (b"\n\n ", b"\n\n\t", b"\r\n\n")
# The name of each field, and an empty one for each empty line.
_FIELD_NAME = re.compile(rb"^(?:([^ \t\n:]+):|\n)", re.MULTILINE)
_FIELDS_BY_LOWER = {name.lower().encode(): name.encode() for name in FIELDS}

# What makes a path of a file list not normal, and is not found in one that dpkg has written.
_UNUSUAL_PARTS = (b"//", b"/\n", b"/./", b"/.\n", b"/../", b"/..\n", b"\0")
_CONFFILE_FLAGS = ("obsolete", "remove-on-upgrade")

# The words of Status: what is wanted, whether dpkg found an error, and the state (dpkg-query(1)).
_STATUS_WORDS = (
    frozenset({"unknown", "install", "hold", "deinstall", "purge"}),
    frozenset({"ok", "reinstreq"}),
    frozenset({
        "not-installed", "config-files", "half-installed", "unpacked",
        "half-configured", "triggers-awaited", "triggers-pending", "installed",
    }),
)  # fmt: skip

_RESTORE = "restore the file from status-old or a backup"
_RESTORE_DIVERSIONS = "restore the file from diversions-old or a backup"
_CORRECT = "correct the file, or install the package that it belongs to again"

# States in which dpkg keeps neither a version nor files (dpkg(1), "Package states").
_GONE = ("not-installed", "config-files", "half-installed")


@record
class _Installation:
    """A stanza: the package, its state (the last two words of Status), and what is read later."""

    package: Package
    flag: str
    state: str
    multi_arch: str
    fields: Mapping[str, str]

    @property
    def complete(self) -> bool:
        return (self.flag, self.state) == ("ok", "installed")


@record
class _Provision:
    """What a package provides: `architecture` and `version` are "" where the field names none."""

    provider: _Installation
    architecture: str
    version: str


class DebianDatabase:
    """`model.PackageDatabase` for a dpkg root; see there for what each method promises."""

    family = "debian"

    def __init__(self, root: bytes, reader: Reader) -> None:
        """Read the status file below `root` (an absolute path). Raises `DatabaseError`."""
        self._root = root
        self._reader = reader
        self._admin = self._inside(_ADMIN)
        self._refuse_interrupted()
        installations = tuple(self._read_status())
        self._by_name: dict[str, list[_Installation]] = {}
        for installation in installations:
            self._by_name.setdefault(installation.package.name, []).append(installation)
        complete = {one.package.key: one for one in installations if one.complete}
        self._complete = dict(sorted(complete.items()))
        self._packages = MappingProxyType({key: one.package for key, one in self._complete.items()})
        self._providers: dict[str, list[_Provision]] = {}
        for one in self._complete.values():
            for name, provision in self._provides(one):
                self._providers.setdefault(name, []).append(provision)

    @property
    def backend(self) -> str:
        """The reader's name."""
        return self._reader.name

    @property
    def packages(self) -> Mapping[str, Package]:
        """The packages whose Status ends in "ok installed"."""
        return self._packages

    @cached_property
    def architecture(self) -> str:
        """The architecture of the package `dpkg`, else the first line of dpkg's `arch` file.

        dpkg's own answer is built into its binary, which has the architecture of its package. The
        file is written by `dpkg --add-architecture`, the native one first.
        """
        for one in self._by_name.get("dpkg", ()):
            if one.state not in _GONE:
                return one.package.architecture
        path = os.path.join(self._admin, b"arch")
        first = text_path(self._read(path, missing=b"").partition(b"\n")[0])
        if _ARCHITECTURE.fullmatch(first) is None:
            raise self._error(
                "the native architecture is unknown: the package 'dpkg' is not installed, and "
                f"{text_path(path)} does not name one",
                "install dpkg there, or write the architecture into that file",
            )
        return first

    def _refuse_interrupted(self) -> None:
        """Stop where dpkg has written changes that are not in the status file yet.

        It keeps them in `updates`, in files whose names are digits, until its next checkpoint.
        """
        try:
            names = os.listdir(os.path.join(self._admin, b"updates"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(error) from error
        if any(name.isdigit() for name in names):
            raise self._error(
                "dpkg is running or was interrupted (there are changes in updates/)",
                f"wait for it, or run {self._command('dpkg --configure -a')}",
            )

    def _read_status(self) -> Iterator[_Installation]:
        """The stanzas of the status file, checked. One open file gives one state of it."""
        path = self._inside(_ADMIN + b"/status")
        try:
            with open(path, "rb") as file:
                data = file.read()
                self._check_lines(path, data)
                file.seek(0)
                stanzas = list(self._reader.stanzas(file))
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:
            raise self._error(f"{text_path(path)}: {error}", _RESTORE) from error
        there = _package_fields(data)
        if len(stanzas) != there:
            why = f"{text_path(path)}: the backend {self.backend!r} found {len(stanzas)} of {there} stanzas"
            raise self._error(why, "use another backend, and report this")
        seen: set[str] = set()
        for number, fields in enumerate(stanzas):
            fault = next(_faults(fields), "")
            key = f"{fields.get('Package')}:{fields.get('Architecture')}"
            if fault or key in seen:
                line = list(_stanzas(data))[number][0]
                raise self._status_error(path, line, fault or f"a second stanza for {key}")
            seen.add(key)
            yield _installation(fields)

    def _check_lines(self, path: bytes, data: bytes) -> None:
        """Refuse what a reader might pass over: a line of no known shape, and an end that was cut off."""
        bad = _BAD_LINE.search(data)
        offsets = [data.find(stray) + len(stray) - 1 for stray in _STRAYS if stray in data]
        offsets += [bad.start()] if bad else []
        offsets += [0] if data[:1] in {b" ", b"\t", b"\n"} else []
        if offsets:
            line = data.count(b"\n", 0, min(offsets)) + 1
            raise self._status_error(path, line, "neither a field nor the continuation of one")
        names = _FIELD_NAME.findall(data)
        index = _odd_field(names)
        if index is not None:
            match = next(islice(_FIELD_NAME.finditer(data), index, None))
            line = data.count(b"\n", 0, match.start()) + 1
            raise self._status_error(path, line, f"a second or misspelt field {text_path(match[1])!r}")
        stanzas = sum(bool(name) and not before for before, name in zip([b"", *names], names))
        if stanzas != _package_fields(data):
            line = next((line for line, found in _stanzas(data) if found != 1), 1)
            raise self._status_error(path, line, "this stanza has no field 'Package'")
        if data and not data.endswith(b"\n\n"):
            # dpkg ends every stanza with an empty line, the last too.
            raise self._status_error(path, data.count(b"\n") + 1, "the file ends within a stanza")

    # --- requirements and who satisfies them (dpkg's lib/dpkg/depcon.c) ---

    def parse(self, text: str) -> DependencyGroup:
        """Read one requirement as Policy 7.1 writes it: `gcc:any (>= 4:10) | clang`."""
        if "," in text:
            raise ValueError(
                f"{text!r} has a comma, so it is more than one requirement; write an entry for each"
            )
        return parse_group(text, "whitelist")

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Pre-Depends and Depends, and Recommends when asked for, as the stanza orders them."""
        fields = self._complete[package.key].fields
        wanted = ("Pre-Depends", "Depends", "Recommends") if recommends else ("Pre-Depends", "Depends")
        return tuple(
            self._field(package, kind, partial(parse_group, kind=kind, lenient=True), entry)
            for kind, value in fields.items()
            if kind in wanted and value
            for entry in value.split(",")
        )

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Who satisfies `relation`, by dpkg's own rules for architectures and virtual packages."""
        named = [
            one.package
            for one in self._installed(relation.name)
            if self._suits(one, one.package.architecture, relation, architecture)
            and self._satisfies(one.package.version, relation)
        ]
        asker = self._native(architecture)
        named.sort(key=lambda package: (self._native(package.architecture) != asker, package.architecture))
        provided = [
            provision.provider.package
            for provision in self._providers.get(relation.name, ())
            if self._suits(
                provision.provider,
                provision.architecture or provision.provider.package.architecture,
                relation,
                architecture,
            )
            and self._satisfies(provision.version, relation)
        ]
        return tuple(dict.fromkeys((*named, *provided)))

    def _installed(self, name: str) -> list[_Installation]:
        return [one for one in self._by_name.get(name, ()) if one.complete]

    def _native(self, architecture: str) -> str:
        """A package for all architectures counts as one for the native architecture."""
        return self.architecture if architecture == "all" else architecture

    def _suits(self, one: _Installation, architecture: str, relation: Relation, asker: str) -> bool:
        """Whether `one`, taken as of `architecture`, is on the side that `relation` asks for.

        `architecture` is its own, or that which a Provides entry names. `Multi-Arch: foreign`
        answers any asker that names no architecture, `:any` is answered by `allowed` alone.
        """
        if not relation.architecture and one.multi_arch == "foreign":
            return True
        if relation.architecture == "any":
            return one.multi_arch == "allowed"
        return self._native(architecture) == self._native(relation.architecture or asker)

    def _satisfies(self, version: str, relation: Relation) -> bool:
        """Whether `version` ("" for a Provides without one) is what `relation` asks for (Policy 7.5)."""
        if not relation.operator or not version:
            return not relation.operator
        if not is_version(version):
            raise self._error(
                f"the version {version!r} of what is {relation.name!r} is not one by deb-version(7)",
                "install another version of it",
            )
        order = self._reader.compare(version, relation.version)
        return {"<<": order < 0, "<=": order <= 0, "=": order == 0, ">=": order >= 0, ">>": order > 0}[
            relation.operator
        ]

    def _provides(self, one: _Installation) -> Iterator[tuple[str, _Provision]]:
        """The virtual packages of `one` by name. dpkg heeds no operator but `=` there."""
        value = one.fields.get("Provides")
        for entry in value.split(",") if value else ():
            relation = self._field(one.package, "Provides", partial(parse_alternative, lenient=True), entry)
            if relation.operator in {"", "="}:
                yield (
                    relation.name,
                    _Provision(provider=one, architecture=relation.architecture, version=relation.version),
                )

    def _field(self, package: Package, field: str, parse: Callable[[str], _T], text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise self._error(
                f"the field {field} of the package {package.key}: {error}",
                f"install another version of it, or correct {text_path(self._admin)}/status",
            ) from error

    # --- why nothing satisfies a requirement ---

    def shortcoming(self, relation: Relation, architecture: str) -> str:
        """The nearest miss: version, architecture, a package that is not whole, or none at all."""
        asked = f"({relation.operator} {relation.version})"
        named = self._installed(relation.name)
        near = [one for one in named if self._suits(one, one.package.architecture, relation, architecture)]
        if near:
            return (
                f"{relation.name} is installed as {near[0].package.version}, and {asked} is asked; "
                "install such a version, or change what is asked"
            )
        broken = [
            one
            for one in self._by_name.get(relation.name, ())
            if not one.complete and one.state != "not-installed"
            if not named or self._suits(one, one.package.architecture, relation, architecture)
        ]
        if broken:
            return f"{relation.name!r} is {self._state(broken[0])}"
        if named:
            return self._wrong_architecture(named, relation, architecture)
        provisions = self._providers.get(relation.name)
        if provisions:
            return self._wrong_provision(provisions, relation)
        return f"{relation.name!r} is not installed; install it with {self._install(relation)}"

    def _state(self, one: _Installation) -> str:
        """The state of a package that is not fully installed, in words, and the way out."""
        configure = f"run {self._command('dpkg --configure -a')}"
        reinstall = f"run {self._command(f'apt-get install --reinstall {one.package.name}')}"
        install = f"install it with {self._command(f'apt-get install {one.package.name}')}"
        if one.flag != "ok":
            return f"{one.state}, and dpkg says that it must be installed again; {reinstall}"
        return {
            "config-files": f"removed, and only its configuration is left; {install}",
            "half-installed": f"half installed; {reinstall}",
            "unpacked": f"unpacked but not configured; {configure}",
            "half-configured": f"configured in half; {configure}",
            "triggers-awaited": f"waiting for the triggers of another package; {configure}",
            "triggers-pending": f"waiting for its triggers; {configure}",
        }[one.state]

    def _wrong_architecture(self, named: list[_Installation], relation: Relation, asker: str) -> str:
        installed = ", ".join(sorted(one.package.architecture for one in named))
        if relation.architecture == "any":
            return (
                f"{relation.name!r} is installed for {installed}, and ':any' is for packages with "
                "'Multi-Arch: allowed' alone; leave ':any' out"
            )
        wanted = self._native(relation.architecture or asker)
        return (
            f"{relation.name!r} is installed for {installed}, and {wanted} is asked; install it with "
            f"{self._command(f'apt-get install {relation.name}:{wanted}')}"
        )

    def _wrong_provision(self, provisions: list[_Provision], relation: Relation) -> str:
        names = ", ".join(dict.fromkeys(one.provider.package.key for one in provisions))
        versions = ", ".join(dict.fromkeys(one.version for one in provisions if one.version))
        asked = f"({relation.operator} {relation.version})"
        if relation.operator and not versions:
            return (
                f"{relation.name!r} is provided by {names} without a version, and {asked} is asked; "
                "ask for a package by its own name"
            )
        if relation.operator:
            return (
                f"{relation.name!r} is provided as {versions} by {names}, and {asked} is asked; "
                "install such a version, or change what is asked"
            )
        return f"{relation.name!r} is provided by {names} for another architecture; name a package itself"

    def _install(self, relation: Relation) -> str:
        suffix = f":{relation.architecture}" if relation.architecture not in {"", "any"} else ""
        return self._command(f"apt-get install {relation.name}{suffix}")

    def _command(self, command: str) -> str:
        return f"'{command}'" if self._root == b"/" else f"'{command}' in {text_path(self._root)}"

    # --- files ---

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """The lines of the package's list file, each where dpkg-divert(1) has put it."""
        path = self._list_file(package)
        data = self._read(path)
        if data and not data.endswith(b"\n"):
            raise self._error(f"{text_path(path)} was cut off within a line", _reinstall(package))
        # The first line, "/.", is the root directory; the others are normal in every list by dpkg.
        root, data = ([b"/"], data[3:]) if data.startswith(b"/.\n") else ([], data)
        lines = data.split(b"\n")[:-1]
        relative = data.count(b"\n/") + data.startswith(b"/") != len(lines)
        if relative or any(part in data for part in _UNUSUAL_PARTS):
            lines = self._normal_paths(path, lines, first=1 + len(root))
        if not self._diversions.keys().isdisjoint(lines):
            lines = [self._diverted(line, package) for line in lines]
        return tuple(dict.fromkeys(root + lines))

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """The status file's Conffiles that the package still ships, where diversions have put them.

        The field is dpkg's own account; `info/*.conffiles` is the package's list as unpacked,
        which does not know what has become obsolete, or is to be removed on upgrade.
        """
        value = self._complete[package.key].fields.get("Conffiles", "")
        found = set()
        for line in value.split("\n"):
            words = line.strip(" ").rsplit(" ", 2)
            if line and (len(words) == 1 or not words[0].startswith("/")):
                raise self._error(
                    f"the field Conffiles of the package {package.key} has the line {line!r}",
                    _reinstall(package),
                )
            if words[-1] not in _CONFFILE_FLAGS and line:
                name = line.strip(" ").rpartition(" ")[0]
                found.add(self._diverted(name.encode("utf-8", "surrogateescape"), package))
        return frozenset(found) & frozenset(self.owned_paths(package)) if found else frozenset()

    def _list_file(self, package: Package) -> bytes:
        """Name the architecture too, as dpkg does where a package may be installed for several.

        That is format 1 of the directory (the file `format` says so), since dpkg 1.16.
        """
        info = os.path.join(self._admin, b"info")
        qualified = self._read(os.path.join(info, b"format"), missing=b"0").strip() == b"1"
        same = self._complete[package.key].multi_arch == "same"
        name = package.key if qualified and same else package.name
        return os.path.join(info, os.fsencode(f"{name}.list"))

    def _diverted(self, path: bytes, package: Package) -> bytes:
        """Where `path` of `package` is: one's own diversion moves everybody else's file."""
        target, owner = self._diversions.get(path, (path, package.name))
        return path if owner == package.name else target

    @cached_property
    def _diversions(self) -> Mapping[bytes, tuple[bytes, str]]:
        """Contested path -> (where it goes, the package that diverts; ":" is the administrator)."""
        path = os.path.join(self._admin, b"diversions")
        data = self._read(path, missing=b"")
        lines = data.split(b"\n")[:-1]
        if len(lines) % 3 or (data and not data.endswith(b"\n")):
            raise self._error(f"{text_path(path)}: a diversion has three lines", _RESTORE_DIVERSIONS)
        contested = self._normal_paths(path, lines[0::3], first=1, step=3)
        targets = self._normal_paths(path, lines[1::3], first=2, step=3)
        return dict(zip(contested, zip(targets, map(text_path, lines[2::3]))))

    # --- alternatives ---

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Every group of update-alternatives(1), from its own records. An empty record is none."""
        directory = os.path.join(self._admin, b"alternatives")
        try:
            # update-alternatives leaves its unfinished writes out by this name, so do we.
            names = sorted(name for name in os.listdir(directory) if not name.endswith(b".dpkg-tmp"))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unreadable(error) from error
        paths = {name: os.path.join(directory, name) for name in names}
        records = {name: self._read(path) for name, path in paths.items()}
        return tuple(self._group(name, paths[name], data) for name, data in records.items() if data)

    def _group(self, name: bytes, path: bytes, data: bytes) -> AlternativeGroup:
        lines = _Lines(data)
        try:
            return _alternative_group(name, lines)
        except ValueError as error:
            raise self._error(f"{text_path(path)}:{lines.number}: {error}", _CORRECT) from error

    def generated(self) -> tuple[Generated, ...]:
        """The allow-list below; the same for every Debian root."""
        return _GENERATED

    # --- the distribution ---

    @cached_property
    def distribution(self) -> Distribution:
        """`ID` and `VERSION_ID` of os-release(5): /etc first, links resolved inside the root."""
        for candidate in (b"/etc/os-release", b"/usr/lib/os-release"):
            path = self._inside(candidate)
            if os.path.lexists(path):
                fields = self._os_release(path)
                return Distribution(id=fields.get("ID", "linux"), version=fields.get("VERSION_ID", ""))
        raise self._error("it has neither etc/os-release nor usr/lib/os-release", "install base-files there")

    def _os_release(self, path: bytes) -> dict[str, str]:
        fields = {}
        for number, line in enumerate(text_path(self._read(path)).split("\n"), 1):
            name, equals, value = line.strip().partition("=")
            if not equals or name.startswith("#"):
                continue
            try:
                words = shlex.split(value)
            except ValueError as error:
                why = f"{text_path(path)}:{number}: {error}"
                raise self._error(why, "quote the value as os-release(5) says") from error
            fields[name] = " ".join(words)
        return fields

    # --- reading ---

    def _inside(self, path: bytes) -> bytes:
        try:
            return resolve_inside(self._root, path)
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self, path: bytes, missing: bytes | None = None) -> bytes:
        """The content of a file, `missing` where there is none and that is no error."""
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            if missing is not None:
                return missing
            raise self._unreadable(error) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def _normal_paths(self, file: bytes, lines: list[bytes], *, first: int, step: int = 1) -> list[bytes]:
        """The paths in `lines` of `file`, the first of which has the number `first`, made normal."""
        paths: list[bytes] = []
        try:
            for line in lines:
                paths.append(normal_path(line))  # noqa: PERF401  (their number tells the line of a fault)
        except ValueError as error:
            where = f"{text_path(file)}:{first + step * len(paths)}"
            raise self._error(f"{where}: {error}", _CORRECT) from error
        return paths

    def _unreadable(self, error: OSError) -> DatabaseError:
        name = os.fsdecode(error.filename) if error.filename else "a file of it"
        why = os.strerror(error.errno) if error.errno else str(error)
        remedies = {
            errno.ENOENT: "the database is incomplete: install the package that the file belongs to again",
            errno.EACCES: "make it readable, or run as a user who may read it",
        }
        return self._error(f"{name}: {why}", remedies.get(error.errno or 0, "repair it"))

    def _error(self, why: str, remedy: str) -> DatabaseError:
        return DatabaseError(f"cannot read the package database of {text_path(self._root)}: {why}; {remedy}")

    def _status_error(self, path: bytes, line: int, what: str) -> DatabaseError:
        return self._error(f"{text_path(path)}:{line}: {what}", _RESTORE)


# --- helpers of the above that need no database ---------------------------------------------


def _stanzas(data: bytes) -> Iterator[tuple[int, int]]:
    """For an error's sake: the first line of each stanza, and how many `Package` fields it has."""
    for match in re.finditer(rb"(?:[^\n]+\n)+", data):
        yield data.count(b"\n", 0, match.start()) + 1, _package_fields(match[0])


def _odd_field(names: list[bytes]) -> int | None:
    """The index of the first field that its stanza has already, or that dpkg would not write so.

    dpkg takes names in any case, and refuses a field that stands twice; the readers do neither.
    """
    seen: set[bytes] = set()
    for index, name in enumerate(names):
        if not name:
            seen.clear()
            continue
        lower = name.lower()
        if lower in seen or _FIELDS_BY_LOWER.get(lower, name) != name:
            return index
        seen.add(lower)
    return None


def _package_fields(data: bytes) -> int:
    # Many times as fast as a pattern.
    return data.count(b"\nPackage:") + data.startswith(b"Package:")


def _faults(fields: Mapping[str, str]) -> Iterator[str]:
    """What keeps a stanza from being used. Only what is installed must have all that is asked here."""
    name, status = fields.get("Package", ""), fields.get("Status", "").split()
    if _NAME.fullmatch(name) is None:
        yield f"the field 'Package' of a stanza is {name!r}, which is no name"
    if len(status) != len(_STATUS_WORDS) or not all(map(contains, _STATUS_WORDS, status)):
        yield f"the package {name!r} has no field 'Status' that dpkg knows"
    elif status[2] not in _GONE:
        if re.fullmatch(r"[!-~]+", fields.get("Version", "")) is None:
            yield f"the package {name!r} has no field 'Version' of one word"
        if _ARCHITECTURE.fullmatch(fields.get("Architecture", "")) is None:
            yield f"the package {name!r} has no field 'Architecture' that names one"
    if re.fullmatch(r"[0-9]{1,18}", fields.get("Installed-Size", "0")) is None:
        yield f"the field 'Installed-Size' of the package {name!r} is no number"


def _installation(fields: Mapping[str, str]) -> _Installation:
    """A stanza without `_faults` as a record. Installed-Size counts KiB (deb-control(5))."""
    _want, flag, state = fields["Status"].split()
    package = Package(
        name=fields["Package"],
        version=fields.get("Version", ""),
        architecture=fields.get("Architecture", ""),
        essential=fields.get("Essential") == "yes",
        protected=fields.get("Protected") == "yes",
        size=int(fields.get("Installed-Size", "0")) * 1024,
    )
    multi_arch = fields.get("Multi-Arch", "no")
    return _Installation(package=package, flag=flag, state=state, multi_arch=multi_arch, fields=fields)


def _reinstall(package: Package) -> str:
    return f"install {package.key} again"


def normal_path(path: bytes) -> bytes:
    """An absolute `path` without doubled slashes, final slash or `.`. Raises `ValueError`."""
    parts = path.split(b"/")
    if not path.startswith(b"/") or b".." in parts or b"\0" in path:
        raise ValueError(f"{path!r} is not an absolute path without '..'")
    return b"/" + b"/".join(part for part in parts if part not in {b"", b"."})


class _Lines:
    """The lines of a record, taken one by one; `number` is that of the last one taken."""

    def __init__(self, data: bytes) -> None:
        self.number = 0
        self._lines = data.split(b"\n")[:-1]

    def take(self, what: str) -> bytes:
        self.number += 1
        if self.number > len(self._lines):
            raise ValueError(f"the file ends where {what} should stand")
        return self._lines[self.number - 1]


def _alternative_group(name: bytes, lines: _Lines) -> AlternativeGroup:
    """Read a record: mode, master link, (slave name, slave link)…, "", candidates…, "".

    A candidate is its path, its priority, and one line a slave, empty where it has none. Raises
    `ValueError`.
    """
    mode = lines.take("the mode")
    if mode not in {b"auto", b"manual"}:
        raise ValueError(f"the mode is {mode!r}, neither 'auto' nor 'manual'")
    links = {name: normal_path(lines.take("the master link"))}
    while slave := lines.take("a slave's name"):
        if b"/" in slave or slave in links:
            raise ValueError(f"{slave!r} is not a name, or stands twice")
        link = normal_path(lines.take("a slave's link"))
        if link in links.values():
            raise ValueError(f"the link {text_path(link)} stands twice")
        links[slave] = link
    choices: dict[bytes, AlternativeChoice] = {}
    while candidate := lines.take("a candidate's path"):
        target = normal_path(candidate)
        if target in choices:
            raise ValueError(f"the candidate {text_path(target)} stands twice")
        priority = lines.take("a priority")
        if re.fullmatch(rb"[+-]?[0-9]{1,10}", priority) is None:
            raise ValueError(f"the priority {priority!r} is not a number")
        files = [lines.take("a slave's file") for _ in range(len(links) - 1)]
        targets = (target, *(normal_path(file) if file else b"" for file in files))
        choices[target] = AlternativeChoice(priority=int(priority), targets=targets)
    pairs = tuple((link, _ETC_ALTERNATIVES + administrative) for administrative, link in links.items())
    return AlternativeGroup(name=text_path(name), links=pairs, choices=tuple(choices.values()))


# --- the allow-list -------------------------------------------------------------------------


def _made(package: str, made_by: str, *patterns: str, at_entry: bool = False) -> tuple[Generated, ...]:
    return tuple(
        Generated(pattern=pattern, package=package, made_by=made_by, at_entry=at_entry)
        for pattern in patterns
    )


# Found by comparing a Debian 12 build host with all its file lists. Left out, though no package
# owns them, since no build needs them: caches of icons and manual pages, accounts' shadow files,
# machine-id, mtab, init and PAM links, and what a site adds by itself (ld.so.conf.d, gitconfig,
# pip.conf): a whitelist names such paths.
_GENERATED = (
    # Who one is and how names resolve: a jail's own, with the user, root and nobody.
    *_made("", "pkgjail", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", at_entry=True),
    *_made("", "pkgjail", "/etc/resolv.conf", at_entry=True),
    # The loader's index: of exactly the libraries of the set.
    *_made("libc-bin", "ldconfig", "/etc/ld.so.cache", at_entry=True),
    # TLS: the bundle, a link for each authority by name and by hash, the site's own authorities.
    *_made("ca-certificates", "debconf", "/etc/ca-certificates.conf"),
    *_made("ca-certificates", "update-ca-certificates", "/etc/ssl/certs/*.crt", "/etc/ssl/certs/*.pem"),
    *_made("ca-certificates", "update-ca-certificates", "/etc/ssl/certs/????????.[0-9]"),
    *_made("ca-certificates", "the administrator", "/usr/local/share/ca-certificates/*.crt"),
    *_made("ca-certificates", "the administrator", "/usr/local/share/ca-certificates/*/*.crt"),
    *_made("ca-certificates-java", "update-ca-certificates", "/etc/ssl/certs/java/cacerts"),
    # Local time, and the locales that the administrator chose.
    *_made("tzdata", "tzdata's postinst", "/etc/localtime", "/etc/timezone"),
    *_made("locales", "locale-gen", "/usr/lib/locale/locale-archive"),
    # `sh -l` sets PATH from it, and dpkg-vendor asks the other for the flags of a package's build.
    *_made("base-files", "base-files' postinst", "/etc/profile", "/etc/dpkg/origins/default"),
    # Where xsltproc and xmllint find DocBook without a network.
    *_made("xml-core", "update-xmlcatalog", "/etc/xml/catalog", "/etc/xml/*.xml"),
    # Compiled by dpkg triggers. GLib's package was renamed for 64-bit time in Debian 13.
    *_made("libglib2.0-0", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *_made("libglib2.0-0", "gio-querymodules", "/usr/lib/*/gio/modules/giomodule.cache"),
    *_made("libglib2.0-0t64", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *_made("libglib2.0-0t64", "gio-querymodules", "/usr/lib/*/gio/modules/giomodule.cache"),
    *_made("libgdk-pixbuf-2.0-0", "gdk-pixbuf-query-loaders", "/usr/lib/*/gdk-pixbuf-2.0/*/loaders.cache"),
    *_made("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)
