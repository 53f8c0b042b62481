"""One small world of packages, of which `real_roots` makes real ones for rpm, pacman and dpkg.

A line at the margin is a package: name and version. Below it stand its relations, as `name`, or
`name >= version`, and what it brings: `/path`, with `config`, `ghost`, `dir`, `0644` or `-> target`
behind it. A line that begins with a family's word (`rpm`, `pacman`, `deb`) is for that one alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WORLD = """
filesystem 1-1
 /usr dir
 /usr/bin dir
 /usr/lib dir
 /etc dir
 /tmp dir 1777
 /bin -> usr/bin
 /usr/lib/os-release 0644
 /etc/os-release -> ../usr/lib/os-release
 rpm /etc/passwd config
 pacman /etc/passwd config

bash 5.2-1
 requires: filesystem
 rpm provides: /bin/sh
 /usr/bin/busybox busybox
 /usr/bin/sh -> busybox
 /usr/bin/ls -> busybox
 /usr/bin/cat -> busybox
 /usr/bin/find -> busybox
 /usr/bin/true -> busybox

base 1-1
 requires: filesystem, bash

lib 1:1.5-2
 provides: libapi = 3, lib-anything
 /usr/lib/lib.so.1 0755
 /usr/lib/lib.so -> lib.so.1

lib-devel 1:1.5-2
 requires: lib = 1:1.5-2
 /usr/include/lib.h 0644

app 2:1.0-1
 requires: lib >= 1:1.5, editor, tool
 provides: application
 /usr/bin/app 0755
 /etc/app.conf config
 /etc/app.d dir
 /usr/share/app/data 0644

tool 0.9~rc1-1
 requires: libapi >= 2
 /usr/bin/tool 0755

vim 9.0-1
 provides: editor = 9
 /usr/bin/vim 0755

nano 7.2-1
 provides: editor = 7
 /usr/bin/nano 0755

joe 4.6-1
 provides: editor-of-no-version
 /usr/bin/joe 0755

wants-new-editor 1-1
 requires: editor >= 8

wants-old-editor 1-1
 requires: editor < 8

wants-both 1-1
 requires: nano, editor

epochal 5:0.1-1
 /usr/share/epochal 0644

wants-epoch 1-1
 requires: epochal > 2:9.9

cycle-a 1-1
 requires: cycle-b
 /usr/share/cycle-a 0644

cycle-b 1-1
 requires: cycle-c >= 1
 /usr/share/cycle-b 0644

cycle-c 1-1
 requires: cycle-a, lib
 /usr/share/cycle-c 0644

self 3-1
 provides: itself = 3
 requires: itself >= 2
 /usr/share/self 0644

conflicting 1-1
 conflicts: never-there
 /usr/share/conflicting 0644

replacing 2-1
 conflicts: replaced
 provides: replaced = 1
 /usr/share/replacing 0644

wants-replaced 1-1
 requires: replaced
 /usr/share/wants-replaced 0644

odd++name.2 1.0+git20240101-3.el9
 /usr/share/odd dir
 /usr/share/odd/two words 0644
 /usr/share/odd/it's 0600
 /usr/share/odd/ünïcode 0644
 /usr/share/odd/back\\slash 0644
 /usr/share/odd/#hash 0644
 /usr/share/odd/100%25 0644
 /usr/share/odd/star*[1]? 0644
 /usr/share/odd/"quoted" 0644
 /usr/share/odd/.hidden 4755

prog-one 1-1
 /usr/bin/prog.one 0755
 /usr/share/prog.one.1 0644
 rpm /usr/bin/prog ghost

prog-two 1-1
 /usr/bin/prog.two 0755

empty 1-1

shared-a 1-1
 /usr/share/shared dir
 /usr/share/shared/a 0644

shared-b 1-1
 /usr/share/shared dir
 /usr/share/shared/b 0644

group-one 1-1
 pacman groups: set
 /usr/share/group-one 0644

group-two 1-1
 requires: lib
 pacman groups: set
 /usr/share/group-two 0644

recommending 1-1
 recommends: empty
 /usr/share/recommending 0644

shell-script 1-1
 rpm requires: /bin/sh, /usr/bin/tool
 pacman requires: bash, tool
 deb requires: bash, tool
 /usr/bin/script 0755

rich-if 1-1
 rpm requires: (joe if nano), (empty if not-installed)
 pacman requires: filesystem
 deb requires: filesystem
 rpm provides: rich(if)

rich-or 1-1
 rpm requires: (joe or nano), ((vim and epochal) or not-installed)
 pacman requires: filesystem
 deb requires: filesystem

rich-else 1-1
 rpm requires: (joe if not-installed else nano), (lib with libapi >= 3), (editor without nano)
 pacman requires: filesystem
 deb requires: filesystem

namesake 1-1
 provides: name-of-three
 /usr/share/namesake 0644

namesake-more 1-1
 provides: name-of-three

namesake1 1-1
 provides: name-of-three

soname 1-1
 provides: libsoname.so = 0-64
 pacman provides: libsoname.so
 /usr/share/soname 0644

wants-soname 1-1
 requires: libsoname.so = 0-64

authorities 1-1
 requires: authorities-list
 /usr/share/authorities 0644

authorities-list 1-1
 requires: authorities-tools >= 1

authorities-tools 1-1
 provides: authorities = 1

wants-authorities 1-1
 requires: authorities

ghostly 1-1
 rpm /var/log/ghostly.log ghost
 rpm /var/log/absent.log ghost
 rpm /usr/share/doc/ghostly/README 0644
 /usr/share/ghostly 0644
"""


class File(NamedTuple):
    """A path that a package brings; `kind` is "file", "dir", "link", "busybox", "config" or "ghost"."""

    path: str
    kind: str
    mode: int
    target: str = ""


class Made(NamedTuple):
    """A package to be made. The relations are neutral text; `requires` may be rich for rpm."""

    name: str
    version: str
    files: tuple[File, ...]
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def evr(self) -> tuple[str, str, str]:
        """Epoch ("0" for none), version and release."""
        epoch, colon, rest = self.version.rpartition(":")
        version, _, release = rest.rpartition("-")
        return (epoch if colon else "0", version, release)


_FAMILIES = ("rpm", "pacman", "deb")


def world(family: str) -> list[Made]:
    """The packages of `WORLD` as they are for `family`, in its order."""
    found: list[Made] = []
    for block in re.split(r"\n\n+", WORLD.strip("\n")):
        head, *lines = block.split("\n")
        name, version = head.split()
        fields: dict[str, list[str]] = {}
        files = []
        for line in map(str.strip, lines):
            word, _, rest = line.partition(" ")
            text = rest if word == family else line
            if word in _FAMILIES and word != family:
                continue
            if text.startswith("/"):
                files.append(_file(text))
            else:
                key, _, value = text.partition(": ")
                fields.setdefault(key, []).extend(one.strip() for one in value.split(","))
        relations = {key: tuple(values) for key, values in fields.items()}
        found.append(Made(name=name, version=version, files=tuple(files), **relations))
    return found


def _file(text: str) -> File:
    if " -> " in text:
        path, _, target = text.partition(" -> ")
        return File(path, "link", 0o777, target)
    match = re.fullmatch(
        r"(?P<path>/.*?)(?: (?P<kind>dir|config|ghost|busybox))?(?: (?P<mode>[0-7]{4}))?", text
    )
    assert match is not None, text
    kind = match["kind"] or "file"
    plain = {"dir": 0o755, "busybox": 0o755}.get(kind, 0o644)
    return File(match["path"], kind, int(match["mode"], 8) if match["mode"] else plain)
