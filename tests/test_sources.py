"""Sources: a manifest is used with the host, directory or image that it was made from, or refused once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import resolve, whole_image
from pkgjail.cli.main import main, make_parsers, with_place_of_manifest
from pkgjail.core.errors import NoImageError, SourceError, UsageError
from pkgjail.core.sources import refuse_other_source, source_at
from pkgjail.images.importing import import_image
from pkgjail.images.store import find_source, lock_source
from pkgjail.manifest import dump_manifest, parse_manifest, read_manifest, write_manifest
from tests.conftest import SYSTEM_PYTHON
from tests.debian_roots import make_root
from tests.manifest_text import files_alone
from tests.tars import END, directory, file, symlink
from tests.test_drift import BUSYBOX

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

ONE, OTHER = (f"image:sha256:{digit * 64}" for digit in "12")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with one package, which has busybox and a library."""
    root = tmp_path / "root"
    files = {
        "etc/os-release": "ID=debian\nVERSION_ID=12\n",
        "usr/lib/library": "abc",
        "var/lib/dpkg/info/a.list": "/.\n/bin\n/bin/busybox\n/usr\n/usr/lib\n/usr/lib/library\n",
    }
    make_root(root, "a 1 amd64", files=files)
    (root / "bin").mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", root], check=True)
    (root / "bin/busybox").chmod(0o755)
    return root


@pytest.fixture
def whitelist(tmp_path: Path) -> str:
    path = tmp_path / "w.toml"
    path.write_text('[packages]\ndebian = ["a"]\n[options]\nessential = false\n')
    return str(path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PKGJAIL_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def manifest_of_image(tree: Path, whitelist: str, store: Path, tmp_path: Path) -> Path:
    """The manifest of the image `app`, which is the tree."""
    import_image(tree, "app", store=str(store))
    path = tmp_path / "app.jsonl"
    assert main(["resolve", whitelist, "--source", "image:app", "--backend", "dpkg", "-o", str(path)]) == 0
    return path


# What a manifest records, what it is used with, and the refusal; "" is none.
USES = {
    "the host's, on the host": ("", "host", ""),
    "the host's, in a directory": ("", "directory", ""),
    "the host's, in an image": ("", "image", "image sha256:.*: it was made from a host; leave out `source`"),
    "a directory's, on the host": (
        "directory", "host", "this host: it was made from a directory; name that directory with `root`"
    ),
    "a directory's, in a directory": ("directory", "directory", ""),
    "a directory's, in an image": ("directory", "image", "the image sha256:.*: it was made from a directory"),
    "an image's, on the host": (ONE, "host", f"made from the image sha256:1+; name that with `source` {ONE}"),
    "an image's, in a directory": (ONE, "directory", ""),
    "an image's, in another": (OTHER, "image", "the image sha256:1+: it was made from the image sha256:2+"),
    "an image's, in it": (ONE, "image", ""),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_manifest_is_used_with_its_source(use: str, tmp_path: Path) -> None:
    """Protects every reader of a manifest from files of another source, and from as many warnings."""
    made, given, refusal = USES[use]
    image = tmp_path / f"sha256-{'1' * 64}"
    (image / "tree").mkdir(parents=True)
    (image / "files.jsonl").touch()
    root = {"host": b"/", "directory": os.fsencode(tmp_path), "image": os.fsencode(image / "tree")}[given]
    assert source_at(root).kind == given
    manifest = files_alone(())
    manifest = replace(manifest, header=replace(manifest.header, source=made))
    if refusal:
        with pytest.raises(SourceError, match=refusal):
            refuse_other_source(manifest, root)
    else:
        refuse_other_source(manifest, root)


def test_the_host_is_not_recorded(base_manifest: Manifest) -> None:
    """Protects the bytes of the host's manifests: nothing is new in them."""
    header = dump_manifest(base_manifest).partition(b"\n")[0]
    assert b"source" not in header
    assert json.loads(header)["schema"] in (1, 2)


def test_the_texts_of_sources(store: Path, tree: Path) -> None:
    """Protects the one form that each source is written in."""
    image = import_image(tree, "app", store=str(store))
    assert find_source("host").kind == "host"
    assert find_source(f"dir:{tree}") == source_at(os.fsencode(tree))
    assert find_source("image:app").root == image.root
    assert find_source(f"image:{image.digest}").digest == image.digest
    assert lock_source(find_source("host")) == []
    for text, refusal in {
        "app": "write host, dir:PATH or image:NAME; did you mean dir:app",
        "dir:": "write host, dir:PATH or image:NAME$",
        "podman:x": "cannot use the source 'podman:x'",
    }.items():
        with pytest.raises(UsageError, match=refusal):
            find_source(text)
    with pytest.raises(NoImageError, match="cannot find the image x"):
        find_source("image:x")


def test_an_image_is_as_its_directory(
    manifest_of_image: Path, tree: Path, whitelist: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects the manifest of an image: as that of the directory, but for what it records of the source."""
    manifest = read_manifest(manifest_of_image)
    assert manifest.header.source == find_source("image:app").recorded
    of_directory = resolve([whitelist], root=os.fsencode(tree), backend="dpkg")
    assert of_directory.header.source == "directory"
    assert replace(of_directory, header=manifest.header) == manifest
    assert [entry.path for entry in manifest.files if entry.origin == "package"] == [
        b"/", b"/bin", b"/bin/busybox", b"/usr", b"/usr/lib", b"/usr/lib/library"
    ]  # fmt: skip
    words = ["run", "--source", "image:app", str(manifest_of_image), "--", "/bin/busybox"]
    assert main([*words, "cat", "/usr/lib/library"]) == 0
    assert capfd.readouterr().out == "abc"


VERBS = {
    "run": (["run", "M", "--", "true"], 125),
    "mounts": (["mounts", "M"], 2),
    "verify": (["verify", "M"], 2),
    "check": (["check", "--static", "M"], 2),
    "report": (["report", "--check", "M", "-o", "out.html"], 2),
    "build": (["build", "M", "environment"], 2),
    "why": (["why", "M", "/no/such"], 2),
    "export": (["export", "M", "--format", "spdx"], 2),
}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_it_once(
    verb: str, manifest_of_image: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects users of a manifest of an image who forgot the image: one line names the option."""
    monkeypatch.chdir(manifest_of_image.parent)
    before = sorted(os.listdir("."))
    capfd.readouterr()
    words, status = VERBS[verb]
    assert main([str(manifest_of_image) if word == "M" else word for word in words]) == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "pkgjail: cannot use the manifest with this host: it was made from the image sha"
    )
    assert "--source image:sha256:" in lines[0]
    assert sorted(os.listdir(".")) == before


def test_root_and_source(manifest_of_image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects from two answers to one question."""
    words = ["verify", str(manifest_of_image), "--quick", "--no-extra"]
    assert main([*words, "--root", "/tmp", "--source", "host"]) == 2
    assert "cannot use --root and --source together" in capfd.readouterr().err
    assert main([*words, "--source", "image:app"]) == 0
    assert main(["export", str(manifest_of_image), "--format", "mtree"]) == 0


def test_a_replay_follows_the_name(manifest_of_image: Path, tmp_path: Path, anyone: Caller) -> None:
    """Protects a command line that was run before: the image of its name may be another one by now."""
    if anyone.uid != os.geteuid():
        for path in (tmp_path, *list(tmp_path.parents)[:2]):
            path.chmod(0o755)
    environment = {"PKGJAIL_STORE": str(tmp_path / "store")}
    words = [
        "run",
        "--source",
        "image:app",
        str(manifest_of_image),
        "--",
        "/bin/busybox",
        "cat",
        "/usr/lib/library",
    ]
    for _ in range(2):
        done = anyone.pkgjail(*words, environment=environment)
        assert (done.returncode, done.stdout) == (0, "abc"), done.stderr
    (tmp_path / "b.tar").write_bytes(file("usr/lib/library", b"abd") + END)
    import_image(tmp_path / "b.tar", "app", store=environment["PKGJAIL_STORE"], replace=True)
    done = anyone.pkgjail(*words, environment=environment)
    assert done.returncode == 125
    assert "with the image sha256:" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_jail_keeps_its_image(manifest_of_image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects a running jail, entered anew or replayed, from a removal of its image."""
    words = [SYSTEM_PYTHON, "-m", "pkgjail", "run", "--source", "image:app", str(manifest_of_image), "--"]
    command = ["/bin/busybox", "sh", "-c", "echo in; exec /bin/busybox sleep 60"]
    top = Path(__file__).resolve().parent.parent
    for _ in range(2):
        with subprocess.Popen([*words, *command], stdout=subprocess.PIPE, text=True, cwd=top) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            assert main(["image", "rm", "app"]) == 1
            assert "a process uses it" in capfd.readouterr().err
            process.send_signal(signal.SIGTERM)
    assert main(["image", "rm", "app"]) == 0


def test_an_environment_of_an_image(
    manifest_of_image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects environments: they remember the image."""
    place = str(tmp_path / "environment")
    assert main(["build", "--source", "image:app", str(manifest_of_image), place]) == 0
    capfd.readouterr()
    assert main(["enter", place, "--", "/bin/busybox", "cat", "/usr/lib/library"]) == 0
    assert capfd.readouterr().out == "abc"


def test_a_manifest_of_before(tree: Path, whitelist: str, tmp_path: Path) -> None:
    """Protects manifests that were made with --root before sources were recorded: they still work."""
    made = resolve([whitelist], root=os.fsencode(tree), backend="dpkg")
    old = replace(made, header=replace(made.header, source="", schema=1))
    write_manifest(old, tmp_path / "old.jsonl")
    assert main(["verify", "--root", str(tree), "--quick", "--no-extra", str(tmp_path / "old.jsonl")]) == 0


SMALL = (
    directory("etc") + file("etc/passwd", b"old", mode=0o644) + file("etc/x", b"abc", mode=0o644)
    + file("etc/shadow", b"secret", mode=0o600) + file("bin/busybox", BUSYBOX.read_bytes())
    + symlink("usr", "bin") + file("dev/null") + file("proc/x") + directory("closed", mode=0o750)
    + file("closed/x") + directory("closed/in") + file("closed/in/x") + END
)  # fmt: skip
WHOLE = """\
/ directory 0755
/bin directory 0755
/bin/busybox regular 0755
/closed directory 0750
/dev directory 0755
/etc directory 0755
/etc/group made
/etc/hosts made
/etc/nsswitch.conf made
/etc/passwd made
/etc/resolv.conf made
/etc/shadow regular 0600, no digest
/etc/x regular 0644
/proc directory 0755
/usr symlink 0777
missing /closed/in
missing /closed/in/x
missing /closed/x
"""


def test_the_manifest_of_a_whole_image(store: Path, tmp_path: Path) -> None:
    """Protects exactness: the names that all users may see, and the files that every jail makes."""
    (tmp_path / "small.tar").write_bytes(SMALL)
    image = import_image(tmp_path / "small.tar", store=str(store))
    manifest = whole_image(image)
    assert parse_manifest(dump_manifest(manifest), "m") == manifest
    assert manifest.header.source == f"image:{image.digest}"
    rows = []
    for entry in manifest.files:
        closed = ", no digest" if entry.kind == "regular" and entry.sha256 is None else ""
        kind = "made" if entry.origin == "entry" else f"{entry.kind} {entry.mode:04o}{closed}"
        rows.append(f"{entry.path.decode()} {kind}")
    rows += [f"missing {missing.path.decode()}" for missing in manifest.missing]
    assert "\n".join([*rows, ""]) == WHOLE


def test_a_whole_image_with_half_a_package_database(tree: Path, store: Path) -> None:
    """Protects images whose packages cannot be read, as without os-release: they have all of their files."""
    (tree / "etc/os-release").unlink()
    manifest = whole_image(import_image(tree, store=str(store)))
    assert manifest.header.distribution.id == "linux"
    assert b"/var/lib/dpkg/status" in {entry.path for entry in manifest.files}


def test_a_whole_image_is_entered(store: Path, tmp_path: Path, anyone: Caller) -> None:
    """Protects images without a package database: their names, all of them and no others, twice."""
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    (tmp_path / "small.tar").write_bytes(SMALL)
    import_image(tmp_path / "small.tar", store=str(store))
    environment = {"PKGJAIL_STORE": str(store)}
    find = "cd /; busybox find . -xdev -mindepth 1 | busybox sort"
    for _ in range(2):
        words = ["run", "--env", "PATH=/bin", "--source=image:small", "--", "/bin/busybox", "sh", "-c", find]
        done = anyone.pkgjail(*words, environment=environment)
        assert done.returncode == 0, done.stderr
        names = [line[1:] for line in done.stdout.splitlines()]
        jails_own = {"/dev", "/proc", "/sys", "/tmp"}
        expected = {line.split()[0] for line in WHOLE.splitlines() if not line.startswith("missing")} - {"/"}
        assert set(names) | jails_own == expected | jails_own
    refused = anyone.pkgjail("run", "--source", "host", "--", "true", environment=environment)
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "only an image (--source image:NAME) can be entered as a whole" in refused.stderr


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("run --source image:x -- c", "image:"),
        ("run --source=image:x --cwd --bind a -- c", "image:"),
        ("run --source image:x -- c -- d", "image:"),
        ("run --source image:x m -- c", ""),
        ("run m --source image:x -- c", ""),
        ("run --source image:x --bind=a m -- c", ""),
        ("run -- c --source image:x", "project:"),
        ("run -t -- c", "project:"),
        ("run --source image:x c", ""),
        ("enter --source image:x -- c", ""),
    ],
)
def test_a_command_is_no_manifest(words: str, place: str) -> None:
    """Protects the command of a whole image from being taken for a manifest, and the other way round."""
    given = words.split()
    found = list(with_place_of_manifest(given, make_parsers()[1]))
    end = given.index("--") if "--" in given else 0
    assert found == ([*given[:end], place, *given[end:]] if place else given)
