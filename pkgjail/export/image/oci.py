"""The documents of an image: its configuration, its manifest and an index, as bytes.

The OCI image specification 1.1 describes them: config.md, manifest.md, descriptor.md, image-layout.md.
Docker's own archives (`docker load`) have the same configuration, and a list of layers of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.jail_names import SEARCH_PATH
from pkgjail.core.model import record
from pkgjail.core.paths import Names
from pkgjail.manifest import dump_manifest, manifest_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.export.image.content import Written
    from pkgjail.export.image.layers import Layer

CREATED = "1980-01-02T00:00:00Z"
"""The time of an image: that of its files (`pkgjail.export.image.tar.TIME`)."""

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of the file `oci-layout`."""

NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?", re.ASCII
)
"""The names of images, perhaps with a tag, that Docker and podman accept without a registry's host."""

_MANIFEST_KEY, _PACKAGES_KEY = "pkgjail.manifest", "pkgjail.packages"
_REFERENCE = "org.opencontainers.image.ref.name"
_TYPE = "application/vnd.oci.image.{}+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
# Go's names for architectures and their variants, by the words of dpkg, rpm and pacman.
_ARCHITECTURES = {
    "aarch64": ("arm64", "v8"), "arm64": ("arm64", "v8"), "armel": ("arm", "v5"), "armhf": ("arm", "v7"),
    "armv7h": ("arm", "v7"), "armv7hl": ("arm", "v7"), "i386": ("386", ""), "i586": ("386", ""),
    "i686": ("386", ""), "loong64": ("loong64", ""), "mips64el": ("mips64le", ""), "ppc64el": ("ppc64le", ""),
    "x86_64": ("amd64", ""),
}  # fmt: skip


class Bill(NamedTuple):
    """A bill of materials that is attached to an image, and its media type."""

    media_type: str
    data: bytes


@record
class Documents:
    """What an image consists of besides its layers: blobs by their digest in hex, and files by their names.

    `digest` is that of the image's manifest, by which engines name the image; `layers` are descriptors.
    """

    digest: str
    blobs: Mapping[str, bytes]
    files: Mapping[str, bytes]


def default_name(manifest: Manifest) -> str:
    """Return the name of an image of a manifest: that of its whitelists, in the characters of such names."""
    lists = "-".join(name.removesuffix(".toml") for name in manifest.header.whitelists)
    name = re.sub("[^a-z0-9]+", "-", lists.lower()).strip("-")
    return name or "manifest"


def oci_documents(
    manifest: Manifest, name: str, layers: Sequence[Layer], bill: Bill | None, written: Sequence[Written]
) -> Documents:
    """Return the documents of an OCI image layout, whose layers were `written` in their order."""
    digest = manifest_digest(dump_manifest(manifest))
    config = _config(manifest, digest, layers, written)
    image = _json(
        {
            "schemaVersion": 2,
            "mediaType": _TYPE.format("manifest.v1"),
            "config": _descriptor(_TYPE.format("config.v1"), config),
            "layers": [_layer(*pair) for pair in zip(layers, written)],
            "annotations": {_MANIFEST_KEY: digest},
        }
    )
    described = _descriptor(_TYPE.format("manifest.v1"), image)
    blobs = [config, image]
    entries = [{**described, "annotations": {_REFERENCE: name}, "platform": _platform(manifest)}]
    if bill is not None:
        referrer = _referrer(bill, described)
        blobs += [bill.data, _EMPTY, referrer]
        found = _descriptor(_TYPE.format("manifest.v1"), referrer)
        entries.append({**found, "artifactType": bill.media_type})
    index = _json({"schemaVersion": 2, "mediaType": _TYPE.format("index.v1"), "manifests": entries})
    return Documents(
        digest=described["digest"],
        blobs={hex_digest(blob): blob for blob in blobs},
        files={"index.json": index, "oci-layout": LAYOUT},
    )


def docker_documents(
    manifest: Manifest, name: str, layers: Sequence[Layer], written: Sequence[Written]
) -> Documents:
    """Return the documents of an archive for `docker load`."""
    config = _config(manifest, manifest_digest(dump_manifest(manifest)), layers, written)
    digest = hex_digest(config)
    tagged = name if ":" in name else f"{name}:latest"
    images = [
        {
            "Config": blob_name(digest),
            "RepoTags": [tagged],
            "Layers": [blob_name(each.sha256) for each in written],
        }
    ]
    return Documents(
        digest=f"sha256:{digest}", blobs={digest: config}, files={"manifest.json": _json(images)}
    )


def blob_name(digest: str) -> str:
    """Return the path of a blob in a layout, by its digest in hex."""
    return f"blobs/sha256/{digest}"


def hex_digest(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _config(manifest: Manifest, digest: str, layers: Sequence[Layer], written: Sequence[Written]) -> bytes:
    shell = Names(manifest.files).find(b"/bin/sh").entry
    history = [
        {"created": CREATED, "created_by": "pkgjail export", "comment": _owners(layer) or "other files"}
        for layer in layers
    ]
    return _json(
        {
            **_platform(manifest),
            "created": CREATED,
            "config": {
                "Env": [f"PATH={SEARCH_PATH}", "LANG=C.UTF-8"],
                **({"Cmd": ["/bin/sh"]} if shell is not None and shell.kind == "regular" else {}),
                "WorkingDir": "/",
                "Labels": {_MANIFEST_KEY: digest},
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each.diff_id}" for each in written]},
            "history": history,
        }
    )


def _platform(manifest: Manifest) -> dict[str, str]:
    made = manifest.header.architecture
    architecture, variant = _ARCHITECTURES.get(made, (made, ""))
    found = {"architecture": architecture, "os": "linux"}
    return {**found, "variant": variant} if variant else found


def _layer(layer: Layer, written: Written) -> dict[str, Any]:
    kind = written.compression
    described = {
        "mediaType": f"{_LAYER}+{kind}" if kind else _LAYER,
        "digest": f"sha256:{written.sha256}",
        "size": written.size,
    }
    owners = _owners(layer)
    return {**described, "annotations": {_PACKAGES_KEY: owners}} if owners else described


def _owners(layer: Layer) -> str:
    return ", ".join(f"{package.key} {package.version}" for package in layer.packages)


def _referrer(bill: Bill, subject: dict[str, Any]) -> bytes:
    """Return an artifact's manifest that refers to the image (manifest.md, "subject")."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _TYPE.format("manifest.v1"),
            "artifactType": bill.media_type,
            "config": _descriptor(_EMPTY_TYPE, _EMPTY),
            "layers": [_descriptor(bill.media_type, bill.data)],
            "subject": subject,
        }
    )


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hex_digest(data)}", "size": len(data)}


def _json(data: object) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
