"""Bills of materials: each is taken by its own library's validator, and is the same every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from pkgjail.api import resolve
from pkgjail.core.errors import InputError, PkgjailError
from pkgjail.core.model import Dependency, Distribution, FileEntry, Header, Manifest, Package
from pkgjail.export import export_manifest
from pkgjail.export.sbom import package_url
from pkgjail.export.spdx import build
from pkgjail.manifest import read_manifest, write_manifest
from tests.conftest import TOP

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gate
_FORMS = ("cyclonedx", "spdx")


@pytest.fixture
def small(tmp_path: Path) -> tuple[Manifest, bytes]:
    """Two packages; files of one, of both and of none; names that no bill of materials lists; the root."""
    content = {b"/usr/bin/g++": b"1", b"/usr/share/both": b"2", b"/etc/a file": b"", "/etc/ä".encode(): b"4"}
    owners = {b"/usr/bin/g++": ("g++:amd64",), b"/usr/share/both": ("g++:amd64", "lib.x:all")}
    directories = (b"/", b"/etc", b"/usr", b"/usr/bin", b"/usr/share")
    files = [FileEntry(path=path, kind="directory", mode=0o755) for path in directories]
    files.append(FileEntry(path=b"/etc/hosts", kind="regular", mode=0o644, origin="entry"))
    files.append(FileEntry(path=b"/usr/bin/link", kind="symlink", mode=0o777, target=b"g++"))
    root = os.fsencode(tmp_path)
    for path, data in content.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        with open(root + path, "wb") as file:
            file.write(data)
        digest = hashlib.sha256(data).hexdigest()
        entry = FileEntry(path=path, kind="regular", mode=0o644, size=len(data), sha256=digest)
        files.append(
            entry._replace(owners=owners.get(path, ()), origin="package" if path in owners else "generated")
        )
    manifest = Manifest(
        header=Header(
            schema=1,
            distribution=Distribution(id="debian", version="12"),
            architecture="amd64",
            policy="sha256:" + "0" * 64,
            whitelists=("w",),
            blacklists=(),
            recommends=False,
            essential=False,
        ),
        packages=(
            Package(name="g++", version="4:12.2.0-3", architecture="amd64"),
            Package(name="lib.x", version="1~rc1+b2", architecture="all"),
        ),
        dependencies=(
            Dependency(source="g++:amd64", target="lib.x:all", kind="Depends", text="lib.x"),
            Dependency(source="w.toml:1", target="g++:amd64", kind="whitelist", text="g++"),
        ),
        files=tuple(sorted(files, key=lambda entry: entry.path)),
    )
    return manifest, root


@pytest.fixture(scope="module")
def hashed_base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """`base` less `docs`, with digests, as it is read from a file."""
    path = tmp_path_factory.mktemp("base") / "m.jsonl"
    write_manifest(resolve(["base"], ["docs", "locales"]), path)
    return read_manifest(path)


def cyclonedx_faults(data: bytes) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())


def spdx_faults(data: bytes, place: Path) -> list[Any]:
    """Read from a file, as its receiver would, and validated as a whole."""
    path = place / "document.spdx.json"
    path.write_bytes(data)
    faults: list[Any] = validate_full_spdx_document(parse_file(str(path)))
    return faults


def test_validators_take_what_is_written(small: tuple[Manifest, bytes], tmp_path: Path) -> None:
    """Protects receivers: the field's own validators have no complaint, of odd names and versions either."""
    manifest, root = small
    assert cyclonedx_faults(export_manifest(manifest, "cyclonedx", root=root)) is None
    assert spdx_faults(export_manifest(manifest, "spdx", root=root), tmp_path) == []


def test_validators_take_this_host(hashed_base: Manifest, tmp_path: Path) -> None:
    """Protects the same for a real manifest; every package and every digest is in both."""
    packages = {(package.name, package.version) for package in hashed_base.packages}
    digests = {entry.sha256 for entry in hashed_base.files if entry.sha256}
    bom = export_manifest(hashed_base, "cyclonedx")
    assert cyclonedx_faults(bom) is None
    parts = json.loads(bom)["components"]
    assert {(p["name"], p["version"]) for p in parts if p["type"] == "library"} == packages
    files = [part for one in parts for part in (one, *one.get("components", ())) if part["type"] == "file"]
    assert {file["hashes"][0]["content"] for file in files} == digests
    document = export_manifest(hashed_base, "spdx")
    parsed = json.loads(document)
    assert {(p["name"], p["versionInfo"]) for p in parsed["packages"][1:]} == packages
    sums = [one for file in parsed["files"] for one in file["checksums"]]
    assert {one["checksumValue"] for one in sums if one["algorithm"] == "SHA256"} == digests
    # The whole validator takes time by the square of the elements: packages and their edges are enough.
    own = tuple(entry for entry in hashed_base.files if entry.kind != "regular" or entry.path < b"/usr/bin/f")
    cut = replace(hashed_base, files=own)
    assert spdx_faults(export_manifest(cut, "spdx"), tmp_path) == []


def test_what_is_told(small: tuple[Manifest, bytes]) -> None:
    """Protects the content: URLs, edges, and which package has which file."""
    manifest, root = small
    bom = json.loads(export_manifest(manifest, "cyclonedx", root=root))
    urls = {part["bom-ref"]: part.get("purl") for part in bom["components"]}
    assert urls == {
        "g++:amd64": "pkg:deb/debian/g%2B%2B@4:12.2.0-3?arch=amd64&distro=debian-12",
        "lib.x:all": "pkg:deb/debian/lib.x@1~rc1%2Bb2?arch=all&distro=debian-12",
        "file:/etc/a file": None,
        "file:/etc/ä": None,
    }
    edges = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"] if ":" in one["ref"]}
    assert edges["g++:amd64"] == ["lib.x:all"]
    within = {
        part["bom-ref"]: [one["name"] for one in part.get("components", [])] for part in bom["components"]
    }
    assert within["g++:amd64"] == ["/usr/bin/g++", "/usr/share/both"]
    document = build(manifest, root)
    names = {file.spdx_id: file.name for file in document.files}
    ends = [(one.spdx_element_id, str(one.related_spdx_element_id)) for one in document.relationships]
    assert {(holder, names[name]) for holder, name in ends if name in names} == {
        ("SPDXRef-jail", "./etc/a file"),
        ("SPDXRef-jail", "./etc/ä"),
        ("SPDXRef-Package-0-g---amd64", "./usr/bin/g++"),
        ("SPDXRef-Package-0-g---amd64", "./usr/share/both"),
        ("SPDXRef-Package-1-lib.x-all", "./usr/share/both"),
    }
    sha1 = {file.name: file.checksums[0].value for file in document.files}
    assert sha1["./usr/bin/g++"] == hashlib.sha1(b"1", usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("form", _FORMS)
def test_bytes_are_the_same_in_another_process(
    form: str, small: tuple[Manifest, bytes], tmp_path: Path
) -> None:
    """Protects whoever compares or signs: no time, no random number, no order of a hash table."""
    manifest, root = small
    write_manifest(manifest, tmp_path / "m.jsonl")
    code = "import sys; from pkgjail import *; m = read_manifest(sys.argv[1]); form, root = sys.argv[2:]; "
    code += "sys.stdout.buffer.write(export_manifest(m, form, root=root.encode()))"
    command = [sys.executable, "-c", code, str(tmp_path / "m.jsonl"), form, os.fsdecode(root)]
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    outputs = {
        subprocess.run(
            command, env={**environment, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {export_manifest(manifest, form, root=root)}


@pytest.mark.parametrize(
    ("distribution", "package", "url"),
    [
        ("cachyos ", "a 1:15-1 x86_64", "pkg:alpm/cachyos/a@1:15-1?arch=x86_64&distro=cachyos"),
        ("photon 5.0", "a 7-3.ph5 x86_64", "pkg:rpm/photon/a@7-3.ph5?arch=x86_64&distro=photon-5.0"),
        ("novel 1 rhel", "a 2:7-3 x86_64", "pkg:rpm/novel/a@7-3?arch=x86_64&distro=novel-1&epoch=2"),
        ("novel 1", "a 2:7-3 amd64", "pkg:deb/novel/a@2:7-3?arch=amd64&distro=novel-1"),
        ("alpine 3.20 alpine", "a 7-r3 x86_64", "pkg:apk/alpine/a@7-r3?arch=x86_64&distro=alpine-3.20"),
        ("void 1 xbps", "a 7_3 x86_64", "pkg:generic/void/a@7_3?arch=x86_64&distro=void-1"),
        (
            "fedora 42",
            "a 1:15-2.fc42 x86_64",
            "pkg:rpm/fedora/a@15-2.fc42?arch=x86_64&distro=fedora-42&epoch=1",
        ),
        (
            "opensuse-leap 15.6",
            "a 7-3 x86_64",
            "pkg:rpm/opensuse-leap/a@7-3?arch=x86_64&distro=opensuse-leap-15.6",
        ),
        ("arch ", "a 1:15-1 x86_64", "pkg:alpm/arch/a@1:15-1?arch=x86_64&distro=arch"),
        ("ubuntu 24.04", "a 4:13-7 amd64", "pkg:deb/ubuntu/a@4:13-7?arch=amd64&distro=ubuntu-24.04"),
    ],
)
def test_package_urls(small: tuple[Manifest, bytes], distribution: str, package: str, url: str) -> None:
    """Protects who looks packages up by URL, in each family: purl-spec's list of types."""
    identifier, number, family = (*distribution.split(" "), "", "")[:3]
    name, version, architecture = package.split()
    made_on = Distribution(id=identifier, version=number, family=family)
    header = replace(small[0].header, distribution=made_on)
    one = Package(name=name, version=version, architecture=architecture)
    made = PackageURL(*package_url(one, replace(small[0], header=header)))
    assert made.to_string() == url
    assert PackageURL.from_string(url) == made


@pytest.mark.parametrize("form", _FORMS)
def test_what_cannot_be_told_is_refused(form: str, small: tuple[Manifest, bytes]) -> None:
    """Protects from a bill that leaves things out in silence."""
    manifest, root = small
    bare = replace(manifest, files=tuple(entry._replace(sha256=None) for entry in manifest.files))
    with pytest.raises(InputError, match="no digests"):
        export_manifest(bare, form, root=root)
    odd = manifest.files[-1]._replace(kind="regular", sha256="0" * 64, path=b"/usr/\xff")
    with pytest.raises(InputError, match=rf"cannot export /usr/\\xff to {form}: the name is not UTF-8"):
        export_manifest(replace(manifest, files=(*manifest.files, odd)), form, root=root)


def test_spdx_tells_of_no_other_content(small: tuple[Manifest, bytes]) -> None:
    """Protects the SHA-1, which is read from the files: they must be the manifest's."""
    manifest, root = small
    with open(root + b"/usr/bin/g++", "wb") as file:
        file.write(b"x")
    os.unlink(root + b"/etc/a file")
    with pytest.raises(InputError) as refused:
        export_manifest(manifest, "spdx", root=root)
    assert [problem.message.split(":")[0] for problem in refused.value.problems] == [
        "cannot export /etc/a file to spdx",
        "cannot export /usr/bin/g++ to spdx",
    ]


@pytest.mark.parametrize(("form", "library"), [("cyclonedx", "cyclonedx"), ("spdx", "spdx_tools")])
def test_a_missing_library_is_told(
    form: str, library: str, small: tuple[Manifest, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects who has installed pkgjail alone: the message says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"pkgjail.export.{form}", raising=False)
    monkeypatch.setattr("pkgjail.export." + form, None, raising=False)
    monkeypatch.delattr("pkgjail.export." + form)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        PkgjailError, match=r"is not installed; install it with: pip install 'pkgjail\[sbom\]'"
    ):
        export_manifest(small[0], form, root=small[1])
