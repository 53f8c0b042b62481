"""Export CycloneDX 1.6 in JSON, by cyclonedx-python-lib: packages are components that contain their files."""

# The library's class decorators hide the decorated classes from pyright, but not from mypy.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from pkgjail.export.sbom import NO_TIME, hashed_files, identity, package_url, title

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, Manifest, Package

_JAIL = "jail"


def document(manifest: Manifest) -> bytes:
    """Return the bill of materials; the same manifest gives the same bytes.

    A file of several packages is in the first of them; a file of none is beside the packages.

    Raises:
        InputError: the manifest has no digests, or names that are not UTF-8.

    """
    files: dict[str, list[Component]] = {}
    for entry in hashed_files(manifest, "cyclonedx"):
        files.setdefault(next(iter(entry.owners), ""), []).append(_file(entry))
    digest, number = identity(manifest)
    jail = Component(
        name=title(manifest), type=ComponentType.PLATFORM, bom_ref=_JAIL, version=digest.partition(":")[2]
    )
    packages = {p.key: _package(p, manifest, files.get(p.key, [])) for p in manifest.packages}
    bom = Bom(
        serial_number=number,
        components=[*packages.values(), *files.get("", [])],
        metadata=BomMetaData(
            component=jail, timestamp=NO_TIME, properties=[Property(name="pkgjail:manifest", value=digest)]
        ),
    )
    needs: dict[str, list[Component]] = {}
    for dependency in manifest.dependencies:
        if dependency.source in packages:
            needs.setdefault(dependency.source, []).append(packages[dependency.target])
    bom.register_dependency(jail, list(packages.values()))
    for key, package in packages.items():
        bom.register_dependency(package, needs.get(key, []))
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _package(package: Package, manifest: Manifest, files: list[Component]) -> Component:
    kind, namespace, name, version, qualifiers = package_url(package, manifest)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=package.key,
        purl=PackageURL(kind, namespace, name, version, qualifiers),
        components=files,
    )


def _file(entry: FileEntry) -> Component:
    path = entry.path.decode()
    return Component(
        name=path,
        type=ComponentType.FILE,
        bom_ref=f"file:{path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256 or "")],
    )
