"""What a supervised program finds is what a file system with these names alone would show it.

Random trees and random policies for them; the oracle is the kernel, which walks the same paths below a copy
that has only what the policy allows. It shares no code with the supervisor.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.sandbox.steps import Directory, HostFile, Plan, Symlink
from pkgjail.supervised.calls import known_calls
from pkgjail.supervised.launch import Words, run_supervised
from pkgjail.supervised.names import Bind, Names, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) takes root")

SOURCE = Path(__file__).with_name("supervised_probe.c")
POLICIES = int(os.environ.get("PKGJAIL_TEST_POLICIES", "200"))
BATCH = 50  # policies that one process is run under
NAMES = ("1", "2", "3", "a b", "\udcff", "long" * 40)


class Tree(NamedTuple):
    """A tree: its directories, its files, and its links with their texts."""

    top: str
    directories: list[str]
    files: list[str]
    links: dict[str, str]

    @property
    def names(self) -> list[str]:
        """All names, the directories first."""
        return [*self.directories, *self.files, *self.links]


class Policy(NamedTuple):
    """The names that are shown, and the directories that are shown whole: whether they are writable."""

    names: set[str]
    binds: dict[str, bool]


def _tree(top: str, random: random.Random) -> Tree:
    """Make a tree with links of every kind: absolute, relative, upwards, dangling, in circles."""
    directories: list[str] = [top]
    files: list[str] = []
    links: dict[str, str] = {}
    for _ in range(random.randrange(4, 14)):
        path = f"{random.choice(directories)}/{random.choice(NAMES)}"
        if path in directories or path in files or path in links:
            continue
        kind = random.choice("ddffl")
        if kind == "d":
            directories.append(path)
            os.mkdir(path)
        elif kind == "f":
            files.append(path)
            Path(path).write_text(f"content of {len(files)}")
        else:
            links[path] = _text(path, [*directories, *files, *links, f"{top}/none"], random)
            os.symlink(links[path], path)
    return Tree(top, directories, files, links)


def _text(path: str, targets: list[str], random: random.Random) -> str:
    target = random.choice(targets)
    return random.choice(
        (
            target,
            os.path.relpath(target, os.path.dirname(path)),
            f"../{random.choice(NAMES)}",
            f"{target}/{random.choice(NAMES)}",
            f"{target}/..",
        )
    )


def _policy(tree: Tree, random: random.Random) -> Policy:
    shown = {tree.top}
    for name in sorted(tree.names):  # a directory comes before what is in it
        if os.path.dirname(name) in shown and random.random() < 0.6:
            shown.add(name)
    binds: dict[str, bool] = {}
    for directory in sorted(tree.directories[1:]):
        inside = [name for name in shown if name.startswith(directory + "/")]
        nested = any(directory.startswith(bind + "/") for bind in binds)
        if not inside and not nested and os.path.dirname(directory) in shown and random.random() < 0.5:
            binds[directory] = random.random() < 0.5
            shown.discard(directory)
    return Policy(shown, binds)


def _names(policies: Sequence[tuple[Tree, Policy]], probe: str) -> Names:
    """Return the names of all policies, in one view."""
    steps: list[Directory | HostFile | Symlink] = [
        Directory(b"/", 0o755),
        HostFile(os.fsencode(probe), 0o755, None),
    ]
    for tree, policy in policies:
        for name in policy.names:
            path = os.fsencode(name)
            if name in tree.links:
                steps.append(Symlink(path, os.fsencode(tree.links[name])))
            elif name in tree.directories:
                steps.append(Directory(path, 0o755))
            else:
                steps.append(HostFile(path, 0o644, None))
    names = names_of(Plan(b"/", tuple(steps), network=True, hostname=""))
    for path in list(names.kinds):
        names.add_directories(path)
    for _, policy in policies:
        for name, writable in policy.binds.items():
            path = os.fsencode(name)
            names.add_bind(Bind(path, os.open(path, os.O_PATH | os.O_CLOEXEC), writable))
    return names


def _copy(tree: Tree, policy: Policy, root: str) -> None:
    """Copy what the policy shows, to the same paths below another root."""
    os.makedirs(root + tree.top)
    for name in tree.names:
        in_bind = any((name + "/").startswith(bind + "/") for bind in policy.binds)
        if name == tree.top or not (name in policy.names or in_bind):
            continue
        if name in tree.links:
            os.symlink(tree.links[name], root + name)
        elif name in tree.directories:
            os.mkdir(root + name)
        else:
            shutil.copy(name, root + name)


def _paths(tree: Tree, random: random.Random) -> list[str]:
    """Return every name of the tree, and odd ways to some."""
    paths = [*tree.names, "/", "/etc/passwd", f"{tree.top}/none"]
    for _ in range(20):
        steps = [random.choice(tree.names)]
        steps += [random.choice((*NAMES, "..", ".", "", "../..")) for _ in range(random.randrange(4))]
        paths.append("/".join(steps))
    return paths


def _run(words: list[str], given: bytes, run: object) -> bytes:
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
        stdin.write(given)
        stdin.seek(0)
        kept = [os.dup(number) for number in (0, 1)]
        try:
            os.dup2(stdin.fileno(), 0)
            os.dup2(stdout.fileno(), 1)
            status = run(words)  # type: ignore[operator]
        finally:
            for number, copy in enumerate(kept):
                os.dup2(copy, number)
                os.close(copy)
        assert status == 0
        stdout.seek(0)
        return stdout.read()


@pytest.fixture(scope="module")
def probe() -> Iterator[str]:
    """A static program that looks at paths (supervised_probe.c)."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-probe-", dir="/var/tmp") as place:
        made = f"{place}/probe"
        subprocess.run(["gcc", "-static", "-O1", "-o", made, SOURCE], check=True)
        Path(place).chmod(0o755)
        yield made


def check_policies(seeds: Iterable[int], probe: str) -> int:
    """Compare the policies of these seeds, in one run, and return how many answers were compared."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-policy-", dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        root, given = f"{place}/copy", b""
        policies = []
        for seed in seeds:
            chance = random.Random(seed)  # noqa: S311 - no secret
            top = f"{place}/{seed}"
            os.mkdir(top)
            tree = _tree(top, chance)
            policy = _policy(tree, chance)
            _copy(tree, policy, root)
            policies.append((tree, policy))
            given += b"".join(os.fsencode(path) + b"\n" for path in _paths(tree, chance))
        os.makedirs(os.path.dirname(root + probe), exist_ok=True)
        shutil.copy(probe, root + probe)
        for parent in (*Path(place, "x").parents, Path(probe).parent):
            shutil.copymode(parent, f"{root}{parent}")

        def supervised(words: list[str]) -> int:
            command = Words(tuple(words), b"/", ())
            return run_supervised(command, lambda: _names(policies, probe), known_calls(), network=True)

        def below_copy(words: list[str]) -> int:
            return subprocess.run(["chroot", root, *words], check=False).returncode

        found, expected = (_run([probe], given, run) for run in (supervised, below_copy))
    differing = [
        f"{ours!r}\nand below a copy\n{theirs!r}"
        for ours, theirs in zip(found.splitlines(), expected.splitlines())
        if ours != theirs
    ]
    assert differing == [], f"{policies}"
    assert len(found) == len(expected)
    return found.count(b" ")


def test_no_name_and_no_content_but_the_policys(probe: str) -> None:
    """Protects exactness, for many policies; PKGJAIL_TEST_POLICIES is their number."""
    runs = [range(start, min(start + BATCH, POLICIES)) for start in range(0, POLICIES, BATCH)]
    assert sum(check_policies(seeds, probe) for seeds in runs) > POLICIES * 100
