"""What users are told about environments that others built, and about headers that the jail lacks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail import api
from pkgjail.core.errors import JailError
from pkgjail.core.jail_names import HOSTNAME
from pkgjail.core.model import FileEntry
from pkgjail.integrations.spack.active import ActiveEnvironment, state_directories
from pkgjail.integrations.spack.instance import headers
from pkgjail.integrations.spack.instance.model import Tool
from pkgjail.integrations.spack.jail import users
from pkgjail.jails import device_sets, host_name
from tests.test_export import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

NOBODY_HAS = 54321  # no account has this number
OWNERS = {
    "this user, who may change it": (os.geteuid(), True),
    "this user, on a read-only file system": (os.geteuid(), False),
    "another user": (NOBODY_HAS, False),
}
_SHARED = "it is the environment of all users of this Spack, and user 54321 built it"
SAID = {
    "this user, who may change it": (
        "to run Spack outside again, use 'spack jail --remove-environment'",
        "or build the environment again with 'spack jail --build-environment /e --force'",
        "finish the removal with 'spack jail --remove-environment'",
    ),
    "this user, on a read-only file system": (
        "its record in PLACE cannot be changed, as on a read-only file system; OWN",
        "its record in PLACE cannot be changed, as on a read-only file system, and can build it again; OWN",
        "ME can finish the removal",
    ),
    "another user": (
        f"{_SHARED}; OWN",
        f"{_SHARED}, and can build it again; OWN",
        "user 54321 can finish the removal",
    ),
}


@pytest.mark.parametrize("who", OWNERS)
def test_advice(who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may change an environment is told how; others are told whose it is, and of one of their own."""
    owner, may = OWNERS[who]
    active = ActiveEnvironment("/e", "/python", 0, removing=False, directory=str(tmp_path))
    monkeypatch.setattr(users, "_owner", lambda _: owner)
    monkeypatch.setattr(users, "may_change", lambda _: may)
    told = (users.leaving_advice(active), users.rebuilding_advice(active), users.removal_advice(active))
    words = {"PLACE": str(tmp_path), "OWN": users.own_advice(), "ME": users._name(os.geteuid())}
    expected = list(SAID[who])
    for word, meaning in words.items():
        expected = [text.replace(word, meaning) for text in expected]
    assert list(told) == expected


def test_whose_environment(tmp_path: Path) -> None:
    """That in Spack's own directory is for all; a directory that is closed to others is named."""
    root = tmp_path / "spack"
    root.mkdir()
    for_all = state_directories(str(root), os.environ)[0]
    active = ActiveEnvironment("/e", "/python", 0, removing=False, directory=for_all)
    assert users.is_for_all(active, str(root))
    assert not users.is_for_all(active._replace(directory="/elsewhere"), str(root))
    assert users._owner(str(root)) == os.geteuid()


class Database:
    """A database whose packages' headers are known."""

    def __init__(self, header: bytes) -> None:
        self.header = header


@pytest.mark.parametrize("shown", [0, 1])
def test_headers_that_the_jail_lacks(shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is shown without the headers that the host has is named, with the package that has them."""
    header = os.fsencode(tmp_path / "z.h")
    (tmp_path / "z.h").touch()
    entries = [FileEntry(path=b"/usr/bin/tool", kind="regular", mode=0o755, size=0)]
    entries += [FileEntry(path=header, kind="regular", mode=0o644, size=0)] * shown
    manifest = manifest_of(*entries)
    monkeypatch.setattr(api, "open_database", lambda: Database(header))
    monkeypatch.setattr(headers, "headers_of", lambda _, database: {"zlib-dev:amd64": [database.header]})
    tools = [Tool("zlib", ("/usr/bin/tool",), has_headers=True), Tool("gcc", ("/usr/bin/tool",))]
    found = headers.find_without_headers(tools, manifest, ())
    assert [(each.name, each.package) for each in found] == ([] if shown else [("zlib", "zlib-dev")])
    assert headers.find_without_headers(tools[1:], manifest, ()) == []


SETS = {
    "no device here": ((), "this host has none"),
    "no library in the manifest": ((b"/dev/x",), "the manifest has none of the files"),
}


@pytest.mark.parametrize(("devices", "words"), SETS.values(), ids=SETS)
def test_device_sets(devices: tuple[bytes, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of devices is refused with what is lacking; otherwise its patterns are shown."""
    monkeypatch.setattr(device_sets, "find_devices", lambda _: devices)
    monkeypatch.setattr(device_sets, "_has_any", lambda *_: False)
    manifest = manifest_of(FileEntry(path=b"/x", kind="regular", mode=0o644, size=0))
    with pytest.raises(JailError, match=words):
        device_sets.set_patterns(manifest, ["gpu-nvidia"])
    monkeypatch.setattr(device_sets, "find_devices", lambda _: (b"/dev/x",))
    monkeypatch.setattr(device_sets, "_has_any", lambda *_: True)
    assert device_sets.set_patterns(manifest, ["gpu-nvidia"])


def test_names_by_patterns() -> None:
    """A manifest has what a pattern matches, also with wildcards, or it has not."""
    manifest = manifest_of(FileEntry(path=b"/usr/lib/libcuda.so.1", kind="regular", mode=0o644, size=0))
    assert device_sets._has_any(manifest, ["/no", "/usr/lib/libcuda.so*"])
    assert not device_sets._has_any(manifest, ["/usr/lib/libother*"])


def test_a_host_name_that_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's name is kept only where a filter forbids to set one, which is tried."""
    monkeypatch.setattr(host_name, "has_seccomp_filter", lambda: True)
    assert host_name.host_name() == HOSTNAME
    monkeypatch.setattr(host_name, "_can_set", lambda _: False)
    assert host_name.host_name() == os.uname().nodename
