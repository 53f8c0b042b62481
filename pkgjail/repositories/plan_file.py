"""Package plans as files: JSON Lines of their own kinds, so that no tool mistakes one for a manifest.

The first line has `"kind":"plan"`. The packages (`planned`) by key, the edges between them (`dependency`)
and an `end` line as in a manifest follow. Lines and keys are sorted; equal plans give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pkgjail.core.text import text_path
from pkgjail.manifest.codec import end_line
from pkgjail.storage.atomic import replace_file

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from pkgjail.core.model import Dependency, PackagePlan, PlannedPackage

PLAN_SCHEMA = 1
"""The version of the format."""


def plan_header(plan: PackagePlan) -> dict[str, Any]:
    """Return the first line of a plan: what it was made from."""
    return {
        "kind": "plan",
        "schema": PLAN_SCHEMA,
        "family": plan.family,
        "architecture": plan.architecture,
        "policy": plan.policy,
        "whitelists": list(plan.whitelists),
        "blacklists": list(plan.blacklists),
        "recommends": plan.recommends,
        "essential": plan.essential,
        "dropped": plan.dropped,
        "repositories": [{"name": one.name, "sha256": one.sha256} for one in plan.repositories],
    }


def planned_record(planned: PlannedPackage) -> dict[str, Any]:
    """Return a package as in its line. Bytes of paths that are not UTF-8 are escaped as PEP 383 does."""
    package = planned.package
    record = {
        "kind": "planned",
        "key": package.key,
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "essential": package.essential,
        "repository": planned.repository,
        "size": package.size,
        "download": planned.download,
    }
    return record if planned.files is None else {**record, "files": list(map(text_path, planned.files))}


def dump_plan(plan: PackagePlan) -> bytes:
    """Return the plan as the bytes of its file."""
    lines = list(_lines(plan))
    body = "".join(f"{json.dumps(one, sort_keys=True, separators=(',', ':'))}\n" for one in lines).encode(
        "ascii"
    )
    return body + end_line(len(lines), hashlib.sha256(body).hexdigest())


def write_plan(plan: PackagePlan, path: str | os.PathLike[str]) -> str:
    """Write the plan to `path` atomically, and return its digest. Raises as `write_manifest` does."""
    data = dump_plan(plan)
    replace_file(path, data)
    return plan_digest(data)


def plan_digest(data: bytes) -> str:
    """Return `sha256:` and the digest of a plan's bytes in hex."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _lines(plan: PackagePlan) -> Iterator[dict[str, Any]]:
    yield plan_header(plan)
    yield from map(planned_record, plan.packages)
    yield from map(_dependency, plan.dependencies)


def _dependency(edge: Dependency) -> dict[str, Any]:
    return {
        "kind": "dependency",
        "source": edge.source,
        "target": edge.target,
        "field": edge.kind,
        "text": edge.text,
    }
