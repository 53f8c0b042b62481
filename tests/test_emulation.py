"""Programs of other architectures: what binfmt_misc says, what runs in jails, and how the rest is refused."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import create_image
from pkgjail.audit.run import run_audited
from pkgjail.backends.machine import machine_of
from pkgjail.cli.main import main
from pkgjail.core import binfmt, exit_programs
from pkgjail.core.architectures import (
    architecture_named,
    architecture_of_elf,
    host_architecture,
    tiny_program,
)
from pkgjail.core.binfmt import Registration, obstacle, registration_for
from pkgjail.core.errors import JailError, PkgjailError
from pkgjail.core.reporter import Silent
from pkgjail.images.creating import Recipe, refuse_foreign_image
from pkgjail.jails import emulation
from pkgjail.jails.emulation import runs_by_emulation, runs_in_jail
from pkgjail.jails.run import content_for_anyone, prepare_jail
from pkgjail.manifest import read_manifest
from pkgjail.stages import run_in_stage
from tests import hello
from tests.conftest import SYSTEM_PYTHON
from tests.emulators import ARM64, FAILED, registered_on_the_host, registration, tree_of, within

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

QEMU = "/usr/bin/qemu-aarch64-static"
ENTRY = """\
{}
interpreter /usr/bin/qemu-aarch64-static
flags: {}
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
ON, OFF, OTHER = ENTRY.format("enabled", "POCF"), ENTRY.format("disabled", "F"), ENTRY.format("enabled", "PF")
WHOLE = {
    "status": "enabled\n",
    "register": "",
    "python": "enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic a70d0d0a\n",
    "jar": "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n",
}
# What is in binfmt_misc, and why a program for arm64 does not run by emulation; "" if it may.
STATES: dict[str, tuple[dict[str, str], str, str]] = {
    "with F": ({**WHOLE, "qemu": ON}, "", ""),
    "nothing": (WHOLE, "no emulator is registered for it in {}", "install the package qemu-user-static, "),
    "disabled as a whole": (
        {**WHOLE, "status": "disabled\n", "qemu": ON}, "binfmt_misc is disabled", "echo 1 > {}/status"
    ),
    "a disabled one": ({**WHOLE, "qemu": OFF}, f"the emulator {QEMU} is disabled", "echo 1 > {}/qemu"),
    "a disabled and an enabled one": ({**WHOLE, "a": OFF, "b": OTHER, "c": OFF}, "", ""),
    "without F": (
        {**WHOLE, "qemu": ENTRY.format("enabled", "OC")},
        f"the emulator {QEMU} is registered without the flag F, so the kernel looks for it",
        "echo -1 > {}/qemu, and install the package qemu-user-static, ",
    ),
    "another architecture": (
        {**WHOLE, "qemu": ON.replace("b700", "f300")}, "no emulator is registered for it in {}", "install "
    ),
    "a mask": ({**WHOLE, "qemu": ON.replace("magic 7f454c4602010100", "magic 7f454c46020101ff")}, "", ""),
    "no mask": ({**WHOLE, "qemu": ON[: ON.index("mask")]}, "", ""),
    "damaged": (
        {**WHOLE, "qemu": ON.replace("magic 7f", "magic zz")}, "no emulator is registered", "install "
    ),
    "longer than a header": (
        {**WHOLE, "qemu": ON.replace("offset 0", "offset 4096")}, "no emulator is registered", "install "
    ),
}  # fmt: skip


@pytest.mark.parametrize("summary", STATES)
def test_what_is_registered(summary: str, tmp_path: Path) -> None:
    """Protects the reading of binfmt_misc, and that each fault of it has its own words and remedy."""
    files, why, remedy = STATES[summary]
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    found = obstacle(ARM64, str(tmp_path))
    if not why:
        assert found is None
    else:
        assert found is not None
        assert found.why.startswith(why.format(tmp_path))
        assert found.remedy.startswith(remedy.format(tmp_path))


def test_the_emulator_of_an_architecture(tmp_path: Path) -> None:
    """Protects the fields of a registration, and that none is found where binfmt_misc is not mounted."""
    assert registration_for(ARM64, str(tmp_path)) is None
    (tmp_path / "qemu-aarch64").write_text(ON)
    expected = Registration("qemu-aarch64", True, "/usr/bin/qemu-aarch64-static", "POCF")
    assert registration_for(ARM64, str(tmp_path)) == expected


def test_what_cannot_be_seen_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects hosts and containers whose binfmt_misc is not mounted: a program decides."""
    monkeypatch.setattr(binfmt, "runs_program", lambda _: True)
    assert obstacle(ARM64, str(tmp_path)) is None
    monkeypatch.setattr(binfmt, "runs_program", lambda _: False)
    found = obstacle(ARM64, str(tmp_path))
    assert found is not None
    assert found.why.startswith(f"{tmp_path} is not mounted, and a program for it, which was tried, does not")
    assert found.remedy.startswith(f"mount -t binfmt_misc binfmt_misc {tmp_path}, and install the package ")


# --- manifests ----------------------------------------------------------------------------------


def made_for(manifest: Manifest, word: str) -> Manifest:
    """Return a manifest as if it were for another architecture."""
    return replace(manifest, header=replace(manifest.header, architecture=word))


class Warnings(Silent):
    """A reporter that keeps its warnings."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, message: str) -> None:
        """Keep it."""
        self.texts.append(message)


@pytest.mark.parametrize("word", ["host", "unknown64"])
def test_a_native_manifest_pays_nothing(
    word: str, base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the time of each entry: nothing is run or read for this host's own architecture."""
    monkeypatch.setattr(emulation, "runs_natively", None)
    monkeypatch.setattr(emulation, "runs_in_jail", None)
    manifest = base_manifest if word == "host" else made_for(base_manifest, word)
    assert not runs_by_emulation(manifest)


def test_a_compatible_one_is_native(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects i386 on amd64: it is entered as ever, without a warning."""
    monkeypatch.setattr(emulation, "runs_natively", lambda _: True)
    reporter = Warnings()
    assert not runs_by_emulation(made_for(base_manifest, "s390x"), reporter)
    assert reporter.texts == []


def emulated(monkeypatch: pytest.MonkeyPatch, *, found: Registration | None, runs: bool) -> None:
    """Pretend that an emulator is registered, and whether it runs programs in a jail."""
    monkeypatch.setattr(emulation, "runs_natively", lambda _: False)
    monkeypatch.setattr(emulation, "runs_in_jail", lambda _: runs)
    monkeypatch.setattr(binfmt, "obstacle", lambda _: None)
    monkeypatch.setattr(binfmt, "registration_for", lambda _: found)


SEEN = Registration("qemu-s390x", True, "/usr/bin/qemu", "F")


@pytest.mark.parametrize(("found", "name"), [(SEEN, " (qemu-s390x)"), (None, "")])
def test_an_emulator_is_named_once(
    found: Registration | None, name: str, base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects that nobody takes an emulated command for a native one: a warning says it, once a jail."""
    emulated(monkeypatch, found=found, runs=True)
    reporter = Warnings()
    jail = prepare_jail(made_for(base_manifest, "s390x"), reporter=reporter)
    assert jail.emulated
    assert jail.enter(["true"]) == jail.enter(["true"]) == 0
    assert reporter.texts == [f"the manifest is for s390x: its programs run by emulation{name}"]


@pytest.mark.parametrize(("found", "name"), [(SEEN, "/usr/bin/qemu"), (None, "of this host")])
def test_an_emulator_that_does_not_run_is_refused(
    found: Registration | None, name: str, base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from what binfmt_misc promises: a broken emulator is found out before the command."""
    emulated(monkeypatch, found=found, runs=False)
    with pytest.raises(
        JailError, match=f"the emulator {name} does not run a program in a jail, which was tried"
    ):
        prepare_jail(made_for(base_manifest, "s390x"))


@pytest.mark.parametrize("stage", ["namespaces", "bwrap"])
def test_a_foreign_manifest_is_refused(
    stage: str, base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the message: why, what the administrator does, and the virtual machine; nothing is copied."""
    monkeypatch.setattr(emulation, "runs_natively", lambda _: False)
    monkeypatch.setattr(binfmt, "obstacle", lambda _: binfmt.Obstacle("no emulator is there", "install it"))
    with pytest.raises(JailError) as refused:
        run_in_stage(made_for(base_manifest, "s390x"), ["true"], stage=stage)
    assert str(refused.value) == (
        f"cannot run programs of the manifest: it is for s390x, this host is {host_architecture()}, and no "
        "emulator is there; as root: install it; or use a virtual machine: `stage='vm'`"
    )


def test_an_audit_by_emulation_is_refused(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the truth of audits: an emulator's look-ups are not the command's."""
    emulated(monkeypatch, found=None, runs=True)
    with pytest.raises(JailError, match=r"cannot audit a command that runs by emulation: .*, s390x"):
        run_audited(made_for(base_manifest, "s390x"), ["true"])


def test_the_probe_in_a_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the probe: a program of this host runs in a jail with nothing else; what is none does not."""
    host = host_architecture()
    assert host is not None
    assert runs_in_jail(host)
    monkeypatch.setattr(emulation, "tiny_program", lambda _: b"\x7fELF" + bytes(60))
    assert not runs_in_jail(host)
    monkeypatch.setattr(emulation, "_TIMEOUT", 0)
    assert not runs_in_jail(host)


def test_an_ld_cache_needs_them_too(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects exports of foreign manifests: they say why there is no ld.so cache, not ldconfig's status."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(emulation, "runs_natively", lambda _: False)
    monkeypatch.setattr(binfmt, "obstacle", lambda _: binfmt.Obstacle("no emulator is there", "install it"))
    with pytest.raises(JailError) as refused:
        content_for_anyone(made_for(base_manifest, "s390x"), b"/")
    assert re.fullmatch(
        r"cannot make /etc/ld\.so\.cache by the manifest's own /usr/sbin/ldconfig: it is for s390x, this "
        r"host is \w+, and no emulator is there; as root: install it",
        str(refused.value),
    )


# --- images -------------------------------------------------------------------------------------


def test_an_image_is_refused_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a download of which no package can be configured, in our own words."""
    monkeypatch.setattr("pkgjail.images.creating.obstacle", lambda _: binfmt.Obstacle("nothing", "do it"))
    monkeypatch.setattr("pkgjail.images.creating.runs_natively", lambda one: one.debian == "amd64")
    refuse_foreign_image(Recipe(suite="sid", variant="apt", architecture="x86_64,s390x"))
    refuse_foreign_image(Recipe(suite="sid", variant="apt"))
    monkeypatch.setenv("PATH", "")  # mmdebstrap would be missed
    with pytest.raises(PkgjailError, match=r"cannot create the image: it is for s390x, .* as root: do it$"):
        create_image("foreign", suite="sid", architecture="s390x", store=str(tmp_path))
    monkeypatch.setattr("pkgjail.images.creating.obstacle", lambda _: None)
    refuse_foreign_image(Recipe(suite="sid", variant="apt", architecture="s390x"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"bin/sh": "s390x", "bin/a": "arm64"}, "s390x"),
        ({"bin/sh": "", "bin/a": "", "bin/b": "riscv64"}, "riscv64"),
        ({"hello": "ppc64le"}, "ppc64le"),
        ({"etc/hello": "ppc64le"}, "host"),
        ({}, "host"),
    ],
)
def test_a_root_without_packages(files: dict[str, str], expected: str, tmp_path: Path) -> None:
    """Protects images without a package database: their programs say what they are for."""
    for name, word in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tiny_program(architecture_named(word)) if word else b"#!/bin/sh\n")
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin/0").symlink_to("/bin/0")
    host = host_architecture()
    assert host is not None
    assert machine_of(bytes(tmp_path)) == (host.machine if expected == "host" else expected)


# --- real ones ----------------------------------------------------------------------------------


class Imported:
    """Runs the probe of a whole image for arm64 where emulators are registered."""

    def __init__(self, user: Caller) -> None:
        self.user = user
        self.store = {"PKGJAIL_STORE": str(user.home / "store")}
        tree = tree_of(user.home / "tree", "arm64")
        done = user.pkgjail("image", "import", str(tree), "tiny", environment=self.store)
        assert done.returncode == 0, done.stderr

    def run(self, before: list[str], *options: str, verb: str = "run") -> subprocess.CompletedProcess[str]:
        """Run the probe as root of a user namespace."""
        words = [SYSTEM_PYTHON, "-m", "pkgjail", verb, *options, "--source", "image:tiny", "--", "/bin/probe"]
        return self.user.run([*before, *words], environment=self.store)


@pytest.fixture
def imported(anyone: Caller) -> Imported:
    """The image of the probe."""
    if anyone.run([*within(), "true"]).returncode == FAILED:
        pytest.skip("this kernel has one binfmt_misc for all user namespaces (Linux before 6.7)")
    return Imported(anyone)


EMULATED = "pkgjail: warning: the manifest is for arm64: its programs run by emulation (qemu-aarch64)\n"


@pytest.mark.parametrize("options", [(), ("--arch", "aarch64"), ("--stage", "bwrap")], ids=str)
def test_a_real_program_runs_by_emulation(options: tuple[str, ...], imported: Imported) -> None:
    """Protects the promise: an arm64 program runs in a jail that has nothing of the emulator."""
    done = imported.run(within(registration()), *options)
    assert (done.returncode, done.stderr, done.stdout) == (exit_programs.STATUS, EMULATED, "")


REFUSALS = {
    "nothing": (within(), "no emulator is registered for it in /proc/sys/fs/binfmt_misc; as root: install "),
    "without F": (within(registration("")), "is registered without the flag F, so the kernel looks for it"),
    "not to be seen, without F": (
        within(registration(""), then=f"mount -t tmpfs none {binfmt.BINFMT_MISC}"),
        "the emulator of this host does not run a program in a jail, which was tried",
    ),
}  # fmt: skip


@pytest.mark.parametrize("summary", REFUSALS)
def test_a_real_refusal(summary: str, imported: Imported) -> None:
    """Protects each cause, as the kernel has it: the words are of both ways out, and nothing is run."""
    before, why = REFUSALS[summary]
    done = imported.run(before)
    assert done.returncode == 125, done.stderr
    assert done.stderr.startswith(
        "pkgjail: cannot run programs of the manifest: it is for arm64, this host is "
    )
    assert why in done.stderr
    assert done.stderr.endswith("; or use a virtual machine: '--stage vm'\n")


def test_what_is_hidden_and_fixed_runs(imported: Imported) -> None:
    """Protects containers that see no binfmt_misc: their host's emulator is found by trying."""
    hidden = within(registration(), then=f"mount -t tmpfs none {binfmt.BINFMT_MISC}")
    done = imported.run(hidden)
    assert (done.returncode, done.stderr) == (exit_programs.STATUS, EMULATED.replace(" (qemu-aarch64)", ""))


def test_the_architecture_that_is_asked_for(imported: Imported, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects `--arch`: another manifest is refused, and so is a word that means nothing."""
    done = imported.run(within(registration()), "--arch", "amd64")
    assert done.returncode == 125
    assert done.stderr == (
        "pkgjail: cannot run programs for amd64: the manifest is for aarch64; leave out --arch, or name a "
        "manifest or an image for amd64\n"
    )
    host = host_architecture()
    assert host is not None
    assert main(["run", "--arch", host.machine, "base", "--", "true"]) == 0
    assert main(["run", "--arch", "amd46", "base", "--", "true"]) == 125
    assert "there is no architecture 'amd46'; near ones are 'amd64'" in capfd.readouterr().err
    other = "arm64" if host.debian != "arm64" else "amd64"
    assert main(["shell", "--arch", other, "base"]) == 125
    assert f"cannot run programs for {other}: the manifest is for {host.debian}" in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may register an emulator for all programs")
def test_a_real_image_builds_by_emulation(caller: Caller) -> None:
    """Protects the promise: for another architecture, a whitelist becomes an image, and that builds right."""
    variables = {"PKGJAIL_STORE": str(caller.home / "store")}
    place = hello.prepare(caller.home / "build", hello.download())

    def pkgjail(*words: str) -> subprocess.CompletedProcess[str]:
        return caller.pkgjail(*words, environment=variables, stdin=subprocess.DEVNULL)

    with registered_on_the_host():
        words = ["--arch", "aarch64", "--suite", "bookworm", "--whitelist", "build"]
        made = pkgjail("image", "create", "arm", *words)
        assert made.returncode == 0, made.stderr
        resolved = pkgjail("resolve", "build", "--source", "image:arm", "-o", "arm.jsonl")
        assert resolved.returncode == 0, resolved.stderr
        options = ["--arch", "arm64", "--source", "image:arm", "--bind", f"{place}:/srv", "arm.jsonl"]
        built = pkgjail("run", *options, "--", *hello.COMMAND)
        checked = pkgjail("check", "--source", "image:arm", "arm.jsonl")
        database = pkgjail("run", *options, "--", "dpkg", "--print-architecture")
    manifest = read_manifest(caller.home / "arm.jsonl")
    assert manifest.header.architecture == "arm64"
    assert {package.architecture for package in manifest.packages} == {"all", "arm64"}
    assert (built.returncode, built.stdout) == (3, "Hello, world!\nno zlib\n"), built.stderr
    for name in ("hello-2.10/hello", "hello-z"):
        assert architecture_of_elf((place / name).read_bytes()[:64]) is ARM64
        assert "ARM aarch64" in caller.run(["file", "-b", place / name]).stdout
    assert checked.returncode == 0, checked.stdout
    assert database.stdout == "arm64\n"
