"""The exports: each is read by the program that it is for, and shows or finds exactly the manifest.

Names are as odd as names may be, and content, modes and links are compared, not names alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from pkgjail.api import resolve
from pkgjail.cli.main import main
from pkgjail.core.errors import InputError, NamesError
from pkgjail.core.model import FileEntry, Manifest
from pkgjail.core.text import raw_path, text_path
from pkgjail.export import export_manifest
from pkgjail.export.bwrap import MOST
from pkgjail.export.skeleton import write_skeleton
from pkgjail.jails.run import content_at_entry
from pkgjail.manifest import write_manifest
from tests.conftest import NOBODY, SYSTEM_PYTHON
from tests.manifest_strategies import manifests
from tests.manifest_text import files_alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import Caller

BUSYBOX = Path("/bin/busybox")

# Every name is the name of a file, of a file in a directory and of a link (see `odd_tree`).
FIT = (
    b" blanks  ", b"  ", b"tab\t", b"\x01\x1b\x7f", b"back\\slash\\", b"\\", b"\\040\\n", b"co:lon:",
    b"per%cent%%s%n", b"#hash=*?[x]", b"-dash", b"-", b"+x", b";c", b"\"quo'te\"", b"$HOME ${x} ~",
    "é\u2028\u0085\ufeffü\U0001f600".encode(), b"plain",
)  # fmt: skip
LINE_ENDS = (b"new\nline", b"carriage\r", b"\\\r\n\\")
NOT_UTF8 = (b"\xff\xfe not", b"\xed\xb3\xbf")

KERNEL_AND_SCRATCH = {b"/dev", b"/proc", b"/sys", b"/tmp"}


def directory(path: bytes, mode: int = 0o755) -> FileEntry:
    return FileEntry(path=path, kind="directory", mode=mode)


def regular(path: bytes, content: bytes, mode: int = 0o644) -> FileEntry:
    digest = hashlib.sha256(content).hexdigest()
    return FileEntry(path=path, kind="regular", mode=mode, size=len(content), sha256=digest)


def symlink(path: bytes, target: bytes) -> FileEntry:
    return FileEntry(path=path, kind="symlink", mode=0o777, target=target)


def manifest_of(*entries: FileEntry) -> Manifest:
    files = tuple(sorted(entries, key=lambda entry: entry.path))
    return files_alone(files, whitelists=["odd"])


def odd_tree(root: Path, names: Sequence[bytes]) -> Manifest:
    """Make a tree with such names below `root`, and more than its manifest has; give that.

    /usr/bin/busybox is a program that needs nothing else, to look at the tree from inside.
    """
    contents = {b"/usr/bin/busybox": BUSYBOX.read_bytes(), b"/closed/file": b"closed"}
    entries = [
        *map(directory, (b"/", b"/usr", b"/usr/bin", b"/etc", b"/odd", b"/var", b"/run")),
        directory(b"/proc", 0o555),
        directory(b"/closed", 0o555),
        directory(b"/empty", 0o2775),
        directory(b"/root", 0o700),
        directory(b"/tmp", 0o1777),
        directory(b"/var/tmp", 0o1777),
        regular(b"/usr/bin/busybox", contents[b"/usr/bin/busybox"], 0o755),
        regular(b"/closed/file", b"closed", 0o600),
        symlink(b"/bin", b"usr/bin"),
        FileEntry(path=b"/etc/hosts", kind="regular", mode=0o644, origin="entry"),
    ]
    for name in names:
        contents[b"/odd/" + name] = b"1" + name
        contents[b"/odd/d" + name + b"/" + name] = b"2" + name
        entries += [
            regular(b"/odd/" + name, b"1" + name),
            directory(b"/odd/d" + name),
            regular(b"/odd/d" + name + b"/" + name, b"2" + name, 0o755),
            symlink(b"/odd/l" + name, name + b"/to"),
        ]
    manifest = manifest_of(*entries)
    place = os.fsencode(root)
    for entry in manifest.files:
        path = place + entry.path
        if entry.kind == "directory":
            os.makedirs(path, exist_ok=True)
        elif entry.kind == "symlink":
            os.symlink(entry.target or b"", path)
        else:
            Path(os.fsdecode(path)).write_bytes(contents.get(entry.path, b"the host's own"))
            os.chmod(path, entry.mode)
    (root / "odd/hidden").write_bytes(b"hidden")
    (root / "var/hidden").mkdir()
    for entry in manifest.files:
        if entry.kind == "directory":
            os.chmod(place + entry.path, entry.mode)
    return manifest


# --- the launchers ------------------------------------------------------------------------------

# Run from a user's home, where `export` is and `at` is the skeleton. What is behind them runs
# inside. systemd-nspawn wants real root and a writable /run; it is given one of its own.
_FSTAB = (
    "findmnt --verify --tab-file export >&2 && mount --all --fstab export && "
    'exec /usr/sbin/chroot at "$@"'  # which is not in an ordinary user's PATH
)
_NSPAWN = (
    "mount -t tmpfs run /run && mkdir -p /run/systemd/nspawn && cp export /run/systemd/nspawn/at.nspawn "
    '&& exec systemd-nspawn --quiet --register=no --keep-unit --console=pipe --directory=at "$@"'
)
LAUNCHERS = {
    "bwrap": ["sh", "-c", 'exec bwrap --args 9 -- "$@" 9<export', "sh"],
    "fstab": ["sh", "-c", _FSTAB, "sh"],
    "nspawn": ["sh", "-c", _NSPAWN, "sh"],
}
OWN_NAMESPACE = {0: ["unshare", "--mount", "--propagation=private"]}
MAPPED_ROOT = ["unshare", "--mount", "--map-root-user", "--pid", "--fork"]

# Who can use which launcher: real root all of them, an ordinary user the first two.
USES = [
    *((form, "user") for form in ("bwrap", "fstab")),
    *((form, "caller") for form in LAUNCHERS if os.geteuid() == 0),
]


def launch(form: str, user: Caller, *command: str) -> bytes:
    """Run `command` inside, and give its output."""
    before = [] if form == "bwrap" else OWN_NAMESPACE.get(user.uid, MAPPED_ROOT)
    options = user.options(text=False, errors=None, stdin=subprocess.DEVNULL)
    done = subprocess.run([*before, *LAUNCHERS[form], *command], **options, check=False)
    assert done.returncode == 0, done.stderr
    output: bytes = done.stdout
    return output


def seen(archive: bytes) -> dict[bytes, str]:
    """Return the contents of a tar file, in the form of `described`."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as tar:
        for item in tar:
            path = b"/" + raw_path(item.name).rstrip(b"/")
            if item.issym():
                found[path] = f"link {raw_path(item.linkname)!r}"
            elif item.isdir():
                found[path] = f"directory {item.mode:04o}"
            else:
                file = tar.extractfile(item)
                assert file is not None, path
                found[path] = f"regular {item.mode:04o} {hashlib.sha256(file.read()).hexdigest()}"
    return found


def described(entries: Sequence[FileEntry], at_entry: bytes) -> dict[bytes, str]:
    """Return what a manifest says of its names, with the digests of files made at entry."""
    made = hashlib.sha256(at_entry).hexdigest()
    return {
        entry.path: f"link {entry.target!r}"
        if entry.kind == "symlink"
        else f"directory {entry.mode:04o}"
        if entry.kind == "directory"
        else f"regular {entry.mode:04o} {entry.sha256 or made}"
        for entry in entries
    }


@pytest.mark.parametrize(("form", "who"), USES)
def test_a_launcher_shows_exactly_the_manifest(form: str, who: str, request: pytest.FixtureRequest) -> None:
    """Names, kinds, modes, contents and links are the manifest's, whatever bytes a name has."""
    user: Caller = request.getfixturevalue(who)
    names = FIT if form == "nspawn" else (*FIT, *LINE_ENDS, *NOT_UTF8)
    manifest = odd_tree(user.home / "root", names)
    write_manifest(manifest, user.home / "m.jsonl")
    subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)
    arguments = ["--root", "root", "--format", form, "--at", "at", "--skeleton", "-o", "export"]
    done = user.pkgjail("export", "m.jsonl", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    if user.uid != 0:  # the host's /sys has mounts below it, which a user namespace must not uncover
        without_sys(user.home / "export")

    top = launch(form, user, "/usr/bin/busybox", "find", "/", "-maxdepth", "1", "-mindepth", "1", "-print0")
    tops = {entry.path for entry in manifest.files if entry.path.count(b"/") == 1} - {b"/"}
    assert set(top.split(b"\0")) - {b""} == tops | KERNEL_AND_SCRATCH

    # Of /run systemd-nspawn makes its own.
    compared = [e for e in manifest.files if e.path not in {b"/", b"/proc", b"/run"}]
    walked = sorted({os.fsdecode(path[1:]) for path in tops - {b"/proc", b"/run"}})
    archive = launch(form, user, "/usr/bin/busybox", "tar", "-c", "-C", "/", "-f", "-", *walked)
    hosts = b"127.0.0.1\tlocalhost pkgjail\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    assert seen(archive) == described(compared, hosts)


def without_sys(export: Path) -> None:
    """Take the line for /sys out of an fstab file; another form has none."""
    lines = export.read_bytes().splitlines(keepends=True)
    export.write_bytes(b"".join(line for line in lines if not line.startswith(b"/sys ")))


@pytest.mark.parametrize(("form", "who"), USES)
def test_what_is_launched_is_read_only(form: str, who: str, request: pytest.FixtureRequest) -> None:
    """The names that a skeleton or bubblewrap makes can't be changed either, and /tmp can."""
    user: Caller = request.getfixturevalue(who)
    write_manifest(odd_tree(user.home / "root", FIT), user.home / "m.jsonl")
    subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)
    arguments = ["--root", "root", "--format", form, "--at", "at", "--skeleton", "-o", "export"]
    assert user.pkgjail("export", "m.jsonl", *arguments).returncode == 0
    if user.uid != 0:
        without_sys(user.home / "export")
    script = (
        "for path in /new /odd/new /etc/hosts /odd/plain /empty/new; do"
        " if echo >$path; then echo $path; fi; done 2>/dev/null; echo >/tmp/new && echo tmp"
    )
    assert launch(form, user, "/usr/bin/busybox", "sh", "-c", script) == b"tmp\n"


@pytest.mark.parametrize(("arguments", "status"), [(MOST + 90, 0), (9001, 1)])
def test_bubblewrap_takes_as_many_arguments_as_we_say(arguments: int, status: int) -> None:
    """Protects `MOST` from a bubblewrap with another limit."""
    bind = b"--ro-bind\0/\0/\0"
    rest = b"--unsetenv\0X\0" * ((arguments - 3) // 2) + b"--new-session\0" * ((arguments - 3) % 2)
    done = subprocess.run(
        ["bwrap", "--args", "0", "true"], input=bind + rest, capture_output=True, check=False
    )
    # The command line itself has three more, the last of which is no option.
    assert done.returncode == status, done.stderr


def test_bubblewrap_runs_a_small_whitelist_of_this_host(tmp_path: Path) -> None:
    """A whitelist that fits into bubblewrap's arguments on every host: a shell and a few tools."""
    (tmp_path / "small.toml").write_text('[packages]\ndebian = ["dash", "coreutils", "findutils", "mawk"]\n')
    lists = ([str(tmp_path / "small.toml")], ["docs", "locales"])
    base = resolve(*lists, essential=False, hashed=False)
    at = os.fsencode(tmp_path / "at")
    write_skeleton(base, at, content_at_entry(base, b"/"), mount_points=False)
    (tmp_path / "export").write_bytes(export_manifest(base, "bwrap", at=at))
    script = "mawk 'BEGIN { print 6 * 7 }' && id -u && find / -xdev | wc -l"
    command = [*LAUNCHERS["bwrap"], "/bin/sh", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    answer, name, names = done.stdout.split()
    assert answer == "42"
    assert name
    within = [e for e in base.files if not re.match(rb"/(dev|proc|sys)/", e.path)]
    assert int(names) == len({entry.path for entry in within} | KERNEL_AND_SCRATCH)


# --- mtree --------------------------------------------------------------------------------------


def unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def read_mtree(data: bytes) -> Iterator[tuple[object, ...]]:
    """An mtree specification with a full path a line, read as mtree(5) says."""
    first, *lines = data.split(b"\n")[:-1]
    assert first == b"#mtree"
    for line in lines:
        path, *words = line.split(b" ")
        keys = dict(word.split(b"=") for word in words)
        kind = {b"dir": "directory", b"file": "regular", b"link": "symlink"}[keys.pop(b"type")]
        size, digest, link = (keys.pop(key, None) for key in (b"size", b"sha256digest", b"link"))
        yield (
            unescaped(path)[1:] or b"/",
            kind,
            int(keys.pop(b"mode"), 8),
            None if size is None else int(size),
            None if digest is None else digest.decode(),
            None if link is None else unescaped(link),
        )
        assert not keys


@pytest.mark.slow
@given(manifests())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_manifest_comes_back_from_mtree(manifest: Manifest) -> None:
    """Nothing that mtree has a word for is lost."""
    expected = [(e.path, e.kind, e.mode, e.size, e.sha256, e.target) for e in manifest.files]
    assert list(read_mtree(export_manifest(manifest, "mtree"))) == expected


@pytest.mark.slow
@given(manifests(with_devices=False))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_manifest_comes_back_from_fstab_and_bwrap(manifest: Manifest) -> None:
    """Every file of the host is mounted once, at its own path, and nothing else of the host is."""
    if stands_where_the_jail_mounts(manifest):
        for form in ("fstab", "bwrap"):
            with pytest.raises(InputError, match="the jail mounts its own file system there"):
                export_manifest(manifest, form, root=b"/r o\\ot")
        return
    wanted = [
        (b"/r o\\ot" + entry.path, entry.path)
        for entry in manifest.files
        if entry.kind == "regular" and entry.path.split(b"/")[1] not in {b"dev", b"proc", b"sys"}
    ]
    lines = export_manifest(manifest, "fstab", root=b"/r o\\ot", at=b"/a\tt").split(b"\n")
    fields = [line.split(b" ") for line in lines if b" none bind,ro,nosuid,nodev,nofail " in line]
    assert [len(found) for found in fields] == [6] * len(fields)
    mounted = [tuple(map(unescaped, found[:2])) for found in fields]
    assert mounted == [(b"/a\tt", b"/a\tt"), *((source, b"/a\tt" + path) for source, path in wanted)]
    words = export_manifest(manifest, "bwrap", root=b"/r o\\ot").split(b"\0")
    assert pairs_after(words, b"--ro-bind") == [*wanted, (b"/sys", b"/sys")]


@pytest.mark.slow
@given(manifests(with_devices=False))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_manifest_comes_back_from_nspawn(manifest: Manifest) -> None:
    """Every file of the host is bound once at its own path, or the names that cannot be are listed."""
    wanted = [
        entry.path
        for entry in manifest.files
        if entry.kind == "regular" and entry.path.split(b"/")[1] not in {b"dev", b"proc", b"sys"}
    ]
    if stands_where_the_jail_mounts(manifest):
        with pytest.raises(InputError, match="the jail mounts its own file system there"):
            export_manifest(manifest, "nspawn", root=b"/r: \\")
        return
    if unfit := sum(map(is_unfit_for_settings, wanted)):
        with pytest.raises(InputError) as refused:
            export_manifest(manifest, "nspawn", root=b"/r: \\")
        assert len(refused.value.problems) == unfit
        return
    lines = export_manifest(manifest, "nspawn", root=b"/r: \\").split(b"\n")
    values = [line.partition(b"=")[2] for line in lines if line.startswith(b"BindReadOnly=")]
    # A colon ends a field, and a backslash takes the next byte as it is.
    fields = [re.findall(rb"(?s)(?:[^:\\]|\\.)+", value) for value in values]
    bound = [[re.sub(rb"(?s)\\(.)", rb"\1", field) for field in found] for found in fields]
    assert bound == [[b"/r: \\" + path, path, b"norbind"] for path in wanted]


def stands_where_the_jail_mounts(manifest: Manifest) -> bool:
    """Whether a name is no directory where each of these forms mounts a file system: all refuse it."""
    kernels = {b"/dev", b"/proc", b"/sys", b"/tmp"}
    return any(entry.path in kernels and entry.kind != "directory" for entry in manifest.files)


def is_unfit_for_settings(path: bytes) -> bool:
    text = path.decode("utf-8", "replace")
    return text.encode() != path or "\n" in text or "\r" in text


def pairs_after(words: list[bytes], option: bytes) -> list[tuple[bytes, bytes]]:
    """The two values of each `option`; a link's target that looks like it is not one."""
    twos = {b"--ro-bind", b"--symlink", b"--setenv", b"--chmod"}
    ones = {
        b"--dir",
        b"--perms",
        b"--tmpfs",
        b"--proc",
        b"--dev",
        b"--remount-ro",
        b"--hostname",
        b"--cap-drop",
    }
    found, rest = [], iter(words)
    for word in rest:
        values = [next(rest) for _ in range(2 * (word in twos) + (word in ones))]
        if word == option:
            found.append((values[0], values[1]))
    return found


@pytest.fixture
def odd(tmp_path: Path) -> Manifest:
    """An odd tree in `root`, with its manifest and the export's place beside it."""
    manifest = odd_tree(tmp_path / "root", (*FIT, *LINE_ENDS, *NOT_UTF8))
    write_manifest(manifest, tmp_path / "m.jsonl")
    return manifest


def export(form: str, place: Path) -> Path:
    """Export the manifest of `place` by the command."""
    path = place / "export"
    arguments = ["--format", form, "--root", str(place / "root"), "-o", str(path)]
    assert main(["export", str(place / "m.jsonl"), *arguments]) == 0
    return path


def test_bsdtar_archives_what_the_mtree_names(odd: Manifest, tmp_path: Path) -> None:
    """With libarchive, bsdtar reads every name and link, and takes nothing that is beside them."""
    path = export("mtree", tmp_path)
    # A locale's character set is asked of every name that goes into a pax archive.
    command = ["bsdtar", "--format=gnutar", "-cf", "-", f"@{path}"]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=tmp_path / "root", env=environment, capture_output=True, check=True)
    found = {re.sub(rb"^/\.(?=/|$)", b"", path) or b"/": line for path, line in seen(done.stdout).items()}
    assert found == described(odd.files, b"the host's own")


def test_mtree_finds_what_changed(odd: Manifest, tmp_path: Path) -> None:
    """NetBSD's mtree agrees with an untouched tree, and names what differs."""
    command = ["mtree", "-e", "-f", str(export("mtree", tmp_path)), "-p", str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert odd.files
    (tmp_path / "root/odd/plain").write_bytes(b"1plaim")
    (tmp_path / "root/odd/-").unlink()
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert re.findall(rb"(?m)^(?:missing: )?\S*odd/\S+", done.stdout) == [b"odd/plain:", b"missing: ./odd/-"]


# --- sha256sums ---------------------------------------------------------------------------------


def test_sha256sum_agrees(odd: Manifest, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every digest of the manifest is checked, under every name; a change is found."""
    command = ["sha256sum", "--check", "--strict", str(export("sha256sums", tmp_path))]
    assert "1 file without a digest is left out" in capfd.readouterr().err
    done = subprocess.run(command, cwd=tmp_path / "root", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b": OK\n") == sum(1 for entry in odd.files if entry.sha256)
    (tmp_path / "root/odd/-").write_bytes(b"other")
    done = subprocess.run([*command, "--quiet"], cwd=tmp_path / "root", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"./odd/-: FAILED\n")


def test_sha256sum_agrees_on_this_host(tmp_path: Path) -> None:
    """The same for the shipped whitelist `base` and the host's own files."""
    path = tmp_path / "base.sha256"
    path.write_bytes(export_manifest(resolve(["base"]), "sha256sums"))
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", path], cwd="/", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# --- landlock -----------------------------------------------------------------------------------

# Applies read rules as Spack's sandbox does, then says what it gets for opening each path.
RESTRICT = r"""
import ctypes, json, os, stat, struct, sys
rules, asked = json.load(sys.stdin)
call = ctypes.CDLL(None, use_errno=True).syscall
EXECUTE, READ_FILE, READ_DIR = 1, 4, 8
ruleset = call(444, ctypes.create_string_buffer(struct.pack("Q", EXECUTE | READ_FILE | READ_DIR), 8), 8, 0)
assert ruleset >= 0, os.strerror(ctypes.get_errno())
for path in rules:
    found = os.open(os.path.realpath(path), os.O_PATH | os.O_NOFOLLOW)
    access = EXECUTE | READ_FILE | (READ_DIR if stat.S_ISDIR(os.fstat(found).st_mode) else 0)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, found), 12)
    assert call(445, ruleset, 1, rule, 0) == 0, (path, os.strerror(ctypes.get_errno()))
    os.close(found)
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
assert call(446, ruleset, 0) == 0, os.strerror(ctypes.get_errno())
for path in asked:
    try:
        os.close(os.open(path.encode("utf-8", "surrogateescape"), os.O_RDONLY))
        print("open")
    except OSError as error:
        print(error.strerror)
"""


def landlock_rules(manifest: Manifest, root: Path) -> list[str]:
    """The rules as a YAML reader has them."""
    data = yaml.safe_load(export_manifest(manifest, "landlock", root=os.fsencode(root)))
    assert data["config"]["sandbox"].keys() == {"enable", "allow_read"}
    assert data["config"]["sandbox"]["enable"] is True
    rules = data["config"]["sandbox"]["allow_read"]
    assert isinstance(rules, list)
    return rules


def test_landlock_allows_the_manifest_and_denies_the_rest(anyone: Caller) -> None:
    """With real rules: what the manifest has opens; what it has not is denied, not hidden."""
    root = anyone.home / "root"
    manifest = odd_tree(root, (*FIT, *LINE_ENDS))
    subprocess.run(["chown", "--recursive", f"{anyone.uid}:{anyone.uid}", root], check=True)
    files = [str(root) + text_path(e.path) for e in manifest.files if e.kind == "regular"]
    other = [str(root / "odd/hidden"), str(root / "var"), str(root / "odd"), str(root), "/etc/passwd", "/etc"]
    rules = landlock_rules(manifest, root)
    # In a directory that is the manifest's alone, all is allowed by one rule.
    assert str(root / "odd/dplain") in rules
    assert str(root / "odd/dplain/plain") not in rules
    done = anyone.run([SYSTEM_PYTHON, "-c", RESTRICT], input=json.dumps([rules, [*files, *other]]))
    assert done.stderr == ""
    answers = done.stdout.splitlines()
    assert answers == ["open"] * len(files) + ["Permission denied"] * len(other)


def test_landlock_names_no_directory_that_may_fill(tmp_path: Path) -> None:
    """A directory without files is no rule, however complete: /home would be open to all that comes."""
    for name in ("home/sub", "whole/sub", "mixed", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("whole/file", "mixed/file", "mixed/other", "tmp/file"):
        (tmp_path / name).touch()
    (tmp_path / "resolv").symlink_to("mixed/other")
    paths = (b"/home", b"/home/sub", b"/whole", b"/whole/sub", b"/mixed", b"/tmp")
    at_entry = [
        FileEntry(path=path, kind="regular", mode=0o644, origin="entry") for path in (b"/resolv", b"/no")
    ]
    manifest = manifest_of(
        *map(directory, (b"/", *paths)), regular(b"/whole/file", b""), regular(b"/mixed/file", b""), *at_entry
    )
    manifest = manifest_of(*manifest.files, directory(b"/gone"))
    # /no is not on the host; what it has for /resolv is a link, which Spack follows.
    assert landlock_rules(manifest, tmp_path) == [
        f"{tmp_path}/{name}" for name in ("mixed/file", "resolv", "whole")
    ]
    nothing = export_manifest(manifest_of(directory(b"/")), "landlock", root=os.fsencode(tmp_path))
    assert yaml.safe_load(nothing)["config"]["sandbox"]["allow_read"] == []


def test_landlock_leaves_unreadable_directories_to_their_files(tmp_path: Path) -> None:
    """An unreadable directory is not listed as a whole; here it is no directory on this host."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").touch()
    (tmp_path / "moved").symlink_to("real")
    manifest = manifest_of(*map(directory, (b"/", b"/moved")), regular(b"/moved/file", b""))
    with pytest.raises(InputError, match=r"/moved.* to landlock: missing or of another type"):
        export_manifest(manifest, "landlock", root=os.fsencode(tmp_path))


# --- refusals -----------------------------------------------------------------------------------

MANY = [regular(b"/f%d" % number, b"") for number in range(3000)]
NO_DIGEST = regular(b"/f", b"")._replace(sha256=None)
REFUSED = [
    pytest.param(
        "nspawn", [regular(b"/a\nb", b"")], r"/a\\nb to nspawn: .* cannot express line ends", id="nspawn: LF"
    ),
    pytest.param("nspawn", [regular(b"/a\rb", b"")], r"/a\\rb to nspawn", id="nspawn: CR"),
    pytest.param("nspawn", [regular(b"/\xff", b"")], r"/\\xff to nspawn", id="nspawn: not UTF-8"),
    pytest.param(
        "nspawn",
        [directory(b"/run"), directory(b"/run/x")],
        "/run/x to nspawn: .* its own file system",
        id="nspawn: /run",
    ),
    *(
        pytest.param(
            form, [symlink(path, b"/etc")], f"{path.decode()} to {form}: the jail mounts its own file system"
        )
        for form in ("bwrap", "fstab", "nspawn")
        for path in sorted(KERNEL_AND_SCRATCH)
    ),
    pytest.param(
        "bwrap",
        MANY,
        "9,0.. arguments would be needed for 3,001 names.*use 'pkgjail run'",
        id="bwrap: too many",
    ),
    pytest.param("fstab", [], "name the jail's directory with `at`", id="fstab: where"),
    pytest.param("sha256sums", [NO_DIGEST], "the manifest has no digests", id="sha256sums: none"),
    pytest.param(
        "landlock", [regular(b"/no-such", b"")], "/no-such to landlock: missing", id="landlock: gone"
    ),
    pytest.param(
        "tar",
        [],
        "the formats are apptainer, bwrap, cyclonedx, fstab, landlock, mtree, nspawn, sha256sums, spdx",
        id="unknown",
    ),
]


@pytest.mark.parametrize(("form", "entries", "message"), REFUSED)
def test_what_a_form_cannot_carry_is_refused(form: str, entries: list[FileEntry], message: str) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(InputError, match=message):
        export_manifest(manifest_of(directory(b"/"), *entries), form)


@pytest.mark.parametrize("form", ["bwrap", "fstab", "nspawn"])
def test_a_launcher_mounts_nothing_by_a_link(form: str, tmp_path: Path) -> None:
    """Protects the host from a tmpfs on what a manifest's link leads to, and what is outside of a root."""
    links = [directory(b"/"), directory(b"/var"), symlink(b"/var/tmp", b"/etc")]
    written = export_manifest(manifest_of(*links), form, at=b"/at")
    assert b"/var/tmp" not in written.replace(b"--symlink\0/etc\0/var/tmp", b"")
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr" / "link").symlink_to("/etc/shadow")
    (root / "etc").symlink_to("/etc")
    led = [directory(b"/"), *map(directory, (b"/usr", b"/etc"))]
    led += [regular(path, b"") for path in (b"/usr/link", b"/usr/gone", b"/etc/shadow")]
    with pytest.raises(NamesError, match="now a symbolic link, or reached through one") as refused:
        export_manifest(manifest_of(*led), form, root=os.fsencode(root), at=b"/at")
    assert refused.value.names == (b"/etc/shadow", b"/usr/link")


def test_every_name_is_told(tmp_path: Path) -> None:
    """An error lists every name, for whoever must mend them."""
    manifest = odd_tree(tmp_path, (*FIT, *LINE_ENDS, *NOT_UTF8))
    with pytest.raises(InputError) as refused:
        export_manifest(manifest, "nspawn")
    assert len(refused.value.problems) == 2 * len((*LINE_ENDS, *NOT_UTF8))
    with pytest.raises(InputError) as refused:
        export_manifest(manifest, "landlock", root=os.fsencode(tmp_path))
    # Files and whole directories: what is in a directory needs no rule.
    assert len(refused.value.problems) == 2 * len(NOT_UTF8)
    with pytest.raises(InputError, match=r"cannot export /\\xff to nspawn"):
        export_manifest(manifest_of(directory(b"/"), regular(b"/f", b"")), "nspawn", root=b"/\xff")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["mtree", "--at", "new", "--skeleton"], "--skeleton goes with", id="no skeleton there"),
        pytest.param(["bwrap", "--skeleton"], "--skeleton goes with --at DIR", id="no place"),
        pytest.param(
            ["fstab", "--at", "root", "--skeleton"], "it exists and is not an empty", id="not empty"
        ),
        pytest.param(["fstab", "--at", "m.jsonl", "--skeleton"], "it exists and is not", id="a file"),
        pytest.param(["fstab"], "name the jail's directory with --at", id="fstab without a place"),
    ],
)
@pytest.mark.usefixtures("odd")
def test_bad_usage_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An export comes with its skeleton or not at all."""
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    assert main(["export", "m.jsonl", "-o", "export", "--root", "root", "--format", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert sorted(os.listdir()) == before


def test_files_made_at_entry_are_not_left_out_in_silence(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The export for bubblewrap without a directory for them says so; it goes to standard output."""
    write_manifest(odd_tree(tmp_path / "root", FIT), tmp_path / "m.jsonl")
    assert main(["export", str(tmp_path / "m.jsonl"), "--format", "bwrap"]) == 0
    out, error = capfdbinary.readouterr()
    assert b"1 file made at entry is left out" in error
    assert b"\0/usr/bin/busybox\0/usr/bin/busybox\0" in out
    assert b"/etc/hosts" not in out


def test_a_skeleton_fills_an_empty_directory_and_has_all_mount_points(tmp_path: Path) -> None:
    """A manifest without /tmp, /proc, /sys and /dev gets them, and the directories that a launcher needs."""
    manifest = manifest_of(directory(b"/", 0o711), regular(b"/f", b"x"), symlink(b"/l", b"f"))
    at = tmp_path / "at"
    at.mkdir()
    write_skeleton(manifest, os.fsencode(at), {}, mount_points=True, besides=(b"/run",))
    assert sorted(os.listdir(at)) == ["dev", "f", "l", "proc", "run", "sys", "tmp"]
    assert ((at / "f").read_bytes(), os.readlink(at / "l")) == (b"", "f")
    assert at.stat().st_mode & 0o7777 == 0o711
    assert os.readlink(at / "dev/fd") == "/proc/self/fd"
    words = export_manifest(manifest, "bwrap").split(b"\0")
    assert words[words.index(b"--chmod") :][:3] == [b"--chmod", b"0711", b"/"]
    assert words.count(b"--dir") == len(KERNEL_AND_SCRATCH)


def test_who_runs_the_launchers() -> None:
    """As root, root and an ordinary user use them; no launcher goes untried."""
    expected = set(LAUNCHERS) if os.geteuid() == 0 else {"bwrap", "fstab"}
    assert {form for form, _ in USES} == expected
    assert os.geteuid() != NOBODY or "nspawn" not in expected
