"""Copies of directories for a guest, and what commands changed in them: all of it, and nothing else."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tarfile
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pkgjail.core.reporter import SILENT
from pkgjail.export.image import squashfs
from pkgjail.machine import applying, changes
from pkgjail.machine.applying import Change
from pkgjail.machine.changes import KEPT, Changes, read_change
from pkgjail.machine.copies import copied_disk
from pkgjail.machine.model import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pkgjail.machine.copies import Copy

TIME = 1_500_000_000 * 10**9 + 123
EACH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class Name(NamedTuple):
    """A name of a tree: a file's content, a link's target, or None for a directory; and its mode."""

    kind: str
    data: bytes = b""
    mode: int = 0o644


Tree = dict[bytes, Name]
_DIRECTORY = Name("d", mode=0o755)


class Said:
    """A reporter that keeps what it is told."""

    def __init__(self, act: Callable[[int], object] = lambda _: None) -> None:
        self.warnings: list[str] = []
        self._act = act

    def progress(self, task: str, done: int, total: int) -> None:
        """Act between two changes."""
        if task == "bringing back" and total:
            self._act(done)

    def warn(self, message: str) -> None:
        """Keep it."""
        self.warnings.append(message)


# --- trees ----------------------------------------------------------------------------------------

_WORDS = st.sampled_from([b"a", b"b", b"-c", b"\xff\n"])
_LEAVES = st.one_of(
    st.builds(Name, st.just("f"), st.binary(max_size=3), st.sampled_from([0o644, 0o755, 0o600])),
    st.builds(Name, st.just("l"), st.sampled_from([b"a", b"../x", b"/etc/passwd"]), st.just(0o644)),
    st.builds(Name, st.just("d"), st.just(b""), st.sampled_from([0o755, 0o700])),
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw a tree in which every name is below a directory."""
    tree: Tree = {}
    for words in draw(st.lists(st.lists(_WORDS, min_size=1, max_size=3), max_size=6)):
        path = b"/".join(words)
        above = [b"/".join(words[:length]) for length in range(1, len(words))]
        if any(tree.get(each, _DIRECTORY).kind != "d" for each in above) or path in tree:
            continue
        tree.update({each: tree.get(each, _DIRECTORY) for each in above})
        tree[path] = draw(_LEAVES)
    return tree


def write(place: Path, tree: Mapping[bytes, Name]) -> None:
    """Make a tree in a new directory."""
    place.mkdir()
    for path in sorted(tree):
        put(bytes(place) + b"/" + path, tree[path])
    for path in sorted(tree, reverse=True):
        if tree[path].kind == "d":
            os.chmod(bytes(place) + b"/" + path, tree[path].mode)


def put(path: bytes, name: Name) -> None:
    """Make a name."""
    if name.kind == "d":
        os.mkdir(path)
    elif name.kind == "l":
        os.symlink(name.data, path)
    else:
        with open(path, "wb") as file:
            file.write(name.data)
        os.chmod(path, name.mode)


def read(place: Path) -> Tree:
    """Return the tree of a directory."""
    tree: Tree = {}
    top = bytes(place)
    for folder, directories, files in os.walk(top):
        for each in (*directories, *files):
            path = os.path.join(folder, each)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                tree[path[len(top) + 1 :]] = Name("l", os.readlink(path))
            elif stat.S_ISDIR(mode):
                tree[path[len(top) + 1 :]] = Name("d", mode=mode & 0o7777)
            else:
                tree[path[len(top) + 1 :]] = Name("f", Path(os.fsdecode(path)).read_bytes(), mode & 0o7777)
    return tree


def inside(tree: Iterable[bytes], directory: bytes) -> set[bytes]:
    """Return the names directly in a directory of a tree."""
    return {path for path in tree if path.rpartition(b"/")[0] == directory}


def overlay(
    before: Tree, after: Tree, *, opaque: bool, directory: bytes = b"", new: bool = False
) -> Iterator[Change]:
    """Yield what the upper directory of an overlay has, once `before` below it was changed to `after`.

    With `opaque`, directories were removed and made again where that can be.
    """
    for path in sorted(inside(before, directory) | inside(after, directory)):
        was = None if new else before.get(path)
        now = after.get(path)
        if now is None:
            if was is not None:
                yield Change("x", path)
        elif now.kind == "d":
            hides = was is not None and (was.kind != "d" or opaque)
            yield Change("o" if hides else "d", path, now.mode, TIME)
            yield from overlay(before, after, opaque=opaque, directory=path, new=was is None or hides)
        elif now != was:
            size = len(now.data) if now.kind == "f" else 0
            yield Change(now.kind, path, now.mode, TIME, size, now.data if now.kind == "l" else b"")


def send(received: Changes, records: Iterable[Change], tree: Mapping[bytes, Name]) -> None:
    """Receive records, with the contents of files."""
    for each in records:
        received.add(each)
        data = tree[each.path].data if each.kind == "f" else b""
        for byte in range(0, len(data), 2):
            received.content(data[byte : byte + 2])


@contextmanager
def noted(place: Path) -> Iterator[Copy]:
    """Copy a directory without making an image of it, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squashfs, "write", lambda *_: None)
        with copied_disk(bytes(place), SILENT) as copy:
            yield copy


def bring_back(
    place: Path, records: Sequence[Change], tree: Mapping[bytes, Name], kept: Sequence[bytes] = ()
) -> None:
    """Copy a directory, and apply changes at once."""
    with noted(place) as copy, Changes(copy, kept, SILENT) as received:
        send(received, records, tree)
        received.apply()


# --- the copy -------------------------------------------------------------------------------------


def members(disk: int) -> dict[bytes, tarfile.TarInfo]:
    """Return what an image has, by path, as another program reads it."""
    command = ["sqfs2tar", f"/proc/self/fd/{disk}"]
    packed = subprocess.run(command, capture_output=True, check=True, pass_fds=[disk]).stdout
    with tarfile.open(fileobj=BytesIO(packed), encoding="utf-8", errors="surrogateescape") as archive:
        return {each.name.encode("utf-8", "surrogateescape"): each for each in archive.getmembers()}


@EACH
@given(tree=trees())
def test_a_copy_has_everything(tmp_path: Path, tree: Tree) -> None:
    """Protects names of any bytes, kinds, modes, owners and sizes."""
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    write(place, tree)
    with copied_disk(bytes(place), SILENT) as copy:
        found = members(copy.disk)
        assert copy.seen.keys() == {b"", *tree}
    assert found.keys() == tree.keys()
    for path, name in tree.items():
        each = found[path]
        assert (each.isdir(), each.issym(), each.isreg()) == tuple(name.kind == kind for kind in "dlf")
        assert (each.uid, each.gid) == (os.geteuid(), os.getegid())
        assert name.kind == "l" or each.mode == name.mode
        assert each.size == (len(name.data) if name.kind == "f" else 0)


def test_a_copy_has_hard_links_times_and_contents(tmp_path: Path) -> None:
    """Protects builds that depend on them: make(1) compares times."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/one").write_bytes(b"content" * 100_000)
    os.link(tmp_path / "d/one", tmp_path / "two")
    os.utime(tmp_path / "two", ns=(TIME, TIME))
    with copied_disk(bytes(tmp_path), SILENT) as copy:
        found = members(copy.disk)
        content = subprocess.run(
            ["rdsquashfs", "-c", "d/one", f"/proc/self/fd/{copy.disk}"],
            capture_output=True, check=True, pass_fds=[copy.disk],
        ).stdout  # fmt: skip
    assert content == b"content" * 100_000
    assert {each.mtime for path, each in found.items() if path != b"d"} == {TIME // 10**9}
    assert sum(each.islnk() for each in found.values()) == 1


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    """Protects against a guest that lacks names, and nobody knows."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "closed").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    reporter = Said()
    for name in ("closed", "secret"):
        (tmp_path / name).chmod(0)
    with copied_disk(bytes(tmp_path), reporter) as copy:
        seen = copy.seen.keys()
    said = "\n".join(reporter.warnings)
    assert f"not copied into the machine: {tmp_path}/fifo: it is no file, directory or link" in said
    if os.geteuid():
        assert f"{tmp_path}/closed: Permission denied" in said
        assert f"{tmp_path}/secret: Permission denied" in said
        assert seen == {b""}


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    """Protects the message."""
    with pytest.raises(MachineError, match=r"cannot copy .*nothing into a machine: .*No such file"):
        bring_back(tmp_path / "nothing", [], {})


# --- changes --------------------------------------------------------------------------------------


@EACH
@given(before=trees(), after=trees(), opaque=st.booleans())
@example(before={b"a": _DIRECTORY, b"a/b": Name("f")}, after={b"a": Name("f", b"x")}, opaque=False)
@example(before={b"a": Name("l", b"x")}, after={b"a": _DIRECTORY, b"a/b": Name("f", b"x")}, opaque=False)
def test_a_directory_becomes_what_the_guest_has(
    tmp_path: Path, *, before: Tree, after: Tree, opaque: bool
) -> None:
    """Protects every change of every kind of name to every other, and that nothing is left beside them."""
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    write(place, before)
    unchanged = {path for path in before if before[path] == after.get(path) and before[path].kind == "f"}
    old = {path: os.lstat(bytes(place) + b"/" + path).st_ctime_ns for path in unchanged}
    records = list(overlay(before, after, opaque=opaque))
    bring_back(place, records, after)
    assert read(place) == after
    for path in unchanged - {each.path for each in records}:
        assert os.lstat(bytes(place) + b"/" + path).st_ctime_ns == old[path]
    for each in records:
        if each.kind in "fl":
            assert os.lstat(bytes(place) + b"/" + each.path).st_mtime_ns == TIME


@EACH
@given(
    before=trees(),
    after=trees(),
    opaque=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=3),
)
def test_the_hosts_own_changes_stay(
    tmp_path: Path, *, before: Tree, after: Tree, opaque: bool, edits: list[tuple[int, bool]]
) -> None:
    """Protects what the host's programs wrote meanwhile: no change of the guest replaces or removes it."""
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    write(place, before)
    records = list(overlay(before, after, opaque=opaque))
    with noted(place) as copy, Changes(copy, (), SILENT) as received:
        send(received, records, after)
        edited = edit(place, before, edits)
        said = ""
        try:
            received.apply()
        except MachineError as error:
            said = str(error)
    kept = [str(path) for path in place.iterdir() if path.name.startswith(".pkgjail")]
    assert not said or (edited and "the host " in said and kept[0] in said)
    assert said or not kept
    now = read(place)
    assert {path: now.get(path) for path in edited} == edited


def edit(place: Path, tree: Tree, edits: list[tuple[int, bool]]) -> Tree:
    """Change files of a tree, or make new ones in its directories; returns what was made."""
    files = sorted(path for path in tree if tree[path].kind == "f")
    directories = [b"", *sorted(path for path in tree if tree[path].kind == "d")]
    made: Tree = {}
    for number, is_new in edits:
        if is_new:
            above = directories[number % len(directories)]
            path = above + b"/new" if above else b"new"
        elif files:
            path = files[number % len(files)]
        else:
            continue
        made[path] = Name("f", b"the host's own", 0o640)
        put(bytes(place) + b"/" + path, made[path])
    return made


_PIECES = st.sampled_from([b"a", b"b", b"..", b".", b"", b"link", b"c\0", b"n" * 256])
_RECORDS = st.builds(
    Change,
    st.sampled_from(["f", "d", "o", "x", "l", "q"]),
    st.lists(_PIECES, max_size=3).map(b"/".join),
    st.integers(0, 0o7777).map(lambda mode: mode | 0o700),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2),
    st.sampled_from([b"", b"/", b"..", b"a", b"x" * 5000]),
)


@EACH
@given(records=st.lists(_RECORDS, max_size=8), whole=st.booleans())
@example(records=[Change("l", b"a", target=b".."), Change("f", b"a/b", size=0)], whole=True)
@example(records=[Change("d", b"link", 0o755), Change("f", b"link/b", size=0)], whole=True)
@example(records=[Change("d", b"a", 0o755), Change("x", b"a/..")], whole=True)
def test_a_hostile_guest_reaches_nothing_else(tmp_path: Path, *, records: list[Change], whole: bool) -> None:
    """Protects the user's files from names that lead out, links, and records that no directory gives."""
    outside = tmp_path / "outside"
    place = outside / "place"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    write(outside / "a", {b"b": Name("f", b"outside")})
    write(place, {b"link": Name("l", b"../a"), b"a": _DIRECTORY, b"a/b": Name("f", b"x")})
    before = {path: name for path, name in read(outside).items() if not path.startswith(b"place/")}
    with noted(place) as copy, Changes(copy, (), SILENT) as received:
        try:
            for each in records:
                received.add(each)
                if each.kind == "f" and (whole or each.size == 1):
                    received.content(b"x" * each.size)
            received.apply()
        except MachineError:
            pass
    assert {path: name for path, name in read(outside).items() if not path.startswith(b"place/")} == before
    for path in place.rglob("*"):
        assert path.is_symlink() or path.is_dir() or not path.stat().st_mode & 0o7000


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/a",
        b"a/",
        b"a//b",
        b"..",
        b"a/../b",
        b".",
        b"a\0",
        b"d/" + b"n" * 256,
        b"absent/a",
        b"f/a",
        b"f",
    ],
)
def test_names_that_no_directory_has_are_refused(path: bytes, tmp_path: Path) -> None:
    """Protects against each of them in turn; before anything has changed."""
    (tmp_path / "f").write_bytes(b"")
    with noted(tmp_path) as copy, Changes(copy, (), SILENT) as received:
        for each in (Change("d", b"d"), Change("f", b"f"), Change("d", b"a")):
            received.add(each)
        with pytest.raises(MachineError, match="the guest sent a change of"):
            received.add(Change("f", path))
    assert read(tmp_path).keys() == {b"f"}


def message(change: Change) -> bytes:
    """Return what the agent sends of a change."""
    numbers = struct.pack("<cIqQ", change.kind.encode("latin-1"), change.mode, change.mtime_ns, change.size)
    texts = [struct.pack("<I", len(each)) + each for each in (change.path, change.target)]
    return numbers + b"".join(texts)


@given(change=_RECORDS, cut=st.integers(0, 80), noise=st.binary(max_size=3))
def test_messages_of_changes_are_read(change: Change, cut: int, noise: bytes) -> None:
    """Protects what the agent says of a change, and against messages that are cut, or longer."""
    whole = message(change)
    assert read_change(whole) == change
    for other in (whole[:cut], whole + noise):
        if other != whole[: len(other)] or len(other) != len(whole):
            with pytest.raises(MachineError, match="the guest sent a change that is too"):
                read_change(other)


def test_contents_must_be_as_long_as_said(tmp_path: Path) -> None:
    """Protects against truncated files, and a content of nothing."""
    with noted(tmp_path) as copy, Changes(copy, (), SILENT) as received:
        with pytest.raises(MachineError, match="more of a file"):
            received.content(b"x")
        received.add(Change("f", b"a", size=2))
        received.content(b"x")
        with pytest.raises(MachineError, match="less of a file"):
            received.add(Change("f", b"b"))
        with pytest.raises(MachineError, match="less of a file"):
            received.apply()
        with pytest.raises(MachineError, match="more of a file"):
            received.content(b"xx")
    assert read(tmp_path) == {}


def test_a_guest_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the host from changes without end."""
    monkeypatch.setattr(changes, "_MOST_CHANGES", 2)
    with noted(tmp_path) as copy, Changes(copy, (), SILENT) as received:
        received.add(Change("f", b"a"))
        received.add(Change("f", b"b"))
        with pytest.raises(MachineError, match="more than 2 changes"):
            received.add(Change("f", b"c"))


def test_what_must_stay_stays(tmp_path: Path) -> None:
    """Protects what later runs depend on, although a guest says that it changed: itself, below, and above."""
    place = tmp_path / "place"
    tree = {
        b"d": _DIRECTORY,
        b"d/kept": _DIRECTORY,
        b"d/kept/f": Name("f", b"1"),
        b"d/other": Name("f", b"1"),
    }
    write(place, tree)
    for kind, path in (("x", b"d"), ("f", b"d/kept"), ("f", b"d/kept/f"), ("x", b"d/kept/f")):
        words = path.split(b"/")
        above = [Change("d", b"/".join(words[:length]), 0o755) for length in range(1, len(words))]
        with pytest.raises(MachineError, match="later runs depend on it"):
            bring_back(place, [*above, Change(kind, path)], {path: Name("f")}, [b"d/kept"])
        assert {each: name for each, name in read(place).items() if b".pkgjail" not in each} == tree


def test_modes_and_times_of_directories_are_the_guests(tmp_path: Path) -> None:
    """Protects read-only directories: they are changed all the same, and are read-only again."""
    place = tmp_path / "place"
    write(place, {b"d": Name("d", mode=0o555), b"e": Name("d", mode=0o755)})
    records = [Change("d", b"d", 0o555, TIME), Change("f", b"d/f"), Change("d", b"e", 0o2750, TIME)]
    bring_back(place, records, {b"d/f": Name("f")})
    assert read(place) == {b"d": Name("d", mode=0o555), b"d/f": Name("f"), b"e": Name("d", mode=0o2750)}
    assert {(place / name).stat().st_mtime_ns for name in "de"} == {TIME}


def test_directories_can_be_written_to_while_they_are_changed(tmp_path: Path) -> None:
    """Protects ordinary users from the modes of their own directories."""
    place = tmp_path / "place"
    write(place, {b"d": Name("d", mode=0o555)})
    modes = list[int]()
    reporter = Said(lambda _: modes.append(stat.S_IMODE((place / "d").stat().st_mode)))
    with noted(place) as copy, Changes(copy, (), reporter) as received:
        send(received, [Change("d", b"d", 0o555), Change("f", b"d/f")], {b"d/f": Name("f")})
        received.apply()
    assert modes == [0o555, 0o755, 0o755]


def test_a_directory_that_is_exchanged_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    """Protects a directory that another program of the host puts in the place of one, between two changes."""
    place = tmp_path / "place"
    write(place, {b"d": _DIRECTORY})
    write(tmp_path / "other", {})

    def exchange(done: int) -> None:
        if done == 1:
            os.rename(place / "d", tmp_path / "away")
            os.rename(tmp_path / "other", place / "d")

    with noted(place) as copy, Changes(copy, (), Said(exchange)) as received:
        send(received, [Change("d", b"d", 0o755), Change("f", b"d/f")], {b"d/f": Name("f")})
        with pytest.raises(MachineError, match="d/f: the host changed the directory that it is in"):
            received.apply()
    assert list((place / "d").iterdir()) == []


def test_all_names_of_a_file_can_be_removed(tmp_path: Path) -> None:
    """Protects hard links: to remove one name changes a time of the others."""
    place = tmp_path / "place"
    write(place, {b"a": Name("f", b"x")})
    for name in ("b", "c"):
        os.link(place / "a", place / name)
    bring_back(
        place, [Change("f", b"a", size=1), Change("x", b"b"), Change("x", b"c")], {b"a": Name("f", b"y")}
    )
    assert read(place) == {b"a": Name("f", b"y")}


def test_unchanged_times_are_the_hosts(tmp_path: Path) -> None:
    """Protects fractions of seconds, which a copy does not have, of files of which the mode alone changed."""
    place = tmp_path / "place"
    write(place, {b"f": Name("f", b"x")})
    os.utime(place / "f", ns=(TIME, TIME))
    bring_back(place, [Change("f", b"f", 0o755, TIME // 10**9 * 10**9, 1)], {b"f": Name("f", b"x")})
    found = (place / "f").stat()
    assert (found.st_mtime_ns, stat.S_IMODE(found.st_mode)) == (TIME, 0o755)


def test_the_hosts_modes_of_directories_stay(tmp_path: Path) -> None:
    """Protects a mode that the host changed, and the guest did not, while it wrote there."""
    place = tmp_path / "place"
    write(place, {b"d": _DIRECTORY})
    with noted(place) as copy, Changes(copy, (), SILENT) as received:
        received.add(Change("d", b"d", 0o755, TIME))
        received.add(Change("f", b"d/f"))
        (place / "d").chmod(0o700)
        received.apply()
    assert read(place) == {b"d": Name("d", mode=0o700), b"d/f": Name("f")}


def test_set_id_bits_do_not_come_back(tmp_path: Path) -> None:
    """Protects against a program of a guest that would run as the user who ran it."""
    bring_back(tmp_path, [Change("f", b"f", 0o6755)], {b"f": Name("f")})
    assert read(tmp_path)[b"f"].mode == 0o755


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the directory, with the message, if there is no room for what commands changed."""
    write(tmp_path / "place", {b"f": Name("f", b"old")})

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(changes, "write_all", full)
    with pytest.raises(
        MachineError, match=r"changed in .*place: No space left on device; nothing is changed"
    ):
        bring_back(tmp_path / "place", [Change("f", b"f", size=3)], {b"f": Name("f", b"new")})
    assert read(tmp_path / "place") == {b"f": Name("f", b"old")}


def test_an_error_in_the_middle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what the guest has, if a name cannot be changed: it stays beside, and the error says where."""
    write(tmp_path / "place", {})
    move = applying._move

    def fail(source: int, name: bytes, directory: int, new: bytes) -> None:
        if new == b"b":
            raise OSError(28, os.strerror(28))
        move(source, name, directory, new)

    monkeypatch.setattr(applying, "_move", fail)
    tree = {each: Name("f", each) for each in (b"a", b"b", b"c")}
    with pytest.raises(MachineError, match=r"cannot bring back 1 change of .*, of 3: b: No space"):
        bring_back(tmp_path / "place", [Change("f", each, size=1) for each in tree], tree)
    (kept,) = [path for path in (tmp_path / "place").iterdir() if path.name.startswith(KEPT)]
    assert (kept / "b").read_bytes() == b"b"
    assert sorted(path.name for path in (tmp_path / "place").iterdir() if path != kept) == ["a", "c"]


def test_an_interruption_says_where_the_changes_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what the guest has from a Ctrl-C at the last moment."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(applying, "_move", interrupted)
    reporter = Said()
    with noted(tmp_path) as copy, Changes(copy, (), reporter) as received:
        send(received, [Change("f", b"a", size=1)], {b"a": Name("f", b"x")})
        with pytest.raises(KeyboardInterrupt):
            received.apply()
    (kept,) = [path for path in tmp_path.iterdir() if path.name.startswith(KEPT)]
    assert reporter.warnings == [f"what commands changed in {tmp_path} is in {kept}, not there"]
    assert (kept / "a").read_bytes() == b"x"


def test_what_a_killed_run_received_is_removed(tmp_path: Path) -> None:
    """Protects the directory from half-received changes of a run that was killed."""
    place = tmp_path / "place"
    place.mkdir()
    child = os.fork()
    if not child:
        with noted(place) as copy, Changes(copy, (), SILENT) as received:
            received.add(Change("f", b"a"))
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert [path.name[:9] for path in place.iterdir()] == [".pkgjail-"]
    bring_back(place, [], {})
    assert list(place.iterdir()) == []


def test_other_file_systems_are_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects mounts within a directory, to which nothing can be renamed: all is copied there."""

    def rename(source: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if src_dir_fd != dst_dir_fd:
            raise OSError(18, os.strerror(18))
        real(source, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    real = os.rename
    monkeypatch.setattr(os, "rename", rename)
    before = {b"f": Name("f", b"old"), b"l": Name("l", b"a")}
    after = {b"f": Name("f", b"new", 0o755), b"l": Name("l", b"b")}
    write(tmp_path / "place", before)
    bring_back(tmp_path / "place", list(overlay(before, after, opaque=False)), after)
    assert read(tmp_path / "place") == after
    assert (tmp_path / "place/f").stat().st_mtime_ns == TIME


def test_a_place_that_cannot_be_written_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects a user who may write further down alone: the changes are received elsewhere."""
    place = tmp_path / "place"
    write(place, {b"d": _DIRECTORY})
    with noted(place) as copy:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with Changes(copy, (), SILENT) as received:
            assert [path.name for path in place.iterdir()] == ["d"]
            send(received, [Change("d", b"d", 0o755), Change("f", b"d/f")], {b"d/f": Name("f")})
            received.apply()
    assert read(place).keys() == {b"d", b"d/f"}
