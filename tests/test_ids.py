"""User and group ids in a jail: which calls the kernel refuses, and how, is as outside."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

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
    ran = caller.pkgjail("run", "--plan", "binds", "--cwd", tools, "--", *words, cwd=place)
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
