"""Where links of a jail lead to, for the record of what was asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.answers import Tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("link", "target"),
    [
        (b"/usr/there", b"/usr/real/file"),
        (b"/usr/gone", b"/usr/real/no/such"),
        (b"/usr/to-gone", b"/usr/real/no/such"),
        (b"/usr/absolute", b"/etc/no-such"),
        (b"/usr/beside", b"/usr/real/none"),
        (b"/usr/circle", b""),
    ],
)
def test_a_link_leads_to_a_name_that_is_not_there(link: bytes, target: bytes, tmp_path: Path) -> None:
    """Protects the package of a link's target: a build asked for the link, and lacks what it leads to."""
    (tmp_path / "usr/real").mkdir(parents=True)
    (tmp_path / "usr/real/file").touch()
    links = {
        "there": "real/file", "gone": "../usr/real/no/such", "to-gone": "gone", "absolute": "/etc/no-such",
        "alias": "real", "beside": "alias/none", "circle": "other", "other": "circle",
    }  # fmt: skip
    for name, text in links.items():
        (tmp_path / "usr" / name).symlink_to(text)
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert Tree(root, os.fsencode(os.path.realpath(tmp_path))).target(link) == target
    finally:
        os.close(root)
