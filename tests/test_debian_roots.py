"""Other roots than this host: which distribution they are, and links that stay inside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import open_database
from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import Distribution
from pkgjail.core.paths import resolve_inside
from tests.debian_roots import every_backend, make_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


RELEASES = [
    ("plain", {"etc/os-release": "ID=debian\nVERSION_ID=12\n"}, Distribution(id="debian", version="12")),
    (
        "quoted",
        {"etc/os-release": 'ID=\'a-b\'\nVERSION_ID="1 \\"2"\n'},
        Distribution(id="a-b", version='1 "2'),
    ),
    ("rolling", {"etc/os-release": "# ID=x\n\nNAME=y\nID=debian\n"}, Distribution(id="debian", version="")),
    ("no ID", {"etc/os-release": "NAME=y\n"}, Distribution(id="linux", version="")),
    ("in /usr/lib", {"usr/lib/os-release": "ID=u\n"}, Distribution(id="u", version="")),
    (
        "/etc decides",
        {"etc/os-release": "ID=e\n", "usr/lib/os-release": "ID=u\n"},
        Distribution(id="e", version=""),
    ),
]


@every_backend
@pytest.mark.parametrize(
    ("files", "expected"), [row[1:] for row in RELEASES], ids=[row[0] for row in RELEASES]
)
def test_distribution(backend: str, files: dict[str, str], expected: Distribution, tmp_path: Path) -> None:
    """Protects os-release(5): its order of files, its quoting, its defaults."""
    assert open_database(make_root(tmp_path, files=files), backend).distribution == expected


@every_backend
def test_distribution_is_the_roots_own(backend: str, tmp_path: Path) -> None:
    """Protects against a root's absolute link being followed on this host."""
    root = make_root(tmp_path, files={"usr/share/release": "ID=inside\n"})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")
    (tmp_path / "usr/lib").mkdir()
    (tmp_path / "usr/lib/os-release").symlink_to("../../../../../usr/share/release")
    assert open_database(root, backend).distribution.id == "inside"


@every_backend
def test_database_is_the_roots_own(backend: str, tmp_path: Path) -> None:
    """Protects roots that keep dpkg's directory elsewhere behind an absolute link."""
    make_root(tmp_path, "a 1 amd64", files={"var/lib/dpkg/info/a.list": "/x\n"})
    (tmp_path / "usr/share").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg").rename(tmp_path / "usr/share/dpkg-db")
    (tmp_path / "var/lib/dpkg").symlink_to("/usr/share/dpkg-db")
    with pytest.raises(DatabaseError, match="it has no var/lib/dpkg/status"):
        open_database(os.fsencode(tmp_path / "usr"), backend)
    database = open_database(os.fsencode(tmp_path), backend)
    assert database.owned_paths(database.packages["a:amd64"]) == (b"/x",)


BAD_RELEASES: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "none",
        lambda etc: etc,
        "it has neither etc/os-release nor usr/lib/os-release; install the package that has it",
    ),
    (
        "quote",
        lambda etc: (etc / "os-release").write_text("A=1\nID='x\n"),
        r"os-release:2: No closing quotation",
    ),
    ("loop", lambda etc: (etc / "os-release").symlink_to("os-release"), r"Too many levels of symbolic links"),
]


@every_backend
@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in BAD_RELEASES],
                         ids=[row[0] for row in BAD_RELEASES])  # fmt: skip
def test_damaged_release(backend: str, spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """Protects that a root that does not say what it is ends in one clear error."""
    (tmp_path / "etc").mkdir()
    spoil(tmp_path / "etc")
    database = open_database(make_root(tmp_path), backend)
    with pytest.raises(DatabaseError, match=message):
        assert database.distribution


def test_resolve_inside(tmp_path: Path) -> None:
    """Protects the walk itself: links in the middle, `..` at the top, and what does not exist."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/up").symlink_to("../../../b/./c")
    (tmp_path / "top").symlink_to("/a")
    root = os.fsencode(tmp_path)
    assert resolve_inside(root, b"/top/up/x") == root + b"/b/c/x"
    assert resolve_inside(root, b"/../..//nothing") == root + b"/nothing"
    assert resolve_inside(b"/", b"/") == b"/"
