"""What pkgjail knows of each version of Spack: which adapter serves it, and where that looks."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import PkgjailError
from pkgjail.integrations.spack.instance import adapters, description

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("version", "module"),
    [
        ("0.13.4", "until_0_16"),
        ("0.16.3", "until_0_16"),
        ("0.17.0", "until_0_17"),
        ("0.20.3", "until_0_20"),
        ("0.21.0", "until_1_2"),
        ("1.0.0-alpha.4", "until_1_2"),
        ("1.2.1", "until_1_2"),
        ("1.3.0.dev0", "current"),
        ("2.0", "current"),
        ("develop", "current"),
    ],
)
def test_each_version_has_its_adapter(version: str, module: str) -> None:
    """A version that nobody has seen is taken for a newer one."""
    assert adapters.module_name(version) == module


def configuration(**names: Any) -> dict[str, Any]:
    """Return a configuration whose `get` knows one setting, and what else a version has there."""
    return {"get": {"config:extensions": ["x"]}.get, "section_schemas": {"config"}, **names}


SCOPES = SimpleNamespace(scopes={"site": "scope"})
REPOSITORY = SimpleNamespace(get_pkg_class=lambda name: f"class of {name}")
OLD: dict[str, dict[str, Any]] = {"store": {"store": "tree"}, "repo": {"path": REPOSITORY}}
NEW: dict[str, dict[str, Any]] = {"store": {"STORE": "tree"}, "repo": {"PATH": REPOSITORY}}
EXPANDS: dict[str, Any] = {"canonicalize_path": lambda path: f"/{path}"}
ACTIVE: dict[str, dict[str, Any]] = {"environment": {"active_environment": lambda: "environment"}}
EXTENSIONS: dict[str, dict[str, Any]] = {"extensions": {"get_extension_paths": lambda: ["/x"]}}

# What each version has, as its sources say, by the names of modules and of what is in them.
SPACKS: dict[str, dict[str, dict[str, Any]]] = {
    "0.13.4": {
        "config": configuration(config=SCOPES),
        "util.path": EXPANDS,
        "environment": {"_active_environment": "environment"},
        **OLD,
    },
    "0.17.3": {"config": configuration(config=SCOPES), "util.path": EXPANDS, **ACTIVE, **OLD},
    "0.20.3": {"config": configuration(config=SCOPES), "util.path": EXPANDS, **ACTIVE, **OLD, **EXTENSIONS},
    "0.23.0": {"config": configuration(CONFIG=SCOPES), "util.path": EXPANDS, **ACTIVE, **NEW, **EXTENSIONS},
    "1.1.1": {"config": configuration(CONFIG=SCOPES), "util.path": EXPANDS, **ACTIVE, **NEW, **EXTENSIONS},
    "1.3.0.dev0": {"config": configuration(CONFIG=SCOPES, **EXPANDS), **ACTIVE, **NEW, **EXTENSIONS},
}


def load(monkeypatch: pytest.MonkeyPatch, modules: dict[str, dict[str, Any]], version: str) -> None:
    """Have `spack` be importable, with these modules and no others."""
    for name, names in {"": {"spack_version": version}, **modules}.items():
        full = f"spack.{name}".rstrip(".")
        module = ModuleType(full)
        module.__dict__.update(names)
        if name in {"", "util"}:
            module.__path__ = []
        monkeypatch.setitem(sys.modules, full, module)
    monkeypatch.setitem(sys.modules, "spack.util", ModuleType("spack.util"))


@pytest.mark.parametrize("version", SPACKS)
def test_an_adapter_looks_where_its_versions_have_things(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """A name of another version does not exist: Spack 1.3 moved what expands paths, for example."""
    modules: dict[str, dict[str, Any]] = {
        "paths": {"prefix": "/spack"},
        "stage": {"get_stage_root": lambda: "/stage"},
    }
    load(monkeypatch, {**modules, **SPACKS[version]}, version)
    spack = adapters.adapter()
    assert spack.canonical_path("x") == "/x"
    assert spack.scopes() == ["scope"]
    assert spack.store() == "tree"
    assert spack.package_class("zlib") == "class of zlib"
    assert spack.environment() == "environment"
    assert spack.extensions() == ["/x"]
    assert [spack.path("prefix"), spack.path("none"), spack.stage()] == ["/spack", None, "/stage"]
    assert [spack.setting("config:extensions"), spack.setting("concretizer:x")] == [["x"], None]


def test_an_unknown_section_is_no_setting_of_an_old_spack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spack 0.17 and older end with an error if they are asked for a section that they do not have."""

    def get(key: str) -> str:
        return {"config:misc_cache": "/cache"}[key]

    load(monkeypatch, {"config": configuration(get=get)}, "0.17.3")
    spack = adapters.adapter()
    assert [spack.setting("config:misc_cache"), spack.setting("concretizer:x")] == ["/cache", None]


def test_a_spack_that_no_adapter_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which version it is, what is missing, and what to do; no attribute error comes out."""
    load(monkeypatch, {"paths": {"prefix": "/spack"}}, "9.9")
    with pytest.raises(PkgjailError, match=r"cannot learn from Spack 9\.9 .* newer pkgjail"):
        description.describe()


def test_where_a_missing_scope_may_appear_is_watched(tmp_path: Path) -> None:
    """The description would otherwise stay as it is when the scope is made."""
    (tmp_path / "etc").mkdir()
    scopes = [SimpleNamespace(path=f"{tmp_path}/etc/{name}") for name in ("spack", "more/packages.yaml")]
    spack: Any = SimpleNamespace(scopes=lambda: scopes, environment=lambda: None)
    assert set(description._watched(spack)) == {f"{tmp_path}/etc"}
