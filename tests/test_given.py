"""Arguments of the library as Python callers write them: paths of any type, no text in a sequence's place."""

from __future__ import annotations

import errno
import inspect
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

import pkgjail
from pkgjail.core.errors import ArgumentError, PkgjailError
from pkgjail.core.given import list_names, path_bytes, path_text, words
from pkgjail.core.options import JailOptions, UserBind
from tests.debian_roots import make_root

if TYPE_CHECKING:
    from collections.abc import Callable

# Content, digests and plans, which are no paths; names as the manifest has them.
_NO_PATHS = {"data", "entry_files", "copies", "directory_steps", "exists", "at", "devices", "paths"}


_BIND = UserBind(source="/", destination="/", writable=True)


def _any(value: object) -> Any:
    """A value of a wrong type, which a type checker would refuse."""
    return value


@pytest.mark.parametrize("path", ["/a\udcff", b"/a\xff", PurePosixPath("/a\udcff"), Path("/a\udcff")])
def test_a_path_of_any_type_is_the_same(path: Any) -> None:
    assert path_bytes(path) == b"/a\xff"
    assert path_text(path) == "/a\udcff"
    bind = UserBind(source=path, destination=path, writable=True)
    assert (bind.source, bind.destination) == (b"/a\xff", b"/a\xff")
    options = JailOptions(cwd=path, devices=[path], paths=(path,), inputs=[path], binds=[bind])
    assert options == JailOptions(
        cwd=b"/a\xff", devices=(b"/a\xff",), paths=(b"/a\xff",), inputs=(b"/a\xff",), binds=(bind,)
    )


def test_a_path_object_names_a_file_and_no_shipped_list() -> None:
    assert list_names(["spack", Path("spack"), Path("a/spack")], "x") == ("spack", "./spack", "a/spack")


_NONE: Any = None  # in the place of a manifest

_WRONG: list[tuple[str, Callable[[], object], str]] = [
    ("a list", lambda: pkgjail.resolve("spack"), "whitelists must be a sequence, not the str 'spack': write ['spack']"),  # noqa: E501
    ("a blacklist", lambda: pkgjail.resolve([], "docs"), "blacklists must be a sequence, not the str 'docs'"),
    ("a path of a list", lambda: pkgjail.resolve(_any(Path("x"))), "whitelists must be a sequence, not the PosixPath"),  # noqa: E501
    ("a package", lambda: pkgjail.resolve([], packages="gcc"), "packages must be a sequence"),
    ("a command", lambda: pkgjail.run_in_jail(_NONE, "gcc x.c"), "argv must be a sequence, not the str 'gcc x.c'"),  # noqa: E501
    ("a number in it", lambda: pkgjail.run_in_jail(_NONE, ["sleep", _any(1)]), "argv[1] must be"),
    ("a stage's command", lambda: pkgjail.run_in_stage(_NONE, "true"), "argv must be a sequence"),
    ("a question", lambda: pkgjail.why(_NONE, "gcc"), "asked must be a sequence"),
    ("a root", lambda: pkgjail.resolve([], root=_any(3)), "root must be a path, a str, bytes or os.PathLike, not the int 3"),  # noqa: E501
    ("a bind", lambda: JailOptions(binds=_any(_BIND)), "binds must be a sequence, not the UserBind"),
    ("a device", lambda: JailOptions(devices="/dev/null"), "devices must be a sequence"),
    ("a working directory", lambda: JailOptions(cwd=_any(None)), "cwd must be a path"),
    ("a list for a manifest", lambda: pkgjail.run_in_jail(_any("build"), ["true"]), "manifest must be a Manifest, not the str 'build'; use read_manifest or resolve, or pkgjail.jail"),  # noqa: E501
    ("paths as binds of options", lambda: JailOptions(binds=_any(["/x"])), "binds[0] must be a UserBind, not the str '/x'"),  # noqa: E501
    ("a path as binds", lambda: pkgjail.jail("base", binds="/x"), "binds must be a sequence, not the str '/x': write ['/x']"),  # noqa: E501
    ("pairs as binds", lambda: pkgjail.jail("base", binds=_any([("/x", "/y")])), "binds[0] must be a path, or a UserBind"),  # noqa: E501
    ("a relative directory", lambda: pkgjail.jail("base", cwd="x"), "cwd must be an absolute path"),
    ("a limit in words", lambda: pkgjail.Limits(memory=_any("1G")), "memory must be a number or None, not the str '1G'"),  # noqa: E501
    ("limits as a mapping", lambda: JailOptions(limits=_any({"pids": 3})), "limits must be a Limits, not the dict"),  # noqa: E501
    ("a number as a variable", lambda: JailOptions(environment=_any({"A": 1})), "environment must have texts alone: the str 'A' has the int 1"),  # noqa: E501
    ("words as variables", lambda: pkgjail.jail("base", env=_any(["A=b"])), "env must be a mapping of names to values, not the list"),  # noqa: E501
    ("no sequence", lambda: words(_any(3), "argv"), "argv must be a sequence, not the int 3"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), [each[1:] for each in _WRONG], ids=[each[0] for each in _WRONG])
def test_a_wrong_type_is_told(call: Callable[[], object], said: str) -> None:
    """As what pkgjail foresees, and as what Python raises. A text is a sequence of letters."""
    with pytest.raises(ArgumentError, match=r"must (be|have)") as caught:
        call()
    assert str(caught.value).startswith(said)
    assert isinstance(caught.value, (TypeError, PkgjailError))


def test_every_public_function_takes_paths_of_any_type() -> None:
    """None of them has a path that must be bytes, or a sequence that must be a tuple or a list."""
    wrong = [
        f"{name}({each.name}: {each.annotation})"
        for name in pkgjail.__all__
        if inspect.isfunction(function := getattr(pkgjail, name))
        for each in inspect.signature(function).parameters.values()
        if each.name not in _NO_PATHS
        and ("bytes" in str(each.annotation) or "PathLike" in str(each.annotation))
    ]
    assert wrong == []


def test_what_cannot_be_written_is_foreseen(tmp_path: Path) -> None:
    """It is also what Python raises, with the same number and file."""
    (tmp_path / "a.toml").write_text('packages.debian = ["a"]\n')
    lists = {"etc/os-release": "ID=debian\n", "var/lib/dpkg/info/a.list": ""}
    root = make_root(tmp_path / "root", "a 1 amd64", files=lists)
    manifest = pkgjail.resolve([tmp_path / "a.toml"], root=root, allow_unmet=True)
    with pytest.raises(FileNotFoundError, match="No such file or directory") as caught:
        pkgjail.write_manifest(manifest, tmp_path / "none" / "m.jsonl")
    assert isinstance(caught.value, PkgjailError)
    assert caught.value.errno == errno.ENOENT


def test_a_root_by_its_text(tmp_path: Path) -> None:
    """From its resolution to its comparison."""
    root = make_root(
        tmp_path / "root",
        "a 1 amd64",
        files={"etc/os-release": "ID=debian\n", "usr/bin/a": "x", "var/lib/dpkg/info/a.list": "/usr/bin/a\n"},
    )
    (tmp_path / "a.toml").write_text('packages.debian = ["a"]\n')
    by_text = pkgjail.resolve([tmp_path / "a.toml"], root=str(tmp_path / "root"), allow_unmet=True)
    assert by_text == pkgjail.resolve([str(tmp_path / "a.toml")], root=root, allow_unmet=True)
    pkgjail.write_manifest(by_text, bytes(tmp_path / "m.jsonl"))
    assert pkgjail.read_manifest(tmp_path / "m.jsonl") == by_text
