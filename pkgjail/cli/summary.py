"""The figures that describe a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest


def summarize(manifest: Manifest, digest: str) -> dict[str, Any]:
    """Count what a manifest has, for `--json` and for people."""
    regular = [entry for entry in manifest.files if entry.kind == "regular"]
    return {
        "digest": digest,
        "distribution": f"{manifest.header.distribution.id} {manifest.header.distribution.version}".strip(),
        "architecture": manifest.header.architecture,
        "whitelists": list(manifest.header.whitelists),
        "blacklists": list(manifest.header.blacklists),
        "packages": len(manifest.packages),
        "names": len(manifest.files),
        "regular_files": len(regular),
        "bytes": sum(entry.size or 0 for entry in regular),
        "dropped": len(manifest.dropped),
        "missing": len(manifest.missing),
        "unmet": len(manifest.unmet),
    }
