"""Export SPDX 2.3 in JSON, by spdx-tools: packages with URLs, files with SHA-1 and SHA-256, relationships."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from packageurl import PackageURL
from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.model.actor import Actor, ActorType
from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
from spdx_tools.spdx.model.document import CreationInfo, Document
from spdx_tools.spdx.model.file import File
from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory
from spdx_tools.spdx.model.package import Package as SpdxPackage
from spdx_tools.spdx.model.relationship import Relationship, RelationshipType
from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

from pkgjail.export.sbom import NO_TIME, hashed_files, identity, package_url, sha1_digests, title

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import FileEntry, Manifest, Package

_DOCUMENT, _JAIL = "SPDXRef-DOCUMENT", "SPDXRef-jail"


def document(manifest: Manifest, root: bytes) -> bytes:
    """Return the document; the same manifest gives the same bytes.

    Raises:
        InputError: the manifest has no digests, or names that are not UTF-8, or the files below `root`
            differ from it: SPDX also requires their SHA-1, which only their content gives.

    """
    converter = DocumentConverter()  # type: ignore[no-untyped-call]  # spdx-tools has no types there
    return json.dumps(converter.convert(build(manifest, root)), indent=1).encode() + b"\n"


def build(manifest: Manifest, root: bytes) -> Document:
    """Return the document as an object of spdx-tools. Raises as `document`."""
    files = hashed_files(manifest, "spdx")
    sha1 = sha1_digests(manifest, files, root)
    # A package's key may have characters that an SPDX identifier may not.
    packages = {
        package.key: f"SPDXRef-Package-{number}-{re.sub(r'[^A-Za-z0-9.-]', '-', package.key)}"
        for number, package in enumerate(manifest.packages)
    }
    names = {entry.path: f"SPDXRef-File-{number}" for number, entry in enumerate(files)}
    digest, number = identity(manifest)
    info = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id=_DOCUMENT,
        name=title(manifest),
        document_namespace=f"https://spdx.org/spdxdocs/pkgjail-{number}",
        creators=[Actor(ActorType.TOOL, "pkgjail")],
        created=NO_TIME.replace(tzinfo=None),
        document_comment=f"Made of the manifest {digest}, which has no time, so neither has this.",
    )
    own = {owner for entry in files for owner in entry.owners}
    return Document(
        creation_info=info,
        packages=[
            _jail(manifest, digest, analyzed=any(not entry.owners for entry in files)),
            *(_package(p, packages[p.key], manifest, analyzed=p.key in own) for p in manifest.packages),
        ],
        files=[_file(entry, names[entry.path], sha1[entry.path]) for entry in files],
        relationships=list(_relationships(manifest, files, packages, names)),
    )


def _jail(manifest: Manifest, digest: str, *, analyzed: bool) -> SpdxPackage:
    return SpdxPackage(
        spdx_id=_JAIL,
        name=title(manifest),
        version=digest,
        download_location=SpdxNoAssertion(),
        files_analyzed=analyzed,
    )


def _package(package: Package, name: str, manifest: Manifest, *, analyzed: bool) -> SpdxPackage:
    kind, namespace, plain, version, qualifiers = package_url(package, manifest)
    url = PackageURL(kind, namespace, plain, version, qualifiers).to_string()
    return SpdxPackage(
        spdx_id=name,
        name=package.name,
        version=package.version,
        download_location=SpdxNoAssertion(),
        files_analyzed=analyzed,
        external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", url)],
    )


def _file(entry: FileEntry, name: str, sha1: str) -> File:
    return File(
        name="." + entry.path.decode(),
        spdx_id=name,
        checksums=[
            Checksum(ChecksumAlgorithm.SHA1, sha1),
            Checksum(ChecksumAlgorithm.SHA256, entry.sha256 or ""),
        ],
    )


def _relationships(
    manifest: Manifest, files: list[FileEntry], packages: Mapping[str, str], names: Mapping[bytes, str]
) -> Iterator[Relationship]:
    yield Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _JAIL)
    for name in packages.values():
        yield Relationship(_JAIL, RelationshipType.CONTAINS, name)
    # One edge may stand for several requirements.
    edges = {(d.source, d.target): None for d in manifest.dependencies if d.source in packages}
    for source, target in edges:
        yield Relationship(packages[source], RelationshipType.DEPENDS_ON, packages[target])
    for entry in files:
        for holder in [packages[owner] for owner in entry.owners] or [_JAIL]:
            yield Relationship(holder, RelationshipType.CONTAINS, names[entry.path])
