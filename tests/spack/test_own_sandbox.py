"""`spack jail --landlock`: settings for Spack's own sandbox, which an ordinary kernel applies here."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from pkgjail.core.errors import InputError, SourceError
from pkgjail.core.options import UserBind
from pkgjail.integrations.spack.instance.model import Instance
from pkgjail.integrations.spack.jail.sandbox import refuse_without_sandbox, sandbox_settings
from tests.conftest import SPACK_ROOT
from tests.manifest_text import files_alone

if TYPE_CHECKING:
    from typing import Any

    from tests.spack.conftest import Spack

# What the stand-in and a Spack before 1.2 lack: it applies the settings by Landlock's system calls.
INSTALLER = r"""
import ctypes, os, stat, struct, tempfile

READ, WRITE = 1 | 4 | 8, 2 | 16 | 32 | 64 | 128 | 256 | 512 | 1024 | 2048 | 4096


def _enable_sandbox(config, spec, stage):
    call = ctypes.CDLL(None, use_errno=True).syscall
    handled = ctypes.create_string_buffer(struct.pack("Q", READ | WRITE), 8)
    ruleset = call(444, handled, 8, 0)
    assert ruleset >= 0
    written = [stage, tempfile.gettempdir(), "/dev/null", *config["allow_write"]]
    rules = [(path, READ) for path in config["allow_read"]] + [(path, READ | WRITE) for path in written]
    for path, access in rules:
        if os.path.exists(path):
            found = os.open(os.path.realpath(path), os.O_PATH)
            access &= -1 if stat.S_ISDIR(os.fstat(found).st_mode) else 1 | 2 | 4
            rule = ctypes.create_string_buffer(struct.pack("=Qi", access, found), 12)
            assert call(445, ruleset, 1, rule, 0) == 0, path
            os.close(found)
    assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
    assert call(446, ruleset, 0) == 0
"""
# Begins the phases of a build as Spack does, and prints what it gets for opening each path.
BUILD = """
import json, os
from spack.new_installer import _enable_sandbox
class Spec:
    prefix = {stage!r}
    traverse = staticmethod(lambda root: [])
_enable_sandbox(json.loads({config!r}), Spec, {stage!r})
for path, flags in {paths!r}:
    try:
        os.close(os.open(path, flags))
        print("open", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


@pytest.fixture
def sandboxed(spack: Spack) -> Spack:
    """A Spack that has a sandbox: its own, or ours."""
    library = spack.root / "lib/spack/spack"
    if not (library / "sandbox.py").exists():
        spack.user_writes(library / "sandbox.py", "")
        spack.user_writes(library / "new_installer.py", INSTALLER)
    return spack


def test_a_build_reads_the_manifest_and_spack_and_nothing_else(sandboxed: Spack) -> None:
    """Without rules for Spack itself no build gets beyond its first phase; other packages are denied."""
    spack = sandboxed
    temporary, stage = spack.user.home / "temporary", spack.user.home / "stage"
    for directory in (temporary, stage, spack.root / "opt/spack/other"):
        spack.user.run(["mkdir", "-p", str(directory)])
    other, secret = spack.root / "opt/spack/other/header.h", spack.user.home / "secret"
    for path in (other, secret, spack.root / "var/recipe"):
        path.parent.mkdir(exist_ok=True)
        spack.user_writes(path, "")
    variables = {"TMPDIR": str(temporary)}
    done = spack("jail", "--landlock", "--whitelist", spack.whitelist, environment=variables)
    assert done.returncode == 0, done.stderr
    compiler = shutil.which("gcc")
    assert compiler is not None
    readable = [
        spack.root / "lib/spack/spack/config.py",
        spack.root / "etc/spack/config.yaml",
        spack.root / "var/recipe",
        spack.python.parent.parent / "pyvenv.cfg",
        Path(os.path.realpath("/usr/bin/python3")),
        Path("/proc/self/status"),
        Path("/sys"),
    ]
    spack.user_writes(spack.root / "etc/spack/config.yaml", '{"config": {}}\n')
    denied = [other, secret, Path(os.path.realpath(compiler))]
    asked: list[tuple[str, int]] = [(str(path), os.O_RDONLY) for path in (*readable, *denied)]
    asked += [("/dev/null", os.O_RDWR), ("/dev/shm/made", os.O_RDWR | os.O_CREAT)]
    asked += [(str(spack.root / "lib/made"), os.O_RDWR | os.O_CREAT)]
    config = yaml.safe_load(done.stdout)["config"]["sandbox"]
    code = BUILD.format(stage=str(stage), config=json.dumps(config), paths=asked)
    spack.user_writes(temporary / "build.py", code)
    built = spack(
        "python", "-c", f"exec(open({str(temporary / 'build.py')!r}).read())", environment=variables
    )
    Path("/dev/shm/made").unlink(missing_ok=True)
    answers = ["open"] * len(readable) + ["Permission denied"] * len(denied)
    assert built.stdout.splitlines() == [*answers, "open", "open", "Permission denied"], built.stderr
    if SPACK_ROOT and os.path.exists(os.path.join(SPACK_ROOT, "lib/spack/spack/sandbox.py")):
        # This Spack reads the settings by its own schema, as a scope that -C names.
        spack.user_writes(temporary / "config.yaml", done.stdout)
        got = spack("-C", str(temporary), "config", "get", "config", environment=variables)
        assert yaml.safe_load(got.stdout)["config"]["sandbox"]["allow_write"] == config["allow_write"]


def test_the_rules_come_from_a_list_or_the_active_environment(sandboxed: Spack) -> None:
    """A list does in a container without namespaces; an environment adds its binds."""
    spack = sandboxed
    sources, work = spack.user.home / "sources", spack.user.home / "work"
    for directory in (sources, work):
        spack.user.run(["mkdir", str(directory)])

    def settings(*arguments: str) -> dict[str, Any]:
        written = yaml.safe_load(spack("jail", "--landlock", *arguments).stdout)
        found: dict[str, Any] = written["config"]["sandbox"]
        assert found["enable"] is True
        return found

    spack.build("--ro-bind", str(sources), "--bind", str(work))
    listed, active = settings("--whitelist", spack.whitelist), settings()
    assert sorted({*active["allow_read"]} - {*listed["allow_read"]}) == [str(sources)]
    assert sorted({*active["allow_write"]} - {*listed["allow_write"]}) == [str(work)]


def test_output_that_nobody_reads_is_no_error(sandboxed: Spack) -> None:
    """As with `| head`."""
    done = sandboxed.user.run(
        ["bash", "-c", '"$@" | head -1', "-", sandboxed.script, "jail", "--landlock", "--whitelist", "base"],
        environment=sandboxed.variables(),
    )
    assert (done.stdout[:9], done.stderr) == ("# Written", "")


def instance(root: Path, **paths: tuple[str, ...]) -> Instance:
    """A Spack in `root`."""
    more = {"writable": (), "readable": (), "tools": (), "watched": (), **paths}
    return Instance(root=str(root), python="/usr/bin/python3", **more)  # type: ignore[arg-type]


def test_trees_of_packages_are_never_listed(tmp_path: Path) -> None:
    """Spack allows the dependencies' prefixes itself; a tree of all packages would hide undeclared ones."""
    root = tmp_path.resolve() / "spack"
    for name in ("lib", "opt/spack/linux/zlib", "opt/.pkgjail", "env/.spack-env/view", "env/logs"):
        (root / name).mkdir(parents=True)
    (root / "linked").symlink_to("opt/spack")
    spack = instance(
        root,
        own=(str(root), str(root / "lib"), str(root / "missing"), "/usr/lib"),
        private=(str(root / "linked"), str(root / "env/.spack-env/view")),
        module_roots=(str(root / "modules"),),
    )
    binds = (
        UserBind(source=b"/moved", destination=b"/elsewhere", writable=True),
        UserBind(source=b"/same", destination=b"/same", writable=False),
    )
    found = yaml.safe_load(sandbox_settings(files_alone(()), spack, binds))["config"]["sandbox"]
    assert [path for path in found["allow_read"] if path.startswith(str(root))] == [
        str(root / name) for name in ("env/logs", "lib", "opt/.pkgjail")
    ]
    assert "/same" in found["allow_read"]
    assert str(root / "modules") in found["allow_write"]
    assert not {"/moved", "/elsewhere", "/usr/lib"} & {*found["allow_read"], *found["allow_write"]}


def test_files_of_an_image_are_none_of_the_host(tmp_path: Path) -> None:
    """The rules would allow the host's files of the same names."""
    host = files_alone(())
    manifest = replace(host, header=replace(host.header, schema=3, source="directory"))
    with pytest.raises(SourceError, match="it was made from a directory"):
        sandbox_settings(manifest, instance(tmp_path))


def test_a_spack_without_a_sandbox_says_so(tmp_path: Path) -> None:
    """Settings that an older Spack ignores, or refuses, would protect nothing."""
    with pytest.raises(InputError, match=r"has no sandbox of its own, which Spack has since 1\.2"):
        refuse_without_sandbox(instance(tmp_path))
