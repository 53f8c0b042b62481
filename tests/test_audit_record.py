"""The file form of audits, and what is made of them: advice, use, differences. No jail is entered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.audit import model
from pkgjail.audit.advice import advise
from pkgjail.audit.compare import compare_audits
from pkgjail.audit.model import Audit, Listing, LookUp, Mention, Nowhere, Program
from pkgjail.audit.record import dump_audit, parse_audit
from pkgjail.audit.section import audit_section
from pkgjail.audit.spack_names import SpackNames
from pkgjail.audit.wanted import used, wanted
from pkgjail.cli.audit_text import MOST_CHARACTERS, markdown, text
from pkgjail.core.errors import InputError
from tests.manifest_text import manifest_of

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

COUNTS = st.integers(1, 1 << 40)
PATHS = st.binary(min_size=1, max_size=8).map(lambda raw: b"/" + raw.replace(b"\0", b"n").replace(b"/", b"s"))
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
KINDS = st.sampled_from(get_args(model.Kind))
MENTIONS = st.builds(Mention, file=PATHS, line=COUNTS, text=WORDS, result=st.just("") | WORDS)
LOOK_UPS = st.builds(
    LookUp,
    path=PATHS,
    inside=KINDS,
    area=st.sampled_from(get_args(model.Area)),
    calls=st.dictionaries(st.sampled_from(get_args(model.Call)), COUNTS, min_size=1),
    source=KINDS,
    clue=st.sampled_from(get_args(model.Clue)),
    owners=st.lists(WORDS, max_size=2).map(tuple),
    rule=st.just("") | WORDS,
    programs=st.lists(st.tuples(COUNTS, COUNTS), max_size=2).map(tuple),
    mentions=st.lists(MENTIONS, max_size=2).map(tuple),
)
PROGRAMS = st.builds(
    Program, number=COUNTS, path=st.just(b"") | PATHS, script=st.just(b"") | PATHS, parent=st.integers(0, 9)
)


def _sorted(strategy: st.SearchStrategy[object], key: str) -> st.SearchStrategy[tuple[object, ...]]:
    unique = st.lists(strategy, max_size=4, unique_by=lambda each: getattr(each, key))
    return unique.map(lambda found: tuple(sorted(found, key=lambda each: getattr(each, key))))


AUDITS = st.builds(
    Audit,
    manifest=WORDS,
    family=WORDS,
    architecture=WORDS,
    command=st.lists(WORDS, min_size=1, max_size=3).map(tuple),
    status=st.integers(0, 255),
    events=COUNTS,
    unread=st.integers(0, 3),
    rings=st.integers(0, 3),
    folded=st.booleans(),
    programs=_sorted(PROGRAMS, "number"),
    look_ups=_sorted(LOOK_UPS, "path"),
    listings=_sorted(
        st.builds(Listing, path=PATHS, hidden=st.dictionaries(WORDS, COUNTS, min_size=1)), "path"
    ),
    nowhere=_sorted(st.builds(Nowhere, directory=PATHS, names=COUNTS, asked=COUNTS), "directory"),
)


@given(AUDITS)
def test_what_is_written_is_read_again(audit: Audit) -> None:
    """Any names and counts: the same audit, and the same bytes, whose last line proves them."""
    data = dump_audit(audit)
    assert parse_audit(data, "a") == audit
    *lines, end = data.splitlines(keepends=True)
    facts = json.loads(end)
    assert facts == {
        "kind": "end",
        "records": len(lines),
        "sha256": hashlib.sha256(b"".join(lines)).hexdigest(),
    }


@given(AUDITS, st.data())
def test_changed_bytes_are_refused(audit: Audit, data: st.DataObject) -> None:
    """Whatever is changed, in one clear error that names the file."""
    written = bytearray(dump_audit(audit))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InputError, match=r"\Aa(:\d+)?: "):
        parse_audit(bytes(written), "a")


def an_audit(**more: object) -> Audit:
    """An audit with these fields."""
    given_fields: dict[str, object] = {
        "manifest": "sha256:0", "family": "debian", "architecture": "amd64", "command": ("make",),
        "status": 0, "events": 1, **more,
    }  # fmt: skip
    return Audit(**given_fields)  # type: ignore[arg-type]


class Bad(NamedTuple):
    """Lines of a file that is no audit, and words of the message."""

    lines: str
    words: str


BAD = {
    "nothing": Bad("", "it is empty"),
    "a manifest": Bad('{"kind":"header"}\n', "a: this is a manifest, not a record of an audit"),
    "a newer one": Bad('{"kind":"audit","schema":2}\n', "a:1: made by a newer pkgjail (schema 2); upgrade"),
    "no JSON": Bad("x\n", "a:1: Expecting value"),
    "an unknown kind": Bad(
        dump_audit(an_audit()).decode().replace('"end"', '"odd"'), "a:2: there is no kind of record"
    ),
    "an unknown field": Bad(
        '{HEAD}{"kind":"path","odd":1}\n', "a:2: a record of this kind has no field 'odd'"
    ),
    "a wrong word": Bad('{HEAD}{"kind":"path","inside":"odd"}\n', "a:2: inside is none of regular"),
    "a negative count": Bad(
        '{HEAD}{"kind":"nowhere","directory":"/","names":-1}\n', "a:2: a count is a whole"
    ),
    "a cut one": Bad(dump_audit(an_audit()).decode()[:-20], "a:2: "),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_files(bad: Bad) -> None:
    """Each is told with its line and what is wrong."""
    head = dump_audit(an_audit()).decode().splitlines(keepends=True)[0]
    with pytest.raises(InputError) as told:
        parse_audit(bad.lines.replace("{HEAD}", head).encode(), "a")
    assert bad.words in str(told.value)


def test_nested_input_is_refused() -> None:
    """Protects the memory from lists in lists."""
    with pytest.raises(InputError):
        parse_audit(b"[" * 5_000_000, "a")


# --- what is made of them ----------------------------------------------------------------------


def want(path: str, owner: str = "", **more: object) -> LookUp:
    """The look-up of a path that the source has and the jail does not."""
    fields: dict[str, object] = {
        "path": path.encode(), "inside": "absent", "area": "manifest", "source": "regular",
        "owners": (owner,) if owner else (), "calls": {"look": 1}, **more,
    }  # fmt: skip
    return LookUp(**fields)  # type: ignore[arg-type]


CHECK = Mention(file=b"/b/config.log", line=9, text="checking for zlib.h", result="no")
NAMES = SpackNames([{"zlib-api": {"debian": ["zlib1g-dev"]}}], ())


def test_the_most_telling_package_comes_first() -> None:
    """What a test of the build asked for, headers, programs; locales last, and no shared directory."""
    audit = an_audit(
        look_ups=(
            want("/etc/localtime", "tzdata:all"),
            want("/usr/bin/cmake", "cmake:amd64"),
            want("/usr/include/png.h", "libpng-dev:amd64"),
            want("/usr/lib/libz.so", "zlib1g-dev:amd64"),
            want("/usr/include/zlib.h", "zlib1g-dev:amd64", mentions=(CHECK,)),
            want("/usr/local/include", source="directory"),
            want("/usr/share/aclocal", source="directory", owners=("a:all", "b:all")),
            want("/usr/local/include/own.h"),
            want("/opt/tool", source="directory"),
        ),
        listings=(
            Listing(path=b"/opt/tool", hidden={"": 2}),
            Listing(path=b"/usr/local/include", hidden={"": 1}),
            Listing(path=b"/usr/share/aclocal", hidden={"a:all": 1}),
        ),
    )
    none = next(each for each in wanted(audit) if not each.package)
    assert [look_up.path for look_up in none.look_ups] == [b"/usr/local/include/own.h", b"/opt/tool"]
    found = [(each.package, each.look_ups[0].path) for each in wanted(audit)]
    assert found == [
        ("zlib1g-dev:amd64", b"/usr/include/zlib.h"),
        ("libpng-dev:amd64", b"/usr/include/png.h"),
        ("", b"/usr/local/include/own.h"),
        ("cmake:amd64", b"/usr/bin/cmake"),
        ("tzdata:all", b"/etc/localtime"),
    ]


class Remedy(NamedTuple):
    """A look-up, the whitelist's lines for it, and Spack's name."""

    look_up: LookUp
    lines: tuple[str, ...]
    spack: str = ""


REMEDIES = {
    "a package": Remedy(
        want("/usr/include/zlib.h", "zlib1g-dev:amd64"), ('packages.debian = ["zlib1g-dev"]',), "zlib-api"
    ),
    "of another architecture": Remedy(
        want("/usr/include/zlib.h", "zlib1g-dev:i386"),
        ('packages.debian = ["zlib1g-dev:i386"]',),
        "zlib-api",
    ),
    "no package": Remedy(want("/opt/a[1].h"), ('files.include = ["/opt/a\\\\[1].h"]',)),
    "only dropped by a blacklist": Remedy(
        want("/usr/share/doc/x", "odd:all", rule="docs.ignore:1: /doc"), ()
    ),
}


@pytest.mark.parametrize("remedy", REMEDIES.values(), ids=REMEDIES)
def test_what_to_do(remedy: Remedy) -> None:
    """The line that brings a package or a path into the jail, and what a recipe lacks."""
    (advice,) = advise(an_audit(look_ups=(remedy.look_up,)), NAMES)
    assert (advice.lines, advice.spack.name) == (remedy.lines, remedy.spack)


@pytest.fixture
def two_packages() -> Manifest:
    """A manifest of two packages with a file each, and a directory of both."""
    return manifest_of(
        "gcc 12\nlibc6 2\nw.toml:1 -> gcc [whitelist] gcc\ngcc -> libc6\n"
        "/usr/ of gcc,libc6\n/usr/gcc 1 of gcc\n/usr/libc 1 of libc6\n"
    )


def test_directories_use_no_package(two_packages: Manifest) -> None:
    """Packages share them: only files and links count."""
    keys = {package.name: package.key for package in two_packages.packages}
    there = LookUp(
        path=b"/usr", inside="directory", area="manifest", calls={"look": 9}, owners=tuple(keys.values())
    )
    file = LookUp(
        path=b"/usr/gcc", inside="regular", area="manifest", calls={"open": 1}, owners=(keys["gcc"],)
    )
    use = used(an_audit(look_ups=(there, file)), two_packages)
    assert (use.packages, use.unused, use.files) == ((keys["gcc"],), (keys["libc6"],), 1)
    page = audit_section(an_audit(look_ups=(there, file)), (), use)
    assert f"never touched: 1 package</summary><pre>{keys['libc6']}</pre>" in page


def test_differences() -> None:
    """By path and package; how often something was asked for is no difference."""
    old = an_audit(look_ups=(want("/a", "a:all"), want("/b", "b:all")))
    new = an_audit(look_ups=(want("/b", "b:all", calls={"open": 7}), want("/c")), status=1)
    found = compare_audits(old, new)
    assert not found.same
    assert [each.path for each in (*found.wanted_removed, *found.wanted_added)] == [b"/a", b"/c"]
    assert found.status == (0, 1)
    assert compare_audits(new, replace(new, events=99)).same


def test_a_comment_is_never_too_long() -> None:
    """Thousands of packages: what fits a comment, and how many were left out; names are escaped."""
    audit = an_audit(
        look_ups=tuple(want(f"/usr/include/{n:04}|`<b>*.h", f"p{n:04}-dev:amd64") for n in range(3000))
    )
    comment = markdown(audit, advise(audit, NAMES))
    assert len(comment.encode()) <= MOST_CHARACTERS
    assert comment.rstrip().endswith(" more.")
    assert "0000\\|\\`&lt;b&gt;\\*.h" in comment


def test_the_report_says_what_it_could_not_see() -> None:
    """Unread paths, rings and folding are told, and long lists are cut with a count."""
    audit = an_audit(
        unread=2, rings=1, folded=True, look_ups=tuple(want(f"/usr/bin/p{n}", f"p{n}:all") for n in range(12))
    )
    lines = list(text(audit, advise(audit, NAMES), None, most=10, command="influence"))
    assert "not read: the paths of 2 calls" in lines
    assert any(line.startswith("refused: 1 call of io_uring_setup(2)") for line in lines)
    assert any(line.startswith("too many paths:") for line in lines)
    assert "and 2 more (--all)" in lines
