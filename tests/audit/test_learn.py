"""Learning: the whitelist that brings what a command used, as roots of the graph of dependencies."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail import load_policy, open_database, resolve
from pkgjail.audit.learn import Learned, everything, learn, missed, whitelist_text
from pkgjail.audit.model import Audit, LookUp
from pkgjail.audit.spack_names import SpackNames
from pkgjail.cli.main import main
from pkgjail.manifest import write_manifest
from tests.debian_roots import make_root

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

PACKAGES = (
    "app 1 amd64; Depends: lib, loop-a",
    "lib 1 amd64; Depends: deep",
    "deep 1 amd64",
    "loop-a 1 amd64; Depends: loop-b",
    "loop-b 1 amd64; Depends: loop-a",
    "tool 1 amd64; Depends: lib",
    "choice 1 amd64; Depends: gone | picked | other",
    "picked 1 amd64",
    "other 1 amd64",
    "links 1 amd64",
    "unused 1 amd64",
    "user 1 amd64; Depends: virtual",
    "alpha 1 amd64; Provides: virtual",
    "beta 1 amd64; Provides: virtual",
)
FILES = {
    "app": "/usr/bin/app", "lib": "/usr/lib/lib.so", "deep": "/usr/share/deep/data", "loop-a": "/usr/lib/a",
    "loop-b": "/usr/lib/b", "tool": "/usr/bin/tool", "choice": "/usr/bin/choice", "picked": "/usr/bin/picked",
    "other": "/usr/bin/other", "unused": "/usr/bin/unused",
    "user": "/usr/bin/user", "alpha": "/usr/lib/alpha", "beta": "/usr/lib/beta",
}  # fmt: skip
UNOWNED = ("/usr/local/include/own.h", '/opt/odd "name"/[x].h', "/usr/local/unused.h")


@pytest.fixture
def root(tmp_path: Path) -> bytes:
    """A root whose packages have a file each; `links` has a link to a directory of `deep`."""
    place = tmp_path / "root"
    for path in (*FILES.values(), *UNOWNED):
        (place / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (place / path[1:]).write_text("content\n")
    (place / "usr/share/current").symlink_to("deep")
    info = {f"var/lib/dpkg/info/{name}.list": f"{path}\n" for name, path in FILES.items()}
    more = {"var/lib/dpkg/info/links.list": "/usr/share/current\n", "var/lib/dpkg/info/dpkg.list": "",
            "etc/os-release": "ID=debian\nVERSION_ID=12\n"}  # fmt: skip
    return make_root(place, *PACKAGES, files={**info, **more})


def audit_of(*used: str, wanted: tuple[str, ...] = (), directories: tuple[str, ...] = ()) -> Audit:
    """An audit of a command that used these files."""
    owners = {path: f"{name}:amd64" for name, path in FILES.items()}
    look_ups = [
        LookUp(path=path.encode(), inside="regular", area="manifest", calls={"open": 1}, source="absent",
               owners=(owners[path],) if path in owners else ())
        for path in used
    ]  # fmt: skip
    look_ups += [
        LookUp(
            path=path.encode(),
            inside="directory",
            area="manifest",
            calls={"look": 1},
            owners=("unused:amd64",),
        )
        for path in directories
    ]
    look_ups += [
        LookUp(path=path.encode(), inside="absent", area="manifest", calls={"open": 1}, source="regular",
               owners=(owners[path],) if path in owners else ())
        for path in wanted
    ]  # fmt: skip
    return Audit(manifest="", family="debian", command=("make", "all\x1b"), status=0, events=1,
                 architecture="amd64", look_ups=tuple(look_ups))  # fmt: skip


def packages(learned: Learned) -> str:
    return " ".join(line.text for line in learned.packages)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (["/usr/bin/app", "/usr/lib/lib.so", "/usr/share/deep/data", "/usr/lib/b"], "app"),
        (["/usr/lib/lib.so", "/usr/share/deep/data"], "lib"),
        (["/usr/share/deep/data", "/usr/bin/tool"], "tool"),
        (["/usr/lib/b", "/usr/lib/a"], "loop-a"),
        (["/usr/lib/b"], "loop-b"),
        (["/usr/bin/app", "/usr/bin/tool"], "app tool"),
        (["/usr/bin/choice", "/usr/bin/picked"], "choice"),
        (["/usr/bin/choice", "/usr/bin/other"], "choice other"),
        ([], ""),
    ],
)
def test_only_roots_have_a_line(used: list[str], expected: str, root: bytes) -> None:
    """Protects that the list is short, and that it brings all that was used."""
    manifest = everything(root=root)
    learned = learn(audit_of(*used, directories=("/usr/share",)), manifest, root=root)
    assert packages(learned) == expected
    assert learned.used == len(used)


def test_a_file_of_several_packages_needs_one_of_them(root: bytes) -> None:
    """Protects from a line for a package that has nothing that was used but a link which all have."""
    shared = LookUp(path=b"/lib", inside="symlink", area="manifest", calls={"link": 1},
                    owners=("app:amd64", "tool:amd64"))  # fmt: skip
    manifest = everything(root=root)
    for used, expected in (("/usr/bin/tool", "tool"), ("/usr/bin/other", "app other")):
        audit = audit_of(used)
        audit = replace(audit, look_ups=(shared, *audit.look_ups))
        assert packages(learn(audit, manifest, root=root)) == expected


def test_links_that_lead_to_the_command_are_used(root: bytes) -> None:
    """Protects the command itself: its own links were followed before the record began."""
    place = os.fsdecode(root)
    os.symlink("tool", f"{place}/usr/bin/run")
    with open(f"{place}/var/lib/dpkg/info/links.list", "a") as file:
        file.write("/usr/bin/run\n")
    manifest = everything(root=root)
    for name in ("run", "/usr/bin/run"):
        audit = replace(audit_of("/usr/lib/b"), command=(name,))
        assert packages(learn(audit, manifest, root=root)) == "links loop-b tool"


def test_what_the_base_brings_has_no_line(root: bytes, tmp_path: Path) -> None:
    """Protects from a list that repeats the one that it includes."""
    base = tmp_path / "base.toml"
    base.write_text('[packages]\ndebian = ["app"]\n')
    audit = audit_of("/usr/bin/app", "/usr/lib/b", "/usr/bin/tool")
    learned = learn(audit, everything(root=root), base=[str(base)], root=root)
    assert (packages(learned), learned.include) == ("tool", (str(base),))


def test_what_another_list_settles_otherwise_has_a_line(root: bytes, tmp_path: Path) -> None:
    """Protects what was used where the included list brings another package that provides the same."""
    base = tmp_path / "base.toml"
    base.write_text('[packages]\ndebian = ["beta"]\n')
    audit, manifest = audit_of("/usr/bin/user", "/usr/lib/alpha"), everything(root=root)
    assert packages(learn(audit, manifest, root=root)) == "user"
    assert packages(learn(audit, manifest, base=[str(base)], root=root)) == "alpha user"


def test_the_list_is_one_that_brings_what_was_used(root: bytes, tmp_path: Path) -> None:
    """Protects that the list can be used as it is written: with odd names, comments and other families."""
    names = SpackNames([{"app": {"debian": ["app"], "rhel": ["application"]}}])
    manifest = everything(root=root)
    learned = learn(audit_of("/usr/bin/app", *UNOWNED[:2]), manifest, names=names, root=root)
    text = whitelist_text(learned)
    (tmp_path / "list.toml").write_text(text)
    policy = load_policy([str(tmp_path / "list.toml")], database=open_database(root))
    assert [requirement.text for requirement in policy.packages] == ["app"]
    fresh = resolve([str(tmp_path / "list.toml")], root=root, hashed=False, baseline=False)
    paths = {os.fsdecode(entry.path) for entry in fresh.files}
    assert paths >= {*UNOWNED[:2], "/usr/bin/app", "/usr/lib/lib.so", "/usr/lib/b"}
    assert paths.isdisjoint({"/usr/bin/unused", UNOWNED[2]})
    assert len(learned.files) == 2
    assert '    "app",  # read /usr/bin/app\n' in text
    assert '\n# rhel = ["application"]\n' in text
    assert "\x1b" not in text


def test_everything_has_every_package_and_what_no_package_has(root: bytes, tmp_path: Path) -> None:
    """Protects that the first jail hides nothing; a blacklist's files are hidden even there."""
    blacklist = tmp_path / "own.ignore"
    blacklist.write_text("/usr/bin/unused\n")
    manifest = everything([str(blacklist)], root=root)
    assert {package.name for package in manifest.packages} == {
        *(line.split()[0] for line in PACKAGES),
        "dpkg",
    }
    paths = {os.fsdecode(entry.path) for entry in manifest.files}
    assert {*FILES.values(), *UNOWNED} - paths == {"/usr/bin/unused"}


def test_what_a_second_run_lacked_is_found(root: bytes) -> None:
    """Protects builds that go through a link to a directory, which the first run's record does not name."""
    first = audit_of("/usr/share/deep/data", "/usr/bin/tool")
    second = audit_of(wanted=("/usr/share/current/data", "/usr/bin/tool", "/usr/bin/unused"))
    assert missed(first, second, root) == ("links:amd64", "tool:amd64")
    learned = learn(first, everything(root=root), root=root, also=("links:amd64",))
    assert packages(learned) == "links tool"
    assert "# a link on the way to what it used" in whitelist_text(learned)


def build_in(place: Path) -> list[str]:
    """A build whose output says what it found."""
    (place / "build.sh").write_text("sed s/a/b/ build.sh > out && [ ! -e found ] && touch found\n")
    return ["--cwd", "--", "sh", "build.sh"]


@pytest.mark.unmeasured  # coverage leaves files of its own in what is built
def test_the_command(
    base_manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Protects the verb: a list, a check from the same start, and the user's files as they were."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    words = ["learn", "--manifest", "../m.jsonl", *build_in(work)]
    assert main([*words[:1], "-o", "../list.toml", *words[1:]]) == 0
    assert (
        "the command ended with status 0, as before\nits output has no difference" in capfd.readouterr().out
    )
    text = (tmp_path / "list.toml").read_text()
    assert '"sed"' not in text  # it is essential
    assert [path.name for path in work.iterdir()] == ["build.sh"]
    short = '[packages]\ndebian = ["dash"]\n[options]\nessential = false\n'
    for module in ("learn", "learn_build"):
        monkeypatch.setattr(f"pkgjail.audit.{module}.whitelist_text", lambda _: short)
    assert main(words) == 1
    said = capfd.readouterr()
    assert said.out == short
    assert "not with 0 as before" in said.err
