"""OCI layouts and the archives of `docker save`: which layers make the image, each checked by its digest.

The forms are those of the OCI Image Format Specification (image layout, index, manifest, config, layer) and
of the `manifest.json` of Docker's archives. Of an index with several images, the one for this machine is
chosen, or the one that the caller names by its reference.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.architectures import host_architecture
from pkgjail.core.text import printable
from pkgjail.core.untrusted import MIB, PARSE_INT, is_nested, opened_below, parsing, read_descriptor
from pkgjail.images.streams import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFERENCE = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_JSON = 8 * MIB
_MOST_LAYERS = 1024
_MOST_INDEXES = 8
# A file of these archives; see `is_part`.
_PART = re.compile(
    rb"oci-layout|index\.json|manifest\.json|repositories|blobs(/sha256(/[0-9a-f]{64})?)?"
    rb"|[0-9a-f]{64}(\.json|\.tar|/layer\.tar|/json|/VERSION)?"
)


class Layer(NamedTuple):
    """A layer of an image: its file below the layout, the digest of that file, and of the tar in it.

    A digest is "" if the layout does not have it.
    """

    path: bytes
    digest: str
    diff_id: str


def is_part(path: bytes) -> bool:
    """Return whether a tar archive whose first member is at `path` is one of a layout, not of a root."""
    return _PART.fullmatch(path) is not None


def is_layout(directory: bytes) -> bool:
    """Return whether a directory is an OCI layout, or has the files of `docker save`."""
    return any(os.path.isfile(os.path.join(directory, name)) for name in (b"oci-layout", b"manifest.json"))


def layers_of(directory: bytes, reference: str = "") -> tuple[str, tuple[Layer, ...]]:
    """Return the form, "oci" or "docker", and the layers of the image in a layout, the lowest first.

    Args:
        directory: the directory with the layout.
        reference: the image's name or tag in the layout; "" if there is only one for this machine.

    Raises:
        DamagedError: it is no layout, or does not say which image is meant.

    """
    with parsing(DamagedError):
        if os.path.lexists(os.path.join(directory, b"index.json")):
            return "oci", _oci_layers(directory, reference)
        return "docker", _docker_layers(directory, reference)


@contextmanager
def opened_part(directory: bytes, path: bytes) -> Iterator[int]:
    """Open a file of a layout, whose links lead nowhere else; yields a descriptor. Raises `DamagedError`."""
    try:
        with opened_below(directory, os.path.join(directory, path)) as descriptor:
            yield descriptor
    except OSError as error:
        if error.filename is None:  # it is of what the caller did
            raise
        raise DamagedError(f"its {printable(path)} cannot be read ({error.strerror})") from error


def _oci_layers(directory: bytes, reference: str) -> tuple[Layer, ...]:
    index = _object(_read(directory, b"index.json"))
    manifest = _chosen(directory, _list(index, "manifests"), reference)
    config = _blob(directory, manifest["config"])
    diff_ids = _list(config["rootfs"], "diff_ids")
    layers = _list(manifest, "layers")
    if len(layers) != len(diff_ids) or len(layers) > _MOST_LAYERS:
        raise ValueError(f"it has {len(layers)} layers, and {len(diff_ids)} digests of their contents")
    return tuple(
        Layer(_blob_path(layer["digest"]), layer["digest"], _digest(diff_id))
        for layer, diff_id in zip(layers, diff_ids)
    )


def _chosen(directory: bytes, descriptors: list[Any], reference: str) -> dict[str, Any]:
    """Return the manifest of the chosen image: follow indexes of several machines down to one."""
    for _ in range(_MOST_INDEXES):
        named = [each for each in descriptors if _names(each, reference)] if reference else descriptors
        if reference and not named:
            raise DamagedError(f"it has no image {printable(reference)}; it has {_references(descriptors)}")
        fitting = named if len(named) == 1 else [each for each in named if _fits(each)]
        if len(fitting) != 1:
            raise DamagedError(
                f"it has {len(fitting)} images for this machine; name one of {_references(descriptors)}"
            )
        found = _blob(directory, fitting[0])
        if "manifests" not in found:
            return found
        descriptors, reference = _list(found, "manifests"), ""
    raise ValueError("its indexes are nested too deeply")


def _names(descriptor: dict[str, Any], reference: str) -> bool:
    name = (descriptor.get("annotations") or {}).get(_REFERENCE, "")
    return reference in (name, descriptor["digest"]) or name.endswith(f":{reference}")


def _fits(descriptor: dict[str, Any]) -> bool:
    platform = descriptor.get("platform") or {}
    host = host_architecture()
    here = host.oci[0] if host else os.uname().machine
    return (platform.get("os", "linux"), platform.get("architecture", here)) == ("linux", here)


def _references(descriptors: list[Any]) -> str:
    names = [(each.get("annotations") or {}).get(_REFERENCE) or each["digest"] for each in descriptors]
    return ", ".join(map(printable, map(str, names))) or "none"


def _docker_layers(directory: bytes, reference: str) -> tuple[Layer, ...]:
    images = json.loads(_read(directory, b"manifest.json"), parse_int=PARSE_INT)
    if not isinstance(images, list):
        raise ValueError("manifest.json is no list")  # noqa: TRY004 - it is the input that is wrong
    tags = [", ".join(map(str, image.get("RepoTags") or ["an image without a tag"])) for image in images]
    if reference:
        images = [
            image
            for image in images
            if any(reference == tag or tag.endswith(f":{reference}") for tag in image.get("RepoTags") or ())
        ]
    if len(images) != 1:
        raise DamagedError(f"it has {len(images)} such images; name one of {printable('; '.join(tags))}")
    config = _object(_read(directory, _member(images[0]["Config"])))
    diff_ids, layers = _list(config["rootfs"], "diff_ids"), _list(images[0], "Layers")
    if len(layers) != len(diff_ids) or len(layers) > _MOST_LAYERS:
        raise ValueError(f"it has {len(layers)} layers, and {len(diff_ids)} digests of their contents")
    return tuple(Layer(_member(path), "", _digest(each)) for path, each in zip(layers, diff_ids))


def _blob(directory: bytes, descriptor: dict[str, Any]) -> dict[str, Any]:
    import hashlib

    path = _blob_path(descriptor["digest"])
    data = _read(directory, path)
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor["digest"]:
        raise DamagedError(f"{printable(path)} is damaged: its digest is not that of its name")
    return _object(data)


def _read(directory: bytes, path: bytes) -> bytes:
    with opened_part(directory, path) as descriptor:
        return read_descriptor(descriptor, path, _MOST_JSON)


def _object(data: bytes) -> dict[str, Any]:
    text = data.decode()
    if is_nested(text):
        raise ValueError("its JSON is nested too deeply")
    found = json.loads(text, parse_int=PARSE_INT)
    if not isinstance(found, dict):
        raise ValueError("its JSON is no object")  # noqa: TRY004 - it is the input that is wrong
    return found


def _list(found: dict[str, Any], key: str) -> list[Any]:
    value = found.get(key)
    if not isinstance(value, list):
        raise ValueError(f"it has no list {key!r}")  # noqa: TRY004 - it is the input that is wrong
    return value


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ValueError(f"{printable(str(text))} is no SHA-256")
    return text


def _blob_path(digest: Any) -> bytes:
    return b"blobs/sha256/" + _digest(digest).partition(":")[2].encode()


def _member(path: Any) -> bytes:
    """Return the path of a file in an archive of Docker's."""
    raw = str(path).encode("utf-8", "surrogateescape")
    if not is_part(raw):
        raise ValueError(f"{printable(raw)} is no file of such an archive")
    return raw
