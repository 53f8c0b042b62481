"""The shape of a manifest's records: kinds, fields, their types, and what each section is sorted by.

This table is the only place that lists them. The codec writes by it, the reader reads by it, and the
messages about a bad line come from it. A test compares schema.json with it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

from pkgjail.core.model import (
    Dependency,
    DevicePattern,
    Dropped,
    FileEntry,
    FileKind,
    Header,
    Missing,
    MissingReason,
    Origin,
    Package,
    Unmet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pkgjail.core.model import Manifest

T = TypeVar("T")

SCHEMA = 3
"""The newest version of the format. A manifest has the first one that has all that is in it: `schema_of`."""

TYPES = get_args(FileKind)
"""The values of a file's `type`."""

ORIGINS = get_args(Origin)
"""The values of a file's `origin`."""

REASONS = get_args(MissingReason)
"""The values of `reason` in a record of a missing path."""

MAX_SIZE = 1024 * 10**18
"""The largest size in bytes: the most that dpkg's Installed-Size, in KiB, may say. Files are smaller."""

REQUIRED: Any = object()
"""The default of a field that every record of its kind has."""

Type = Literal["text", "texts", "keys", "path", "flag", "number", "mode", "distribution"]
"""The type of a value, each written as JSON of its own form (codec.py). Keys are texts that are sorted."""


class Field(NamedTuple):
    """One field of a record: `attribute` is its name in Python, `default` the value that is left out.

    With `repeats` many records of a section have the same value, so that its text is worth remembering.
    A `derived` field follows from others of the same record; readers check it and then leave it out.
    """

    name: str
    type: Type
    attribute: str
    default: Any = REQUIRED
    repeats: bool = False
    derived: bool = False


class End(NamedTuple):
    """The last record: the number of lines before it, and the SHA-256 of their bytes in hex."""

    records: int
    sha256: str


class RecordKind(NamedTuple):
    """One kind of record: the class of its records, and its fields by name, as a line has them.

    `section` is the attribute of a `Manifest` with these records, and `order` the attributes that they
    are sorted by; no two records agree in all of them. Both are for kinds with any number of records.
    """

    name: str
    record: type[Any]
    fields: tuple[Field, ...]
    section: str = ""
    order: tuple[str, ...] = ()

    @property
    def key(self) -> Callable[[Any], Any]:
        """The function that gives what a record is sorted by."""
        return attrgetter(*self.order)

    def sort(self, records: Iterable[T]) -> tuple[T, ...]:
        """Return the records of a section in their order."""
        return tuple(sorted(records, key=self.key))


def _field(name: str, type_: Type = "text", attribute: str = "", **more: Any) -> Field:
    return Field(name, type_, attribute or name, **more)


_OWNERS = _field("owners", "keys", default=(), repeats=True)
_PATH = _field("path", "path")
_FIELD = _field("field", attribute="kind", repeats=True)

HEADER = RecordKind(
    "header",
    Header,
    (
        _field("architecture"),
        _field("blacklists", "texts"),
        _field("distribution", "distribution"),
        _field("essential", "flag"),
        _field("policy"),
        _field("recommends", "flag"),
        _field("schema", "number"),
        _field("source", default=""),
        _field("whitelists", "texts"),
    ),
)
PACKAGE = RecordKind(
    "package",
    Package,
    (
        _field("architecture", repeats=True),
        _field("essential", "flag"),
        _field("key", derived=True),
        _field("name"),
        _field("protected", "flag"),
        _field("size", "number"),
        _field("version"),
    ),
    "packages",
    ("key",),
)
DEPENDENCY = RecordKind(
    "dependency",
    Dependency,
    (_FIELD, _field("source"), _field("target"), _field("text")),
    "dependencies",
    ("source", "target", "kind", "text"),
)
FILE = RecordKind(
    "file",
    FileEntry,
    (
        _field("detail", default="", repeats=True),
        _field("mode", "mode", repeats=True),
        _field("origin", repeats=True),
        _OWNERS,
        _PATH,
        _field("sha256", default=None),
        _field("size", "number", default=None),
        _field("target", "path", default=None, repeats=True),
        _field("type", attribute="kind", repeats=True),
    ),
    "files",
    ("path",),
)
DEVICE = RecordKind(
    "device",
    DevicePattern,
    (_field("pattern"), _field("rule", repeats=True)),
    "devices",
    ("pattern",),
)
DROPPED = RecordKind("dropped", Dropped, (_PATH, _field("rule", repeats=True)), "dropped", ("path",))
MISSING = RecordKind(
    "missing", Missing, (_OWNERS, _PATH, _field("reason", repeats=True)), "missing", ("path",)
)
UNMET = RecordKind(
    "unmet",
    Unmet,
    (_FIELD, _field("reason"), _field("source"), _field("text")),
    "unmet",
    ("source", "kind", "text"),
)
END = RecordKind("end", End, (_field("records", "number"), _field("sha256")))

SECTIONS = (PACKAGE, DEPENDENCY, FILE, DEVICE, DROPPED, MISSING, UNMET)
"""The kinds with any number of records, in the order of a manifest."""


def schema_of(manifest: Manifest) -> int:
    """Return the version of the format that a manifest needs, so that older readers read all they can.

    Schema 2 added the distribution's `family`, and devices; schema 3 the header's `source`.
    """
    if manifest.header.source:
        return 3
    return 2 if manifest.header.distribution.family or manifest.devices else 1


KINDS = {kind.name: kind for kind in (HEADER, *SECTIONS, END)}
"""Every kind by its name, in the order of a manifest."""
