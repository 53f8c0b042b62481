"""Devices of the host in a jail: which of them, by which names, and no others."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from pkgjail.api import resolve
from pkgjail.cli.jail_options import named_sets
from pkgjail.cli.main import main
from pkgjail.cli.verbs.mounts import _line
from pkgjail.core import devices
from pkgjail.core.devices import absence_reason, find_devices, pattern_fault
from pkgjail.core.errors import InputError, JailError, ManifestError, PolicyError
from pkgjail.core.globs import expand
from pkgjail.core.model import DevicePattern, FileEntry
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.text import text_path
from pkgjail.export import export_manifest
from pkgjail.jails import device_sets
from pkgjail.jails.run import default_environment, prepare_jail, run_in_jail
from pkgjail.manifest import dump_manifest, parse_manifest, read_manifest, write_manifest
from pkgjail.review.diff import diff_manifests
from pkgjail.review.report.changes import difference_section
from pkgjail.review.report.sections import settings_section
from pkgjail.sandbox.steps import Devices
from tests.conftest import SYSTEM_PYTHON
from tests.debian_roots import make_root
from tests.file_cases import Remembering
from tests.own_dev import with_own_dev

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

# A /dev as of a machine with graphics and InfiniBand. The values are devices whose answers differ.
HOST = {
    "nvidia0": "/dev/full",
    "nvidiactl": "/dev/zero",
    "nvidia-caps/nvidia-cap1": "/dev/full",
    "nvidia.txt": "",
    "dri/card0": "/dev/zero",
    "dri/renderD128": "/dev/full",
    "dri/by-path/pci-0-card": "-> ../card0",
    "dri/by-path/pci-0-secret": "-> ../../secret",
    "infiniband/uverbs0": "/dev/zero",
    "secret": "/dev/zero",
    "gpu": "-> graphics/card0",
    "graphics": "-> dri",
    "loop": "-> loop",
    "out": "-> /proc/self/mem",
    "odd \udcff\n*name": "/dev/zero",
    "log": "-> /run/systemd/journal/dev-log",
}
# Patterns, and the names that they show; links stand with what they lead to.
SHOWN = {
    "/dev/nvidia0": "nvidia0",
    "/dev/nvidia*": "nvidia-caps/nvidia-cap1 nvidia0 nvidiactl",
    "/dev/nvidia?": "nvidia0",
    "/dev/nvidia[0-9]": "nvidia0",
    "/dev/nvidia[!0-9]*": "nvidia-caps/nvidia-cap1 nvidiactl",
    "/dev/nvidia-caps": "nvidia-caps/nvidia-cap1",
    "/dev/dri": "dri/by-path/pci-0-card->../card0 dri/card0 dri/renderD128",
    "/dev/dri/**": "dri/by-path/pci-0-card->../card0 dri/card0 dri/renderD128",
    "/dev/dri/render*": "dri/renderD128",
    "/dev/dri/**/pci-*": "",
    "/dev/dri/by-path": "",
    "/dev/dri/by-path/pci-0-card": "dri/by-path/pci-0-card->../card0 dri/card0",
    "/dev/d*/card?": "dri/card0",
    "/dev/gpu": "dri/card0 gpu->graphics/card0 graphics->dri",
    "/dev/graphics": "dri/by-path/pci-0-card->../card0 dri/card0 dri/renderD128 graphics->dri",
    "/dev/graphics/card0": "dri/card0 graphics->dri",
    "/dev/graphics/card*": "",
    "/dev/g*": "",
    "/dev/dri/by-path/pci-0-secret": "dri/by-path/pci-0-secret->../../secret secret",
    "/dev/odd*": "odd \udcff\n*name",
    "/dev/odd \udcff\n\\*name": "odd \udcff\n*name",
    "/dev/nvidia.txt": "",
    "/dev/absent": "",
    "/dev/loop": "",
    "/dev/out": "",
    "/dev/log": "",
    "/dev/zero": "",
    "/dev/pts": "",
    "/dev/shm": "",
    "/dev/nvidia0/x": "",
}
_FIND = """
import json, os, sys
from pkgjail.core.devices import absence_reason, find_devices
answers = {}
for pattern in json.loads(sys.argv[1]):
    raw = os.fsencode(pattern)
    found = find_devices([raw])
    answers[pattern] = [[(os.fsdecode(one[0]), one[1], os.fsdecode(one[3])) for one in found]]
    answers[pattern].append("" if found else absence_reason(raw))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, library: Path
) -> dict[str, tuple[list[list[str]], str]]:
    """Return what `find_devices` and `absence_reason` answer for `SHOWN` on `HOST`, in one process."""
    from tests.conftest import _caller

    top = tmp_path_factory.mktemp("dev")
    found: dict[str, tuple[list[list[str]], str]] = {}
    for caller in _caller(os.geteuid(), library):
        done = caller.run(with_own_dev(top, HOST, [SYSTEM_PYTHON, "-c", _FIND, json.dumps(list(SHOWN))]))
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("pattern", SHOWN)
def test_patterns_show_exactly_these(pattern: str, answers: dict[str, tuple[list[list[str]], str]]) -> None:
    """Protects the rules: directories, links that are named or brought, wildcards, names of any bytes."""
    found = [name.removeprefix("/dev/") + (f"->{target}" if target else "") for name, _, target in
             answers[pattern][0]]  # fmt: skip
    assert found == _words(SHOWN[pattern])


def _words(text: str) -> list[str]:
    return [text] if "odd" in text else text.split()


def test_an_absence_has_its_reason(answers: dict[str, tuple[list[list[str]], str]]) -> None:
    """Protects the words of errors."""
    assert {pattern: reason for pattern, (_, reason) in answers.items() if reason} == {
        "/dev/absent": "this host has none",
        "/dev/dri/**/pci-*": _NO_CHARACTER,
        "/dev/dri/by-path": "the directory has no character device; name block devices one by one",
        "/dev/g*": _NO_CHARACTER,
        "/dev/graphics/card*": _NO_CHARACTER,
        "/dev/log": "this host has none",
        "/dev/loop": "this host has none",
        "/dev/nvidia.txt": "it is no device",
        "/dev/nvidia0/x": "this host has none",
        "/dev/out": "it leads out of /dev; name the device itself",
        "/dev/pts": "the jail has a file system of its own there",
        "/dev/shm": "the jail has a file system of its own there",
        "/dev/zero": "it is no device",
    }


_NO_CHARACTER = "this host has no character device of such a name; name a block device without a wildcard"


def _made_up(monkeypatch: pytest.MonkeyPatch, kind: int, number: int) -> None:
    """Make every path look like one device, as the tests can make none."""
    fields = (kind | 0o660, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    state = os.stat_result(fields, {"st_rdev": number})
    monkeypatch.setattr(devices, "_lstat", lambda _: state)
    monkeypatch.setattr(devices, "expand", lambda pattern, _: [pattern.replace(b"*", b"a")])


def test_a_block_device_is_shown_only_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects disks, which hold whole file systems, from wildcards."""
    _made_up(monkeypatch, stat.S_IFBLK, os.makedev(8, 0))
    assert find_devices([b"/dev/sd*"]) == ()
    assert find_devices([b"/dev/sda"]) == ((b"/dev/sda", "block", os.makedev(8, 0), b""),)


@pytest.mark.parametrize("minor", [1, 2, 4])
def test_the_memory_of_the_machine_is_never_shown(monkeypatch: pytest.MonkeyPatch, minor: int) -> None:
    """Protects /dev/mem, kmem and port, under whatever name."""
    _made_up(monkeypatch, stat.S_IFCHR, os.makedev(1, minor))
    assert find_devices([b"/dev/harmless", b"/dev/harm*"]) == ()
    assert "memory of the machine" in absence_reason(b"/dev/harmless")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("/etc/passwd", "names nothing below /dev"),
        ("/dev", "names nothing below /dev"),
        ("/dev/", "names nothing below /dev"),
        ("fuse", "names nothing below /dev"),
        ("/dev/fu\0se", "NUL"),
        ("/dev/dri/", "ends in '/'"),
        ("/dev/../etc/x", "not normal"),
        ("/dev//x", "not normal"),
        ("/dev/./x", "not normal"),
        ("/dev/*", "could name every device"),
        ("/dev/**", "could name every device"),
        ("/dev/?*", "could name every device"),
        ("/dev/[a-z]*", "could name every device"),
        ("/dev/a/**/**", "more than once"),
        ("/dev/a[", "without a ']'"),
        ("/dev/a\\", "backslash"),
        ("/dev/nvidia*", ""),
        ("/dev/\\*", ""),
    ],
)
def test_patterns_that_name_nothing_or_everything_are_refused(pattern: str, words: str) -> None:
    fault = pattern_fault(pattern.encode())
    assert words in fault
    assert bool(words) == bool(fault)


_LETTERS = st.text(alphabet="ab*?[]!-", max_size=7)


@given(name=st.text(alphabet="ab*?-]", min_size=1, max_size=6), pattern=_LETTERS)
def test_wildcards_match_as_in_the_standard_library(name: str, pattern: str) -> None:
    """Compares with `fnmatch`, where both have the same syntax.

    On Python 3.9, `fnmatch` cannot be asked about all ranges: for `[[-?]` it raises `re.error`.
    """
    from pkgjail.core.globs import _matches, _tokens

    tokens = _tokens(pattern.encode())
    try:
        expected = fnmatchcase(name, pattern)
    except re.error:
        reject()
    if tokens is not None:
        assert _matches(name.encode(), tokens) == expected


def test_what_the_jail_has_of_its_own_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects each entry from /dev/shm, in which layers and other users may have 100,000s of files."""
    listed: list[bytes] = []
    list_names = os.listdir

    def remember(directory: bytes) -> list[bytes]:
        listed.append(directory)
        return list_names(directory)

    monkeypatch.setattr(os, "listdir", remember)
    find_devices([b"/dev/s*", b"/dev/p*", b"/dev/shm", b"/dev/[r-t]*/**"])
    assert set(listed) >= {b"/dev"}
    assert [one for one in listed if one.startswith((b"/dev/shm", b"/dev/pts"))] == []


def test_a_wildcard_follows_no_link(tmp_path: Path) -> None:
    """Protects from paths outside: a link is a name, and nothing is below it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").touch()
    (tmp_path / "link").symlink_to("/etc")
    start = os.fsencode(tmp_path)
    assert sorted(expand(start + b"/*")) == [start + b"/" + name for name in (b"in", b"in/file", b"link")]
    assert list(expand(start + b"/link/*")) == []
    assert list(expand(start + b"/**/file")) == [start + b"/in/file"]


def test_a_plan_names_its_devices() -> None:
    """Protects `plan --steps`."""
    step = Devices(
        b"/dev", ((b"/dev/dri/card0", "character", 1, b""), (b"/dev/gpu", "link", 0, b"dri/card0"))
    )
    assert _line(step) == "Devices /dev /dev/dri/card0 /dev/gpu"


# --- in a jail ----------------------------------------------------------------------------------


class OwnDev:
    """One caller whose processes have `HOST` as their /dev, and a manifest to enter there."""

    def __init__(self, caller: Caller, manifest: Manifest, top: Path) -> None:
        self.caller = caller
        self.top = top
        top.mkdir()
        os.chown(top, caller.uid, caller.uid)
        write_manifest(manifest, caller.home / "m.jsonl")
        (caller.home / "m.jsonl").chmod(0o644)

    def script(self, script: str, *words: str) -> str:
        """Return the output of a shell script in which `$@` begins a command of pkgjail's."""
        shell = ["sh", "-ec", script, "sh", SYSTEM_PYTHON, "-m", "pkgjail", *words]
        done = self.caller.run(with_own_dev(self.top, HOST, shell))
        return done.stdout + "".join(
            line for line in done.stderr.splitlines(keepends=True) if not line.startswith("pkgjail: warning")
        )


@pytest.fixture
def own_dev(anyone: Caller, base_manifest: Manifest) -> OwnDev:
    return OwnDev(anyone, base_manifest, anyone.home / "dev")


_LIST = "cd /dev; find . -path ./shm -prune -o -path ./pts -prune -o ! -type d -print | sort | tr '\\n' ' '"
_EVERY_JAIL = "./fd ./full ./null ./ptmx ./random ./stderr ./stdin ./stdout ./tty ./urandom ./zero"


def test_a_jail_has_the_named_devices_and_no_others(own_dev: OwnDev) -> None:
    """Protects exactness in /dev, and that devices can be opened although binds are mounted nodev."""
    script = (
        f"{_LIST}; echo; head -c 1 /dev/nvidiactl | od -An -tx1; echo x 2>/dev/null > nvidia0 || echo full"
    )
    words = ("run", "--device", "/dev/nvidia*", "--device", "/dev/gpu", "m.jsonl", "--", "sh", "-c", script)
    names = {*_EVERY_JAIL.split(), "./nvidia0", "./nvidiactl", "./nvidia-caps/nvidia-cap1"}
    names |= {"./gpu", "./graphics", "./dri/card0"}
    first, *answers = own_dev.script('"$@"', *words).splitlines()
    assert first.split() == sorted(names)
    assert answers == [" 00", "full"]


def test_a_shown_device_leads_to_no_other(own_dev: OwnDev) -> None:
    """Protects the devices that were not named, from a command that has one: each line must fail."""
    script = """
    cat /dev/secret
    cat /dev/dri/../secret
    cat /proc/1/root/dev/secret
    mknod /dev/dri/made c 1 5
    mknod /tmp/made c 1 5
    chmod 666 /dev/nvidia0
    rm /dev/nvidia0
    mv /dev/nvidia0 /dev/nvidia1
    ln -s /dev/nvidia0 /dev/dri/made
    ln /dev/nvidia0 /tmp/made
    touch /dev/made
    mkdir /dev/dri/made
    """
    lines = [line.strip() for line in script.strip().splitlines()]
    attempts = "; ".join(f"{line} 2>&1 && echo GOT {line}" for line in lines)
    output = own_dev.script('"$@" || true', "run", "--device", "/dev/nvidia0", "--device", "/dev/dri/card0",
                            "m.jsonl", "--", "sh", "-c", attempts)  # fmt: skip
    assert "GOT" not in output
    said = [line.rpartition(": ")[2] for line in output.splitlines()]
    assert len(said) == len(lines)
    assert set(said) <= {
        "No such file or directory", "Read-only file system", "Operation not permitted", "Permission denied",
        "Invalid cross-device link", "Device or resource busy",
    }  # fmt: skip


def test_devices_that_come_and_go_prevent_replay(own_dev: OwnDev) -> None:
    """Protects from a jail with the devices of an earlier time: a link comes, then leads elsewhere."""
    script = """
    "$@" 'cat /dev/dri/new' || echo none
    ln -s card0 /dev/dri/new; "$@" 'readlink /dev/dri/new'
    ln -sfn renderD128 /dev/dri/new; "$@" 'readlink /dev/dri/new'; "$@" 'readlink /dev/dri/new'
    """
    words = ("run", "--device", "/dev/dri", "m.jsonl", "--", "sh", "-c")
    output = own_dev.script(script, *words)
    assert output.replace("cat: /dev/dri/new: No such file or directory\n", "") == (
        "none\ncard0\nrenderD128\nrenderD128\n"
    )


def test_an_environment_remembers_its_devices(own_dev: OwnDev) -> None:
    """Protects `build --device`, and that `enter` can add more."""
    script = """
    "$@" build --device /dev/infiniband m.jsonl env > /dev/null
    "$@" enter env -- ls -d /dev/infiniband/uverbs0 /dev/nvidia0 || true
    "$@" enter --device /dev/nvidia0 env -- ls -d /dev/infiniband/uverbs0 /dev/nvidia0
    """
    assert own_dev.script(script).splitlines() == [
        "/dev/infiniband/uverbs0",
        "/dev/infiniband/uverbs0",
        "/dev/nvidia0",
        "ls: cannot access '/dev/nvidia0': No such file or directory",
    ]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (b"/dev/pkgjail-test-absent", "cannot show the device /dev/pkgjail-test-absent: this host has none"),
        (b"/dev/pkgjail-test*", "this host has no character device of such a name"),
        (b"/dev/shm", "the jail has a file system of its own there"),
        (b"/etc/passwd", "it names nothing below /dev"),
        (b"/dev/*", "it begins with a wildcard"),
    ],
)
def test_a_device_that_cannot_be_shown_is_an_error(
    base_manifest: Manifest, device: bytes, words: str
) -> None:
    """Protects a caller who needs the device, and one who mistypes it."""
    options = JailOptions(devices=(device,), environment=default_environment())
    with pytest.raises(JailError) as caught:
        run_in_jail(base_manifest, ["true"], options)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", [b"/dev/zero", b"/dev/ptmx", b"/dev/stdin"])
def test_what_every_jail_has_may_be_named(base_manifest: Manifest, name: bytes) -> None:
    options = JailOptions(devices=(name,), environment=default_environment())
    assert run_in_jail(base_manifest, ["test", "-e", os.fsdecode(name)], options).returncode == 0


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        (b"/dev/zero", b"/dev/zero", "show it at its own path with `devices` /dev/zero"),
        (b"/dev/zero", b"/opt/zero", "show it at its own path with `devices` /dev/zero"),
        (b"/dev", b"/dev", "to show devices, use `devices` instead"),
        (b"/dev/shm", b"/dev/shm", "to show devices, use `devices` instead"),
    ],
)
def test_a_bind_of_a_device_names_the_option_for_it(
    base_manifest: Manifest, source: bytes, destination: bytes, words: str
) -> None:
    """Protects from a bind that is there and cannot be opened: binds are nodev."""
    bind = UserBind(source=source, destination=destination, writable=True)
    with pytest.raises(JailError) as caught:
        run_in_jail(base_manifest, ["true"], JailOptions(binds=(bind,), environment=default_environment()))
    assert words in str(caught.value)


# --- in lists and manifests ---------------------------------------------------------------------


def _resolved(tmp_path: Path, text: str) -> Manifest:
    (tmp_path / "gpu.toml").write_text(text)
    return resolve([str(tmp_path / "gpu.toml")], hashed=False, baseline=False)


_GPU = 'include = ["base"]\n[devices]\ninclude = [\n"/dev/pkgjail-test*", "/dev/dri/**"]\n'


def test_a_manifest_has_the_patterns_and_not_the_devices(tmp_path: Path, base_manifest: Manifest) -> None:
    """Protects that a login node and a compute node make the same manifest, of schema 2."""
    manifest = _resolved(tmp_path, _GPU)
    assert manifest.devices == (
        DevicePattern(pattern="/dev/dri/**", rule="gpu.toml:4"),
        DevicePattern(pattern="/dev/pkgjail-test*", rule="gpu.toml:4"),
    )
    assert (manifest.header.schema, base_manifest.header.schema) == (2, 1)
    assert manifest.files == base_manifest.files
    assert manifest.header.policy != base_manifest.header.policy
    data = dump_manifest(manifest)
    assert b'{"kind":"device","pattern":"/dev/dri/**","rule":"gpu.toml:4"}\n' in data
    assert parse_manifest(data, "m") == manifest


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("/dev/*", "begins with a wildcard"),
        ("/etc/passwd", "names nothing below /dev"),
        ("/dev/x\ud800", "is not the text of any bytes"),
    ],
)
def test_a_manifest_with_another_pattern_is_refused(
    base_manifest: Manifest, pattern: str, words: str
) -> None:
    """Protects from a manifest that pkgjail would not have written."""
    header = replace(base_manifest.header, schema=2)
    forged = replace(base_manifest, header=header, devices=(DevicePattern(pattern=pattern, rule="x:1"),))
    with pytest.raises(ManifestError) as caught:
        parse_manifest(dump_manifest(forged), "m")
    assert words in str(caught.value)


def test_a_wrong_pattern_of_a_list_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = 'include = ["base"]\n[devices]\ninclude = ["/dev/*",\n"/dev/dri/"]\nexclude = []\n'
    with pytest.raises(PolicyError) as caught:
        _resolved(tmp_path, text)
    assert [problem.origin for problem in caught.value.problems] == ["gpu.toml:3", "gpu.toml:4", "gpu.toml:5"]


def test_a_list_of_devices_alone_is_for_every_family(tmp_path: Path) -> None:
    (tmp_path / "fuse.toml").write_text('[devices]\ninclude = ["/dev/fuse"]\n')
    manifest = _resolved(tmp_path, 'include = ["fuse.toml"]\n[files]\ninclude = ["/etc/hostname"]\n')
    assert [device.rule for device in manifest.devices] == ["fuse.toml:2"]


def test_a_host_without_any_device_of_a_list_is_told_once(tmp_path: Path) -> None:
    """Protects a user on a node whose driver does not run; it is no drift, and no error."""
    manifest = _resolved(tmp_path, _GPU.replace("dri", "pkgjail-test-dri"))
    notes = Remembering()
    jail = prepare_jail(manifest, reporter=notes)
    assert [jail.enter(["true"]), jail.enter(["true"])] == [0, 0]
    assert notes.warnings == [
        "this host has none of the devices that gpu.toml allows: /dev/pkgjail-test*, /dev/pkgjail-test-dri/**"
    ]


def test_a_manifest_shows_its_devices(own_dev: OwnDev) -> None:
    """Protects entry by a manifest alone, and its replay on a host that gains a device."""
    manifest = replace(read_manifest(own_dev.caller.home / "m.jsonl"), devices=_ALLOWED)
    header = replace(manifest.header, schema=2)
    write_manifest(replace(manifest, header=header), own_dev.caller.home / "m.jsonl")
    script = '"$@" || true; ln -s uverbs0 /dev/infiniband/new; "$@"'
    output = own_dev.script(script, "run", "m.jsonl", "--", "sh", "-c", "cd /dev; ls -d infini*/* gpu dri/*")
    assert [line for line in output.splitlines() if "cannot access" not in line] == [
        "infiniband/uverbs0",
        "infiniband/new",
        "infiniband/uverbs0",
    ]


_ALLOWED = (DevicePattern(pattern="/dev/infiniband/**", rule="fabric.toml:1"),)


def test_a_difference_of_devices_is_shown(
    base_manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects a reviewer: two manifests that differ in devices alone are not the same."""
    header = replace(base_manifest.header, schema=2)
    write_manifest(base_manifest, tmp_path / "old")
    write_manifest(replace(base_manifest, header=header, devices=_ALLOWED), tmp_path / "new")
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert "devices\n  + /dev/infiniband/**\n" in capsys.readouterr().out
    assert main(["diff", "--json", str(tmp_path / "new"), str(tmp_path / "old")]) == 1
    assert json.loads(capsys.readouterr().out)["devices"] == {"removed": ["/dev/infiniband/**"], "added": []}
    assert main(["show", str(tmp_path / "new")]) == 0
    assert "/dev/infiniband/**  " in capsys.readouterr().out
    new, old = read_manifest(tmp_path / "new"), read_manifest(tmp_path / "old")
    assert "/dev/infiniband/**" in difference_section(diff_manifests(old, new))
    assert "/dev/infiniband/**" in settings_section(new, "")


def test_a_format_without_devices_refuses_them(base_manifest: Manifest) -> None:
    """Protects from a jail of another program that lacks devices without a word."""
    allowed = (DevicePattern(pattern="/dev/tty", rule="a:1"), DevicePattern(pattern="/dev/zero", rule="a:2"))
    manifest = replace(base_manifest, devices=allowed, files=())
    for form in ("fstab", "nspawn"):
        with pytest.raises(InputError, match=r"allows devices \(/dev/tty, /dev/zero\)"):
            export_manifest(manifest, form, at=b"/srv/jail")
    assert b"--dev\0/dev\0--ro-bind" in export_manifest(manifest, "bwrap")


# --- libraries of drivers -----------------------------------------------------------------------

_TRIPLET = "usr/lib/x86_64-linux-gnu"


def _driver_root(tmp_path: Path) -> bytes:
    """Return a root where a package has one library of a driver, and a vendor's installer left another."""
    for directory in ("etc", "usr/bin", "opt/other"):
        (tmp_path / directory).mkdir(parents=True)
    return make_root(
        tmp_path,
        "libcuda1 550 amd64; Depends: libgcc",
        "libgcc 12 amd64",
        "unrelated 1 amd64",
        files={
            "etc/os-release": "ID=debian\nVERSION_ID=12\n",
            f"{_TRIPLET}/libcuda.so.1": "owned",
            f"{_TRIPLET}/libgcc_s.so.1": "owned too",
            f"{_TRIPLET}/libnvidia-ml.so.1": "unowned",
            f"{_TRIPLET}/unrelated.so": "",
            "var/lib/dpkg/info/dpkg.list": "",
            "var/lib/dpkg/info/libcuda1.list": f"/{_TRIPLET}/libcuda.so.1\n",
            "var/lib/dpkg/info/libgcc.list": f"/{_TRIPLET}/libgcc_s.so.1\n",
            "var/lib/dpkg/info/unrelated.list": f"/{_TRIPLET}/unrelated.so\n",
        },
    )


def _files(manifest: Manifest) -> dict[str, str]:
    kept = [entry for entry in manifest.files if entry.kind == "regular" and entry.origin != "entry"]
    return {os.path.basename(text_path(entry.path)): entry.origin for entry in kept}


def test_libraries_come_by_their_owners(tmp_path: Path) -> None:
    """Protects drivers of any package's name, with what it requires, and those of a vendor's installer."""
    manifest = resolve(["gpu-nvidia"], root=_driver_root(tmp_path), essential=False, baseline=False)
    assert [package.name for package in manifest.packages] == ["libcuda1", "libgcc"]
    assert _files(manifest) == {
        "libcuda.so.1": "package",
        "libgcc_s.so.1": "package",
        "libnvidia-ml.so.1": "include",
    }
    (edge,) = [edge for edge in manifest.dependencies if edge.target == "libcuda1:amd64"]
    assert (edge.kind, edge.text) == ("whitelist", "/usr/lib/*/libcuda.so*")
    assert edge.source.startswith("gpu-nvidia.toml:")
    assert [device.pattern for device in manifest.devices] == ["/dev/dri/**", "/dev/nvidia*"]
    assert parse_manifest(dump_manifest(manifest), "m") == manifest


def test_a_system_without_the_driver_is_told(tmp_path: Path) -> None:
    """Protects a user who resolves on a node without the driver: the manifest would have no library."""
    notes = Remembering()
    manifest = resolve(
        ["gpu-amd"], root=_driver_root(tmp_path), essential=False, baseline=False, reporter=notes
    )
    assert manifest.packages == ()
    assert [text for text in notes.warnings if "gpu-amd.toml: the system has none of the files" in text]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("usr/lib/x", "is relative"), ("/usr/**/a/**", "more than once"), ("/usr/lib/[", "without a ']'")],
)
def test_a_wrong_pattern_of_owners_is_an_error(tmp_path: Path, pattern: str, words: str) -> None:
    with pytest.raises(PolicyError, match="gpu.toml:3: .*" + re.escape(words)):
        _resolved(tmp_path, f'include = ["base"]\n[files]\nowners = ["{pattern}"]\n')


def test_a_set_needs_its_libraries_and_its_devices(own_dev: OwnDev, base_manifest: Manifest) -> None:
    """Protects from a jail with a card and no driver, or with a driver and no card."""
    driver = (
        FileEntry(b"/usr/lib/x", "directory", 0o755, origin="include"),
        FileEntry(b"/usr/lib/x/libcuda.so.1", "symlink", 0o777, target=b"libcuda.so.550", origin="include"),
    )
    files = sorted([*base_manifest.files, *driver])
    write_manifest(replace(base_manifest, files=tuple(files)), own_dev.caller.home / "driver.jsonl")
    script = """
    "$@" --gpus nvidia m.jsonl -- true || true
    "$@" --gpus intel m.jsonl -- true || true
    "$@" --fabric m.jsonl -- true || true
    "$@" --gpus amd m.jsonl -- true || true
    "$@" --allow-drift --gpus nvidia driver.jsonl -- ls /dev/nvidia0 /dev/dri/card0 || true
    """
    output = own_dev.script(script, "run")
    lacks = "the manifest has none of the files by which their libraries are found"
    assert [line.partition(" (")[0] for line in output.splitlines() if "cannot" in line] == [
        f"pkgjail: cannot show the devices of gpu-nvidia: {lacks}",
        f"pkgjail: cannot show the devices of gpu-intel: {lacks}",
        f"pkgjail: cannot show the devices of fabric: {lacks}",
        "pkgjail: cannot show the devices of gpu-amd: this host has none",
    ]
    assert "or show the devices alone with --device /dev/nvidia*" in output
    assert output.startswith("/dev/dri/card0\n/dev/nvidia0\n")


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("fabric", "/dev/infiniband/**, /dev/hfi1*, /dev/cxi*, /dev/knem, /dev/xpmem"),
        ("gpu-nvidia", "/dev/nvidia*"),
        ("gpu-amd", "/dev/kfd"),
        ("gpu-intel", "/dev/dri/**"),
    ],
)
def test_a_set_of_which_the_host_has_nothing_is_an_error(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, name: str, patterns: str
) -> None:
    """Protects from another vendor's card in /dev/dri, which proves nothing for NVIDIA and AMD."""

    def only_others(wanted: list[bytes]) -> tuple[object, ...]:
        return ("a card",) if len(wanted) > 1 and b"/dev/dri/**" in wanted else ()

    monkeypatch.setattr(device_sets, "find_devices", only_others)
    with pytest.raises(JailError, match=re.escape(f"this host has none ({patterns}); ")):
        run_in_jail(base_manifest, ["true"], JailOptions(device_sets=(name,)))


@pytest.mark.parametrize("name", ["no-such-list", "base"])
def test_a_set_is_a_shipped_list_with_devices(base_manifest: Manifest, name: str) -> None:
    with pytest.raises(JailError, match=f"cannot show the devices of {name}: "):
        run_in_jail(base_manifest, ["true"], JailOptions(device_sets=(name,)))


def test_a_list_is_resolved_with_the_sets_of_the_command_line() -> None:
    """Protects `run --gpus nvidia spack`: what resolves the list resolves the driver's libraries too."""
    arguments = argparse.Namespace(gpus=["nvidia", "amd", "nvidia"], fabric=True)
    assert named_sets(arguments) == ("gpu-nvidia", "gpu-amd", "fabric")
