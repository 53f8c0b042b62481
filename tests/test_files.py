"""The file set of packages: real paths, links that stay inside, missing paths, and the blacklist."""

from __future__ import annotations

import os
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.file_cases import Case, collect, collected
from tests.tree_text import NOBODY, entry_line, in_child, parse_tree, shown, tree

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = [
    Case(
        summary="files listed below a merged /bin stand below /usr/bin, and the link comes with them",
        disk="""
        /bin -> usr/bin
        /usr/bin/sh 0755
        """,
        packages="""
        dash 1 amd64
         /bin/sh
        """,
        expected="""
        /bin symlink usr/bin parent
        /usr/bin/sh regular 0755 package dash:amd64
        """,
    ),
    Case(
        summary="a link that no kept name is listed through stays away",
        disk="""
        /site -> usr/bin
        /lib -> usr/lib
        /usr/bin/a
        /usr/bin/sh
        /usr/lib/
        """,
        packages="""
        a 1 amd64
         /usr/bin/a
         /site/sh
         /lib/gone
        """,
        drops=["sh"],
        expected="""
        /usr/bin/a regular package a:amd64
        dropped /usr/bin/sh by b.ignore:1: sh
        missing /usr/lib/gone absent a:amd64
        """,
    ),
    Case(
        summary="links of a merged /usr are kept where something is, though another package lists them",
        disk="""
        /bin -> usr/bin
        /lib -> usr/lib
        /lib32 -> usr/lib32
        /lib64 -> usr/lib
        /sbin -> usr/sbin
        /usr/sbin -> bin
        /usr/bin/sh 0755
        /usr/lib/ld.so 0755
        /usr/lib32/
        /vmlinuz -> usr/lib/ld.so
        """,
        packages="""
        dash 1 amd64
         /usr/bin/sh
         /usr/lib/ld.so
         /usr/lib32
        outside-base-files 1 amd64
         /bin
         /lib
         /lib64
         /sbin
        """,
        drops=["/sbin"],
        expected="""
        /bin symlink usr/bin parent
        /lib symlink usr/lib parent
        /lib64 symlink usr/lib parent
        /usr/bin/sh regular 0755 package dash:amd64
        /usr/lib/ld.so regular 0755 package dash:amd64
        /usr/lib32 directory package dash:amd64
        /usr/sbin symlink bin parent
        dropped /sbin by b.ignore:1: /sbin
        """,
    ),
    Case(
        summary="a package's directory that the administrator moved: the link is kept, names are real",
        disk="""
        /usr/share/doc -> /data/doc
        /data/doc/a/copyright
        """,
        packages="""
        a 1 amd64
         /usr/share/doc
         /usr/share/doc/a
         /usr/share/doc/a/copyright
        """,
        expected="""
        /data/doc/a directory package a:amd64
        /data/doc/a/copyright regular package a:amd64
        /usr/share/doc symlink /data/doc package a:amd64
        """,
    ),
    Case(
        summary="a chain of links with '..' in a target is followed as the kernel does, each link kept",
        disk="""
        /a -> b
        /b -> c/../d/./
        /c/
        /d -> /e/../../f
        /e/
        /f/x
        """,
        packages="""
        p 1 amd64
         /a/x
        """,
        expected="""
        /a symlink b parent
        /b symlink c/../d/./ parent
        /d symlink /e/../../f parent
        /f/x regular package p:amd64
        """,
    ),
    Case(
        summary="a link in a circle leads nowhere; the link itself is a name like another",
        disk="""
        /a -> b
        /b -> a
        /self -> self/x
        """,
        packages="""
        p 1 amd64
         /a
         /a/x
         /b/x/y
         /self/x
        """,
        expected="""
        /a symlink b package p:amd64
        missing /a/x absent p:amd64
        missing /b/x/y absent p:amd64
        missing /self/x absent p:amd64
        """,
    ),
    Case(
        summary="an absolute link means a path of the root; the host's own file of that name is not seen",
        disk="""
        /etc/link -> /etc/passwd
        /up -> ../../../../../../../../etc
        """,
        packages="""
        p 1 amd64
         /etc/link
         /up/passwd
        """,
        expected="""
        /etc/link symlink /etc/passwd package p:amd64
        missing /etc/passwd absent p:amd64
        """,
    ),
    Case(
        summary="more links in a row than the kernel follows lead nowhere, least of all to the host's /etc",
        disk="\n".join([*(f"/l{n} -> l{n + 1}" for n in range(50)), "/l50 -> /etc"]),
        packages="""
        p 1 amd64
         /l0/passwd
         /l9/passwd
         /l11/passwd
        """,
        expected="""
        missing /etc/passwd absent p:amd64
        missing /l0/passwd absent p:amd64
        missing /l9/passwd absent p:amd64
        """,
    ),
    Case(
        summary="what two packages list is one name with both owners, a conffile if it is one for either",
        disk="""
        /bin -> usr/bin
        /usr/bin/x
        /etc/x.conf
        /etc/y.conf
        /settings -> etc
        """,
        packages="""
        b 1 amd64
         /usr/bin
         /usr/bin/x
         conffile /etc/x.conf
        a 1 amd64
         /usr/bin
         /bin/x
         /etc/x.conf
         conffile /etc/y.conf
        c 1 amd64
         /settings/y.conf
        """,
        expected="""
        /bin symlink usr/bin parent
        /etc/x.conf regular conffile a:amd64 b:amd64
        /etc/y.conf regular conffile a:amd64 c:amd64
        /settings symlink etc parent
        /usr/bin directory package a:amd64 b:amd64
        /usr/bin/x regular package a:amd64 b:amd64
        """,
    ),
    Case(
        summary="what is not there, not for all, or no file is told apart; modes are recorded",
        disk="""
        /closed/ 0700
        /closed/deep/x
        /half/ 0750
        /half/x
        /passable/ 0711
        /passable/x 0600
        /pipe fifo
        /file
        """,
        packages="""
        p 1 amd64
         /closed
         /closed/deep/x
         /half/x
         /passable/x
         /pipe
         /file/x
         /gone
        """,
        expected="""
        /closed directory 0700 package p:amd64
        /passable/x regular 0600 package p:amd64
        missing /closed/deep/x private p:amd64
        missing /file/x absent p:amd64
        missing /gone absent p:amd64
        missing /half/x private p:amd64
        missing /pipe special p:amd64
        """,
    ),
    Case(
        summary="names of any bytes, and a name longer than the disk takes",
        disk=r"""
        /a\x20b/new\x0aline
        /a\x20b/\xff\xfe -> \x0a
        """,
        packages=rf"""
        p 1 amd64
         /a\x20b/new\x0aline
         /a\x20b/\xff\xfe
         /{"n" * 300}
        """,
        expected=rf"""
        /a\x20b/new\x0aline regular package p:amd64
        /a\x20b/\xff\xfe symlink \x0a package p:amd64
        missing /{"n" * 300} absent p:amd64
        """,
    ),
    Case(
        summary="a dropped directory takes all along; a child included again brings back what holds it",
        disk="""
        /doc/a/copyright
        /doc/a/news
        /doc/b/news
        /bin/x
        """,
        packages="""
        p 1 amd64
         /doc
         /doc/a
         /doc/a/copyright
         /doc/a/news
         /doc/b
         /doc/b/news
         /doc/gone
         /bin/x
        q 1 amd64
         /doc
        """,
        drops=["/doc/**", "/doc/", "!copyright", "x"],
        expected="""
        /doc directory package p:amd64 q:amd64
        /doc/a directory package p:amd64
        /doc/a/copyright regular package p:amd64
        dropped /bin/x by b.ignore:4: x
        dropped /doc/a/news by b.ignore:1: /doc/**
        dropped /doc/b by b.ignore:1: /doc/**
        dropped /doc/b/news by b.ignore:1: /doc/**
        dropped /doc/gone by b.ignore:1: /doc/**
        """,
    ),
    Case(
        summary="a rule for directories spares a link and a file of that name",
        disk="""
        /a/x -> /b
        /b/x
        /c/x/y
        """,
        packages="""
        p 1 amd64
         /a/x
         /b/x
         /c/x
         /c/x/y
        """,
        drops=["x/"],
        expected="""
        /a/x symlink /b package p:amd64
        /b/x regular package p:amd64
        dropped /c/x by b.ignore:1: x/
        dropped /c/x/y by b.ignore:1: x/
        """,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.summary)
@pytest.mark.parametrize("uid", sorted({os.geteuid(), os.geteuid() or NOBODY}))
def test_file_set(case: Case, uid: int) -> None:
    """Each row gives the same for root and an ordinary user, although root can see more."""
    with tree(parse_tree(case.disk)) as root:
        assert in_child(lambda: collected(case, root), uid) == dedent(case.expected).strip()


def test_the_directories_that_hold_a_name_come_with_their_own_modes() -> None:
    case = Case(
        summary="", disk="/a/ 01777\n/a/b/ 0555\n/a/b/c", packages="p 1 amd64\n /a/b/c", drops=[], expected=""
    )
    with tree(parse_tree(case.disk)) as root:
        entries = collect(case, root).entries
    assert [entry_line(entry) for entry in entries] == [
        "/ directory parent",
        "/a directory 1777 parent",
        "/a/b directory 0555 parent",
        "/a/b/c regular package p:amd64",
    ]


def test_only_files_that_all_may_read_are_hashed() -> None:
    """Otherwise root would record digests that an ordinary user could not."""
    disk = "/public\n/group 0640\n/d/\n/link -> public\n/closed/ 0700\n/closed/public"
    lines = "p 1 amd64\n /public\n /group\n /d\n /link\n /closed/public"
    asked: list[Sequence[bytes]] = []

    def hasher(paths: Sequence[bytes]) -> dict[bytes, str]:
        asked.append(paths)
        return dict.fromkeys(paths, "digest")

    with tree(parse_tree(disk)) as root:
        entries = collect(Case(summary="", disk=disk, packages=lines, expected=""), root, hasher).entries
    assert asked == [[b"/public"]]
    assert {shown(one.path): (one.sha256, one.size) for one in entries if one.kind == "regular"} == {
        "/group": (None, 2),
        "/public": ("digest", 2),
    }
