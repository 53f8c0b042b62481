"""The documents of an image: its configuration, its manifest and an index, as bytes.

The OCI image specification 1.1 describes them: config.md, manifest.md, descriptor.md, image-layout.md.
Docker's own archives (`docker load`) have the same configuration, and a list of layers of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.architectures import known_architecture
from pkgjail.core.jail_names import SEARCH_PATH
from pkgjail.core.model import record
from pkgjail.core.paths import Names
from pkgjail.manifest import dump_manifest, manifest_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import FileEntry, Manifest
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

_PACKAGES_KEY = "pkgjail.packages"
_REFERENCE = "org.opencontainers.image.ref.name"
_TYPE = "application/vnd.oci.image.{}+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"


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


@record
class Description:
    """What the documents say of an image: what it is of, and its name.

    `label` is the key that has the `digest` of what it is of. `architecture` is a word of the package
    manager's. `owners` are the packages of each layer, as text; "" if it has none.
    """

    label: str
    digest: str
    name: str
    architecture: str
    has_shell: bool
    owners: tuple[str, ...]


def describe_manifest(manifest: Manifest, name: str, layers: Sequence[Layer]) -> Description:
    """Return the description of a manifest's image."""
    return Description(
        label="pkgjail.manifest",
        digest=manifest_digest(dump_manifest(manifest)),
        name=name,
        architecture=manifest.header.architecture,
        has_shell=has_shell(manifest.files),
        owners=tuple(
            ", ".join(f"{package.key} {package.version}" for package in layer.packages) for layer in layers
        ),
    )


def has_shell(files: Sequence[FileEntry]) -> bool:
    """Return whether an image of these names has a shell at the usual path."""
    shell = Names(files).find(b"/bin/sh").entry
    return shell is not None and shell.kind == "regular"


def default_name(manifest: Manifest) -> str:
    """Return the name of an image of a manifest: that of its whitelists."""
    return fit_name("-".join(name.removesuffix(".toml") for name in manifest.header.whitelists), "manifest")


def fit_name(text: str, otherwise: str) -> str:
    """Return a name in the characters that such names have; `otherwise` if nothing is left of it."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or otherwise


def oci_documents(description: Description, bill: Bill | None, written: Sequence[Written]) -> Documents:
    """Return the documents of an OCI image layout, whose layers were `written` in their order."""
    config = _config(description, written)
    image = _json(
        {
            "schemaVersion": 2,
            "mediaType": _TYPE.format("manifest.v1"),
            "config": _descriptor(_TYPE.format("config.v1"), config),
            "layers": [_layer(*pair) for pair in zip(description.owners, written)],
            "annotations": {description.label: description.digest},
        }
    )
    described = _descriptor(_TYPE.format("manifest.v1"), image)
    blobs = [config, image]
    named = {_REFERENCE: description.name}
    entries = [{**described, "annotations": named, "platform": _platform(description)}]
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


def docker_documents(description: Description, written: Sequence[Written]) -> Documents:
    """Return the documents of an archive for `docker load`."""
    config = _config(description, written)
    digest = hex_digest(config)
    name = description.name
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


def _config(description: Description, written: Sequence[Written]) -> bytes:
    history = [
        {"created": CREATED, "created_by": "pkgjail export", "comment": owners or "other files"}
        for owners in description.owners
    ]
    return _json(
        {
            **_platform(description),
            "created": CREATED,
            "config": {
                "Env": [f"PATH={SEARCH_PATH}", "LANG=C.UTF-8"],
                **({"Cmd": ["/bin/sh"]} if description.has_shell else {}),
                "WorkingDir": "/",
                "Labels": {description.label: description.digest},
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each.diff_id}" for each in written]},
            "history": history,
        }
    )


def _platform(description: Description) -> dict[str, str]:
    made = description.architecture
    known = known_architecture(made)
    architecture, variant = known.oci if known else (made, "")
    found = {"architecture": architecture, "os": "linux"}
    return {**found, "variant": variant} if variant else found


def _layer(owners: str, written: Written) -> dict[str, Any]:
    kind = written.compression
    described = {
        "mediaType": f"{_LAYER}+{kind}" if kind else _LAYER,
        "digest": f"sha256:{written.sha256}",
        "size": written.size,
    }
    return {**described, "annotations": {_PACKAGES_KEY: owners}} if owners else described


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
