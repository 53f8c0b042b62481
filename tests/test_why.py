"""Answers of `why`: valid chains for everything that can be asked."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections import deque
from dataclasses import replace
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail import why
from pkgjail.cli.main import main
from pkgjail.cli.why_text import text
from pkgjail.closure import reasons as chains_module
from pkgjail.closure.reasons import Chains
from pkgjail.core.errors import QuestionError
from pkgjail.core.model import Dependency, DevicePattern
from pkgjail.manifest import write_manifest
from pkgjail.review import why as why_module
from tests.manifest_text import manifest_of
from tests.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pkgjail.core.model import Manifest

MANIFEST = manifest_of(
    r"""
    gcc 12
    cpp 12
    libc6 2.36
    mawk 1.3
    base-files 12
    w.toml:3 -> gcc [whitelist] gcc (>= 10)
    w.toml:7 -> mawk [whitelist] awk
    essential -> base-files [essential] Essential: yes
    base-files -> mawk [Pre-Depends] awk
    gcc -> cpp
    gcc -> libc6
    cpp -> libc6
    mawk -> libc6
    /usr/ of base-files,gcc,libc6
    /bin -> usr/bin of base-files
    /loop -> loop
    /usr/bin/ of gcc,mawk
    /usr/bin/gcc 100 of gcc
    /usr/bin/mawk 50 of mawk
    /usr/bin/awk -> /etc/alternatives/awk of mawk, alternative: awk
    /etc/alternatives/awk -> /usr/bin/mawk of mawk, alternative: awk
    /etc/gcc.conf 3 of gcc, conffile
    /etc/ld.so.cache 5 of libc6, generated: ldconfig
    /etc/passwd, entry: pkgjail
    /usr/local/cuda/nvcc 9, include: w.toml:9
    dropped /usr/share/doc/gcc docs.ignore:4: /usr/share/doc/
    missing /usr/share/man/gcc absent of gcc
    """
)
DATABASE = MemoryDatabase.from_text(
    """
    gcc 12 amd64
     /usr/share/doc/gcc
     /usr/bin/gcc
    tmux 3 amd64
     /bin/tmux
    libx 1 i386
     /usr/lib/libx.so
    """
)
ON_HOST = {b"/srv/data", b"/srv/[a]*", b'/srv/q"\x7f', b"/srv/\xff"}

# Each row: what it protects, what is asked, the answer as people read it.
CASES = [
    (
        "a package: the chain from the whitelist's line, with the words that asked",
        "cpp",
        """
        cpp:amd64 12
          w.toml:3
            whitelist gcc (>= 10) -> gcc:amd64
              Depends cpp -> cpp:amd64
        """,
    ),
    (
        "a whitelist's line is preferred to Essential where both are as near",
        "libc6:amd64",
        """
        libc6:amd64 2.36
          w.toml:3
            whitelist gcc (>= 10) -> gcc:amd64
              Depends libc6 -> libc6:amd64
        """,
    ),
    (
        "a file, by its owner",
        "/usr/bin/gcc",
        """
        /usr/bin/gcc: file, listed by gcc:amd64
          gcc:amd64 12
            w.toml:3
              whitelist gcc (>= 10) -> gcc:amd64
        """,
    ),
    (
        "a path through a link, and one that is not normal",
        "//bin/../bin/./awk",
        """
        //bin/../bin/./awk is /usr/bin/awk
        /usr/bin/awk: link to /etc/alternatives/awk, a link of update-alternatives, for mawk:amd64 (awk)
          mawk:amd64 1.3
            w.toml:7
              whitelist awk -> mawk:amd64
        """,
    ),
    (
        "of many owners the one that is nearest to a whitelist, and how many more",
        "/usr",
        """
        /usr: directory, listed by base-files:amd64 and 2 more
          base-files:amd64 12
            essential
              essential Essential: yes -> base-files:amd64
        """,
    ),
    (
        "a configuration file",
        "/etc/gcc.conf",
        """
        /etc/gcc.conf: file, a configuration file of gcc:amd64
          gcc:amd64 12
            w.toml:3
              whitelist gcc (>= 10) -> gcc:amd64
        """,
    ),
    (
        "a file that a program made, and which",
        "/etc/ld.so.cache",
        """
        /etc/ld.so.cache: file, generated on the host, for libc6:amd64 (ldconfig)
          libc6:amd64 2.36
            w.toml:3
              whitelist gcc (>= 10) -> gcc:amd64
                Depends libc6 -> libc6:amd64
        """,
    ),
    ("a file made at entry", "/etc/passwd", "/etc/passwd: file, made at entry, for every jail (pkgjail)"),
    (
        "a file that the policy names",
        "/usr/local/cuda/nvcc",
        "/usr/local/cuda/nvcc: file, named by w.toml:9",
    ),
    (
        "a directory that nobody owns: what is below it",
        "/usr/local",
        "/usr/local: directory, for what is below it: /usr/local/cuda/nvcc",
    ),
    ("a link that nobody owns", "/loop", "/loop: link to loop, for what leads through it"),
    ("a link in a circle ends", "/loop/x", "/loop/x: not in the manifest; no package of the host has it"),
    (
        "a dropped path: the rule, and whose it is",
        "/usr/share/doc/gcc",
        """
        /usr/share/doc/gcc: dropped by docs.ignore:4: /usr/share/doc/; the host has it from gcc:amd64
          gcc:amd64 12
            w.toml:3
              whitelist gcc (>= 10) -> gcc:amd64
        """,
    ),
    (
        "a path that the host cannot show",
        "/usr/share/man/gcc",
        """
        /usr/share/man/gcc: not in the jail, because it is absent on the host; listed by gcc:amd64
          gcc:amd64 12
            w.toml:3
              whitelist gcc (>= 10) -> gcc:amd64
        """,
    ),
    (
        "a path that is not in: the host's owner, which records it through the link, and the line",
        "/usr/bin/tmux",
        """
        /usr/bin/tmux: not in the manifest; the host has it from tmux:amd64
          to add it, write in a whitelist: packages.debian = ["tmux"]
        """,
    ),
    (
        "an owner of a foreign architecture is named with it",
        "/usr/lib/libx.so",
        """
        /usr/lib/libx.so: not in the manifest; the host has it from libx:i386
          to add it, write in a whitelist: packages.debian = ["libx:i386"]
        """,
    ),
    (
        "a package that is not in",
        "tmux",
        """
        tmux: not in the manifest; the host has it from tmux:amd64
          to add it, write in a whitelist: packages.debian = ["tmux"]
        """,
    ),
    ("a package of nowhere", "nope", "nope: not in the manifest; no package of the host has it"),
    (
        "a path that no package owns",
        "/srv/data",
        """
        /srv/data: not in the manifest; no package of the host has it
          to add it, write in a whitelist: files.include = ["/srv/data"]
        """,
    ),
    (
        "what a pattern gives a meaning is written with a backslash, itself doubled by TOML",
        "/srv/[a]*",
        r"""
        /srv/[a]*: not in the manifest; no package of the host has it
          to add it, write in a whitelist: files.include = ["/srv/\\[a]\\*"]
        """,
    ),
    (
        "quotes and control characters, by TOML's rules",
        '/srv/q"\x7f',
        r"""
        /srv/q"\x7f: not in the manifest; no package of the host has it
          to add it, write in a whitelist: files.include = ["/srv/q\"\u007F"]
        """,
    ),
    (
        "what TOML cannot hold is not offered",
        "/srv/\udcff",
        r"/srv/\xff: not in the manifest; no package of the host has it",
    ),
]


@pytest.mark.parametrize(("asked", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_answers(asked: str, expected: str) -> None:
    (answer,) = why(MANIFEST, [asked], database=DATABASE, exists=ON_HOST.__contains__)
    assert list(text(answer)) == dedent(expected).strip().splitlines()


def test_a_device_is_named_by_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from the advice to include a device as a file, which no jail can have."""
    monkeypatch.setattr(why_module, "find_devices", lambda _: ((b"/dev/dri/card0", "character", 1, b""),))
    manifest = replace(MANIFEST, devices=(DevicePattern(pattern="/dev/dri/**", rule="gpu.toml:3"),))
    asked = ["/dev/dri/card0", "/dev/null", "/dev/fuse", "/dev/absent"]
    answers = why(manifest, asked, database=DATABASE, exists=lambda path: path == b"/dev/fuse")
    assert [line for answer in answers for line in text(answer)] == [
        "/dev/dri/card0: a device, allowed by gpu.toml:3",
        "/dev/null: every jail has it",
        "/dev/fuse: not in the manifest; no package of the host has it",
        '  to add it, write in a whitelist: devices.include = ["/dev/fuse"]',
        "/dev/absent: not in the manifest; no package of the host has it",
    ]
    assert [answer.is_in for answer in answers] == [True, True, False, False]


@pytest.mark.parametrize("asked", ["", "usr/bin/awk", "./x"])
def test_a_question_without_sense_is_refused(asked: str) -> None:
    """Protects from an answer "not in" for what only was not spelled out."""
    with pytest.raises(QuestionError, match="write a path that starts with '/'"):
        why(MANIFEST, [asked])


def test_without_a_database_nothing_is_claimed_of_the_host() -> None:
    (answer,) = why(MANIFEST, ["/srv/data"], exists=ON_HOST.__contains__)
    assert (answer.verdict, answer.owner, answer.remedy) == ("absent", "", "")


def test_every_minimal_chain() -> None:
    """The shortest comes first; there is no chain through cpp, because gcc requires libc6 itself."""
    (answer,) = why(MANIFEST, ["libc6"], every=True)
    (reason,) = answer.reasons
    assert [[edge.source for edge in chain] for chain in reason.chains] == [
        ["w.toml:3", "gcc:amd64"],
        ["w.toml:7", "mawk:amd64"],
        ["essential", "base-files:amd64", "mawk:amd64"],
    ]
    (answer,) = why(MANIFEST, ["/usr"], every=True)
    assert [reason.package for reason in answer.reasons] == ["base-files:amd64", "gcc:amd64", "libc6:amd64"]


def test_equally_long_chains_are_not_all_begun() -> None:
    """Protects from 2 to the 40th of them, which a manifest of eighty packages can have."""
    edges = [
        Dependency(source=f"{level}{one}", target=f"{level + 1}{other}", kind="Depends", text="x")
        for level in range(40)
        for one in "ab"
        for other in "ab"
    ]
    found = Chains(edges).minimal("40a", 100)
    assert (len(set(found)), {len(chain) for chain in found}) == (100, {40})


def test_too_many_chains_are_cut_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why_module, "MOST_CHAINS", 2)
    (answer,) = why(MANIFEST, ["libc6"], every=True)
    assert (len(answer.reasons[0].chains), answer.reasons[0].cut) == (2, True)
    assert "  and more than these 2 chains" in list(text(answer))


def _dependencies(pairs: Sequence[tuple[int, int]]) -> tuple[Dependency, ...]:
    """Edges between packages 1 to 6, and from rules 0 and -1, which nothing requires."""
    return tuple(
        Dependency(source=f"n{source}", target=f"n{target}", kind="Depends", text="x")
        for source, target in pairs
        if source != target
    )


@given(
    st.lists(st.tuples(st.integers(-1, 6), st.integers(1, 6)), max_size=24, unique=True), st.integers(1, 6)
)
def test_minimal_chains_are_those_of_the_definition(pairs: list[tuple[int, int]], target: int) -> None:
    """Every simple path from a root in which no node requires a later one but the next, and no other path."""
    edges = _dependencies(pairs)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_edges_from((edge.source, edge.target) for edge in edges)
    key = f"n{target}"
    expected = set()
    if key in graph:
        for root in [node for node in graph if graph.in_degree(node) == 0 and node != key]:
            for path in nx.all_simple_paths(graph, root, key):
                shortcuts = [
                    (a, b) for i, a in enumerate(path) for b in path[i + 2 :] if graph.has_edge(a, b)
                ]
                if not shortcuts:
                    expected.add(tuple(path))
    found = Chains(edges).minimal(key, 10_000)
    nodes = [(*(edge.source for edge in chain), key) for chain in found]
    assert len(nodes) == len(set(nodes))
    assert set(nodes) == expected
    assert list(map(len, nodes)) == sorted(map(len, nodes))
    assert all(a.target == b.source for chain in found for a, b in zip(chain, chain[1:]))


def test_what_changed_for_a_package() -> None:
    """The first edge that is new, or none."""
    chain = _dependencies([(0, 1), (1, 2), (2, 3)])
    assert chains_module.first_new(chain, {chain[0]}) == chain[1]
    assert chains_module.first_new(chain, set(chain)) is None


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> str:
    path = tmp_path / "m.jsonl"
    write_manifest(MANIFEST, path)
    return str(path)


def test_the_command(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0 if all are in the manifest, otherwise 1; JSON agrees."""
    assert main(["why", written, "gcc", "/bin/awk"]) == 0
    assert "whitelist gcc (>= 10) -> gcc:amd64" in capsys.readouterr().out
    assert main(["why", written, "--json", "gcc", "/no/such", "/usr/bin/awk"]) == 1
    package, absent, link = json.loads(capsys.readouterr().out)
    assert package["packages"][0]["chains"] == [
        [{"source": "w.toml:3", "target": "gcc:amd64", "field": "whitelist", "text": "gcc (>= 10)"}]
    ]
    assert absent == {"asked": "/no/such", "path": "/no/such", "verdict": "absent"}
    assert (link["origin"], link["detail"], link["target"]) == ("alternative", "awk", "/etc/alternatives/awk")


def test_a_root_without_packages_is_no_reason_to_fail(
    written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest alone knows what was dropped, and why."""
    assert main(["why", "--root", str(tmp_path), written, "/usr/share/doc/gcc"]) == 1
    assert "dropped by docs.ignore:4" in capsys.readouterr().out


def test_a_bad_question_ends_with_2(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", written, "usr/bin/gcc"]) == 2
    assert "neither an absolute path" in capsys.readouterr().err


# --- this host, by dpkg's own word ------------------------------------------------------------


def _dpkg(*arguments: str) -> str:
    return subprocess.run(
        ["dpkg-query", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout


def _known() -> dict[str, dict[str, str]]:
    """Return dpkg's record of each installed package, by name:architecture."""
    fields = ("Pre-Depends", "Depends", "Provides", "Essential")
    form = "${Package}:${Architecture}" + "".join(f"\\x1f${{{field}}}" for field in fields) + "\\n"
    rows = [line.split("\x1f") for line in _dpkg("-W", "-f", form.replace("\\x1f", "\x1f")).splitlines()]
    return {row[0]: dict(zip(fields, row[1:])) for row in rows}


def _names(text: str) -> set[str]:
    """The names in a requirement or in Provides, without versions and architectures."""
    return {re.split(r"[ (:]", part.strip())[0] for part in re.split(r"[|,]", text) if part.strip()}


def _holds(edge: Mapping[str, Any], known: Mapping[str, Mapping[str, str]], rules: set[str]) -> bool:
    """Return whether dpkg's record of the source has this requirement, and the target satisfies it."""
    target = known[edge["target"]]
    answers = _names(edge["text"]) & (_names(target["Provides"]) | {edge["target"].split(":")[0]})
    if edge["source"] == "essential":
        return target["Essential"] == "yes"
    if edge["source"] in rules:
        return bool(answers)
    asked = [" ".join(part.split()) for part in known[edge["source"]][edge["field"]].split(",")]
    return bool(answers) and edge["text"] in asked


def _distances(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many edges each package is away from a rule, by a search of the test's own."""
    targets = {record["target"] for record in records}
    distance = {record["source"]: 0 for record in records if record["source"] not in targets}
    todo = deque(distance)
    while todo:
        node = todo.popleft()
        for record in records:
            if record["source"] == node and record["target"] not in distance:
                distance[record["target"]] = distance[node] + 1
                todo.append(record["target"])
    return distance


@pytest.mark.gate
def test_chains_hold_by_dpkg_itself(
    spack_manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 random files of `spack`: dpkg lists each for its owner and has each edge; no chain is too long."""
    path = tmp_path / "m.jsonl"
    write_manifest(spack_manifest, path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    owned = [
        r["path"]
        for r in records
        if r.get("origin") in {"package", "conffile"} and isinstance(r["path"], str)
    ]
    asked = random.Random(6).sample(owned, 200)  # noqa: S311
    assert main(["why", "--json", str(path), *asked]) == 0
    answers = json.loads(capsys.readouterr().out)
    known = _known()
    edges = [record for record in records if record["kind"] == "dependency"]
    distance = _distances(edges)
    rules = {key for key, steps in distance.items() if steps == 0} - {"essential"}
    lists: dict[str, set[str]] = {}
    merged = {"/usr" + top: top for top in ("/bin", "/lib", "/sbin", "/lib64")}
    for question, answer in zip(asked, answers):
        (reason,) = answer["packages"]
        key, (chain,) = reason["package"], reason["chains"]
        if key not in lists:
            lists[key] = set(_dpkg("-L", key).splitlines())
        spelled = {
            question,
            *(new + question[len(old) :] for old, new in merged.items() if question.startswith(old)),
        }
        assert spelled & lists[key], question
        assert chain[0]["source"] in rules | {"essential"}
        assert chain[-1]["target"] == key
        assert all(one["target"] == two["source"] for one, two in zip(chain, chain[1:]))
        assert [edge for edge in chain if not _holds(edge, known, rules)] == []
        assert len(chain) == distance[key]


@pytest.mark.gate
def test_every_file_has_its_answer(spack_manifest: Manifest) -> None:
    """No name of the manifest is without a reason: a chain, a line, the jail itself, or what is below it."""
    names = [entry.path.decode("utf-8", "surrogateescape") for entry in spack_manifest.files]
    answers = why(spack_manifest, names)
    assert [answer.asked for answer in answers if answer.verdict != "file"] == []
    for answer in answers:
        assert answer.entry is not None
        explained = [reason for reason in answer.reasons if reason.chains] or answer.below
        assert explained or answer.entry.origin in {"entry", "include", "generated", "parent"}, answer
