"""What the tests of environments share: a small tree, its manifest, and an environment of that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.environments.build import build_environment
from tests.environments.cases import HOST, put
from tests.test_exactness import manifest_of
from tests.tree_text import parse_tree, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pkgjail.core.model import Manifest


@pytest.fixture
def host() -> Iterator[bytes]:
    """A small tree to make manifests of."""
    with tree(parse_tree(HOST)) as root:
        yield root


@pytest.fixture
def manifest(host: bytes) -> Manifest:
    """All of the small tree."""
    return manifest_of(host)


@pytest.fixture
def place(tmp_path: Path) -> bytes:
    """Where an environment may be made: what is beside it must stay."""
    (tmp_path / "beside").write_text("mine")
    return bytes(tmp_path / "env")


@pytest.fixture
def env(manifest: Manifest, host: bytes, place: bytes) -> bytes:
    """A copied environment of the small tree, with something of the user's beside it."""
    build_environment(manifest, place, form="copy", root=host)
    os.mkdir(os.path.dirname(place) + b"/precious")
    put(os.path.dirname(place) + b"/precious/letter", b"dear")
    return place
