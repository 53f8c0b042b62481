"""Unowned files: alternatives, generated files, byte code, and the policy's own paths."""

from __future__ import annotations

import os
from textwrap import dedent

import pytest

from tests.file_cases import Case, collected, group, made
from tests.tree_text import NOBODY, in_child, parse_tree, tree

_AWK = group(
    "awk",
    "/usr/bin/awk /usr/share/man/awk.1",
    "5 /usr/bin/mawk /usr/share/man/mawk.1",
    "10 /usr/bin/gawk /usr/share/man/gawk.1",
    "20 /usr/bin/bwk -",
)
_AWK_DISK = """
/usr/bin/awk -> /etc/alternatives/awk
/etc/alternatives/awk -> /usr/bin/gawk
/usr/share/man/awk.1 -> /etc/alternatives/awk.1
/etc/alternatives/awk.1 -> /usr/share/man/gawk.1
/usr/bin/gawk
/usr/share/man/gawk.1
/usr/bin/mawk
/usr/share/man/mawk.1
/usr/bin/bwk
"""
_GAWK = """
gawk 1 amd64
 /usr/bin/gawk
 /usr/share/man/gawk.1
"""
_MAWK = """
mawk 1 amd64
 /usr/bin/mawk
 /usr/share/man/mawk.1
"""
_CHOSEN_BY_US = "alternative(awk (the host's choice is not in the set))"
_NOT_IN = "which is not in the set; name the package instead"

ALTERNATIVES = [
    Case(
        summary="the host's choice is in the set: both ends of its links, slaves too",
        disk=_AWK_DISK,
        packages=_GAWK,
        alternatives=[_AWK],
        expected="""
        /etc/alternatives/awk symlink /usr/bin/gawk alternative(awk) gawk:amd64
        /etc/alternatives/awk.1 symlink /usr/share/man/gawk.1 alternative(awk) gawk:amd64
        /usr/bin/awk symlink /etc/alternatives/awk alternative(awk) gawk:amd64
        /usr/bin/gawk regular package gawk:amd64
        /usr/share/man/awk.1 symlink /etc/alternatives/awk.1 alternative(awk) gawk:amd64
        /usr/share/man/gawk.1 regular package gawk:amd64
        """,
    ),
    Case(
        summary="the host's choice is not: the best candidate inside by priority, and no slave that it lacks",
        disk=_AWK_DISK,
        packages=f"{_MAWK}\nbwk 1 amd64\n /usr/bin/bwk\noutside-gawk 1 amd64\n /usr/bin/gawk",
        alternatives=[_AWK],
        expected=f"""
        /etc/alternatives/awk symlink /usr/bin/bwk {_CHOSEN_BY_US} bwk:amd64
        /usr/bin/awk symlink /etc/alternatives/awk {_CHOSEN_BY_US} bwk:amd64
        /usr/bin/bwk regular package bwk:amd64
        /usr/bin/mawk regular package mawk:amd64
        /usr/share/man/mawk.1 regular package mawk:amd64
        """,
    ),
    Case(
        summary="no candidate in the set: no link",
        disk=_AWK_DISK,
        packages="p 1 amd64\n /usr/share/man/gawk.1\noutside-gawk 1 amd64\n /usr/bin/gawk",
        alternatives=[_AWK],
        expected="/usr/share/man/gawk.1 regular package p:amd64",
    ),
    Case(
        summary="a slave whose target is dropped goes with it; a dropped link is dropped by its rule",
        disk=_AWK_DISK,
        packages=f"{_GAWK}\npager 1 amd64\n /bin/less",
        drops=["/usr/share/man/", "/etc/alternatives/awk"],
        alternatives=[_AWK],
        expected="""
        /usr/bin/awk symlink /etc/alternatives/awk alternative(awk) gawk:amd64
        /usr/bin/gawk regular package gawk:amd64
        dropped /etc/alternatives/awk by b.ignore:2: /etc/alternatives/awk
        dropped /usr/share/man/gawk.1 by b.ignore:1: /usr/share/man/
        missing /bin/less absent pager:amd64
        """,
    ),
    Case(
        summary="a target that a rule drops is no candidate: the next best takes its place",
        disk=_AWK_DISK,
        packages=f"{_GAWK}{_MAWK}",
        drops=["gawk", "man"],
        alternatives=[_AWK],
        expected=f"""
        /etc/alternatives/awk symlink /usr/bin/mawk {_CHOSEN_BY_US} mawk:amd64
        /usr/bin/awk symlink /etc/alternatives/awk {_CHOSEN_BY_US} mawk:amd64
        /usr/bin/mawk regular package mawk:amd64
        dropped /usr/bin/gawk by b.ignore:1: gawk
        dropped /usr/share/man/gawk.1 by b.ignore:2: man
        dropped /usr/share/man/mawk.1 by b.ignore:2: man
        """,
    ),
    Case(
        summary="where the blacklist takes every candidate, that is said",
        disk=_AWK_DISK,
        packages=_GAWK,
        drops=["gawk*"],
        alternatives=[_AWK],
        expected="""
        dropped /usr/bin/gawk by b.ignore:1: gawk*
        dropped /usr/share/man/gawk.1 by b.ignore:1: gawk*
        warns alternatives: the blacklist leaves no candidate for /usr/bin/awk
        """,
    ),
    Case(
        summary="the administrator's own link is no choice of the group; a slave's place is left alone",
        disk="""
        /usr/bin/awk -> /etc/alternatives/awk
        /etc/alternatives/awk -> ../../usr/bin/./gawk
        /usr/bin/gawk
        /usr/share/man/awk.1 -> /opt/own.1
        /etc/alternatives/awk.1 -> /usr/share/man/gawk.1
        /usr/share/man/gawk.1
        /usr/bin/vi -> /opt/vi
        /etc/alternatives/vi -> /usr/bin/nvi
        /usr/bin/nvi
        """,
        packages=f"{_GAWK}\nnvi 1 amd64\n /usr/bin/nvi",
        alternatives=[_AWK, group("vi", "/usr/bin/vi", "1 /usr/bin/nvi")],
        expected=f"""
        /etc/alternatives/awk symlink /usr/bin/gawk alternative(awk) gawk:amd64
        /etc/alternatives/vi symlink /usr/bin/nvi {_CHOSEN_BY_US.replace("awk", "vi")} nvi:amd64
        /usr/bin/awk symlink /etc/alternatives/awk alternative(awk) gawk:amd64
        /usr/bin/gawk regular package gawk:amd64
        /usr/bin/nvi regular package nvi:amd64
        /usr/bin/vi symlink /etc/alternatives/vi {_CHOSEN_BY_US.replace("awk", "vi")} nvi:amd64
        /usr/share/man/gawk.1 regular package gawk:amd64
        """,
    ),
    Case(
        summary="a dangling choice, no /etc/alternatives: the candidate inside, its directories made",
        disk="""
        /bin -> usr/bin
        /usr/bin/mawk
        """,
        packages="mawk 1 amd64\n /bin/mawk\n /etc/alternatives\n /bin/awk",
        alternatives=[group("awk", "/bin/awk", "5 /bin/mawk", "9 /usr/bin/gone")],
        expected=f"""
        /bin symlink usr/bin parent
        /etc/alternatives/awk symlink /bin/mawk {_CHOSEN_BY_US} mawk:amd64
        /usr/bin/awk symlink /etc/alternatives/awk {_CHOSEN_BY_US} mawk:amd64
        /usr/bin/mawk regular package mawk:amd64
        """,
    ),
]

GENERATED = [
    Case(
        summary="made at entry: a name alone, whatever the host has there, with the directory that it needs",
        disk="/etc/resolv.conf -> /run/resolv.conf\n/etc/closed 0600",
        packages="libc 1 amd64\n /usr",
        generated=[
            made("/etc/resolv.conf", at_entry=True),
            made("/etc/closed", "libc", at_entry=True),
            made("/etc/other", "absent", at_entry=True),
            made("/nowhere/passwd", at_entry=True),
        ],
        expected="""
        /etc/closed regular entry(maker) libc:amd64
        /etc/resolv.conf regular entry(maker)
        /nowhere/passwd regular entry(maker)
        missing /usr absent libc:amd64
        """,
    ),
    Case(
        summary="made at entry below a linked directory: the real path, and the link",
        disk="/etc -> data/etc\n/data/etc/x",
        packages="p 1 amd64",
        generated=[made("/etc/passwd", at_entry=True), made("/etc/*", "p")],
        expected="""
        /data/etc/passwd regular entry(maker)
        /data/etc/x regular generated(maker) p:amd64
        /etc symlink data/etc parent
        """,
    ),
    Case(
        summary="the host's own, by glob: not what another package owns, nor what a rule drops",
        disk="""
        /certs/a.pem
        /certs/b.pem -> a.pem
        /certs/c.pem
        /certs/d.pem
        /certs/.hidden.pem
        /certs/e.txt
        /other/x
        """,
        packages="""
        ca 1 amd64
         /certs
        outside 1 amd64
         /certs/c.pem
        """,
        drops=["d.pem"],
        generated=[made("/certs/*.pem", "ca"), made("/other/x", "outside"), made("/none/*", "ca")],
        expected="""
        /certs directory package ca:amd64
        /certs/a.pem regular generated(maker) ca:amd64
        /certs/b.pem symlink a.pem generated(maker) ca:amd64
        dropped /certs/d.pem by b.ignore:1: d.pem
        """,
    ),
    Case(
        summary="a package lists a file of its own row: it is the package's",
        disk="/fonts/10-none.conf\n/fonts/10-rgb.conf",
        packages="fonts 1 amd64\n /fonts\n /fonts/10-none.conf",
        generated=[made("/fonts/10-*.conf", "fonts")],
        expected="""
        /fonts directory package fonts:amd64
        /fonts/10-none.conf regular package fonts:amd64
        /fonts/10-rgb.conf regular generated(maker) fonts:amd64
        """,
    ),
    Case(
        summary="a glob looks through links in the root alone, and not where others may not look",
        disk="/lib -> /etc\n/etc/own.conf\n/closed/ 0711\n/closed/a.conf",
        packages="p 1 amd64",
        generated=[made("/lib/*"), made("/*/a.conf"), made("/closed/*")],
        expected="""
        /closed/a.conf regular generated(maker)
        /etc/own.conf regular generated(maker)
        /lib symlink /etc parent
        """,
    ),
    Case(
        summary="a link to a file that is not in the set: not, nor a link to that link",
        disk="""
        /php/conf.d/in.ini -> ../mods/in.ini
        /php/conf.d/made.ini -> /php/mods/made.ini
        /php/conf.d/out.ini -> ../mods/out.ini
        /php/conf.d/twice.ini -> out.ini
        /php/mods/in.ini
        /php/mods/made.ini
        /php/mods/out.ini
        """,
        packages="php 1 amd64\n /php/mods/in.ini\noutside 1 amd64\n /php/mods/out.ini",
        generated=[made("/php/conf.d/*.ini", "php"), made("/php/mods/made.ini", "php")],
        expected="""
        /php/conf.d/in.ini symlink ../mods/in.ini generated(maker) php:amd64
        /php/conf.d/made.ini symlink /php/mods/made.ini generated(maker) php:amd64
        /php/mods/in.ini regular package php:amd64
        /php/mods/made.ini regular generated(maker) php:amd64
        """,
    ),
    Case(
        summary="files that a script names, in a directory that its package lists",
        disk="""
        /usr/share/gviz/config6a
        /usr/share/gviz/fmt -> config6a
        /usr/share/gviz/gone -> /usr/none
        /usr/share/gviz/site.conf
        /usr/share/gviz/secret 0600
        /usr/share/gviz/tree/config6a
        /usr/share/gviz/config6a.dpkg-old
        /usr/share/gviz/outside.map
        /usr/share/gviz/dropped
        /usr/share/both/cache
        """,
        packages="""
        gviz 1 amd64
         /usr/share/gviz
         /usr/share/both
        other 1 amd64
         /usr/share/both
         /usr/share/gviz
        outside 1 amd64
         /usr/share/gviz/outside.map
        """,
        drops=["dropped"],
        scripts={
            "gviz": "rm config6a fmt gone secret tree config6a.dpkg-old outside.map dropped cache",
            "other": "cache",
        },
        expected="""
        /usr/share/both directory package gviz:amd64 other:amd64
        /usr/share/both/cache regular generated(maintainer script) gviz:amd64 other:amd64
        /usr/share/gviz directory package gviz:amd64 other:amd64
        /usr/share/gviz/config6a regular generated(maintainer script) gviz:amd64
        /usr/share/gviz/fmt symlink config6a generated(maintainer script) gviz:amd64
        dropped /usr/share/gviz/dropped by b.ignore:1: dropped
        """,
    ),
    Case(
        summary="in directories that everybody uses, documentation, /etc, /var and /usr/local: not",
        disk="""
        /usr/bin/made
        /usr/lib/made
        /usr/lib/x86_64-linux-gnu/made
        /usr/lib/x86_64-linux-gnu/own/made
        /usr/local/lib/own/made
        /usr/share/info/made
        /etc/own/made
        /var/lib/own/made
        """,
        packages="""
        p 1 amd64
         /usr/bin
         /usr/lib
         /usr/lib/x86_64-linux-gnu
         /usr/lib/x86_64-linux-gnu/own
         /usr/local/lib/own
         /usr/share/info
         /etc/own
         /var/lib/own
        """,
        scripts={"p": "made"},
        expected="""
        /etc/own directory package p:amd64
        /usr/bin directory package p:amd64
        /usr/lib directory package p:amd64
        /usr/lib/x86_64-linux-gnu directory package p:amd64
        /usr/lib/x86_64-linux-gnu/own directory package p:amd64
        /usr/lib/x86_64-linux-gnu/own/made regular generated(maintainer script) p:amd64
        /usr/local/lib/own directory package p:amd64
        /usr/share/info directory package p:amd64
        /var/lib/own directory package p:amd64
        """,
    ),
    Case(
        summary="an alternative may be the link of another group, whose name comes later or earlier",
        disk="""
        /bin/editor -> /etc/alternatives/editor
        /etc/alternatives/editor -> /bin/emacs
        /bin/emacs -> /etc/alternatives/emacs
        /etc/alternatives/emacs -> /bin/emacs-nox
        /bin/emacs-nox
        """,
        packages="emacs 1 amd64\n /bin/emacs-nox\noutside 1 amd64\n /bin/zile",
        alternatives=[
            group("editor", "/bin/editor", "5 /bin/emacs", "9 /bin/zile"),
            group("emacs", "/bin/emacs", "5 /bin/emacs-nox"),
            group("zz", "/bin/zz", "5 /bin/editor"),
        ],
        expected=f"""
        /bin/editor symlink /etc/alternatives/editor alternative(editor) emacs:amd64
        /bin/emacs symlink /etc/alternatives/emacs alternative(emacs) emacs:amd64
        /bin/emacs-nox regular package emacs:amd64
        /bin/zz symlink /etc/alternatives/zz {_CHOSEN_BY_US.replace("awk", "zz")} emacs:amd64
        /etc/alternatives/editor symlink /bin/emacs alternative(editor) emacs:amd64
        /etc/alternatives/emacs symlink /bin/emacs-nox alternative(emacs) emacs:amd64
        /etc/alternatives/zz symlink /bin/editor {_CHOSEN_BY_US.replace("awk", "zz")} emacs:amd64
        """,
    ),
    Case(
        summary="an alternative may be a generated file",
        disk="/etc/fpc.cfg -> /etc/alternatives/fpc.cfg\n/etc/alternatives/fpc.cfg -> /etc/fpc-3\n/etc/fpc-3",
        packages="fp 1 amd64",
        generated=[made("/etc/fpc-3", "fp")],
        alternatives=[group("fpc.cfg", "/etc/fpc.cfg", "5 /etc/fpc-3")],
        expected="""
        /etc/alternatives/fpc.cfg symlink /etc/fpc-3 alternative(fpc.cfg) fp:amd64
        /etc/fpc-3 regular generated(maker) fp:amd64
        /etc/fpc.cfg symlink /etc/alternatives/fpc.cfg alternative(fpc.cfg) fp:amd64
        """,
    ),
    Case(
        summary="byte code of the set's own sources: in; of others, of none, or dropped by pattern: not",
        disk="""
        /lib/a.py
        /lib/a.b.py
        /lib/dropped.py
        /lib/gone.py
        /lib/__pycache__/a.cpython-311.pyc
        /lib/__pycache__/a.cpython-311.opt-1.pyc
        /lib/__pycache__/a.b.cpython-311.pyc
        /lib/__pycache__/gone.cpython-311.pyc
        /lib/__pycache__/dropped.cpython-311.pyc
        /lib/__pycache__/a.txt
        """,
        packages="p 1 amd64\n /lib/a.py\n /lib/a.b.py\n /lib/dropped.py\noutside 1 amd64\n /lib/gone.py",
        drops=["*.opt-?.pyc", "dropped*"],
        expected="""
        /lib/__pycache__/a.b.cpython-311.pyc regular generated(compileall) p:amd64
        /lib/__pycache__/a.cpython-311.pyc regular generated(compileall) p:amd64
        /lib/a.b.py regular package p:amd64
        /lib/a.py regular package p:amd64
        dropped /lib/__pycache__/a.cpython-311.opt-1.pyc by b.ignore:1: *.opt-?.pyc
        dropped /lib/dropped.py by b.ignore:2: dropped*
        """,
    ),
]

INCLUDES = [
    Case(
        summary="a file, a directory with all in it, a glob, each with the line that brought it",
        disk="""
        /opt/a
        /opt/d/deep/x
        /opt/d/link -> /opt
        /srv/one.conf
        /srv/two.txt
        /srv/quoted*/x
        /srv/back\\x5cslash
        """,
        packages="p 1 amd64",
        includes=["/opt/a", "/opt/d", "/srv/*.conf", "/srv/quoted\\*/x", "/srv/back\\\\slash"],
        drops=["deep"],
        expected="""
        /opt/a regular include(w.toml:1)
        /opt/d directory include(w.toml:2)
        /opt/d/link symlink /opt include(w.toml:2)
        /srv/back\\x5cslash regular include(w.toml:5)
        /srv/one.conf regular include(w.toml:3)
        /srv/quoted*/x regular include(w.toml:4)
        dropped /opt/d/deep by b.ignore:1: deep
        dropped /opt/d/deep/x by b.ignore:1: deep
        """,
    ),
    Case(
        summary="what the pattern spells out may be a link, or be behind one",
        disk="""
        /bin -> usr/bin
        /usr/bin/tool
        /usr/local/cuda -> cuda-12
        /usr/local/cuda-12/bin/nvcc
        /usr/local/cuda-12/gone -> nowhere
        """,
        packages="p 1 amd64",
        includes=["/bin/tool", "/usr/local/cuda/**"],
        expected="""
        /bin symlink usr/bin parent
        /usr/bin/tool regular include(w.toml:1)
        /usr/local/cuda symlink cuda-12 parent
        /usr/local/cuda-12/bin directory include(w.toml:2)
        /usr/local/cuda-12/bin/nvcc regular include(w.toml:2)
        /usr/local/cuda-12/gone symlink nowhere include(w.toml:2)
        """,
    ),
    Case(
        summary="what a package outside the set owns is not taken, and what brings nothing is told",
        disk="/bin -> usr/bin\n/usr/bin/a\n/usr/bin/b\n/usr/bin/own",
        packages="p 1 amd64\n /usr/bin\noutside 1 amd64\n /bin/a\n /usr/bin/b",
        includes=["/usr/bin/*", "/bin/none"],
        expected=f"""
        /bin symlink usr/bin parent
        /usr/bin directory package p:amd64
        /usr/bin/own regular include(w.toml:1)
        warns w.toml:1: 2 paths that /usr/bin/* matches belong to package outside:amd64, {_NOT_IN}
        warns w.toml:2: /bin/none matches nothing that is not already in the set
        """,
    ),
    Case(
        summary="everything: without the kernel's filesystems, what others may not see, and pipes",
        disk="/proc/1/x\n/dev/null\n/sys/x\n/home/ 0700\n/home/x\n/srv/ 0711\n/srv/x\n/run/pipe fifo\n/tmp/",
        packages="p 1 amd64\n /run/pipe",
        includes=["/**"],
        expected="""
        /home directory 0700 include(w.toml:1)
        /run directory include(w.toml:1)
        /srv directory 0711 include(w.toml:1)
        /tmp directory include(w.toml:1)
        missing /run/pipe special p:amd64
        """,
    ),
]


@pytest.mark.parametrize("case", ALTERNATIVES + GENERATED + INCLUDES, ids=lambda case: case.summary)
@pytest.mark.parametrize("uid", sorted({os.geteuid(), os.geteuid() or NOBODY}))
def test_extras(case: Case, uid: int) -> None:
    """Run each row as root and as an ordinary user."""
    with tree(parse_tree(case.disk)) as root:
        assert in_child(lambda: collected(case, root), uid) == dedent(case.expected).strip()
