"""Fixtures of the tests of environments: a small tree, its manifest, and an environment of it."""

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
    """Return the root of a small tree."""
    with tree(parse_tree(HOST)) as root:
        yield root


@pytest.fixture
def manifest(host: bytes) -> Manifest:
    """Return a manifest of the whole small tree."""
    return manifest_of(host)


@pytest.fixture
def env_path(tmp_path: Path) -> bytes:
    """Return a path for an environment; the files beside it must stay."""
    (tmp_path / "beside").write_text("mine")
    return bytes(tmp_path / "env")


@pytest.fixture
def env(manifest: Manifest, host: bytes, env_path: bytes) -> bytes:
    """Return a copied environment of the small tree, with a directory of the user beside it."""
    build_environment(manifest, env_path, form="copy", root=host)
    os.mkdir(os.path.dirname(env_path) + b"/precious")
    put(os.path.dirname(env_path) + b"/precious/letter", b"dear")
    return env_path
