"""Hypothesis strategies for manifests."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from pkgjail.core.families import with_family
from pkgjail.core.model import (
    Dependency,
    DevicePattern,
    Distribution,
    Dropped,
    FileEntry,
    FileKind,
    Header,
    Manifest,
    Missing,
    Origin,
    Package,
    Unmet,
)
from pkgjail.core.text import text_path
from tests.manifest_cases import (
    SHA,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.binary(max_size=4).map(text_path)
WORDS = st.text("abcxyz+-.09", min_size=1, max_size=5)
NAMES = (
    st.binary(min_size=1, max_size=5).map(lambda raw: raw.replace(b"\0", b"n").replace(b"/", b"s"))
    | st.sampled_from([b"a", b"\n", "é\u2028".encode(), b"\xff", b"\xed\xb3\xbf", b'"\\\x7f'])
).filter(lambda name: name not in {b".", b".."})
TARGETS = st.binary(min_size=1, max_size=8).map(lambda raw: raw.replace(b"\0", b"n"))
ORIGINS = st.sampled_from([origin for origin in get_args(Origin) if origin != "entry"])


@st.composite
def entries(draw: st.DrawFn, owners: st.SearchStrategy[tuple[str, ...]]) -> tuple[FileEntry, ...]:
    """Draw a sorted tree of files of all types, in which every parent is a directory."""
    parents, found = [b""], {}
    for _ in range(draw(st.integers(0, 8))):
        path = draw(st.sampled_from(parents)) + b"/" + draw(NAMES)
        if path in found:
            continue
        kind = draw(st.sampled_from(get_args(FileKind)))
        regular = kind == "regular"
        found[path] = FileEntry(
            path=path,
            kind=kind,
            mode=0o777 if kind == "symlink" else draw(st.integers(0, 0o7777)),
            size=draw(st.integers(0, 2**63)) if regular else None,
            sha256=draw(st.none() | st.just(SHA)) if regular else None,
            target=draw(TARGETS) if kind == "symlink" else None,
            owners=draw(owners),
            origin=draw(ORIGINS),
            detail=draw(TEXTS),
        )
        if kind == "directory":
            parents.append(path)
    return tuple(found[path] for path in sorted(found))


@st.composite
def manifests(draw: st.DrawFn, *, with_devices: bool = True) -> Manifest:
    """Draw any sound manifest, sorted."""
    names = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    packages = [
        Package(
            name=name,
            version=draw(WORDS),
            architecture="amd64",
            essential=draw(st.booleans()),
            size=draw(st.integers(0, 9)),
        )
        for name in names
    ]
    packages.sort(key=lambda package: package.key)
    keys = st.sampled_from([package.key for package in packages])
    owners = st.lists(keys, max_size=3, unique=True).map(lambda some: tuple(sorted(some)))
    asked = st.tuples(keys, st.sampled_from(["Depends", "Recommends"]), TEXTS) | st.tuples(
        st.just("w.toml:1"), st.just("whitelist"), TEXTS
    )
    edges = draw(st.lists(st.tuples(asked, keys), max_size=4, unique=True))
    unmet = draw(st.lists(asked, max_size=2, unique=True))
    paths = st.lists(
        st.lists(NAMES, min_size=1).map(lambda parts: b"/" + b"/".join(parts)), max_size=3, unique=True
    )
    files = draw(entries(owners))
    used = {entry.path for entry in files}
    dropped = sorted(set(draw(paths)) - used)
    missing = sorted(set(draw(paths)) - used.union(dropped))
    distribution = with_family(
        Distribution(id=draw(TEXTS), version=draw(TEXTS)), draw(st.sampled_from(["debian", "rhel", "x"]))
    )
    patterns = draw(st.lists(st.sampled_from(["/dev/a*", "/dev/dri", "/dev/é\udcff"]), unique=True))
    allowed = sorted(patterns) if with_devices else []
    source = draw(st.sampled_from(["", "", "directory", f"image:sha256:{'0' * 64}"]))
    devices = tuple(DevicePattern(pattern=pattern, rule=draw(TEXTS)) for pattern in allowed)
    return Manifest(
        devices=devices,
        header=Header(
            schema=3 if source else 2 if distribution.family or devices else 1,
            distribution=distribution,
            architecture=draw(TEXTS),
            policy=draw(TEXTS),
            whitelists=tuple(draw(st.lists(TEXTS, max_size=2))),
            blacklists=tuple(draw(st.lists(TEXTS, max_size=2))),
            recommends=draw(st.booleans()),
            essential=draw(st.booleans()),
            source=source,
        ),
        packages=tuple(packages),
        dependencies=tuple(
            Dependency(source=source, target=target, kind=kind, text=text)
            for source, target, kind, text in sorted((ask[0], target, *ask[1:]) for ask, target in edges)
        ),
        files=files,
        dropped=tuple(Dropped(path=path, rule=draw(TEXTS)) for path in dropped),
        missing=tuple(
            Missing(
                path=path, reason=draw(st.sampled_from(["absent", "private", "special"])), owners=draw(owners)
            )
            for path in missing
        ),
        unmet=tuple(
            Unmet(source=source, kind=kind, text=text, reason=draw(TEXTS))
            for source, kind, text in sorted(unmet)
        ),
    )
