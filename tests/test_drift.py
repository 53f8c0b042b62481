"""Drift: each difference between the manifest's entries and the host is found, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail import api
from pkgjail.api import resolve
from pkgjail.core.entries import MISSING
from pkgjail.core.errors import DriftError, ExitDriftError, JailError, describe_changes
from pkgjail.core.model import Distribution, FileEntry, Manifest, Origin, Verify
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails import strategy
from pkgjail.jails.drift import DriftCheck, compare_host, entries_as_found, find_drift, refuse_drift
from pkgjail.jails.run import prepare_jail, run_in_jail
from pkgjail.storage.baseline import (
    baseline_key,
    load_baseline,
    record_baseline,
    store_baseline,
    take_baseline,
)
from tests.debian_roots import make_root
from tests.manifest_text import files_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pkgjail.core.errors import Change

BUSYBOX = Path("/bin/busybox")
_DIRECTORIES = ("bin", "etc", "usr", "usr/empty", "usr/lib", "var", "var/lib", "proc", "sys", "dev", "tmp")
_CONTENT = {"usr/lib/library": b"abc", "etc/setting": b"on", "var/lib/state": b"1"}


def make_host(root: Path) -> None:
    """Make a root with busybox, a few files and a link, and /usr/lib/undeclared, which no manifest has."""
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(0o755)
    for name, content in {**_CONTENT, "usr/lib/undeclared": b""}.items():
        (root / name).write_bytes(content)
        (root / name).chmod(0o644)
    (root / "usr/lib/link").symlink_to("library")
    shutil.copy(BUSYBOX, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)


def entries_of(root: Path, *, hashed: bool = True) -> tuple[FileEntry, ...]:
    entries = [FileEntry(path=b"/", kind="directory", mode=0o755)]
    entries += [FileEntry(path=b"/" + name.encode(), kind="directory", mode=0o755) for name in _DIRECTORIES]
    for name in (*_CONTENT, "bin/busybox"):
        content = (root / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest() if hashed else None
        mode = (root / name).stat().st_mode & 0o7777
        path = b"/" + os.fsencode(name)
        entries.append(
            FileEntry(
                path=path, kind="regular", mode=mode, size=len(content), sha256=digest, origin="include"
            )
        )
    entries.append(FileEntry(path=b"/usr/lib/link", kind="symlink", mode=0o777, target=b"library"))
    return tuple(sorted(entries, key=lambda entry: entry.path))


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    root.mkdir(mode=0o755)
    make_host(root)
    return root


def rewritten(root: Path, name: str, content: bytes) -> None:
    """Write other content to the same file, so that its directory does not change."""
    before = (root / name).stat()
    (root / name).write_bytes(content)
    os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(root: Path, name: str, content: bytes) -> None:
    """Replace a file by another with the same times and mode, as package managers do."""
    before = (root / name).stat()
    (root / "new").write_bytes(content)
    (root / "new").chmod(before.st_mode & 0o7777)
    os.utime(root / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "new").rename(root / name)


def linked(root: Path, name: str, target: str) -> None:
    if (root / name).is_dir():
        (root / name).rename(root / "tmp/moved")
    else:
        (root / name).unlink()
    (root / name).symlink_to(target)


ALWAYS = [
    pytest.param(lambda _: None, "", id="nothing"),
    pytest.param(lambda root: (root / "usr/lib/new").touch(), "", id="a name added"),
    pytest.param(lambda root: (root / "usr/empty/d").mkdir(), "", id="a directory added"),
    pytest.param(lambda root: (root / os.fsdecode(b"usr/lib/\xff\n")).touch(), "", id="an odd name added"),
    pytest.param(
        lambda root: (root / "usr/lib/undeclared").unlink(),
        "",
        id="a name gone that the manifest does not have",
    ),
    pytest.param(lambda root: (root / "etc/.setting.swp").touch(), "", id="an editor's file"),
    pytest.param(
        lambda root: (root / "etc/setting").write_bytes(b"no"),
        "/etc/setting has other content",
        id="a file of /etc written to",
    ),
    pytest.param(
        lambda root: (root / "usr/lib/library").unlink(), "/usr/lib/library is gone", id="a file gone"
    ),
    pytest.param(lambda root: (root / "usr/empty").rmdir(), "/usr/empty is gone", id="a directory gone"),
    pytest.param(
        lambda root: replaced(root, "usr/lib/library", b"abc"), "", id="a file put there again, the same"
    ),
    pytest.param(
        lambda root: replaced(root, "usr/lib/library", b"xyz"),
        "/usr/lib/library has other content",
        id="a file replaced by one of its size, mode and times",
    ),
    pytest.param(
        lambda root: replaced(root, "usr/lib/library", b"more"),
        "/usr/lib/library has 4 bytes, not 3",
        id="a file replaced by a larger one",
    ),
    pytest.param(
        lambda root: linked(root, "usr/lib/library", "/etc/passwd"),
        "/usr/lib/library is no longer a regular file",
        id="a file replaced by a link",
    ),
    pytest.param(
        lambda root: linked(root, "usr/empty", "/tmp"),
        "/usr/empty is no longer a directory",
        id="a directory replaced by a link",
    ),
    pytest.param(
        lambda root: linked(root, "usr/lib/link", "undeclared"),
        "/usr/lib/link is a link to somewhere else",
        id="a link to somewhere else",
    ),
    pytest.param(lambda root: (root / "var/lib/new").touch(), "", id="a name added where names come and go"),
    pytest.param(
        lambda root: (root / "var/lib/state").unlink(),
        "/var/lib/state is gone",
        id="a file gone from where names come and go",
    ),
]
ON_REQUEST = [
    pytest.param(
        lambda root: rewritten(root, "usr/lib/library", b"xyz"),
        "/usr/lib/library has other content",
        id="a file written to, its times set back",
    ),
    pytest.param(
        lambda root: (root / "usr/lib/library").chmod(0o600),
        "/usr/lib/library has mode 0600, not 0644",
        id="another mode",
    ),
]


def told(changes: Sequence[Change]) -> str:
    rows = describe_changes(changes)
    return "\n".join(f"{path.decode('utf-8', 'backslashreplace')} {found}" for path, found in rows)


def drift_after(root: Path, change: Callable[[Path], object], verify: Verify = "") -> str:
    """Return the drift after a change of the host since a baseline."""
    entries = entries_of(root)
    before = take_baseline(entries, bytes(root))
    change(root)
    return told(find_drift(entries, bytes(root), before, verify=verify))


@pytest.mark.parametrize("verify", ["", "all", "hash"])
@pytest.mark.parametrize(("change", "found"), ALWAYS)
def test_drift_is_found(host: Path, change: Callable[[Path], object], found: str, verify: Verify) -> None:
    """Protects the default comparison, which reads only changed directories."""
    assert drift_after(host, change, verify) == found


@pytest.mark.parametrize("verify", ["all", "hash"])
@pytest.mark.parametrize(("change", "found"), ON_REQUEST)
def test_verification_finds_what_directories_do_not_show(
    host: Path, change: Callable[[Path], object], found: str, verify: Verify
) -> None:
    """Protects `--verify`: the change time of a file cannot be set back."""
    entries = entries_of(host)
    before = take_baseline(entries, bytes(host))
    change(host)
    assert find_drift(entries, bytes(host), before) == ()
    assert told(find_drift(entries, bytes(host), before, verify=verify)) == found


def test_without_a_baseline_every_entry_is_compared(host: Path) -> None:
    """Protects manifests from elsewhere."""
    entries = entries_of(host)
    assert find_drift(entries, bytes(host), None) == ()
    (host / "usr/lib/library").chmod(0o600)
    (host / "etc/setting").unlink()
    assert told(find_drift(entries, bytes(host), None)) == (
        "/etc/setting is gone\n/usr/lib/library has mode 0600, not 0644"
    )


def test_content_is_compared_by_digest(host: Path) -> None:
    """Protects `--verify=hash` without a baseline, when no times can be compared."""
    entries = entries_of(host)
    rewritten(host, "usr/lib/library", b"xyz")
    assert find_drift(entries, bytes(host), None, verify="all") == ()
    assert told(find_drift(entries, bytes(host), None, verify="hash")) == "/usr/lib/library has other content"


def test_without_digests_a_replaced_file_is_drift(host: Path) -> None:
    """Protects from accepting what cannot be verified. `=hash` is an error then."""
    entries = entries_of(host, hashed=False)
    before = take_baseline(entries, bytes(host))._replace(at=time.time_ns())
    replaced(host, "usr/lib/library", b"abc")
    assert told(find_drift(entries, bytes(host), before)) == (
        "/usr/lib/library was changed or replaced, and the manifest has no digest of it"
    )
    with pytest.raises(JailError, match="the manifest has no digests"):
        find_drift(entries, bytes(host), before, verify="hash")


@pytest.mark.parametrize("verify", ["", "hash"])
def test_a_file_without_a_digest_is_first_compared_without_content(host: Path, verify: Verify) -> None:
    """Protects root, who can read files that others may not and that have no digest in a manifest."""
    entries = tuple(
        entry._replace(sha256=None) if entry.path == b"/etc/setting" else entry for entry in entries_of(host)
    )
    check = DriftCheck(verify=verify)
    for _ in range(2):
        assert compare_host(files_alone(entries), bytes(host), check).accepted == ()


@pytest.mark.parametrize("origin", ["alternative", "entry", "parent"])
def test_what_the_jail_makes_itself_is_no_drift(tmp_path: Path, origin: Origin) -> None:
    """It need not be on the host, or can be another there."""
    entry = FileEntry(path=b"/usr/bin/pager", kind="regular", mode=0o644, origin=origin)
    refuse_drift([entry], bytes(tmp_path))  # raises nothing
    with pytest.raises(DriftError, match="/usr/bin/pager is gone"):
        refuse_drift([entry._replace(origin="package")], bytes(tmp_path))


def test_the_entries_as_found(host: Path) -> None:
    """Protects `--allow-drift`.

    Missing names are left out with all below them, others are as they are now.
    """
    entries = entries_of(host)
    (host / "etc/setting").write_bytes(b"off")
    shutil.rmtree(host / "usr/lib")
    os.mkfifo(host / "usr/lib")
    changes = find_drift(entries, bytes(host), None)
    found = {entry.path: entry for entry in entries_as_found(entries, changes, bytes(host))}
    assert found[b"/etc/setting"].size == 3
    assert found[b"/etc/setting"].sha256 is None
    assert not [path for path in found if path.startswith(b"/usr/lib")]
    assert b"/usr/empty" in found


# --- baselines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"[]", b'{"format": 2}', b"[" * 100_000, b'{"format":2,"at":0,"directories":[[]]}'],
)
def test_an_unreadable_baseline_is_ignored(host: Path, content: bytes) -> None:
    """Protects from a half-written or foreign file: all entries are compared then."""
    entries, root = entries_of(host), bytes(host)
    taken = take_baseline(entries, root)
    key = baseline_key(entries, root)
    store_baseline(key, taken)
    assert load_baseline(key) == taken
    place = Path(os.environ["XDG_CACHE_HOME"]) / "pkgjail/baselines" / key
    place.write_bytes(content)
    assert load_baseline(key) is None


def test_another_manifest_or_root_has_another_baseline(host: Path) -> None:
    entries = entries_of(host)
    keys = {baseline_key(entries, b"/a"), baseline_key(entries, b"/b"), baseline_key(entries[1:], b"/a")}
    assert len(keys) == 3


# --- at entry -------------------------------------------------------------------------------


class Heard:
    """A reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Nothing to remember."""

    def warn(self, message: str) -> None:
        """Remember it."""
        self.warnings.append(message)


@pytest.fixture(params=["binds", "whole", "mask", "tree"])
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> JailOptions:
    """Every plan, with an overlay for /usr, which has five names."""
    monkeypatch.setattr(strategy, "_LEAST_NAMES", 5)
    return JailOptions(plan=request.param)


def listing(host: Path, manifest: Manifest, options: JailOptions) -> int:
    return run_in_jail(
        manifest, ["/bin/busybox", "ls", "-R", "/usr", "/etc"], options, root=bytes(host)
    ).returncode


@pytest.mark.parametrize(("change", "found"), ALWAYS)
def test_a_changed_host_is_not_entered(
    host: Path, options: JailOptions, change: Callable[[Path], object], found: str
) -> None:
    """Protects every plan, for the host as `resolve` saw it and as the first entry did."""
    manifest = files_alone(entries_of(host))
    record_baseline(manifest.files, bytes(host))
    jail = prepare_jail(manifest, options, root=bytes(host))
    change(host)
    if not found:
        assert listing(host, manifest, options) == 0
        assert jail.enter(["/bin/busybox", "true"]) == 0
        return
    with pytest.raises(DriftError) as caught:
        listing(host, manifest, options)
    assert told(caught.value.changes) == found
    with pytest.raises(DriftError) as caught:
        jail.run(["/bin/busybox", "true"])
    assert told(caught.value.changes) == found


def test_allowed_drift_is_a_warning_at_each_entry(
    host: Path, options: JailOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    """New names stay hidden, missing ones are missing, replaced files are as they are."""
    manifest = files_alone(entries_of(host))
    record_baseline(manifest.files, bytes(host))
    (host / "usr/lib/new").touch()
    (host / "usr/lib/link").unlink()
    replaced(host, "usr/lib/library", b"more")
    heard = Heard()
    allowing = replace(options, allow_drift=True)
    argv = ["/bin/busybox", "sh", "-c", "ls /usr/lib; cat /usr/lib/library"]
    for _ in range(2):
        assert run_in_jail(manifest, argv, allowing, root=bytes(host), reporter=heard).returncode == 0
    assert capfd.readouterr().out == "library\nmore" * 2
    assert len(heard.warnings) == 2
    assert heard.warnings[0].splitlines() == [
        "entered all the same: the host has changed since the manifest was made:",
        "  /usr/lib/library has 4 bytes, not 3",
        "  /usr/lib/link is gone",
    ]


def test_a_reinstalled_package_gets_a_new_baseline(host: Path) -> None:
    """Protects later entries from reading its directories each time."""
    manifest = files_alone(entries_of(host))
    record_baseline(manifest.files, bytes(host))
    key = baseline_key(manifest.files, bytes(host))
    before = load_baseline(key)
    replaced(host, "usr/lib/library", b"abc")
    assert listing(host, manifest, JailOptions(plan="binds")) == 0
    assert load_baseline(key) != before


def small_root(tmp_path: Path) -> tuple[bytes, list[str]]:
    """Make a Debian root with one package of one file, and a whitelist that names it."""
    root = make_root(
        tmp_path / "host",
        "a 1 amd64",
        files={
            "etc/os-release": "ID=debian\nVERSION_ID=13\n",
            "var/lib/dpkg/info/a.list": "/.\n/usr\n/usr/lib\n/usr/lib/library\n",
            "usr/lib/library": "abc",
        },
    )
    whitelist = tmp_path / "w.toml"
    whitelist.write_text('[packages]\ndebian = ["a"]\n[options]\nessential = false\n')
    return root, [str(whitelist)]


def test_changes_while_resolving_are_found_at_the_first_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from a baseline of a host that differs from the one that was hashed."""
    root, lists = small_root(tmp_path)
    hashed = api._hasher

    def changing(*arguments: Any) -> Any:
        def hasher(paths: Any) -> Any:
            digests = hashed(*arguments)(paths)
            replaced(tmp_path / "host", "usr/lib/library", b"xyz")
            return digests

        return hasher

    time.sleep(0.05)
    monkeypatch.setattr(api, "_hasher", changing)
    manifest = resolve(lists, root=root)
    with pytest.raises(DriftError, match="/usr/lib/library has other content"):
        compare_host(manifest, root, DriftCheck())


def test_a_manifest_from_elsewhere_is_compared_by_content(host: Path) -> None:
    """Protects the first entry: an upgraded file may have the size, mode and times of the old one."""
    manifest = files_alone(entries_of(host))
    replaced(host, "usr/lib/library", b"xyz")
    with pytest.raises(DriftError, match="/usr/lib/library has other content"):
        listing(host, manifest, JailOptions(plan="binds"))
    replaced(host, "usr/lib/library", b"abc")
    assert listing(host, manifest, JailOptions(plan="binds")) == 0
    assert load_baseline(baseline_key(manifest.files, bytes(host))) is not None


def test_another_release_is_named_first(tmp_path: Path) -> None:
    """Protects from a list of thousands of files without the cause."""
    root, lists = small_root(tmp_path)
    manifest = resolve(lists, root=root)
    made = replace(manifest.header, distribution=Distribution(id="debian", version="12"))
    replaced(tmp_path / "host", "usr/lib/library", b"xyz")
    with pytest.raises(DriftError) as caught:
        compare_host(replace(manifest, header=made), root, DriftCheck())
    assert str(caught.value).splitlines()[0] == (
        f"cannot enter the jail: the manifest was made on debian 12, and {os.fsdecode(root)} is debian 13:"
    )


def test_an_unreadable_file_is_no_drift(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects users from root's edits of files that they cannot see: only readable content counts."""
    entries = tuple(e._replace(sha256=None) for e in entries_of(host) if e.path != b"/usr/lib/link")
    before = take_baseline(entries, bytes(host))._replace(at=time.time_ns())
    replaced(host, "usr/lib/library", b"xyz")
    assert find_drift(entries, bytes(host), before) != ()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert find_drift(entries, bytes(host), before) == ()


def test_verification_is_requested_by_name(host: Path) -> None:
    manifest = files_alone(entries_of(host))
    record_baseline(manifest.files, bytes(host))
    rewritten(host, "usr/lib/library", b"xyz")
    assert listing(host, manifest, JailOptions(plan="binds")) == 0
    for verify in ("all", "hash"):
        with pytest.raises(DriftError, match="/usr/lib/library has other content"):
            listing(host, manifest, JailOptions(plan="binds", verify=verify))


# --- at exit --------------------------------------------------------------------------------

# Waits in the jail until the host was changed: a change comes while the command runs, however slow either is.
WAITING = "touch /sync/started; while [ ! -e /sync/changed ]; do sleep 0.02; done; exit 7"
CHANGING = "while [ ! -e {0}/started ]; do sleep 0.02; done; {1}; touch {0}/changed"


def changed_meanwhile(host: Path, sync: Path, change: str, options: JailOptions, heard: Heard) -> int:
    """Run a command in the jail of the host's manifest during `change`, and return its exit status."""
    manifest = files_alone(entries_of(host))
    sync.mkdir()
    bind = UserBind(source=bytes(sync), destination=b"/sync", writable=True)
    environment = {"PATH": "/bin"}
    options = replace(options, binds=(bind,), environment=environment)
    jail = prepare_jail(manifest, options, root=bytes(host), reporter=heard)
    with subprocess.Popen(["/bin/sh", "-ec", CHANGING.format(sync, change)], cwd=host):
        return jail.enter(["/bin/busybox", "sh", "-ec", WAITING])


def test_entries_that_change_while_the_command_runs_are_reported(
    host: Path, tmp_path: Path, options: JailOptions
) -> None:
    """Protects results of half-old, half-new files. Names outside of the manifest do not count."""
    heard = Heard()
    change = "touch usr/lib/new; rm usr/lib/link"
    assert changed_meanwhile(host, tmp_path / "sync", change, options, heard) == 7
    assert [warning.splitlines()[:2] for warning in heard.warnings] == [
        [
            "the host changed while the command ran, which ended with status 7:",
            "  /usr/lib/link is gone",
        ]
    ]


def test_names_that_come_while_the_command_runs_are_not_reported(
    host: Path, tmp_path: Path, options: JailOptions
) -> None:
    """Protects from a warning whenever a package is installed."""
    heard = Heard()
    assert changed_meanwhile(host, tmp_path / "sync", "touch usr/lib/new", options, heard) == 7
    assert heard.warnings == []


def test_a_strict_exit_is_an_error(host: Path, tmp_path: Path) -> None:
    """Protects `--strict-exit`; the command's own status is in the error."""
    options = JailOptions(plan="binds", strict_exit=True)
    with pytest.raises(ExitDriftError) as caught:
        changed_meanwhile(host, tmp_path / "sync", "rm usr/lib/link", options, Heard())
    assert (caught.value.status, caught.value.changes) == (7, ((b"/usr/lib/link", MISSING),))
