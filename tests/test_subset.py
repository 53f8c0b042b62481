"""Manifests with a package more, or with a whitelist's line less, made without a package database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.api import resolve
from pkgjail.core.errors import UsageError
from pkgjail.core.model import Dropped, FileEntry
from pkgjail.manifest import dump_manifest, parse_manifest
from pkgjail.manifest.subset import merged, packages_below, whitelist_roots, without_roots
from tests.manifest_strategies import manifests

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest


def _with_list(place: Path, *names: str, options: str = "essential = false") -> Manifest:
    """The manifest of packages of this host, each a line of one list."""
    lines = "\n".join(f'    "{name}",' for name in names)
    (place / "w.toml").write_text(f"[packages]\ndebian = [\n{lines}\n]\n[options]\n{options}\n")
    return resolve([str(place / "w.toml")], hashed=False, baseline=False)


def _content(manifest: Manifest) -> tuple[object, ...]:
    """What a jail of the manifest has, without the lines that brought it."""
    kept = {package.key for package in manifest.packages}
    inner = [edge for edge in manifest.dependencies if edge.source in kept]
    return (manifest.packages, inner, manifest.files, manifest.missing)


def _without_database(manifest: Manifest) -> list[FileEntry]:
    return [entry for entry in manifest.files if entry.detail != "dpkg"]


@given(manifests(), st.data())
def test_less_is_a_sound_manifest(manifest: Manifest, data: st.DataObject) -> None:
    """Any roots can be taken from any manifest: what is left is sound, and merging undoes it."""
    roots = data.draw(st.sets(st.sampled_from([*whitelist_roots(manifest), None]))) - {None}
    less = without_roots(manifest, {root for root in roots if root})
    assert parse_manifest(dump_manifest(less), "less") == less
    assert (less.header.policy == manifest.header.policy) == (not roots)
    left = set(whitelist_roots(less))
    assert left == set(whitelist_roots(manifest)) - roots
    for package in set(manifest.packages) - set(less.packages):
        assert package.key not in packages_below(manifest, left)
    again = merged(less, manifest)
    assert _content(again) == _content(manifest)
    assert again.dependencies == manifest.dependencies
    assert again.unmet == manifest.unmet


@given(manifests(), manifests())
def test_more_is_a_sound_manifest(base: Manifest, extra: Manifest) -> None:
    """Any two manifests of one source can be merged, and nothing of the first is lost."""
    ours = base.header
    same = replace(
        extra.header,
        distribution=ours.distribution,
        architecture=ours.architecture,
        source=ours.source,
    )
    both = merged(base, replace(extra, header=same))
    assert parse_manifest(dump_manifest(both), "both") == both
    assert {package.key for package in both.packages} == {
        package.key for manifest in (base, extra) for package in manifest.packages
    }
    files = {entry.path: entry for entry in both.files}
    for entry in base.files:
        found = files[entry.path]
        assert found[:6] == entry[:6]
        assert set(found.owners) >= set(entry.owners)
    barred = {one.path for one in base.dropped}
    assert [e.path for e in both.files if e.path in barred and e.kind != "directory"] == []


@given(manifests())
def test_twice_the_same_is_the_same(manifest: Manifest) -> None:
    """A manifest that is merged with itself changes in its policy's digest alone."""
    both = merged(manifest, manifest)
    assert replace(both, header=replace(both.header, policy="")) == replace(
        manifest,
        header=replace(
            manifest.header,
            policy="",
            whitelists=tuple(dict.fromkeys(manifest.header.whitelists)),
            blacklists=tuple(dict.fromkeys(manifest.header.blacklists)),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zlib1g-dev", "gettext", "perl", "mawk", "ca-certificates", "python3"])
def test_less_is_what_resolves_without(name: str, tmp_path: Path) -> None:
    """An oracle: without a line, this host's packages and files are those of the list without the line."""
    both = _with_list(tmp_path, "coreutils", "gcc", "make", name)
    (root,) = (root for root in whitelist_roots(both) if root.text == name)
    less, oracle = without_roots(both, {root}), _with_list(tmp_path, "coreutils", "gcc", "make")
    assert f"{name}:" in {key[: len(name) + 1] for key in packages_below(both, {root})}
    assert _content(less)[:2] == _content(oracle)[:2]
    assert less.files == oracle.files
    assert less.missing == oracle.missing
    # And the line alone, merged, is the list with it, except for the package database that dpkg has.
    more = merged(oracle, _with_list(tmp_path, name))
    assert _content(more)[:2] == _content(both)[:2]
    assert _without_database(more) == _without_database(both)


@pytest.mark.slow
def test_a_line_that_another_brings_too(tmp_path: Path) -> None:
    """A package stays as long as another line, or the base set, requires it."""
    both = _with_list(tmp_path, "gcc", "cpp", "bash", options="essential = true")
    roots = [root for root in whitelist_roots(both) if root.text != "gcc"]
    less = without_roots(both, roots)
    assert less.packages == both.packages
    assert less.files == both.files
    assert [root.text for root in whitelist_roots(less)] == ["gcc"]


def test_dropped_paths_stay_out(tmp_path: Path) -> None:
    """A path that the first manifest dropped does not come back with another's package; its directory may."""
    manifest = _with_list(tmp_path, "hostname")
    program, directory = b"/usr/bin/hostname", b"/usr/bin"
    if not any(entry.path == program for entry in manifest.files):
        program, directory = b"/bin/hostname", b"/bin"
    base = replace(
        manifest,
        files=tuple(e for e in manifest.files if not (e.path + b"/").startswith(directory + b"/")),
        dropped=(Dropped(path=directory, rule="b:1"), Dropped(path=program, rule="b:2")),
    )
    both = merged(base, manifest)
    assert program not in {entry.path for entry in both.files}
    assert [one.path for one in both.dropped][-1:] == [program]


def test_generated_links_do_not_dangle(tmp_path: Path) -> None:
    """A link that the host made to another package's file goes with that file, and links to that link too."""
    manifest = _with_list(tmp_path, "hostname", "gzip")
    file = next(e for e in manifest.files if e.owners == ("gzip:amd64",) and e.kind == "regular")
    owner = ("hostname:amd64",)
    first = FileEntry(b"/first", "symlink", 0o777, None, file.path, None, owner, "generated", "x")
    second = first._replace(path=b"/second", target=b"first")
    linked = replace(manifest, files=tuple(sorted((*manifest.files, first, second))))
    kept = {root.text: without_roots(linked, {root}).files for root in whitelist_roots(linked)}
    assert [e.path for e in kept["gzip"] if e.detail == "x"] == []
    mine = first._replace(owners=("gzip:amd64", *owner))
    other = replace(manifest, files=tuple(sorted((*manifest.files, mine))))
    (root,) = (root for root in whitelist_roots(other) if root.text == "hostname")
    assert [e.owners for e in without_roots(other, {root}).files if e.detail == "x"] == [("gzip:amd64",)]


def test_two_sources(base_manifest: Manifest) -> None:
    """Manifests of two sources are not merged: their files are those of one root."""
    other = replace(base_manifest, header=replace(base_manifest.header, source="directory"))
    with pytest.raises(UsageError, match="source of one is , of the other directory"):
        merged(base_manifest, other)
