"""Read dpkg's status file: its stanzas, all checked, as `Installation` records."""

from __future__ import annotations

import re
from itertools import islice
from operator import contains
from typing import TYPE_CHECKING, Protocol

from pkgjail.backends.debian.relations import ARCHITECTURE, NAME
from pkgjail.core.model import Package, record
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pkgjail.backends.debian.root import Root
    from pkgjail.core.errors import DatabaseError

# The fields that a reader returns of each stanza; those with requirements are parsed later, if needed.
FIELDS = frozenset({
    "Package", "Status", "Version", "Architecture", "Multi-Arch", "Essential", "Protected",
    "Installed-Size", "Provides", "Depends", "Pre-Depends", "Recommends", "Conffiles",
})  # fmt: skip

# A line of the status file that is neither a field, nor the continuation of one, nor empty: the two readers
# would drop or join such lines, each in its own way. Also a NUL, which only python-apt refuses.
_BAD_LINE = re.compile(rb"^(?![A-Za-z0-9][!-9;-~]*:|[ \t]+[^ \t\n]|\n|\Z)|\0", re.MULTILINE)
# A continuation without a field, and an end of a stanza that apt does not recognize.
_STRAYS = (b"\n\n ", b"\n\n\t", b"\r\n\n")
# The name of each field, and an empty one for each empty line.
_FIELD_NAME = re.compile(rb"^(?:([^ \t\n:]+):|\n)", re.MULTILINE)
_FIELDS_BY_LOWER = {name.lower().encode(): name.encode() for name in FIELDS}

# The words of Status: the wanted state, whether dpkg found an error, and the state (dpkg-query(1)).
_STATUS_WORDS = (
    frozenset({"unknown", "install", "hold", "deinstall", "purge"}),
    frozenset({"ok", "reinstreq"}),
    frozenset({
        "not-installed", "config-files", "half-installed", "unpacked",
        "half-configured", "triggers-awaited", "triggers-pending", "installed",
    }),
)  # fmt: skip

_RESTORE = "restore the file from status-old or a backup"

# States in which dpkg has neither a version nor files (dpkg(1), "Package states").
GONE = ("not-installed", "config-files", "half-installed")


@record
class Installation:
    """A stanza: the package, its state (the last two words of Status), and fields that are parsed later."""

    package: Package
    flag: str
    state: str
    multi_arch: str
    fields: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Return whether the package is fully installed; only then it counts."""
        return (self.flag, self.state) == ("ok", "installed")


class Reader(Protocol):
    """The differences between the backends: the library that splits stanzas and compares versions."""

    @property
    def name(self) -> str:
        """The name of the backend."""
        ...

    def stanzas(self, data: bytes) -> Iterable[Mapping[str, str]]:
        """Return those of `FIELDS` that each stanza in `data` has, in its order. Raises `ValueError`."""
        ...

    def compare(self, left: str, right: str) -> int:
        """Compare two well-formed versions by deb-version(7): negative, 0 or positive."""
        ...


def text_field(value: bytes) -> str:
    """Return a stripped value as text: UTF-8, with other bytes as lone surrogates."""
    return text_path(value.strip())


def refuse_interrupted(root: Root) -> None:
    """Refuse a database with changes that are not in the status file yet.

    dpkg writes them to files with numbers for names in `updates`, until its next checkpoint.
    """
    if any(name.isdigit() for name in root.names(root.admin(b"updates"))):
        raise root.error(
            "dpkg is running or was interrupted (there are changes in updates/)",
            f"wait for it, or run {root.command('dpkg --configure -a')}",
        )


def read_status(root: Root, reader: Reader) -> Iterator[Installation]:
    """Yield the stanzas of the status file, checked. It is read once, so that they are of one state."""
    path = root.status_file()
    data = _ended(root.read(path, limit=DATABASE))
    _check_lines(root, path, data)
    with root.parsing(path, _RESTORE):
        stanzas = list(reader.stanzas(data))
    expected = _package_fields(data)
    if len(stanzas) != expected:
        why = f"{text_path(path)}: the backend {reader.name!r} found {len(stanzas)} of {expected} stanzas"
        raise root.error(why, "use another backend, and report this")
    seen: set[str] = set()
    for number, fields in enumerate(stanzas):
        fault = next(_faults(fields), "")
        key = f"{fields.get('Package')}:{fields.get('Architecture')}"
        if fault or key in seen:
            line = list(_stanzas(data))[number][0]
            raise _status_error(root, path, line, fault or f"a second stanza for {key}")
        seen.add(key)
        yield _installation(fields)


def _ended(data: bytes) -> bytes:
    """Return the file with the empty line at its end, which dpkg writes and does not need.

    Nothing of what we read may be cut off: dpkg writes all `FIELDS` before Description, so the last stanza
    must have that.
    """
    start = data.rfind(b"\n\n") + 1
    if data.endswith(b"\n\n") or data.find(b"\nDescription:", max(0, start - 1)) < 0:
        return data
    return data + (b"\n" if data.endswith(b"\n") else b"\n\n")


def _check_lines(root: Root, path: bytes, data: bytes) -> None:
    """Refuse what a reader might ignore: a line of an unknown form, and an end that was cut off."""
    bad = _BAD_LINE.search(data)
    offsets = [data.find(stray) + len(stray) - 1 for stray in _STRAYS if stray in data]
    offsets += [bad.start()] if bad else []
    offsets += [0] if data[:1] in {b" ", b"\t", b"\n"} else []
    if offsets:
        line = data.count(b"\n", 0, min(offsets)) + 1
        raise _status_error(root, path, line, "neither a field nor the continuation of one")
    names = _FIELD_NAME.findall(data)
    stanzas = _by_stanza(names)
    index = None if _are_plain(stanzas) else _odd_field(names)
    if index is not None:
        match = next(islice(_FIELD_NAME.finditer(data), index, None))
        line = data.count(b"\n", 0, match.start()) + 1
        raise _status_error(root, path, line, f"a second or misspelt field {text_path(match[1])!r}")
    if len(stanzas) != _package_fields(data):
        line = next((line for line, found in _stanzas(data) if found != 1), 1)
        raise _status_error(root, path, line, "this stanza has no field 'Package'")
    if data and not data.endswith(b"\n\n"):
        # dpkg ends every stanza with an empty line, including the last; see `_ended`.
        raise _status_error(root, path, data.count(b"\n") + 1, "the file ends within a stanza")


def _status_error(root: Root, path: bytes, line: int, what: str) -> DatabaseError:
    return root.error(f"{text_path(path)}:{line}: {what}", _RESTORE)


def _stanzas(data: bytes) -> Iterator[tuple[int, int]]:
    """For messages: the first line of each stanza, and its number of `Package` fields."""
    line, counted = 1, 0
    for match in re.finditer(rb"(?:[^\n]+\n)+", data):
        line += data.count(b"\n", counted, match.start())
        counted = match.start()
        yield line, _package_fields(match[0])


def _by_stanza(names: list[bytes]) -> list[list[bytes]]:
    """Group the names that `_FIELD_NAME` finds by stanza."""
    found, start = [], 0
    for end in [*(index for index, name in enumerate(names) if not name), len(names)]:
        if end > start:
            found.append(names[start:end])
        start = end + 1
    return found


def _are_plain(stanzas: list[list[bytes]]) -> bool:
    """Return whether `_odd_field` would find nothing. This is much faster, because few names are distinct."""
    distinct = set().union(*stanzas)
    lower = {name.lower() for name in distinct}
    return (
        len(lower) == len(distinct)
        and all(_FIELDS_BY_LOWER.get(name.lower(), name) == name for name in distinct)
        and all(len(set(names)) == len(names) for names in stanzas)
    )


def _odd_field(names: list[bytes]) -> int | None:
    """Return the index of the first field that its stanza has already, or that dpkg writes otherwise.

    dpkg accepts names in any case, and refuses a second field of one name; the readers do neither.
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
    # Many times faster than a pattern.
    return data.count(b"\nPackage:") + data.startswith(b"Package:")


def _faults(fields: Mapping[str, str]) -> Iterator[str]:
    """Find faults that make a stanza unusable. Only installed packages need all fields."""
    name, status = fields.get("Package", ""), fields.get("Status", "").split()
    if NAME.fullmatch(name) is None:
        yield f"the field 'Package' of a stanza is {name!r}, which is not a name"
    if len(status) != len(_STATUS_WORDS) or not all(map(contains, _STATUS_WORDS, status)):
        yield f"the package {name!r} has no field 'Status' that dpkg knows"
    elif status[2] not in GONE:
        if re.fullmatch(r"[!-~]+", fields.get("Version", "")) is None:
            yield f"the package {name!r} has no field 'Version' of one word"
        if ARCHITECTURE.fullmatch(fields.get("Architecture", "")) is None:
            yield f"the package {name!r} has no field 'Architecture' that names one"
    if re.fullmatch(r"[0-9]{1,18}", fields.get("Installed-Size", "0")) is None:
        yield f"the field 'Installed-Size' of the package {name!r} is not a number"


def _installation(fields: Mapping[str, str]) -> Installation:
    """Return a stanza without `_faults` as a record. Installed-Size is in KiB (deb-control(5))."""
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
    return Installation(package=package, flag=flag, state=state, multi_arch=multi_arch, fields=fields)
