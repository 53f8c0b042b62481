"""`pkgjail doctor`: right about hosts that lack something, and its remedies work where they can be tried."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import stat
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.cli.doctor_text import print_report
from pkgjail.cli.main import main
from pkgjail.core.errors import JailError
from pkgjail.core.stage_names import RUNGS
from pkgjail.doctor import directories, remedies, software
from pkgjail.doctor.examine import examine_host
from pkgjail.doctor.kernel import examine_kernel
from pkgjail.doctor.model import COLUMNS, DirectoryReport, Finding, Remedy
from pkgjail.doctor.remedies import Surroundings
from pkgjail.doctor.request import request_text
from pkgjail.doctor.stages import default_of, examine_stages
from pkgjail.jails.causes import Cause, find_cause, is_chrooted
from pkgjail.jails.container import Confinement
from pkgjail.jails.diagnosis import explain
from pkgjail.sandbox.job import SetupError
from pkgjail.settings.model import AllowedStages, Settings
from pkgjail.stages import STAGES
from tests.conftest import NOBODY, SYSTEM_PYTHON
from tests.engines import in_engine
from tests.file_cases import Remembering
from tests.forbidden import without_user_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.conftest import Caller

DOCTOR = (SYSTEM_PYTHON, "-m", "pkgjail", "doctor", "--json")
_ENDED = "echo ended $?"
IS_ROOT = os.geteuid() == 0
_AS_ROOT = pytest.mark.skipif(not IS_ROOT, reason="mounting, and namespaces with all ids; CI is root")


class Seen:
    """What `pkgjail doctor --json` printed, and its exit status."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.facts: dict[str, Any] = json.loads(text)

    def stage(self, name: str) -> dict[str, Any]:
        """Return the record of a stage."""
        return next(row for row in self.facts["stages"] if row["name"] == name)

    def directory(self, role: str) -> dict[str, Any]:
        """Return the record of a directory."""
        return next(row for row in self.facts["directories"] if row["role"] == role)


def see(who: Caller, command: Sequence[str] = DOCTOR, **variables: str) -> Seen:
    """Run a command that ends with the doctor as a user."""
    done = who.run(command, environment=variables)
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    return Seen(done.returncode, done.stdout)


def as_user(who: Caller, command: Iterable[str] = DOCTOR) -> list[str]:
    """Return the command that runs `command` as a user, where root runs the test."""
    become = ["setpriv", f"--reuid={who.uid}", f"--regid={who.uid}", "--clear-groups"]
    return [*become, *command]


def in_mounts(who: Caller, script: str, *arguments: str, **variables: str) -> list[Seen]:
    """Run a script of root's in a mount namespace of its own; it runs `$DOCTOR` as the user several times."""
    options = who.options(variables)
    for name in ("user", "group", "extra_groups"):
        options.pop(name, None)
    options["env"]["DOCTOR"] = shlex.join(as_user(who))
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "-", *arguments], check=False, **options)
    return several(done)


def several(done: subprocess.CompletedProcess[str]) -> list[Seen]:
    """Return what each doctor printed, which a line with its status follows (`_ENDED`)."""
    assert "Traceback" not in done.stderr
    parts = re.split(r"^ended ([0-9]+)\n", done.stdout, flags=re.MULTILINE)
    assert len(parts) > 1, done.stderr
    return [Seen(int(status), text) for text, status in zip(parts[::2], parts[1::2])]


def lines_of(found: dict[str, Any], which: int = 0) -> str:
    """Return the lines to paste of a remedy."""
    return "\n".join(found["remedies"][which]["lines"])


# --- hosts --------------------------------------------------------------------------------------


def test_this_host(anyone: Caller) -> None:
    """Every stage is tried, and what it promises shown; the default works, and so do its directories."""
    seen = see(anyone)
    assert (seen.status, seen.facts["works"]) == (0, True), seen.facts
    assert [row["name"] for row in seen.facts["stages"]] == list(STAGES)
    assert all(list(row["promises"]) == list(COLUMNS) for row in seen.facts["stages"])
    assert seen.stage("namespaces")["works"]
    assert seen.stage("bwrap")["works"]
    assert seen.stage("root")["works"] is (anyone.uid == 0)
    assert seen.facts["default"] == {"stage": "namespaces", "origin": "", "taken": "namespaces", "fault": ""}
    assert seen.facts["kernel"]["strategies"]["whole"] == ""
    assert [row["role"] for row in seen.facts["directories"]] == ["cache", "runtime", "temporary", "home"]
    assert all(row["free"] > 0 and row["filesystem"] for row in seen.facts["directories"])
    roles = {row["role"]: row["found"] for row in seen.facts["software"]}
    assert SYSTEM_PYTHON in os.path.realpath(SYSTEM_PYTHON) or roles["Python"]
    assert roles["package database"]


def test_the_text(anyone: Caller) -> None:
    """Without a terminal it has no colours, and what can be pasted is on lines of its own."""
    done = anyone.pkgjail("doctor", environment={"TERM": "xterm"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert "commands run in the stage namespaces" in lines
    assert any(line.startswith("namespaces  works  yes       yes       yes ") for line in lines)
    asked = anyone.pkgjail("doctor", "--request")
    assert asked.stdout == "Nothing is to be asked for: pkgjail's jails work here.\n"


@_AS_ROOT
def test_where_user_namespaces_are_off(user: Caller) -> None:
    """An ordinary user learns the setting; pasted by root, the remedy works."""
    doctor = shlex.join(as_user(user))
    options = user.options()
    for name in ("user", "group", "extra_groups"):
        options.pop(name, None)

    def run(between: str) -> list[Seen]:
        script = f"{doctor}; {_ENDED}; {between} >/dev/null\n{doctor}; {_ENDED}"
        return several(subprocess.run(without_user_namespaces(["sh", "-c", script]), check=False, **options))

    before, same = run("true")
    found = before.stage("namespaces")
    assert (before.status, found["works"], found["cause"]) == (3, False, "sysctl")
    assert "user.max_user_namespaces is 0" in found["obstacle"]
    assert "doctor" not in found["obstacle"]
    assert lines_of(found) == "sysctl -w user.max_user_namespaces=15000"
    assert lines_of(found, 1) == (
        "echo 'user.max_user_namespaces=15000' > /etc/sysctl.d/90-pkgjail.conf\nsysctl --system"
    )
    assert before.facts["default"]["taken"] == ""
    assert before.facts["kernel"]["settings"]["user.max_user_namespaces"] == "0"
    assert before.stage("bwrap")["remedies"] == found["remedies"]
    assert same.status == 3
    _, after = run(lines_of(found))
    assert (after.status, after.stage("namespaces")["works"]) == (0, True)


@_AS_ROOT
def test_a_request_for_administrators(user: Caller) -> None:
    """It has what fails, the host, and each way with its lines, none of which is the user's own."""
    words = [SYSTEM_PYTHON, "-m", "pkgjail", "doctor", "--request"]
    options = user.options()
    for name in ("user", "group", "extra_groups"):
        options.pop(name, None)
    done = subprocess.run(without_user_namespaces(words, user.uid), check=False, **options)
    assert done.returncode == 3
    assert "user.max_user_namespaces is 0" in done.stdout
    assert "     sysctl -w user.max_user_namespaces=15000\n" in done.stdout
    assert f"Linux {os.uname().release}" in done.stdout
    assert "sudo" not in done.stdout


@pytest.mark.parametrize(
    ("covered", "cause", "lines"),
    [
        (False, "filter", "--security-opt seccomp=unconfined"),
        (True, "filter", "--security-opt seccomp=unconfined --security-opt unmask=ALL"),
    ],
)
def test_behind_a_filter(user: Caller, cause: str, lines: str, *, covered: bool) -> None:
    """A filter that forbids unshare(2) and clone(2) is found, with the options of the engines."""
    seen = see(user, in_engine("Docker", DOCTOR, covered=covered))
    found = seen.stage("namespaces")
    assert (seen.status, found["cause"], found["works"]) == (3, cause, False)
    given = [line for remedy in found["remedies"] for line in remedy["lines"]]
    marked = os.path.exists("/.dockerenv")
    assert f"podman run {lines} IMAGE COMMAND" in given or marked
    assert f"docker run {lines.replace('unmask=ALL', 'systempaths=unconfined')} IMAGE COMMAND" in given
    assert seen.facts["kernel"]["filtered"]
    without = see(user, in_engine("no filter", DOCTOR, covered=False))
    assert (without.status, without.stage("namespaces")["works"]) == (0, True)


def test_behind_podman_s_filter(user: Caller) -> None:
    """Protects from a trial that demands what a jail can do without: podman forbids to set a host name."""
    seen = see(user, in_engine("podman", DOCTOR, covered=False))
    assert (seen.status, seen.stage("namespaces")["works"]) == (0, True)
    covered = see(user, in_engine("podman", DOCTOR, covered=True)).stage("namespaces")
    assert covered["cause"] == "covered"


_CHROOT = """
mount --bind / "$1"; for each in proc sys dev tmp usr var home root dev/shm; do
  test ! -d /$each || mount --rbind /$each "$1/$each"; done
chroot "$1" $DOCTOR; echo "ended $?"
"""


@_AS_ROOT
def test_in_a_chroot(user: Caller, tmp_path: Path) -> None:
    """An ordinary user learns that it is a chroot, or that it may be one; entered by pivot_root it works."""
    place = tmp_path / "root"
    place.mkdir()
    [seen] = in_mounts(user, _CHROOT, str(place))
    found = seen.stage("namespaces")
    assert seen.status == 3
    assert "chroot" in found["obstacle"]
    pasted = lines_of(found).replace("DIRECTORY", '"$1"').replace("COMMAND", "$DOCTOR")
    entered = _CHROOT.partition("chroot")[0] + pasted + '; echo "ended $?"'
    [after] = in_mounts(user, entered, str(place))
    assert (after.status, after.stage("namespaces")["works"]) == (0, True), after.facts


def test_which_chroots_are_certain(tmp_path: Path) -> None:
    """Without a mount at "/", or with another root directory than that of process 1 with the same mounts."""
    proc = _proc(tmp_path, self__mountinfo="1 0 8:1 / / rw - ext4 x rw\n", self__ns__mnt="")
    assert not is_chrooted(proc)
    for path in ("self/root", "1/root", "1/ns"):
        (proc / path).mkdir(parents=True)
    (proc / "1/ns/mnt").write_text("")
    assert not is_chrooted(proc)
    (proc / "1/ns/mnt").unlink()
    os.link(proc / "self/ns/mnt", proc / "1/ns/mnt")
    assert is_chrooted(proc)
    (proc / "self/mountinfo").write_text("1 0 8:1 / /srv rw - ext4 x rw\n")
    (proc / "1/ns/mnt").unlink()
    assert is_chrooted(proc)


def test_without_proc(user: Caller, tmp_path: Path) -> None:
    """Without /proc nothing can be found out, and that is said."""
    report = examine_kernel(tmp_path)
    assert ["/proc is not mounted" in finding.what for finding in report.findings] == [True]
    assert (report.settings, report.filtered, report.chrooted) == ({}, False, False)
    del user


# --- directories --------------------------------------------------------------------------------


def test_an_unwritable_runtime_directory(user: Caller) -> None:
    """The user's own directory without the right to write: chmod, and it works."""
    place = user.home / "run"
    inner = place / "pkgjail"
    inner.mkdir(parents=True)
    for path in (place, inner):
        os.chown(path, user.uid, user.uid)
    place.chmod(0o700)
    inner.chmod(0o500)
    seen = see(user, XDG_RUNTIME_DIR=str(place))
    [finding] = seen.directory("runtime")["findings"]
    assert (seen.status, seen.stage("namespaces")["works"], finding["serious"]) == (3, True, True)
    assert f"cannot write to the runtime directory: {inner}: Permission denied" in finding["what"]
    assert lines_of(finding) == f"chmod 0700 {inner}"
    assert user.run(["sh", "-c", lines_of(finding)]).returncode == 0
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700
    assert see(user, XDG_RUNTIME_DIR=str(place)).status == 0
    assert lines_of(finding, 1) in {"unset XDG_RUNTIME_DIR", "mkdir -m 0700 -p DIRECTORY && export"}


_SMALL = """
mount -t tmpfs -o size=128k,mode=700 none "$1"; chown "$2" "$1"; mkdir -m 700 "$1/pkgjail"
chown "$2" "$1/pkgjail"; dd if=/dev/zero of="$1/fill" bs=1k 2>/dev/null
$DOCTOR; echo "ended $?"
"""


@_AS_ROOT
def test_a_full_runtime_directory(user: Caller) -> None:
    """It is found by writing; with more room, or in another place, jails work."""
    place = user.home / "run"
    place.mkdir()
    [seen] = in_mounts(user, _SMALL, str(place), str(user.uid), XDG_RUNTIME_DIR=str(place))
    found = seen.directory("runtime")
    [finding] = found["findings"]
    assert (seen.status, finding["serious"], found["filesystem"]) == (3, True, "tmpfs")
    assert "No space left on device" in finding["what"]
    assert lines_of(finding, 1) == f"mount -o remount,size=4G,nr_inodes=1M {place}"
    mended = f'{_SMALL}{lines_of(finding, 1)}\n$DOCTOR; echo "ended $?"\n{lines_of(finding, 2)}\n'
    mended += '$DOCTOR; echo "ended $?"'
    full, larger, elsewhere = in_mounts(user, mended, str(place), str(user.uid), XDG_RUNTIME_DIR=str(place))
    assert (full.status, larger.status, elsewhere.status) == (3, 0, 0)
    assert larger.directory("runtime")["findings"] == []
    assert elsewhere.directory("runtime")["path"] == f"/dev/shm/pkgjail-{user.uid}"


_FUSE = """
mksquashfs "$2" "$3" -quiet -no-progress >/dev/null && squashfuse -o allow_other "$3" "$1" || exit 9
$DOCTOR; echo "ended $?"
XDG_CACHE_HOME="$4" $DOCTOR; echo "ended $?"
umount -l "$1"
"""


@_AS_ROOT
def test_a_home_that_is_fuse(user: Caller, tmp_path: Path) -> None:
    """A read-only one of squashfuse: jails work, what FUSE means is said, and where the cache can be."""
    home, content, elsewhere = user.home / "fuse", tmp_path / "content", user.home / "elsewhere"
    for path in (home, content, elsewhere):
        path.mkdir()
    (content / "file").write_text("x")
    os.chown(elsewhere, user.uid, user.uid)
    arguments = (str(home), str(content), str(tmp_path / "image"), str(elsewhere))
    first, second = in_mounts(user, _FUSE, *arguments, HOME=str(home), XDG_CACHE_HOME="")
    [note] = first.directory("home")["findings"]
    assert first.directory("home")["filesystem"].startswith("fuse")
    assert "is on a FUSE file system" in note["what"]
    assert first.stage("namespaces")["works"]
    cache = first.directory("cache")
    whats = [finding["what"] for finding in cache["findings"]]
    assert cache["path"].startswith(str(home)) is any("Read-only file system" in what for what in whats)
    assert second.directory("cache")["path"] == f"{elsewhere}/pkgjail"
    assert second.directory("cache")["findings"] == []
    assert second.status == 0


def _directory(**given: Any) -> DirectoryReport:
    fields: dict[str, Any] = {
        "role": "cache", "path": "/c", "exists": True, "filesystem": "ext4", "free": 1 << 30, "names": -1,
        "noexec": False, "attributes": True, **given,
    }  # fmt: skip
    return DirectoryReport(**fields)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"noexec": True}, "is mounted noexec, so the engines"),
        ({"role": "runtime", "attributes": False}, "cannot have user attributes"),
        ({"free": 1 << 20}, "there is little room in the cache directory /c: 1 MiB"),
        ({"names": 5}, "there is little room in the cache directory /c: 5 more files"),
        ({"role": "home", "filesystem": "nfs4"}, "is on a network file system (nfs4)"),
        ({"role": "home", "filesystem": "fuse.sshfs"}, "is on a FUSE file system (fuse.sshfs)"),
        ({"filesystem": "vfat", "path": "/proc"}, "whose times prove nothing"),
    ],
)
def test_what_a_directory_means_for_jails(given: dict[str, Any], words: str) -> None:
    trial = directories._Trial(None, given.get("attributes", True))
    found = list(directories._findings(_directory(**given), trial))
    assert [finding.what.count(words) for finding in found] == ([1] if words else [])
    assert not any(finding.serious for finding in found)


@pytest.mark.parametrize(
    ("given", "number", "lines"),
    [
        ({"role": "temporary"}, errno.EROFS, ["mkdir -m 0700 -p DIRECTORY && export TMPDIR=DIRECTORY"]),
        ({}, errno.EDQUOT, [
            "pkgjail cache prune", "mkdir -m 0700 -p DIRECTORY && export XDG_CACHE_HOME=DIRECTORY",
        ]),
    ],
)  # fmt: skip
def test_what_to_do_about_a_directory(given: dict[str, Any], number: int, lines: list[str]) -> None:
    found = directories._unwritable(_directory(**given), OSError(number, os.strerror(number)))
    assert [line for remedy in found.remedies for line in remedy.lines] == lines
    assert found.serious is (given.get("role") == "temporary")


def test_a_rejected_runtime_directory(user: Caller) -> None:
    """A directory of XDG_RUNTIME_DIR that others can write to is not used, which is said."""
    place = user.home / "open"
    place.mkdir()
    os.chown(place, user.uid, user.uid)
    place.chmod(0o777)
    [finding] = see(user, XDG_RUNTIME_DIR=str(place)).directory("runtime")["findings"]
    assert "others may write to it" in finding["what"]
    assert not finding["serious"]


def test_the_mount_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last and longest mount counts; its name may have blanks."""
    table = tmp_path / "mounts"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / /a\\040b rw shared:1 - nfs4 host:/x rw\n"
        "3 1 0:3 / /a\\040b rw - fuse.sshfs me rw\n"
    )
    monkeypatch.setattr(directories, "MOUNTS", str(table))
    assert directories.filesystem_of("/a b/c") == "fuse.sshfs"
    assert directories.mount_point_of("/a b/c") == "/a b"
    assert directories.filesystem_of("/a") == "ext4"
    monkeypatch.setattr(directories, "MOUNTS", str(tmp_path / "none"))
    assert directories.filesystem_of("/a") == ""


# --- causes and remedies ------------------------------------------------------------------------


def _failure(number: int = errno.EPERM, doing: Any = "unshare", name: bytes = b"unshare") -> SetupError:
    return SetupError(doing, number, name, [])


def _proc(place: Path, **files: str) -> Path:
    for name, text in files.items():
        path = place / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def test_ubuntus_apparmor(tmp_path: Path) -> None:
    """The profile is for the very Python that runs, by its real path, and has the rule `userns,`."""
    proc = _proc(tmp_path, sys__kernel__apparmor_restrict_unprivileged_userns="1\n")
    cause = find_cause(_failure(errno.EACCES, "build", b"/"), proc)
    assert cause.kind == "apparmor"
    profile, sysctl = remedies.of_cause(cause, Surroundings())
    import sys

    text = "\n".join(profile.lines)
    assert f'profile pkgjail "{os.path.realpath(sys.executable)}" flags=(unconfined) {{\n  userns,\n' in text
    assert text.startswith("cat > /etc/apparmor.d/pkgjail <<'END'\n")
    assert text.endswith("\nEND\napparmor_parser -r /etc/apparmor.d/pkgjail")
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in sysctl.lines[0]
    made = tmp_path / "profile"
    subprocess.run(
        ["sh", "-ec", "\n".join(profile.lines[:-1]).replace("/etc/apparmor.d/pkgjail", str(made))], check=True
    )
    assert made.read_text().count("\n") == 7


@pytest.mark.parametrize(
    ("kind", "who", "line"),
    [
        ("reached", "administrator", "sysctl -w user.max_user_namespaces=100000"),
        ("mounts", "administrator", "sysctl -w fs.mount-max=1000000"),
        ("kernel", "administrator", ""),
        ("limit", "user", ""),
        ("unknown", "starter", "pivot_root"),
        ("subordinate", "administrator", ":65536 | tee -a /etc/subuid >> /etc/subgid"),
        ("profile", "starter", "podman run --security-opt label=disable IMAGE COMMAND"),
    ],
)
def test_a_remedy_for_each_cause(kind: Any, who: str, line: str) -> None:
    """Each kind of cause has words, and a remedy where there is one."""
    confinement = Confinement(filtered=False, covered=(), profile="a:b:c")
    cause = Cause(kind=kind, failure=_failure(), confinement=confinement)
    assert explain(cause).startswith("cannot ")
    found = remedies.of_cause(cause, Surroundings())
    assert [remedy.who for remedy in found][:1] == ([who] if who else [])
    assert line in "\n".join(line for remedy in found for line in remedy.lines)


def test_kubernetes_and_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter may be that of a pod or of a service."""
    cause = Cause(
        kind="filter", failure=_failure(), confinement=Confinement(filtered=True, covered=(), profile="")
    )
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    lines = [line for remedy in remedies.of_cause(cause, Surroundings()) for line in remedy.lines]
    assert "RestrictNamespaces=no" in lines
    assert "  procMount: Unmasked" in lines
    of_docker = remedies.of_cause(cause, Surroundings(container="docker"))
    assert not any("podman" in line or "Restrict" in line for remedy in of_docker for line in remedy.lines)


@pytest.mark.parametrize(
    ("family", "stage", "line"),
    [
        ("debian", "bwrap", "apt-get install bubblewrap"),
        ("debian", "podman", "apt-get install podman uidmap"),
        ("rhel", "nspawn", "dnf install systemd-container"),
        ("suse", "vm", "zypper install qemu"),
        ("arch", "kernel", "pacman -S linux"),
        ("", "nspawn", ""),
    ],
)
def test_how_to_install(family: str, stage: str, line: str) -> None:
    found = remedies.installation(stage, Surroundings(family=family))
    assert "".join(found.lines) == line
    assert found.what.startswith("Install ")


def test_subordinate_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are above all that are given already."""
    table = tmp_path / "subuid"
    table.write_text("one:100000:65536\ntwo:300000:10\nwrong\n:x:y\n")
    assert remedies._next_free(str(table)) == 300_010
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert "echo 4000000:" in remedies.subordinate_ids().lines[0]


def test_podman_s_limits_and_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine may forbid even root to raise limits; of a machine, program or kernel may be missing."""
    monkeypatch.setattr(type(STAGES["podman"]), "obstacle", lambda _: "runc: error setting rlimits")
    monkeypatch.setattr(type(STAGES["vm"]), "obstacle", lambda _: "no kernel")
    by_name = {each.name: each for each in examine_stages(Settings(), Surroundings(family="debian"))}
    [limits] = by_name["podman"].remedies
    assert 'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]' in limits.lines
    assert by_name["vm"].remedies[0].lines == ("apt-get install linux-image-cloud-amd64",)
    monkeypatch.setenv("PATH", str(tmp_path))
    by_name = {each.name: each for each in examine_stages(Settings(), Surroundings(family="debian"))}
    assert by_name["vm"].remedies[0].lines == ("apt-get install qemu-system",)
    assert by_name["podman"].remedies[0].lines == ("apt-get install podman uidmap",)


# --- settings, texts ----------------------------------------------------------------------------


def test_the_default_of_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is that of the default stage, whichever it is; wrong settings are found, and not fatal."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "pkgjail.toml"
    path.write_text('[stage]\ndefault = "auto"\nallow = ["namespaces", "vm"]\n')
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"commands run in the stage auto (from {path}:2), here namespaces\n" in text
    assert f"{path}:3 does not allow it" in text
    path.write_text('[stage]\nallow = ["vm"]\n')
    assert main(["doctor"]) == 3
    assert "by default: the stage namespaces does not work" in capsys.readouterr().out
    path.write_text("[stag]\n")
    assert main(["doctor"]) == 3
    assert f"because of the settings: {path}:1: unknown key 'stag'" in capsys.readouterr().out


def test_auto_takes_what_the_ladder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's rung is for root, and the weak one for those whose settings list it."""
    reports = tuple(
        replace(each, obstacle="" if each.name in {"root", "supervised"} else "no")
        for each in examine_stages(Settings(), Surroundings())
    )
    auto = Settings(stage="auto")
    assert default_of(auto, reports).taken == ("root" if IS_ROOT else "")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert default_of(auto, reports).taken == ""
    listed = Settings(stage="auto", allowed=(AllowedStages(stages=RUNGS, origin="x:1"),))
    assert default_of(listed, reports).taken == ("supervised" if "supervised" in STAGES else "")
    assert default_of(Settings(stage="podman"), reports).taken == ""


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Wide ones get a table with colours, narrow ones lines that fit; nothing in a message can act on it."""
    report = examine_host()
    others = tuple(replace(each, remedies=()) for each in report.stages[1:])
    wrong = replace(
        report.stages[0],
        obstacle="a \x1b[2J message that is long enough to be broken on the terminals of this test",
        remedies=(Remedy(what="Paste", who="administrator", lines=("x" * 90,)),),
    )
    finding = Finding(what="room", remedies=(Remedy(what="Prune", who="user"),))
    report = replace(
        report,
        stages=(wrong, *others),
        directories=(replace(report.directories[0], findings=(finding,), noexec=True, exists=False),),
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for columns in (50, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_report(report)
        text = capsys.readouterr().out
        plain = (
            text.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
        )
        assert "\x1b" not in plain
        assert plain != text
        assert "x" * 90 in plain
        assert "wrong: room" in plain
        long = [line for line in plain.splitlines() if len(line) > min(columns, 110)]
        assert [line.strip() for line in long] == (["x" * 90] if columns == 50 else [])
    monkeypatch.setenv("NO_COLOR", "1")
    print_report(report)
    assert "\x1b" not in capsys.readouterr().out


def test_the_request_of_a_report() -> None:
    """What the user can do is not asked for."""
    report = examine_host()
    asked = replace(
        report.stages[0],
        obstacle="no",
        remedies=(Remedy(what="A", who="administrator", lines=("a b",)), Remedy(what="U", who="user")),
    )
    text = request_text(replace(report, stages=(asked, *report.stages[1:])))
    assert "1. A:\n\n     a b\n" in text
    assert "U" not in text.partition("1. A")[2].partition("What is asked")[0].replace("USER", "")


# --- software -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "found", "wrong"),
    [
        ("echo 0.23.0", "0.23.0, ", False),
        ("echo '1.1.0.dev0 (abc)'", "1.1.0.dev0, ", False),
        ("exit 1", "", True),
        ("echo nothing", "", True),
    ],
)
def test_spack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: str, *, wrong: bool
) -> None:
    """That of SPACK_ROOT, or in PATH; one that does not work is found."""
    program = tmp_path / "bin/spack"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("SPACK_ROOT", str(tmp_path))
    [seen] = software._spack()
    assert (seen.found, bool(seen.findings)) == (f"{found}{program}", wrong)
    monkeypatch.delenv("SPACK_ROOT")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert [each.found for each in software._spack()] == [f"{found}{program}"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(software._spack()) == []


def test_a_host_without_a_package_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backend's reason is there; manifests can be entered all the same."""
    from pkgjail.backends import BackendStatus

    status = BackendStatus(name="rpm", serves="", usable=False, reason="no rpm")
    monkeypatch.setattr(software, "available", lambda: [status])
    seen = software._database()
    assert (seen.found, seen.findings[0].serious) == ("", False)
    assert "(rpm: no rpm)" in seen.findings[0].what


def test_a_trial_of_root_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The obstacle of the stage root has the cause, without the advice to ask the doctor."""
    from pkgjail.stages import root

    def fail(_: object) -> None:
        raise _failure(errno.EPERM, "build", b"/x")

    monkeypatch.setattr(root, "try_out", fail)
    with pytest.raises(JailError) as caught:
        root._try_out()
    assert "doctor" not in str(caught.value)


# --- remedies that start something --------------------------------------------------------------

_SERVICE = """
mount -t tmpfs none /run
mount -t overlay -o lowerdir=/etc,upperdir="$1/up",workdir="$1/work" none /etc
pkgjaild() { %(python)s -m pkgjail.helper "$@"; }
$DOCTOR; echo "ended $?"
%(pasted)s
sed -i 's/^users = .*/users = ["*"]/' /etc/pkgjaild.toml
pkgjaild --check >&2 || exit 9
%(python)s -m pkgjail.helper & service=$!
for _ in $(seq 100); do test -S /run/pkgjaild/socket && break; sleep 0.1; done
$DOCTOR; echo "ended $?"
kill $service; wait $service
"""


@_AS_ROOT
def test_pkgjaild_as_the_doctor_says(user: Caller, tmp_path: Path) -> None:
    """Pasted by root (without systemd), the remedy works: then the service makes jails for the user."""
    for name in ("up", "work"):
        (tmp_path / name).mkdir()
    lines = [line for line in remedies.of_helper().lines if "print-policy" in line or "groupadd" in line]
    script = _SERVICE % {"python": SYSTEM_PYTHON, "pasted": "\n".join(lines).replace("USER", "nobody")}
    before, after = in_mounts(user, script, str(tmp_path))
    found = before.stage("helper")
    assert not found["works"]
    assert "pkgjaild --check" in lines_of(found)
    assert after.stage("helper")["works"], after.stage("helper")["obstacle"]


@pytest.mark.parametrize(("number", "user"), [(0, "root (0)"), (0, "0"), (NOBODY, "nobody (65534)")])
def test_root_is_not_taken_for_the_user(
    number: int, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root asks for others: the remedy does not add root to a group, and the report says whose view it is."""
    monkeypatch.setattr(os, "geteuid", lambda: number)
    assert remedies.of_helper().lines[0].endswith(" USER") == (number == 0)
    print_report(replace(examine_host(), user=user, stages=()))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(": runuser -u USER -- pkgjail doctor") == (number == 0)


def test_trying_stages_is_told() -> None:
    """It takes seconds."""
    reporter = Remembering()
    report = examine_host(reporter)
    number = len(report.stages)
    assert reporter.steps == [("trying stages", each, number) for each in range(number + 1)]
