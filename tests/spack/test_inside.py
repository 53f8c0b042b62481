"""Spack's commands in the jail: by both hooks, exactly once, with their status; and what they see."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.record import read_audit
from pkgjail.integrations.spack.active import state_directories
from tests.conftest import SYSTEM_PYTHON
from tests.sleepers import Marked
from tests.terminals import INTERRUPT, SUSPEND, shell

if TYPE_CHECKING:
    from tests.spack.conftest import Spack

HOST = os.uname().nodename
WHERE = "import os; print(os.uname().nodename)"
BUILTIN = """
def setup_parser(subparser):
    pass
def isolate(parser, args):
    import os
    print("builtin on", os.uname().nodename)
"""


@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
@pytest.mark.parametrize("way", ["script", "setup-env.sh", "cron", "nested"])
def test_a_command_goes_inside_exactly_once(spack: Spack, hook: str, way: str) -> None:
    """However it is started and by whichever hook; a `spack` that a command inside starts stays inside."""
    hooked = {} if hook == "entry point" else spack.wrapped()
    spack.build()
    log = spack.root / "log"
    code = f"import os; print(os.uname().nodename, file=open({str(log)!r}, 'a'))"
    if way == "nested":
        code += f"; _ = os.system({spack.script!r} + ' python -c ' + {json.dumps(json.dumps(WHERE))})"
    if way == "setup-env.sh":
        command = ["bash", "-c", '. "$1"; spack python -c "$2"', "-"]
        command += [str(spack.root / "share" / "spack" / "setup-env.sh"), code]
    else:
        command = [spack.script, "python", "-c", code]
    variables = spack.variables(**hooked, SPACK_ROOT_OF_TEST=str(spack.root))
    if way == "cron":
        done = spack.user.run(["env", "-i", *[f"{k}={v}" for k, v in variables.items()], *command])
    else:
        done = spack.user.run(command, environment=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert log.read_text() == "pkgjail\n"
    assert done.stdout.split() == (["pkgjail"] if way == "nested" else [])


FINDER = """
import sys
from importlib.machinery import PathFinder
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{path!r}]) if path is None else None
sys.meta_path.append(Finder)
"""


def test_commands_go_inside_by_an_editable_installation(spack: Spack, library: Path) -> None:
    """`pip install --editable` adds a finder, no directory to sys.path; Spack calls the hook inside too."""
    (path,) = (spack.python.parent.parent / "lib").glob("python3*/site-packages/pkgjail.pth")
    spack.user_writes(path.parent / "editable_finder.py", FINDER.format(path=str(library)))
    spack.user_writes(path, "import editable_finder\n")
    spack.build()
    done = spack("python", "-c", WHERE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "pkgjail\n", "")


@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        pytest.param("import sys; sys.exit(7)", 7, id="its own"),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 128 + signal.SIGTERM, id="a signal's"
        ),
    ],
)
def test_spack_ends_with_the_status_of_the_command_inside(
    spack: Spack, hook: str, code: str, status: int
) -> None:
    """Scripts and CI depend on it."""
    spack.build()
    hooked = {} if hook == "entry point" else spack.wrapped()
    assert spack("python", "-c", code, environment=hooked).returncode == status


def test_without_an_active_environment_commands_run_outside(spack: Spack) -> None:
    """An installed pkgjail changes nothing until an environment is active."""
    for hooked in ({}, spack.wrapped()):
        done = spack("python", "-c", WHERE, environment=hooked)
        assert (done.returncode, done.stdout, done.stderr) == (0, HOST + "\n", "")


def test_a_command_inside_has_the_umask_of_its_caller(spack: Spack) -> None:
    """Spack sets modes for its prefixes, but a stage and a build have the umask of who started it."""
    spack.build()
    code = "import os; print(oct(os.umask(0)), os.uname().nodename)"
    for umask in (0o077, 0o002):
        assert spack("python", "-c", code, umask=umask).stdout == f"{oct(umask)} pkgjail\n"


def test_spacks_directories_are_writable_and_the_host_is_hidden(spack: Spack) -> None:
    """Spack's directories come from its configuration; the one that says what is active is read-only."""
    elsewhere = spack.user.home / "elsewhere"
    spack.configure("config", json.dumps({"config": {"misc_cache": str(elsewhere)}}))
    (spack.user.home / "mine").write_text("mine")
    spack.build()
    paths = [str(path) for path in (elsewhere, spack.root, spack.root / "opt/.pkgjail", spack.python.parent)]
    code = f"""
import os
def writes(path):
    try:
        open(os.path.join(path, "x"), "w").close()
    except OSError as error:
        return error.strerror
    return "written"
print([writes(path) for path in {paths}])
print(sorted(os.listdir(os.environ["HOME"])), os.getcwd())
"""
    read_only = "Read-only file system"
    done = spack("python", "-c", f"exec({code!r})", cwd=spack.root)  # Spack takes one statement
    assert done.stdout.splitlines() == [
        str(["written", "written", read_only, read_only]),
        f"['cache', 'elsewhere', 'python', 'spack'] {spack.root}",
    ], done.stderr


_FORGE = """
import os, shutil
def attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        pass
def write(path):
    with open(path, "w") as file:
        file.write({forged!r})
for directory in {directories!r}:
    above = os.path.dirname(directory)
    attempt(write, os.path.join(directory, "active.json"))
    attempt(shutil.rmtree, directory)
    attempt(os.rename, directory, directory + ".old")
    attempt(os.rename, above, above + ".old")
    attempt(os.makedirs, directory)
    attempt(write, os.path.join(directory, "active.json"))
    attempt(os.rename, {environment!r}, {environment!r} + ".old")
"""


@pytest.mark.parametrize("location", ["in Spack's root", "in the user's cache"])
@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
def test_no_command_inside_can_change_what_is_active(spack: Spack, location: str, hook: str) -> None:
    """It can lead later commands neither outside nor into an environment that it made."""
    spack.build()
    directories = state_directories(str(spack.root), spack.variables())
    record = Path(directories[0]) / "active.json"
    forged = json.dumps({**json.loads(record.read_text()), "environment": "/forged", "removing": True})
    if location == "in the user's cache":
        Path(directories[1]).mkdir(parents=True)
        record = record.rename(Path(directories[1]) / "active.json")
        for path in (record, record.parent, record.parent.parent):
            os.chown(path, spack.user.uid, spack.user.uid)
    before = record.read_bytes()
    hooked = {} if hook == "entry point" else spack.wrapped()
    code = _FORGE.format(forged=forged, directories=directories, environment=spack.environment)
    for _ in range(2):  # a new entry, then a replay
        done = spack("python", "-c", f"exec({code!r})", environment=hooked)
        assert (done.returncode, done.stderr) == (0, "")
    assert record.read_bytes() == before
    found = [os.path.join(path, "active.json") for path in directories]
    assert [path for path in found if os.path.exists(path)] == [str(record)]
    after = spack("python", "-c", WHERE, environment=hooked)
    assert (after.returncode, after.stdout, after.stderr) == (0, "pkgjail\n", "")
    assert spack("jail", "--status").stdout.startswith(f"outside; active: {spack.environment}\n")


def test_no_command_inside_can_change_what_is_active_for_other_variables(spack: Spack) -> None:
    """~/.spack is writable if this command's cache is elsewhere, but commands started by cron look there."""
    usual = spack.user.home / ".spack"
    usual.mkdir()
    os.chown(usual, spack.user.uid, spack.user.uid)
    spack.configure("config", json.dumps({"config": {"misc_cache": str(usual)}}))
    spack.build()
    directory = state_directories(str(spack.root), {"SPACK_USER_CACHE_PATH": str(usual)})[1]
    record = json.loads((spack.root / "opt/.pkgjail/active.json").read_text())
    forged = json.dumps({**record, "removing": True})
    code = _FORGE.format(forged=forged, directories=[directory], environment=spack.environment)
    code += f"write({str(usual / 'x')!r})"
    done = spack("python", "-c", f"exec({code!r})")
    assert done.returncode == 0, done.stderr
    assert (usual / "x").exists()
    later = spack("python", "-c", WHERE, environment={"SPACK_USER_CACHE_PATH": str(usual)})
    assert (later.returncode, later.stdout) == (0, "pkgjail\n"), later.stderr


def test_no_command_inside_can_change_spacks_python(spack: Spack) -> None:
    """It also runs `spack jail`, and Spack itself until the hook is called, outside of the jail."""
    inside = spack.root / "venv"
    spack.python.parent.parent.rename(inside)
    moved = spack._replace(python=inside / "bin" / "python")
    for script in (inside / "bin").glob("pkgjail*"):
        script.write_text(script.read_text().replace(str(spack.python.parent), str(inside / "bin")))
    moved.build()
    code = f"""
import os
def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError as error:
        return error.strerror
print(attempt(os.rename, {str(inside)!r}, {f"{inside}.old"!r}), attempt(open, {str(inside / "bin/x")!r}, "w"))
"""
    done = moved("python", "-c", f"exec({code!r})")
    assert done.stdout == "Device or resource busy Read-only file system\n", done.stderr


def test_directories_of_the_configuration_are_visible(spack: Spack) -> None:
    """Mirrors and Spack's active environment, with its view and sources, are writable; upstreams are not."""
    home = spack.user.home
    for name in ("mirror", "upstream/.spack-db", "project", "views", "source", "other"):
        (home / name).mkdir(parents=True)
        os.chown(home / name, spack.user.uid, spack.user.uid)
    spack.configure("mirrors", json.dumps({"mirrors": {"mine": f"file://{home}/mirror"}}))
    upstreams = {"upstreams": {"site": {"install_tree": f"{home}/upstream"}}}
    spack.configure("upstreams", json.dumps(upstreams))
    view = {"default": {"root": f"{home}/views/it"}}
    develop = {"zlib": {"path": f"{home}/source", "spec": "zlib@1.2.13"}}
    project = {"spack": {"specs": [], "view": view, "develop": develop}}
    spack.user_writes(home / "project/spack.yaml", json.dumps(project))
    spack.build()
    code = f"""
import os
print([name for name in ("mirror", "upstream", "project", "views", "source", "other")
       if os.access(os.path.join({str(home)!r}, name), os.W_OK)], os.path.isdir({f"{home}/upstream"!r}))
"""
    for words, seen in (
        ([], "['mirror'] True\n"),
        (["-e", f"{home}/project"], "['mirror', 'project', 'views', 'source'] True\n"),
    ):
        for _ in range(2):  # Spack is asked, then its answer is cached
            done = spack(*words, "python", "-c", f"exec({code!r})")
            assert (done.returncode, done.stdout) == (0, seen), done.stderr


def test_a_changed_configuration_applies_to_the_next_command(spack: Spack) -> None:
    """Spack's answer is cached, and Spack is asked again if one of the files changes."""
    spack.build()
    code = "import os, sys; print([os.path.isdir(os.path.expanduser('~/' + name)) for name in ('a', 'b')])"
    for name, seen in (("a", "[True, False]"), ("b", "[False, True]")):
        misc = str(spack.user.home / name)
        spack.configure("config", json.dumps({"config": {"misc_cache": misc}}))
        assert [spack("python", "-c", code).stdout for _ in range(2)] == [seen + "\n"] * 2


def test_a_scope_that_is_made_later_applies(spack: Spack) -> None:
    """Spack reads directories that may be missing, here one for the platform, as soon as they exist."""
    scope = spack.root / "etc" / "spack" / "linux"
    missing = [{"path": str(path), "optional": True} for path in (scope, scope.with_name("later.yaml"))]
    spack.configure("include", json.dumps({"include": missing}))  # since 1.1
    spack.build()
    code = "import os; print(os.path.isdir(os.path.expanduser('~/a')))"
    assert [spack("python", "-c", code).stdout for _ in range(2)] == ["False\n"] * 2
    assert not {"linux", "later.yaml"} & set(os.listdir(scope.parent))
    scope.mkdir()
    spack.user_writes(
        scope / "config.yaml", json.dumps({"config": {"misc_cache": str(spack.user.home / "a")}})
    )
    assert spack("python", "-c", code).stdout == "True\n"


def test_from_the_second_command_on_the_jail_is_replayed(spack: Spack) -> None:
    """Until something that it depends on changes: a variable, the configuration, the environment."""
    wrapper = spack.python.parent / "pkgjail-spack-python"
    (spack.user.home / "elsewhere").mkdir()
    spack.build()

    def is_new(*, cwd: str = "/", **more: str) -> bool:
        command = ["-X", "importtime", str(wrapper), spack.script, "python", "-c", WHERE]
        done = spack.user.run(
            [spack.python, *command], environment={**spack.variables(), **spack.wrapped(), **more}, cwd=cwd
        )
        assert (done.returncode, done.stdout) == (0, "pkgjail\n")
        return "pkgjail.integrations.spack.enter" in done.stderr

    assert [is_new() for _ in range(3)] == [True, False, False]
    assert [is_new(SPACK_X="1") for _ in range(2)] == [True, False]
    assert [is_new(), is_new(SPACK_X="1")] == [False, False]
    assert [is_new(cwd=str(spack.root)) for _ in range(2)] == [True, False]
    spack.configure("config", json.dumps({"config": {"misc_cache": str(spack.user.home / "elsewhere")}}))
    assert is_new(cwd=str(spack.root))
    spack.build("--force")
    assert is_new(cwd=str(spack.root))


def test_options_of_the_build_apply_to_every_later_command(spack: Spack) -> None:
    """--ro-bind, --env and --no-network."""
    (spack.user.home / "seen").mkdir()
    spack.build("--ro-bind", str(spack.user.home / "seen"), "--env", "X=1", "--no-network")
    code = "import os; print(os.path.isdir(os.path.expanduser('~/seen')), os.environ['X'])"
    code += "; print([name for _, name in __import__('socket').if_nameindex()])"
    assert spack("python", "-c", code).stdout == "True 1\n['lo']\n"


def test_the_jail_of_a_replaced_environment_is_not_replayed(spack: Spack) -> None:
    """A saved jail is valid no longer than the environment's record."""
    code = "import os; print(os.environ['X'])"
    for value in ("1", "2"):
        spack.build("--env", f"X={value}", "--force")
        assert [spack("python", "-c", code).stdout for _ in range(2)] == [value + "\n"] * 2


def test_a_shell_on_a_terminal_has_one_of_its_own(spack: Spack) -> None:
    """It has job control, and the command ends with the shell's status."""
    spack.build()
    command = ["script", "-qec", f"{spack.script} jail --cli", "/dev/null"]
    keys = "tty; uname -n; sleep 60 & jobs; kill %1; exit 4\n"
    done = spack.user.run(command, input=keys, environment=spack.variables(TERM="dumb"))
    assert done.returncode == 4, done.stdout
    assert "/dev/pts/0" in done.stdout
    assert "\npkgjail" in done.stdout.replace("\r", "")
    assert "Running" in done.stdout
    assert "no job control" not in done.stdout


@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
@pytest.mark.parametrize("output", [pytest.param("", id="a terminal"), pytest.param(" | cat", id="a pipe")])
def test_a_command_is_a_job_of_the_shell(spack: Spack, hook: str, output: str) -> None:
    """Ctrl-C ends it and what it started; after Ctrl-Z, fg continues it. This holds for both hooks."""
    spack.build()
    hooked = {} if hook == "entry point" else spack.wrapped()
    marked = Marked()
    code = f"import subprocess as s; s.run(['sleep', '{marked.seconds}'])"
    variables: dict[str, str] = spack.user.options(spack.variables(**hooked))["env"]
    with shell(variables, spack.user.uid) as keyboard:
        keyboard.run("set -o pipefail")
        keyboard.wait_for_prompt()
        keyboard.run(f'{spack.script} python -c "{code}"{output}')
        for _ in range(2):
            marked.wait_for("S")
            keyboard.type(SUSPEND)
            keyboard.wait_for("Stopped")
            marked.wait_for("T")
            keyboard.run("fg")
            marked.wait_for("S")
        keyboard.type(INTERRUPT)
        marked.wait_for()
        keyboard.wait_for_prompt()
        assert keyboard.status() in {1, 130}  # depends on the Spack


def test_a_second_interrupt_kills_the_jail(spack: Spack) -> None:
    """The message has Spack's form, and the status is that of an interrupt."""
    spack.build()
    code = "import signal, time; signal.signal(2, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
    variables: dict[str, str] = spack.user.options(spack.variables(**spack.wrapped()))["env"]
    with shell(variables, spack.user.uid) as keyboard:
        keyboard.run("set -o pipefail")
        keyboard.wait_for_prompt()
        keyboard.run(f'{spack.script} python -c "{code}" | tee -i')  # which ignores Ctrl-C
        keyboard.wait_for(r"\nup\r\n")
        for _ in range(2):
            keyboard.type(INTERRUPT)
            time.sleep(0.5)
        output = keyboard.wait_for(r"Error: interrupted twice: killed the jail\r\n.*ready> ")
        assert b"Traceback" not in output[0]
        assert keyboard.status() == 130


# Where the user's own pkgjail is: the one that runs the tests may be below /root.
_PRINT_EXTENSION = (
    "from pkgjail.integrations.spack.extensions import extension_paths; print(extension_paths()[0])"
)


def test_run_and_cli_and_status(spack: Spack) -> None:
    """A command, a shell, and the status, from outside and from inside."""
    spack.build()
    ran = spack("jail", "--run", "--", "sh", "-c", "uname -n; exit 3")
    assert (ran.returncode, ran.stdout) == (3, "pkgjail\n")
    shell = spack("jail", "--cli", input="uname -n; exit 4\n")
    assert (shell.returncode, shell.stdout) == (4, "pkgjail\n")
    outside = spack("jail", "--status").stdout.splitlines()
    assert outside[0] == f"outside; active: {spack.environment}"
    assert outside[-1] == "spack commands run inside, by the entry point 'spack.config'"
    wrapped = spack("isolate", environment=spack.wrapped()).stdout.splitlines()
    assert wrapped[-1] == "spack commands run inside, by SPACK_PYTHON"
    printed = spack.user.run([spack.python, "-c", _PRINT_EXTENSION], environment={"PYTHONPATH": ""}).stdout
    plain = spack(
        "-c",
        f"config:extensions:[{printed.strip()}]",
        "jail",
        environment={"SPACK_PYTHON": SYSTEM_PYTHON},
    )
    assert plain.stdout.splitlines()[-1] == "spack commands still run outside", plain.stderr
    inside = spack("jail", "--run", "--", spack.script, "jail", "--status")
    assert inside.stdout == f"inside; active: {spack.environment}\n"


def test_an_audit(spack: Spack) -> None:
    """The record says what the host has that the environment does not; it goes with a command."""
    spack.build()
    record = spack.user.home / "audit.jsonl"
    ran = spack(
        "jail", "--audit", str(record), "--run", "--", "sh", "-c", "[ -e /usr/include/zlib.h ] || exit 5"
    )
    assert ran.returncode == 5, ran.stderr
    (header,) = [each for each in read_audit(record).look_ups if each.path == b"/usr/include/zlib.h"]
    assert header.owners == ("zlib1g-dev:amd64",)
    assert "--audit goes with --run or --cli" in spack("jail", "--audit", str(record), "--status").stderr


def test_a_builtin_isolate_stays_spacks_own(spack: Spack) -> None:
    """Spack 1.2 and newer have one. It runs inside like any other command, and `spack jail` still exists."""
    spack.user_writes(spack.root / "lib/spack/spack/cmd/isolate.py", BUILTIN)
    assert spack("isolate").stdout == f"builtin on {HOST}\n"
    spack.build()
    assert spack("isolate").stdout == "builtin on pkgjail\n"
    assert spack("jail").stdout.startswith("outside; active")


@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
def test_a_record_that_cannot_be_read_stops_every_command(spack: Spack, hook: str) -> None:
    """A damaged file does not let commands run outside."""
    spack.build()
    spack.user_writes(spack.root / "opt/.pkgjail/active.json", "{}")
    done = spack("python", "-c", WHERE, environment={} if hook == "entry point" else spack.wrapped())
    assert (done.returncode, done.stdout) == (1, "")
    assert "active.json: this pkgjail did not write it; look at it, and delete it" in done.stderr
