"""User and group ids in a jail: which calls the kernel refuses, and how, is as outside."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import CommandError
from pkgjail.core.jail_names import ROOT_CAPABILITIES
from pkgjail.jails.groups import unmapped_groups
from pkgjail.jails.run import run_in_jail
from tests.conftest import SYSTEM_PYTHON, Caller
from tests.test_sandbox import jail_options

if TYPE_CHECKING:
    import subprocess

    from pkgjail.core.model import Manifest

_PACKAGES = ("dpkg", "fakeroot", "python3", "tar", "util-linux")


@pytest.fixture(scope="module")
def tools(library: Path) -> str:
    """A manifest of programs that change owners."""
    from pkgjail.api import resolve
    from pkgjail.manifest import write_manifest

    listed = json.dumps(_PACKAGES)
    (library / "ids.toml").write_text(f'include = ["base"]\n[packages]\ndebian = {listed}\n')
    write_manifest(resolve([str(library / "ids.toml")], hashed=False), library / "ids.jsonl")
    (library / "ids.jsonl").chmod(0o644)
    return str(library / "ids.jsonl")


def _place(caller: Caller, name: str) -> Path:
    """Make a directory of the caller's, in which nothing of pkgjail's is."""
    place = caller.home / name
    place.mkdir()
    if caller.uid != os.geteuid():
        os.chown(place, caller.uid, caller.uid)
    return place


_CALLS = """
import os
open("f", "w").close()
descriptor, user, group = os.open("f", os.O_RDONLY), os.getuid(), os.getgid()
calls = [
    (os.chown, "f", user, group), (os.chown, "f", -1, -1), (os.chown, "f", 7, 8), (os.chown, "f", user, 8),
    (os.chown, "f", 7, -1), (os.lchown, "f", 7, 8), (os.fchown, descriptor, 7, 8), (os.setuid, user),
    (os.setgid, group), (os.setuid, 7), (os.setgid, 8),
    (os.setreuid, user, 7), (os.setregid, group, 8), (os.setresuid, -1, -1, 7), (os.setresgid, 8, -1, -1),
    (os.seteuid, 7), (os.setegid, 8), (os.setgroups, []),
]
for call, *arguments in calls:
    try:
        call(*arguments)
        print(call.__name__, *arguments[-2:], "works")
    except OSError as error:
        print(call.__name__, *arguments[-2:], error.strerror)
"""


def test_calls_with_the_ids_of_others_are_refused_as_outside(member: Caller, tools: str) -> None:
    """chown(2), setuid(2) and the like: EPERM, which programs expect, and not EINVAL."""
    place = _place(member, "place")
    outside = member.run([SYSTEM_PYTHON, "-c", _CALLS], cwd=place)
    inside = member.pkgjail("run", "--cwd", tools, "--", "python3", "-c", _CALLS, cwd=place)
    assert (inside.stdout, inside.stderr) == (outside.stdout, "")
    assert inside.stdout.count("works") == 4
    assert inside.stdout.count("Operation not permitted") == 14


def test_root_is_refused_like_others(caller: Caller, tools: str) -> None:
    """Root has no capability in the jail, so it may not change owners either."""
    inside = caller.pkgjail("run", tools, "--", "sh", "-c", f"cd /tmp; python3 -c '{_CALLS}'")
    assert inside.stdout.count("works") == 4, inside.stderr
    assert inside.stdout.count("Operation not permitted") == 14


def test_root_sees_who_owns_a_file(caller: Caller, tools: str) -> None:
    """Root can map all ids; anybody else sees 65534 ("nobody") for the host's root."""
    place = _place(caller, "place")
    (place / "file").write_text("")
    if caller.uid == 0:
        os.chown(place / "file", 1234, 5678)
    words = ("stat", "-c", "%u:%g", "/usr/bin/env", "file")
    ran = caller.pkgjail("run", "--strategy", "binds", "--cwd", tools, "--", *words, cwd=place)
    own = f"{caller.uid}:{os.getegid()}"
    expected = ["0:0", "1234:5678"] if caller.uid == 0 else ["65534:65534", own]
    assert ran.stdout.split() == expected, ran.stderr


def test_a_namespace_of_the_commands_own_answers_by_its_own_rules(member: Caller, tools: str) -> None:
    """There the jail's filter lets the kernel answer: its user 0 may change the owner to 0."""
    script = "touch f; chown 0:0 f && stat -c %u:%g f; chown 7:8 f"
    words = ("unshare", "--user", "--map-root-user", "sh", "-c", script)
    outside = member.run(words)
    inside = member.pkgjail("run", "--cwd", tools, "--", *words, cwd=_place(member, "place"))
    assert (inside.stdout, inside.stderr) == (outside.stdout, outside.stderr)
    assert inside.stdout == "0:0\n"
    assert "Invalid argument" in inside.stderr


_ANSWERED = """
import os, sys
from pkgjail.sandbox import seccomp, syscalls
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
os.set_inheritable(seccomp._install([(seccomp._RETURN, 0, 0, seccomp._ALLOW)], listener=True), True)
os.execv(sys.executable, [sys.executable, "-m", "pkgjail", *sys.argv[1:]])
"""


def test_where_another_process_answers_calls(member: Caller, tools: str) -> None:
    """The kernel allows one filter that does, for example a container's. Calls are refused as without one."""
    script = "cd /tmp; touch f; chown 7:8 f; id -u"
    words = (SYSTEM_PYTHON, "-c", _ANSWERED, "run", tools, "--", "sh", "-c", script)
    ran = member.run(words)
    assert ran.stdout == f"{member.uid}\n", ran.stderr
    assert ran.stderr == "chown: changing ownership of 'f': Operation not permitted\n"


_GROUP_NAMES = """
import contextlib, grp, os
for number in {os.getgid(), *os.getgroups()}:
    try:
        print(grp.getgrgid(number).gr_name)
    except KeyError:
        print("user" if number == os.getgid() else "")
"""


def test_all_groups_of_the_caller_have_their_names(member: Caller, tools: str) -> None:
    """Also if they changed since the last entry, which would otherwise be replayed."""
    for groups in ((50, 60), (60,), (60, 40404)):  # the last one has no name
        member.groups = groups
        outside = member.run([SYSTEM_PYTHON, "-c", _GROUP_NAMES])
        inside = member.pkgjail("run", tools, "--", "cat", "/etc/group")
        names = [line.split(":")[0] for line in inside.stdout.splitlines()]
        assert set(names) == {"root", "nogroup", *outside.stdout.split()}, inside.stderr


_ENTER = """
for name in passwd group subuid subgid; do mount --bind "$1/$name" /etc/$name; done
user=$2 groups=$3; shift 3
exec setpriv --reuid $user --regid $user --groups $user,$groups -- "$@"
"""


def _granted(member: Caller, grants: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `pkgjail` as a member of two groups, on a host with these lines in /etc/subuid and /etc/subgid."""
    etc = member.home / "etc"
    etc.mkdir(exist_ok=True)
    own = {
        "passwd": f"member:x:{member.uid}:{member.uid}::/:/bin/sh\n",
        "group": f"member:x:{member.uid}:\nproject:x:7001:member\nother:x:7002:member\n",
        "subuid": grants,
        "subgid": grants,
    }
    for name, lines in own.items():
        (etc / name).write_text(("" if name.startswith("sub") else Path("/etc", name).read_text()) + lines)
    around = ("unshare", "--mount", "sh", "-ec", _ENTER, "sh", etc, str(member.uid), "7001,7002")
    ran = Caller(os.geteuid(), member.home, member.home, member.home)
    ran._environment = member._environment
    return ran.run([*around, SYSTEM_PYTHON, "-m", "pkgjail", *words], cwd="/")


def test_groups_that_newgidmap_may_map_can_be_given_to_files(member: Caller, tools: str) -> None:
    """A site grants them in /etc/subgid. Any other group answers EPERM."""
    if os.geteuid() != 0:  # who cannot grant ids
        ran = member.pkgjail("run", tools, "--", "sh", "-c", "cd /tmp; touch f; chgrp 1 f")
        assert "Operation not permitted" in ran.stderr
        return
    script = "cd /tmp; touch f; chgrp project f && stat -c %g f; chgrp other f; cat /proc/self/gid_map"
    ran = _granted(member, "member:7001:1\n", "run", tools, "--", "sh", "-c", script)
    assert ran.stdout.split() == ["7001", *[str(member.uid)] * 2, "1", "7001", "7001", "1"], ran.stderr
    assert ran.stderr.count("Operation not permitted") == 1


def test_groups_that_a_jail_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spack's `--build-environment` warns of those to which packages are given."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 60)
    monkeypatch.setattr(os, "getgroups", lambda: [50, 60])
    assert unmapped_groups(["staff", "games", "tty", "no-such-group", "staff"]) == ["staff"]


_AS_ROOT = """
id -u; id -un; grep CapEff /proc/self/status; grep CapEff /proc/1/status
cd /tmp; touch f; chown 5:7 f && stat -c %u:%g f; chown 100000:0 f
mkdir -m 700 g; chown 9:9 g; touch g/h && echo reached
setpriv --reuid 5 --regid 7 --groups 4 sh -c 'id -u; id -G; grep CapEff /proc/self/status'
umount /usr || mount -t tmpfs none /tmp || echo refused
tar -c f | tar -x --to-stdout >/dev/null && tar -c f g | tar -x --one-top-level=x && stat -c %u:%g x/f x/g
"""


@pytest.mark.slow
def test_root_in_a_jail_changes_owners_among_subordinate_ids(member: Caller, tools: str) -> None:
    """The command has few capabilities, in a namespace of its own; init, which has the mounts, has none."""
    if os.geteuid() != 0:  # who cannot grant ids
        ran = member.pkgjail("run", "--map-root", tools, "--", "sh", "-c", _AS_ROOT)
        assert ran.stdout.splitlines()[:3] == ["0", "root", f"CapEff:\t{ROOT_CAPABILITIES:016x}"]
        return
    ran = _granted(
        member, f"{member.uid}:100000:65536\n", "run", "--map-root", tools, "--", "sh", "-c", _AS_ROOT
    )
    lines = ran.stdout.splitlines()
    kept, none = f"CapEff:\t{ROOT_CAPABILITIES:016x}", f"CapEff:\t{0:016x}"
    assert lines == ["0", "root", kept, none, "5:7", "reached", "5", "7 4", none, "refused", "5:7", "9:9"], (
        ran.stderr
    )
    assert "changing ownership of 'f': Operation not permitted" in ran.stderr


def test_root_in_a_jail_without_subordinate_ids(member: Caller, tools: str) -> None:
    """It is user 0 and nobody else, and the caller outside.

    Who runs the tests may have subordinate ids, as useradd(8) gives them; this one is then in no usual range.
    """
    place = _place(member, "place")
    lines = Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else []
    names = {str(member.uid), *(one.pw_name for one in pwd.getpwall() if one.pw_uid == member.uid)}
    other = "4000000000" if names & {line.split(":")[0] for line in lines} else "5"
    script = f"id -u; touch f; stat -c %u:%g f; chown 0:0 f && chown {other}:7 f"
    words = ("run", "--map-root", "--cwd", tools, "--", "sh", "-c", script)
    for _ in range(2):  # the second one is replayed
        ran = member.pkgjail(*words, cwd=place)
        assert ran.stdout.split() == ["0", "0:0"], ran.stderr
        assert ran.stderr == "chown: changing ownership of 'f': Operation not permitted\n"
    assert (place / "f").stat().st_uid == member.uid


_FAKEROOT = """
mkdir -p package/DEBIAN package/usr/bin
echo hello > package/usr/bin/hello
printf 'Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n' \
    > package/DEBIAN/control
chown -R 0:0 package && chown 50005:50007 package/usr/bin/hello
install -o 3 -g 4 package/usr/bin/hello other
cp -a package copy && tar -c package other | tar -x --one-top-level=unpacked
stat -c %u:%g other copy/usr/bin/hello unpacked/other unpacked/package/usr/bin/hello
dpkg-deb --build package >/dev/null
dpkg-deb --contents package.deb | awk '{ print $2, $NF }'
"""


@pytest.mark.slow
def test_fakeroot_packs_what_it_packs_outside(member: Caller, tools: str) -> None:
    """Fakeroot calls chown(2), and goes on only if that is not permitted; tar and dpkg-deb run in it."""
    words = ("fakeroot", "sh", "-ec", _FAKEROOT)
    outside = member.run(words, cwd=_place(member, "out"))
    inside = member.pkgjail("run", "--cwd", tools, "--", *words, cwd=_place(member, "in"))
    assert (inside.stdout, inside.stderr) == (outside.stdout, outside.stderr)
    assert inside.stdout.splitlines()[:4] == ["3:4", "50005:50007", "3:4", "50005:50007"]
    assert inside.stdout.endswith("50005/50007 ./usr/bin/hello\n")


def test_the_library_maps_root(base_manifest: Manifest, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects programs that use the library: this process goes on as it was."""
    options = replace(jail_options(), map_root=True)
    assert run_in_jail(base_manifest, ["sh", "-c", "id -u; id -g; chown 0:0 /tmp"], options).returncode == 0
    assert capfd.readouterr().out == "0\n0\n"
    with pytest.raises(CommandError, match="no such command"):
        run_in_jail(base_manifest, ["no-such-command"], options)
