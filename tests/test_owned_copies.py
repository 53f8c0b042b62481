"""Files whose owner programs check: a jail shows them as the user's own, with the content of the host's."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import DriftError
from pkgjail.core.model import FileEntry
from pkgjail.jails.owned_copies import owned_copies
from pkgjail.manifest import write_manifest
from tests.manifest_text import files_alone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

_SITE = "Include /etc/crypto-policies/back-ends/openssh.config\nHost site\n    Port 2201\n"
_PACKAGE = "Host package\n    Port 2202\n"
_POLICY = "Host policy\n    Port 2203\n"
_FILES = {
    "etc/ssh/ssh_config": "Include /etc/ssh/ssh_config.d/*.conf\n",
    "etc/ssh/ssh_config.d/10-site.conf": _SITE,
    "usr/lib/systemd/ssh_config.d/20-package.conf": _PACKAGE,
    "usr/share/crypto-policies/openssh.txt": _POLICY,
    "etc/other.conf": "the host's\n",
}
_LINKS = {
    "etc/ssh/ssh_config.d/20-package.conf": "../../../usr/lib/systemd/ssh_config.d/20-package.conf",
    "etc/crypto-policies/back-ends/openssh.config": "/usr/share/crypto-policies/openssh.txt",
    "etc/ssh/ssh_config.d/loop": "loop",
    "lib64": "usr/lib64",
    "lib": "usr/lib",
}


def _programs() -> list[str]:
    """Return the paths of ssh, stat and what they load."""
    names = ["/usr/bin/ssh", "/usr/bin/stat", "/usr/bin/sha256sum", "/usr/bin/sh"]
    shown = subprocess.run(["ldd", *names], capture_output=True, text=True, check=True).stdout
    return [
        *names,
        *sorted({"/usr" + path.removeprefix("/usr") for path in re.findall(r"/\S+\.so\S*", shown)}),
    ]


@pytest.fixture(scope="module")
def tree(library: Path) -> Path:
    """A root of root's (of the caller's, if that is no other user), and its manifest."""
    root = library / "ssh-root"
    for name, content in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for path in _programs():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for number in range(120):  # enough names for an overlay
        (root / f"usr/share/{number}").write_text("")
    for name, text in _LINKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(text)
    (root / "usr/share/hidden").write_text("not in the manifest")
    write_manifest(files_alone(_entries(root)), library / "ssh.jsonl")
    subprocess.run(["chmod", "-R", "a+rX", root, library / "ssh.jsonl"], check=True)
    return root


def _entries(root: Path) -> tuple[FileEntry, ...]:
    at_entry = (b"/etc/group", b"/etc/passwd", b"/etc/nsswitch.conf")
    made = [FileEntry(name, "regular", 0o644, origin="entry") for name in at_entry]
    made.append(FileEntry(b"/", "directory", 0o755))
    for path in root.rglob("*"):
        name = b"/" + os.fsencode(path.relative_to(root))
        mode = path.lstat().st_mode & 0o7777
        if path.is_symlink():
            made.append(FileEntry(name, "symlink", 0o777, target=os.fsencode(os.readlink(path))))
        elif path.is_dir():
            made.append(FileEntry(name, "directory", mode))
        elif path.name != "hidden":
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            made.append(FileEntry(name, "regular", mode, len(content), sha256=digest, origin="include"))
    return tuple(sorted(made, key=lambda entry: entry.path))


_ASK = """
for host in site package policy; do ssh -GT $host | while read -r key value; do
    [ $key = port ] && echo $host $value; done; done
for name in /etc/ssh/ssh_config /etc/ssh/ssh_config.d/10-site.conf /usr/lib/systemd/ssh_config.d/*; do
    stat -c '%u %a' $name; sha256sum $name; done
stat -c %u /etc/other.conf
"""


@pytest.mark.parametrize("plan", ["tree", "mask", "whole", "binds"])
def test_ssh_reads_its_configuration(member: Caller, tree: Path, library: Path, plan: str) -> None:
    """ssh(1) ends with "Bad owner or permissions" if neither root nor the user owns a file it includes."""
    words = ("run", "--root", tree, "--strategy", plan, library / "ssh.jsonl", "--", "sh", "-c", _ASK)
    ran = member.pkgjail(*words)
    digests = [
        f"{hashlib.sha256(_FILES[name].encode()).hexdigest()}  /{name}"
        for name in ("etc/ssh/ssh_config", "etc/ssh/ssh_config.d/10-site.conf")
    ]
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[:3] == ["site 2201", "package 2202", "policy 2203"]
    assert lines[3:7] == [f"{member.uid} 644", digests[0], f"{member.uid} 644", digests[1]]
    assert lines[7] == f"{member.uid} 644"
    others = member.uid if os.geteuid() == member.uid else 65534
    assert lines[9] == str(others)  # so without a copy it would have been refused


def test_a_copy_has_the_content_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the file was written in place after the comparison."""
    path = tmp_path / "etc/ssh/ssh_config"
    path.parent.mkdir(parents=True)
    path.write_text("one")
    entry = FileEntry(
        b"/etc/ssh/ssh_config",
        "regular",
        0o644,
        3,
        sha256=hashlib.sha256(b"one").hexdigest(),
        origin="include",
    )
    root = os.fsencode(tmp_path)
    assert owned_copies([entry], root) == ({}, ())  # it is the caller's own
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    copies, states = owned_copies([entry], root)
    assert copies == {b"/etc/ssh/ssh_config": b"one"}
    assert {state[0] for state in states} == {os.fsencode(path)}
    path.write_text("two")
    with pytest.raises(DriftError, match="ssh_config"):
        owned_copies([entry], root)
    assert owned_copies([entry], root, allow_drift=True)[0] == {b"/etc/ssh/ssh_config": b"two"}
    path.write_bytes(b"x" * ((1 << 20) + 1))
    assert owned_copies([entry], root)[0] == {}  # that is no configuration
    path.unlink()
    assert owned_copies([entry], root) == ({}, ())
