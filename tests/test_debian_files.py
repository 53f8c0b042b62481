"""File lists, diversions, conffiles, alternatives and the allow-list."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import open_database
from pkgjail.core.errors import DatabaseError
from tests.debian_roots import every_backend, make_root

if TYPE_CHECKING:
    from pathlib import Path

DIVERSIONS = "/bin/sh\n/bin/sh.distrib\ndash\n/etc/x\n/etc/x.local\n:\n"
LISTS = [
    ("as recorded", "a 1 amd64", "a", "/.\n/usr\n/usr/b\n/usr/a\n", "/ /usr /usr/b /usr/a"),
    ("empty", "a 1 amd64", "a", "", ""),
    ("diverted by another", "bash 1 amd64", "bash", "/bin/sh\n", "/bin/sh.distrib"),
    ("diverted by itself", "dash 1 amd64", "dash", "/bin/sh\n", "/bin/sh"),
    ("diverted locally", "a 1 amd64", "a", "/etc/x\n", "/etc/x.local"),
    ("architecture in the name", "a 1 amd64; Multi-Arch: same", "a:amd64", "/x\n", "/x"),
    ("not the foreign", "a 1 amd64; Multi-Arch: foreign", "a", "/x\n", "/x"),
    ("any bytes", "a 1 amd64", "a", "/ü \udcff\r\n", "/ü \udcff\r"),
    ("made normal", "a 1 amd64", "a", "/.\n/usr/\n//usr/./x\n", "/ /usr /usr/x"),
    ("once each", "a 1 amd64", "a", "/x\n/x\n", "/x"),
]


@every_backend
@pytest.mark.parametrize(("line", "name", "content", "expected"), [row[1:] for row in LISTS],
                         ids=[row[0] for row in LISTS])  # fmt: skip
def test_owned_paths(  # noqa: PLR0913, PLR0917
    backend: str, line: str, name: str, content: str, expected: str, tmp_path: Path
) -> None:
    """Protects where a package's files are, dpkg's diversions and file names included."""
    files = {f"var/lib/dpkg/info/{name}.list": content, "var/lib/dpkg/diversions": DIVERSIONS}
    database = open_database(make_root(tmp_path, line, files=files), backend)
    package = database.packages[f"{line.split(maxsplit=1)[0]}:amd64"]
    assert b" ".join(database.owned_paths(package)) == expected.encode("utf-8", "surrogateescape")


@every_backend
def test_digests(backend: str, tmp_path: Path) -> None:
    """Protects the second witness: md5sums as dpkg writes them, diversions included; none is no error."""
    info = "var/lib/dpkg/info"
    sums = {f"{info}/bash.md5sums": f"{'0' * 32}  bin/sh\n{'1' * 32}  usr/x  y\n"}
    lists = {
        f"{info}/bash.list": "/bin/sh\n",
        f"{info}/a:amd64.list": "",
        f"{info}/a:amd64.md5sums": "2  z\n",
    }
    files = {**sums, **lists, "var/lib/dpkg/diversions": DIVERSIONS}
    root = make_root(tmp_path, "bash 1 amd64", "a 1 amd64; Multi-Arch: same", "b 1 amd64", files=files)
    (tmp_path / f"{info}/b.list").write_text("")
    database = open_database(root, backend)
    found = {key: dict(database.digests(package)) for key, package in database.packages.items()}
    assert found["bash:amd64"] == {b"/bin/sh.distrib": f"md5:{'0' * 32}", b"/usr/x  y": f"md5:{'1' * 32}"}
    assert found["a:amd64"] == {b"/z": "md5:2"}
    assert found["b:amd64"] == {}


@every_backend
def test_lists_of_the_older_format(backend: str, tmp_path: Path) -> None:
    """Protects roots without `info/format`, where no list is named for an architecture."""
    files = {"var/lib/dpkg/info/format": "", "var/lib/dpkg/info/a.list": "/x\n"}
    database = open_database(make_root(tmp_path, "a 1 amd64; Multi-Arch: same", files=files), backend)
    assert database.owned_paths(database.packages["a:amd64"]) == (b"/x",)


BAD_LISTS = [
    ("missing", {}, r"a\.list: No such file or directory; .*install the package"),
    ("cut off", {"info/a.list": "/.\n/us"}, r"a\.list was cut off within a line; install a:amd64 again"),
    ("relative", {"info/a.list": "/.\n/x\nusr\n"}, r"a\.list:3: b'usr' is not an absolute path"),
    ("upwards", {"info/a.list": "/x/../y\n"}, r"a\.list:1: b'/x/\.\./y' is not an absolute path"),
    ("empty line", {"info/a.list": "/x\n\n/y\n"}, r"a\.list:2: b'' is not an absolute path"),
    ("a directory", {"info/a.list/x": ""}, r"a\.list: Is a directory; repair it"),
    (
        "diversions cut",
        {"info/a.list": "/x\n", "diversions": "/x\n/y\n"},
        r"diversions: a diversion has three",
    ),
    (
        "diversions relative",
        {"info/a.list": "/x\n", "diversions": "/x\n/y\na\n/z\nq\na\n"},
        r"diversions:5: b'q' is not an absolute path",
    ),
]


@every_backend
@pytest.mark.parametrize(
    ("files", "message"), [row[1:] for row in BAD_LISTS], ids=[row[0] for row in BAD_LISTS]
)
def test_damaged_lists(backend: str, files: dict[str, str], message: str, tmp_path: Path) -> None:
    """Protects that a damaged list is an error with its file and line, never a smaller package."""
    under = {f"var/lib/dpkg/{name}": text for name, text in files.items()}
    database = open_database(make_root(tmp_path, "a 1 amd64", files=under), backend)
    with pytest.raises(DatabaseError, match=message):
        database.owned_paths(database.packages["a:amd64"])


@every_backend
def test_conffiles(backend: str, tmp_path: Path) -> None:
    """Protects which files the administrator may have changed: shipped ones, flags and names heeded."""
    value = """
 /etc/a b 0123456789abcdef0123456789abcdef
 /etc/old 0123456789abcdef0123456789abcdef obsolete
 /etc/leave 0123456789abcdef0123456789abcdef remove-on-upgrade
 /etc/x newconffile
 /etc/\udcfe 0123456789abcdef0123456789abcdef
 /etc/notlisted 0123456789abcdef0123456789abcdef"""
    paths = ["/etc/a b", "/etc/old", "/etc/leave", "/etc/x", "/etc/\udcfe", "/usr/x"]
    files = {
        "var/lib/dpkg/info/a.list": "".join(f"{path}\n" for path in paths),
        "var/lib/dpkg/diversions": DIVERSIONS,
    }
    database = open_database(make_root(tmp_path, f"a 1 amd64; Conffiles:{value}", files=files), backend)
    assert database.conffiles(database.packages["a:amd64"]) == {b"/etc/a b", b"/etc/x.local", b"/etc/\xfe"}
    assert database.conffiles(database.packages["dpkg:amd64"]) == frozenset()


@every_backend
@pytest.mark.parametrize("line", ["/etc/a", "etc/a 0123", "0123 obsolete"])
def test_damaged_conffiles(backend: str, line: str, tmp_path: Path) -> None:
    """Protects that a line that is no path and hash is named."""
    files = {"var/lib/dpkg/info/a.list": "/etc/a\n"}
    database = open_database(make_root(tmp_path, f"a 1 amd64; Conffiles:\n {line}", files=files), backend)
    with pytest.raises(
        DatabaseError, match=f"field Conffiles of the package a:amd64 has the line '.*{line}'"
    ):
        database.conffiles(database.packages["a:amd64"])


# --- alternatives ---------------------------------------------------------------------------

AWK = """auto
/usr/bin/awk
awk.1.gz
/usr/share/man/man1/awk.1.gz
nawk
/usr/bin/nawk

/usr/bin/gawk
10
/usr/share/man/man1/gawk.1.gz

/usr/bin/mawk
5

/usr/bin/mawk

"""


@every_backend
def test_alternatives(backend: str, tmp_path: Path) -> None:
    """Protects both ends of every link, the slaves' order, and the candidates."""
    files = {
        "var/lib/dpkg/alternatives/cc": "manual\n/usr/bin/cc\n\n/usr/bin/gcc\n20\n\n",
        "var/lib/dpkg/alternatives/awk": AWK,
        "var/lib/dpkg/alternatives/awk.dpkg-tmp": "junk",
        "var/lib/dpkg/alternatives/empty": "",
    }
    database = open_database(make_root(tmp_path, files=files), backend)
    shown = [
        line
        for group in database.alternatives()
        for line in (
            group.name,
            *(b" -> ".join(pair).decode() for pair in group.links),
            *(f"{choice.priority} {b' '.join(choice.targets).decode()}" for choice in group.choices),
        )
    ]
    assert shown == [
        "awk",
        "/usr/bin/awk -> /etc/alternatives/awk",
        "/usr/share/man/man1/awk.1.gz -> /etc/alternatives/awk.1.gz",
        "/usr/bin/nawk -> /etc/alternatives/nawk",
        "10 /usr/bin/gawk /usr/share/man/man1/gawk.1.gz ",
        "5 /usr/bin/mawk  /usr/bin/mawk",
        "cc",
        "/usr/bin/cc -> /etc/alternatives/cc",
        "20 /usr/bin/gcc",
    ]


@every_backend
def test_no_alternatives(backend: str, tmp_path: Path) -> None:
    """Protects minimal roots, in which nothing has ever registered an alternative."""
    assert open_database(make_root(tmp_path), backend).alternatives() == ()


BAD_ALTERNATIVES = [
    ("mode", "automatic\n/usr/bin/x\n\n", r"x:1: the mode is b'automatic'"),
    ("relative link", "auto\nbin/x\n\n", r"x:2: b'bin/x' is not an absolute path"),
    ("cut after the mode", "auto\n", r"x:2: the file ends where the master link should stand"),
    (
        "cut in a line",
        "auto\n/usr/bin/x\n\n/usr/bin/y",
        r"x:4: the file ends where a candidate's path should",
    ),
    ("slave without link", "auto\n/x\ns\n", r"x:4: the file ends where a slave's link should stand"),
    ("slave twice", "auto\n/x\ns\n/s\ns\n/t\n\n", r"x:5: b's' is not a name, or stands twice"),
    ("slave with a slash", "auto\n/x\n../s\n/s\n\n", r"x:3: b'\.\./s' is not a name"),
    ("link twice", "auto\n/x\ns\n/x\n\n", r"x:4: the link /x stands twice"),
    ("priority", "auto\n/x\n\n/y\nhigh\n\n", r"x:5: the priority b'high' is not a number"),
    ("candidate twice", "auto\n/x\n\n/y\n1\n/y\n2\n\n", r"x:6: the candidate /y stands twice"),
    ("relative slave", "auto\n/x\ns\n/s\n\n/y\n1\nz\n\n", r"x:8: b'z' is not an absolute path"),
    ("no end", "auto\n/x\n\n/y\n1\n", r"x:6: the file ends where a candidate's path should stand"),
]


@every_backend
@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BAD_ALTERNATIVES],
                         ids=[row[0] for row in BAD_ALTERNATIVES])  # fmt: skip
def test_damaged_alternatives(backend: str, text: str, message: str, tmp_path: Path) -> None:
    """Protects that a damaged record is named with its line, as update-alternatives does."""
    root = make_root(tmp_path, files={"var/lib/dpkg/alternatives/x": text})
    with pytest.raises(DatabaseError, match=message):
        open_database(root, backend).alternatives()


# --- generated files ------------------------------------------------------------------------


_UCF = """\
r-base-core \t /etc/R/Renviron
odd\t /etc/a[b]*.conf
secret \t /etc/secret
other \t /var/lib/state
gone \t /etc/gone
above \t /etc/../etc/R/Renviron
nonsense
\t /etc/nobody
"""


def test_files_of_ucf(tmp_path: Path) -> None:
    """Protects R's Renviron and its like: files that ucf installed, if others may read them, and no other."""
    names = ("etc/R/Renviron", "etc/a[b]*.conf", "etc/secret", "etc/nobody", "var/lib/state")
    root = make_root(tmp_path, files={"var/lib/ucf/registry": _UCF, **dict.fromkeys(names, "x")})
    (tmp_path / "etc/secret").chmod(0o640)
    rows = [row for row in open_database(root, "dpkg").generated() if row.made_by == "ucf"]
    assert [(row.package, row.pattern) for row in rows] == [
        ("r-base-core", "/etc/R/Renviron"),
        ("odd", "/etc/a[[]b][*].conf"),
    ]


def test_packages_of_emacs_lisp(tmp_path: Path) -> None:
    """Protects packages of Emacs Lisp: the files that Emacs loads are compiled when they are installed."""
    names = ("dash-2.19.1", "debian-el-37", "archives", "odd[x]-1")
    root = make_root(tmp_path, files={f"usr/share/emacs/site-lisp/elpa/{name}/x.el": "" for name in names})
    rows = [row for row in open_database(root, "dpkg").generated() if row.package.startswith("elpa-")]
    assert [(row.package, row.pattern) for row in rows] == [
        ("elpa-dash", "/usr/share/emacs/site-lisp/elpa/dash-2.19.1/*.el*"),
        ("elpa-debian-el", "/usr/share/emacs/site-lisp/elpa/debian-el-37/*.el*"),
    ]


def test_words_of_scripts(tmp_path: Path) -> None:
    """Protects the files that only a package's scripts name, whichever script does."""
    info = {
        "a:amd64.list": "/.\n",
        "a:amd64.postinst": "dot -c # makes it\n",
        "a:amd64.postrm": 'rm -f "/usr/lib/graphviz/config6a"\n',
        "ab:amd64.postrm": "rm other\n",
    }
    files = {f"var/lib/dpkg/info/{name}": text for name, text in info.items()}
    database = open_database(make_root(tmp_path, "a 1 amd64; Multi-Arch: same", files=files), "dpkg")
    words = database.script_words(database.packages["a:amd64"])
    assert {b"dot", b"config6a", b"graphviz"} <= words
    assert b"other" not in words
    assert database.script_words(database.packages["dpkg:amd64"]) == frozenset()


@pytest.mark.parametrize(
    "name",
    [
        "10-autohint", "10-unhinted", "10-hinting-none", "10-hinting-slight", "10-hinting-medium",
        "10-hinting-full", "10-sub-pixel-rgb", "10-no-sub-pixel", "10-sub-pixel-none", "70-yes-bitmaps",
        "70-no-bitmaps", "70-no-bitmaps-except-emoji",
    ],
)  # fmt: skip
def test_links_of_fontconfig(name: str, tmp_path: Path) -> None:
    """Protects each link that fontconfig-config's postinst may make, in Debian 12, 13 and sid."""
    rows = [
        row for row in open_database(make_root(tmp_path), "dpkg").generated()
        if row.package == "fontconfig-config"
    ]  # fmt: skip
    assert [row for row in rows if fnmatch(f"/etc/fonts/conf.d/{name}.conf", row.pattern)]


def test_allow_list() -> None:
    """Protects the shape of the allow-list: no line twice, and what is made at entry is always there."""
    lines = open_database().generated()
    assert len({(line.pattern, line.package) for line in lines}) == len(lines)
    assert all(line.pattern.startswith("/") and "**" not in line.pattern and line.made_by for line in lines)
    assert {line.pattern for line in lines if line.at_entry and not line.package} == {
        "/etc/passwd",
        "/etc/group",
        "/etc/nsswitch.conf",
        "/etc/hosts",
        "/etc/resolv.conf",
    }
