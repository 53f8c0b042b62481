"""Tar archives put together from members, byte by byte where that is necessary: tarfile would refuse to."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

END = bytes(1024)
"""What ends an archive."""
BLOCK = 512


def header(name: str | bytes, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> bytes:
    """Return a member in GNU's format. `size` may differ from the content's length."""
    info = tarfile.TarInfo(name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
    info.type, info.size, info.mode = kind, len(content), 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    made = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return made + content + bytes(-len(content) % BLOCK)


def file(name: str | bytes, content: bytes = b"x", **fields: Any) -> bytes:
    """Return a regular file."""
    return header(name, content=content, **fields)


def directory(name: str | bytes, **fields: Any) -> bytes:
    """Return a directory."""
    return header(name, tarfile.DIRTYPE, **fields)


def symlink(name: str | bytes, target: str) -> bytes:
    """Return a symbolic link."""
    return header(name, tarfile.SYMTYPE, linkname=target)


def link(name: str | bytes, target: str) -> bytes:
    """Return a hard link."""
    return header(name, tarfile.LNKTYPE, linkname=target)


def device(name: str | bytes) -> bytes:
    """Return the null device."""
    return header(name, tarfile.CHRTYPE, devmajor=1, devminor=3)


def fifo(name: str | bytes) -> bytes:
    """Return a FIFO."""
    return header(name, tarfile.FIFOTYPE)


def pax(member: bytes, **records: bytes) -> bytes:
    """Return a member behind a pax header with these records. A dot in a key is written as `__`."""
    body = b""
    for key, value in records.items():
        record = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = len(record)
        while len(b"%d" % length) + len(record) != length:
            length = len(b"%d" % length) + len(record)
        body += b"%d" % length + record
    return header("pax", tarfile.XHDTYPE, body) + member


def patched(member: bytes, at: int, field: bytes) -> bytes:
    """Return a member with other bytes in its header, and the checksum of these."""
    block = bytearray(member[:BLOCK])
    block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + member[BLOCK:]


def old_sparse(name: str, size: int, parts: list[tuple[int, int]], content: bytes = b"x") -> bytes:
    """Return a sparse file in GNU's old format, with up to four parts."""
    member = header(name, tarfile.GNUTYPE_SPARSE, content)
    fields = b"".join(_number(offset) + _number(length) for offset, length in parts)
    return patched(patched(member, 386, fields.ljust(96, b"\0")), 483, _number(size))


def _number(value: int) -> bytes:
    """Write a number of 12 bytes in base 256, which may be negative."""
    return (
        b"\x80" + value.to_bytes(11, "big") if value >= 0 else b"\xff" + (256**11 + value).to_bytes(11, "big")
    )


def digest(data: bytes) -> str:
    """Return a digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def oci_files(layers: list[bytes], **changes: Any) -> dict[str, bytes]:
    """Return the files of an OCI layout with uncompressed layers.

    `changes` replace what it says: `diff_ids`, `descriptors` (of the layers), `manifests` (of the index).
    """
    files: dict[str, bytes] = {}

    def blob(data: bytes) -> dict[str, Any]:
        files[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        return {"digest": digest(data), "size": len(data), "mediaType": "application/octet-stream"}

    descriptors = changes.get("descriptors") or list(map(blob, layers))
    config = {"rootfs": {"type": "layers", "diff_ids": changes.get("diff_ids") or list(map(digest, layers))}}
    manifest = {"config": blob(json.dumps(config).encode()), "layers": descriptors}
    first = blob(json.dumps(manifest).encode())
    index = {"manifests": changes.get("manifests", lambda one: [one])(first)}
    files["index.json"] = json.dumps(index).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


def docker_files(layers: list[bytes], paths: list[str] | None = None) -> dict[str, bytes]:
    """Return the files of an archive of `docker save`."""
    config = json.dumps({"rootfs": {"diff_ids": list(map(digest, layers))}}).encode()
    names = [f"{hashlib.sha256(layer).hexdigest()}.tar" for layer in layers]
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": ["app:1"], "Layers": paths or names}]
    return {**dict(zip(names, layers)), config_name: config, "manifest.json": json.dumps(manifest).encode()}


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of files."""
    return b"".join(file(name, content) for name, content in files.items()) + END


def write(files: Mapping[str, bytes], place: Path) -> Path:
    """Write files below a directory."""
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def names_in(data: bytes) -> list[str]:
    """Return the names in an archive, as tarfile has them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        return read.getnames()
