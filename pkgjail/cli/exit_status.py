"""The exit statuses of the command line, by the errors of the library (docs/exit-status.md)."""

from __future__ import annotations

from pkgjail.core import errors

FAILURE = 1
BAD_USAGE = 2
_STATUSES: dict[type[BaseException], int] = {
    errors.InputError: BAD_USAGE,
    errors.ClosureError: FAILURE,
    errors.UsageError: BAD_USAGE,
    errors.QuestionError: BAD_USAGE,
    errors.DatabaseError: 3,
    errors.JailError: 3,
}


def exit_status(error: BaseException) -> int:
    """Return the status for an error: that of the nearest class in the table."""
    if isinstance(error, errors.CommandError):
        return error.status
    return next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), FAILURE)
