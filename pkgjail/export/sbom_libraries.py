"""Export bills of materials, whose libraries are optional: `pip install 'pkgjail[sbom]'` adds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import PkgjailError

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

_LIBRARIES = frozenset({"cyclonedx", "packageurl", "spdx_tools", "jsonschema", "license_expression"})


def write_spdx(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return SPDX 2.3 in JSON (`pkgjail.export.spdx`). Raises as `hashed_files` and `sha1_digests`."""
    del at
    try:
        from pkgjail.export import spdx
    except ImportError as error:
        raise _missing_library("spdx", error) from error
    return spdx.document(manifest, root)


def write_cyclonedx(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return CycloneDX 1.6 in JSON (`pkgjail.export.cyclonedx`). Raises as `hashed_files`."""
    del root, at
    try:
        from pkgjail.export import cyclonedx
    except ImportError as error:
        raise _missing_library("cyclonedx", error) from error
    return cyclonedx.document(manifest)


def _missing_library(form: str, error: ImportError) -> PkgjailError | ImportError:
    if (error.name or "").partition(".")[0] not in _LIBRARIES:
        return error
    return PkgjailError(
        f"cannot export to {form}: the library {error.name!r} is not installed; "
        "install it with: pip install 'pkgjail[sbom]'"
    )
