"""Errors as plain data, for another process: one that works with other privileges, or for another user.

A record holds text and numbers alone, so reading it runs nothing. Names may be any bytes, as
`os.fsdecode` makes them text.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pkgjail.core import errors
from pkgjail.core.entries import Mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_CHANGES = 10_000


def error_record(error: BaseException) -> dict[str, Any]:
    """Return a record of an error, which can be written as JSON."""
    record: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, errors.DriftError):
        record["changes"] = [
            (os.fsdecode(path), *mismatch) for path, mismatch in error.changes[:_MOST_CHANGES]
        ]
        record["cause"] = error.cause
    if isinstance(error, (errors.CommandError, errors.ExitDriftError)):
        record["status"] = error.status
    if isinstance(error, errors.InputError):
        record["problems"] = [tuple(problem) for problem in error.problems]
    return record


def error_of(record: Mapping[str, Any]) -> BaseException:
    """Return the error of a record, of the nearest type that can be made of it.

    Raises:
        ValueError, KeyError, TypeError: it is no such record.

    """
    kind, message = str(record["kind"]), str(record["message"])
    if kind == "KeyboardInterrupt":
        return KeyboardInterrupt(message)
    found = getattr(errors, kind, None)
    if not (isinstance(found, type) and issubclass(found, errors.PkgjailError)):
        return errors.JailError(f"cannot make a jail: {kind}: {message}")
    return _made(found, message, record)


def _made(kind: type[errors.PkgjailError], message: str, record: Mapping[str, Any]) -> errors.PkgjailError:
    if issubclass(kind, errors.DriftError):
        return _drift(kind, record)
    if issubclass(kind, errors.InputError):
        made = errors.InputError if kind is errors.NamesError else kind
        return made([errors.Problem(origin, text) for origin, text in record["problems"]])
    if issubclass(kind, errors.CommandError):
        status = int(record["status"])
        is_memory = kind is errors.OutOfMemoryError
        return errors.OutOfMemoryError() if is_memory else errors.CommandError(message, status)
    # Their arguments are no message.
    others = (errors.OutputError, errors.ModifiedEnvironmentError)
    return errors.PkgjailError(message) if issubclass(kind, others) else kind(message)


def _drift(kind: type[errors.DriftError], record: Mapping[str, Any]) -> errors.DriftError:
    changes = tuple((os.fsencode(path), Mismatch(*fields)) for path, *fields in record["changes"])
    if issubclass(kind, errors.ExitDriftError):
        return errors.ExitDriftError(changes, int(record["status"]))
    return kind(changes, cause=str(record["cause"]))
