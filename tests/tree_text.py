r"""Trees, file sets and plans as text, so that a test can say on one page what goes in and out.

A tree on the disk is a line for each name, parents made as needed; a path is written with `\xNN` for
every byte that is no printable ASCII, for the space and for the backslash:

    /usr/bin/                 a directory (0755)
    /secret/ 0700             a directory with a mode
    /bin -> usr/bin           a symbolic link
    /usr/bin/a                a file (0644, of 2 bytes)
    /usr/bin/b 0755 = text    a file with a mode and a content
    /run/pipe fifo            a named pipe
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from hypothesis import strategies as st

from pkgjail.sandbox import steps as s
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pkgjail.core.model import FileEntry, FileKind, FileSet

NOBODY = 65534
_LINE = re.compile(
    r"(?P<path>\S*?)(?P<slash>/?)(?: (?P<mode>[0-7]{4,5}))?(?: (?P<sign>->|=|fifo) ?(?P<rest>.*))?"
)


def shown(path: bytes) -> str:
    r"""A path in printable ASCII without spaces: all else as `\xNN`."""
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in path)


def meant(text: str) -> bytes:
    """The path that `shown` wrote."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())


NodeKind = Literal["directory", "regular", "symlink", "fifo", "hardlink"]


class Node(NamedTuple):
    """One name of a tree: `kind` is "directory", "regular", "symlink", "fifo" or "hardlink".

    `data` is a file's content, or where a link of either sort leads.
    """

    path: bytes
    kind: NodeKind
    mode: int = 0o755
    data: bytes = b""

    @property
    def entry_kind(self) -> FileKind:
        """The kind of its entry in a manifest."""
        assert self.kind in ("directory", "regular", "symlink"), self
        return self.kind


def parse_tree(text: str) -> list[Node]:
    """The nodes of a tree's text."""
    return [_node(line.strip()) for line in text.splitlines() if line.strip()]


def _node(line: str) -> Node:
    match = _LINE.fullmatch(line)
    assert match is not None, line
    path, sign, rest = meant(match["path"]) or b"/", match["sign"], match["rest"] or ""
    if sign == "->":
        return Node(path, "symlink", data=meant(rest))
    if sign == "fifo":
        return Node(path, "fifo")
    if match["slash"]:
        return Node(path, "directory", int(match["mode"] or "0755", 8))
    return Node(path, "regular", int(match["mode"] or "0644", 8), rest.encode() if sign else b"x\n")


def remove_path(path: Path) -> None:
    """Remove a name and all that is in it, whatever the modes, as pkgjail does."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_tree(directory, path.name)
    finally:
        os.close(directory)


@contextmanager
def tree(nodes: Sequence[Node]) -> Iterator[bytes]:
    """The tree on the disk, below a new directory that every user may search; removed at the end."""
    root = os.fsencode(tempfile.mkdtemp(prefix="pkgjail-tree-"))
    os.chmod(root, 0o755)  # noqa: S103 - it holds nothing secret
    try:
        make(nodes, root)
        yield root
    finally:
        for directory, _, _ in os.walk(root):
            os.chmod(directory, 0o700)
        shutil.rmtree(root)


def make(nodes: Sequence[Node], root: bytes) -> None:
    """Make the nodes below `root`; modes of directories last, as they may forbid what is to come."""
    for node in nodes:
        place = root + node.path
        os.makedirs(place if node.kind == "directory" else os.path.dirname(place), 0o755, exist_ok=True)
        if node.kind == "symlink":
            os.symlink(node.data, place)
        elif node.kind == "hardlink":
            os.link(root + node.data, place)
        elif node.kind == "fifo":
            os.mkfifo(place)
        elif node.kind == "regular":
            with open(place, "xb") as file:
                file.write(node.data)
            os.chmod(place, node.mode)
    for node in reversed(nodes):
        if node.kind == "directory":
            os.chmod(root + node.path, node.mode)


def entry_line(entry: FileEntry) -> str:
    """`/usr/bin/awk symlink /etc/alternatives/awk alternative(awk) mawk:amd64`; usual modes left out."""
    usual = {"directory": 0o755, "regular": 0o644}.get(entry.kind, entry.mode)
    words = [
        shown(entry.path),
        entry.kind,
        f"{entry.mode:04o}" if entry.mode != usual else "",
        shown(entry.target) if entry.target is not None else "",
        f"{entry.origin}({entry.detail})" if entry.detail else entry.origin,
        *entry.owners,
    ]
    return " ".join(filter(None, words))


def file_set_lines(files: FileSet) -> list[str]:
    """A file set, a line each, less the directories that only hold others."""
    return [
        *(
            entry_line(entry)
            for entry in files.entries
            if (entry.kind, entry.origin) != ("directory", "parent")
        ),
        *(f"dropped {shown(one.path)} by {one.rule}" for one in files.dropped),
        *(" ".join(["missing", shown(one.path), one.reason, *one.owners]) for one in files.missing),
    ]


def plan_lines(plan: s.Plan) -> list[str]:
    """A plan's steps, a line each, with the kind in lower case and usual modes left out."""
    return [_step_line(step) for step in plan.steps]


def _step_line(step: s.Step) -> str:
    words = [type(step).__name__.lower()]
    for field, value in zip(step._fields, step):
        if field == "mode" and isinstance(value, int):
            usual = 0o755 if isinstance(step, s.Directory) else 0o644
            words.append(f"{value:04o}" if value != usual else "")
        elif field == "writable":
            words.append("writable" if value else "read-only")
        elif isinstance(value, bytes):
            words.append(repr(value)[1:] if field == "content" else shown(value))
        elif isinstance(value, tuple):  # of devices
            words += [shown(device[0]) for device in value]
        else:
            words.append(f"{value!r} bytes")
    return " ".join(filter(None, words))


def walk_lines(top: bytes, skipped: Sequence[bytes] = ()) -> list[str]:
    """All names below `top` but the `skipped`: kind, mode, link's target, or digest of the content."""
    lines, todo = [], [b""]
    while todo:
        directory = todo.pop()
        with os.scandir(top + directory or b"/") as names:
            paths = [directory + b"/" + entry.name for entry in names]
        for path in paths:
            found = os.lstat(top + path)
            if path in skipped:
                continue
            if stat.S_ISDIR(found.st_mode):
                todo.append(path)
            lines.append(name_line(top, path, found))
    return sorted(lines)


def name_line(top: bytes, path: bytes, found: os.stat_result) -> str:
    """One line of `walk_lines`."""
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    if stat.S_ISLNK(found.st_mode):
        return f"{shown(path)} symlink {shown(os.readlink(top + path))}"
    if stat.S_ISDIR(found.st_mode):
        return f"{shown(path)} directory {mode}"
    if not stat.S_ISREG(found.st_mode):
        return f"{shown(path)} special {found.st_mode:o}"
    try:
        with open(top + path, "rb") as file:
            return f"{shown(path)} regular {mode} {hashlib.sha256(file.read()).hexdigest()}"
    except PermissionError:
        return f"{shown(path)} regular {mode} unreadable"


def in_child(work: Callable[[], str], uid: int) -> str:
    """Return the result of `work` in a process of the user `uid`, or its failure as text."""
    reading, writing = os.pipe()
    codecs.lookup("ascii")  # the other user may be unable to read this interpreter's modules
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() != uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            text = work()
        except BaseException as error:  # noqa: BLE001 - nothing may fall through into the parent's code
            text = f"failed: {error!r}"
        try:
            with open(writing, "w", encoding="utf-8") as report:
                report.write(text)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as report:
        text = report.read()
    os.waitpid(child, 0)
    return text


_ODD = (b" ", b"\n", b"\xff\xfe", b"-rf", b"...", b"*", b"\\", b"n" * 255, "ä".encode(), b"a:b")
# No names at all, and what a jail has of its own.
_TAKEN = (b".", b"..", b"dev", b"proc", b"sys", b"tmp")
_NAMES = st.sampled_from((b"a", b"b", b"c", b"d.py", *_ODD)) | st.binary(min_size=1, max_size=9).filter(
    lambda name: not {0, 0x2F} & set(name) and name not in _TAKEN
)
FILE_MODES = (0o644, 0o755, 0o600, 0o444, 0o640, 0o004, 0o000, 0o4755)
DIRECTORY_MODES = (0o755, 0o755, 0o555, 0o1777, 0o2755)
PRIVATE_MODES = (0o711, 0o700, 0o750)


@st.composite
def trees(draw: st.DrawFn, directory_modes: Sequence[int] = DIRECTORY_MODES) -> list[Node]:
    """Trees of odd names: nested, with links to anything and nothing, hard links, and all modes."""
    directories, nodes = [b""], dict[bytes, Node]()
    for _ in range(draw(st.integers(0, 14))):
        path = draw(st.sampled_from(directories)) + b"/" + draw(_NAMES)
        kind = draw(st.sampled_from(("directory", "directory", "regular", "symlink", "hardlink")))
        files = [node.path for node in nodes.values() if node.kind == "regular"]
        if path in nodes or (kind == "hardlink" and not files):
            continue
        if kind == "directory":
            directories.append(path)
            nodes[path] = Node(path, "directory", draw(st.sampled_from(directory_modes)))
        elif kind == "regular":
            mode, content = draw(st.sampled_from(FILE_MODES)), draw(st.binary(max_size=20))
            nodes[path] = Node(path, "regular", mode, content)
        elif kind == "hardlink":
            nodes[path] = Node(path, "hardlink", data=draw(st.sampled_from(files)))
        else:
            nodes[path] = Node(path, "symlink", data=draw(_targets(path, nodes)))
    return list(nodes.values())


def _targets(path: bytes, nodes: Mapping[bytes, Node]) -> st.SearchStrategy[bytes]:
    """Where a link may lead: any other name (absolutely, relatively), itself, upwards, nowhere."""
    near = [os.path.relpath(other, os.path.dirname(path)) for other in nodes]
    return st.sampled_from((*nodes, *near, path, b".", b"..", b"../../../x", b"/", b"nowhere", b"/no/where"))
