"""The errors of the service and of its clients."""

from __future__ import annotations

from pkgjail.core.errors import JailError, PkgjailError


class ServiceError(PkgjailError):
    """The daemon cannot start."""


class RequestError(Exception):
    """A request that is refused. The text says why; the client shows it to its user."""


class HelperError(JailError):
    """pkgjaild refuses a request, or cannot be reached."""
