"""What commands in the jail have of their caller's: the working directory, paths, variables, links."""

from __future__ import annotations

import json
import os
import shlex
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.spack.conftest import Spack

HOOKS = pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])


def hooked(spack: Spack, hook: str) -> dict[str, str]:
    """Return the variables for a hook."""
    return {} if hook == "entry point" else spack.wrapped()


def make(spack: Spack, *names: str) -> Path:
    """Make directories in the user's home, and return the first."""
    for name in names:
        path = spack.user.home / name
        path.mkdir(parents=True)
        while path != spack.user.home:
            os.chown(path, spack.user.uid, spack.user.uid)
            path = path.parent
    return spack.user.home / names[0]


@HOOKS
def test_the_working_directory_is_shown_writable(spack: Spack, hook: str) -> None:
    """A command reads and writes in it by relative paths, at each entry and for each directory."""
    work = make(spack, "work/a", "work/b").parent
    spack.build()
    code = (
        "import os; _ = open('made', 'a').write('x'); "  # Spack's `python` prints the value of an expression
    )
    code += "print(os.getcwd(), os.environ['PWD'], os.listdir('..'))"
    for _ in range(2):
        for directory in (work / "a", work / "b"):
            done = spack("python", "-c", code, environment=hooked(spack, hook), cwd=directory)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"{directory} {directory} ['{directory.name}']\n"
    assert (work / "a" / "made").read_text() == "xx"


@HOOKS
def test_options_that_spack_refuses_end_as_outside(spack: Spack, hook: str) -> None:
    """It is Spack's own error, and has nothing to do with the jail: here, of an environment that is none."""
    outside = spack("--env", "./none", "python", "-c", "print()")
    assert outside.returncode != 0
    assert outside.stderr.startswith("==> Error: ")
    spack.build()
    inside = spack("--env", "./none", "python", "-c", "print()", environment=hooked(spack, hook))
    assert (inside.returncode, inside.stdout, inside.stderr) == (
        outside.returncode,
        outside.stdout,
        outside.stderr,
    )


def test_the_home_is_not_shown_whole(spack: Spack) -> None:
    """Software that a user installed there would be visible. A command starts there all the same."""
    make(spack, ".local/lib", "conda/lib")
    spack.build()
    done = spack("python", "-c", "import os; print(os.getcwd(), *os.listdir())")
    directory, *names = done.stdout.split()
    assert directory == str(spack.user.home), done.stderr
    assert {"python", "spack"} <= set(names) <= {"cache", "config", "python", "spack"}
    for line in ("dev-build x", "mirror create -d ~/new", "mirror create -d ."):
        done = spack(*line.replace("~", str(spack.user.home)).split())
        assert (done.returncode, done.stdout) == (1, "")
        assert "it is your home directory, and software in it would be visible" in done.stderr
        assert done.stderr.startswith("==> Error: cannot ")


@HOOKS
def test_paths_on_the_command_line_are_shown(spack: Spack, hook: str) -> None:
    """A directory or what is to be made in one, writable; a file alone; a manifest with what is beside it."""
    home = spack.user.home
    make(spack, "out", "files", "proj")
    for name in ("files/one", "files/two", "proj/spack.yaml", "proj/more.yaml"):
        spack.user_writes(home / name, "")
    spack.build()
    words = [f"{home}/out/new", f"{home}/files/one", f"--file={home}/proj/spack.yaml"]
    code = f"""
import os
os.mkdir({words[0]!r})
print(os.listdir({f"{home}/files"!r}), sorted(os.listdir({f"{home}/proj"!r})))
"""
    # The stand-in's `python` takes no more arguments: they come by a command of its own.
    spack.user_writes(spack.root / "lib/spack/spack/cmd/takes.py", f"""
def setup_parser(subparser):
    subparser.add_argument("--file")
    subparser.add_argument("paths", nargs="*")
def takes(parser, args):
    exec({code!r})
""")  # fmt: skip
    for _ in range(2):
        done = spack("takes", *words, environment=hooked(spack, hook))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "['one'] ['more.yaml', 'spack.yaml']\n"
        (home / "out" / "new").rmdir()


def test_files_that_variables_name_in_the_system(spack: Spack) -> None:
    """Those of the manifest are there, another one of /etc is shown alone, and one of /usr is told."""
    other = next(
        path for path in ("/etc/hostname", "/etc/machine-id", "/etc/timezone") if os.path.isfile(path)
    )
    spack.build()
    variables = {
        "SSL_CERT_FILE": "/etc/passwd",
        "CURL_CA_BUNDLE": other,
        "REQUESTS_CA_BUNDLE": "/usr/bin/strace",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    code = f"import os; print([os.path.exists(each) for each in {list(variables.values())}])"
    done = spack("python", "-c", code, environment=variables)
    assert done.stdout == "[True, True, False, True]\n", done.stderr
    assert done.stderr.startswith("==> Warning: /usr/bin/strace is outside of the jail: the manifest decides")
    assert len(done.stderr.splitlines()) == 1


def test_a_system_directory_is_never_shown_because_it_is_named(spack: Spack) -> None:
    """Commands run, with a warning if the manifest does not have what they name."""
    spack.build()
    spack.user_writes(spack.root / "lib/spack/spack/cmd/takes.py", """
def setup_parser(subparser):
    subparser.add_argument("paths", nargs="*")
def takes(parser, args):
    import os
    print(os.getcwd(), [os.path.exists(path) for path in args.paths])
""")  # fmt: skip
    done = spack("takes", "/usr/bin", "/usr/bin/strace", cwd="/usr/share")
    assert (done.returncode, done.stdout) == (0, "/ [True, False]\n")
    assert done.stderr.startswith(
        "==> Warning: /usr/bin/strace is outside of the jail: the manifest decides about /usr; to show "
    )


def test_the_environment_in_the_working_directory_is_read_only(spack: Spack) -> None:
    """As in a project that has everything in one directory."""
    work = make(spack, "work")
    moved = f"{work}/env"
    words = ["jail", "--build-environment", moved, "--whitelist", spack.whitelist]
    assert spack(*words).returncode == 0
    code = f"""
import os
open("x", "w").close()
for attempt in (lambda: os.rename({moved!r}, "y"), lambda: open({f"{moved}/z"!r}, "w")):
    try:
        attempt()
    except OSError as error:
        print(error.strerror)
"""
    done = spack("python", "-c", f"exec({code!r})", cwd=work)
    assert done.stdout == "Device or resource busy\nRead-only file system\n", done.stderr
    inside = spack("python", "-c", "import os; print(os.getcwd())", cwd=moved)
    assert (inside.returncode, inside.stdout, inside.stderr) == (0, "/\n", "")


@HOOKS
def test_variables_of_each_command_are_its_own_callers(spack: Spack, hook: str) -> None:
    """Those that are only passed on are new at each entry, also by a replay; no other variable passes."""
    spack.build("--env", "FIXED=1", "--env", "SITE_*", "--env", "CPATH")
    names = ["SLURM_JOB_ID", "COLUMNS", "FIXED", "SITE_X", "SITE_PATH", "CPATH", "LD_LIBRARY_PATH"]
    code = f"import os; print([os.environ.get(name) for name in {names}])"
    for number in ("1", "2"):
        given = dict.fromkeys(names, number)
        done = spack("python", "-c", code, environment={**given, **hooked(spack, hook)})
        expected = [number, number, "1", number, None, number, None]
        assert (done.stdout, done.stderr) == (f"{expected}\n", "")
    assert spack("python", "-c", code).stdout == "[None, None, '1', None, None, None, None]\n"


@HOOKS
def test_variables_that_the_configuration_refers_to_are_passed(spack: Spack, hook: str) -> None:
    """A path in it is the same outside and inside, and another value shows another directory."""
    make(spack, "a", "b")
    spack.configure("config", json.dumps({"config": {"misc_cache": "$MYSCRATCH/stage"}}))
    spack.build()
    code = "import os; path = os.environ['MYSCRATCH'] + '/stage'; print(os.access(path, os.W_OK), path)"
    for name in ("a", "b", "a"):
        value = str(spack.user.home / name)
        done = spack("python", "-c", code, environment={"MYSCRATCH": value, **hooked(spack, hook)})
        assert (done.stdout, done.stderr) == (f"True {value}/stage\n", "")


def test_the_agent_and_the_configuration_of_git_are_shown(spack: Spack) -> None:
    """A version from git may need them. Private keys are not shown."""
    home = make(spack, "agent", ".ssh").parent
    for name in (".gitconfig", ".ssh/known_hosts", ".ssh/id_rsa"):
        spack.user_writes(home / name, name)
    path = str(home / "agent" / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chown(path, spack.user.uid, spack.user.uid)
        listening.listen()
        spack.build()
        code = """
import os, socket
socket.socket(socket.AF_UNIX).connect(os.environ["SSH_AUTH_SOCK"])
os.chdir(os.path.expanduser("~"))
print(open(".gitconfig").read(), sorted(os.listdir(".ssh")), os.access(".gitconfig", os.W_OK))
"""
        for _ in range(2):
            done = spack("python", "-c", f"exec({code!r})", environment={"SSH_AUTH_SOCK": path})
            assert done.stdout == ".gitconfig ['known_hosts'] False\n", done.stderr


def test_commands_that_build_nothing_are_replayed_all_the_same(spack: Spack) -> None:
    """If Spack's configuration names tools that the jail does not have, only commands that build say so."""
    external = {"spec": "gone@1", "prefix": "/no/such"}
    spack.configure("packages", json.dumps({"packages": {"gone": {"externals": [external]}}}))
    spack.build()
    wrapper = str(spack.python.parent / "pkgjail-spack-python")
    found = []
    for line in ("python -c pass", "python -c pass", "install --help", "install --help", "python -c pass"):
        command = [str(spack.python), "-X", "importtime", wrapper, spack.script, *line.split()]
        done = spack.user.run(command, environment={**spack.variables(), **spack.wrapped()})
        is_new = "pkgjail.integrations.spack.enter" in done.stderr
        found.append((done.returncode, is_new, "external gone@1 is not on this host" in done.stderr))
    prepared, replayed, warned = (0, True, False), (0, False, False), (0, True, True)
    assert found == [prepared, replayed, warned, warned, replayed]


@HOOKS
def test_code_for_the_callers_shell_has_its_own_variables(spack: Spack, hook: str) -> None:
    """`spack load` prints a new PATH, which begins with the shell's own; other commands have the jail's."""
    spack.user_writes(spack.root / "lib/spack/spack/cmd/load.py", """
def setup_parser(subparser):
    subparser.add_argument("--sh", action="store_true")
def load(parser, args):
    import os
    print("export PATH=/new:" + os.environ["PATH"], os.environ.get("LD_LIBRARY_PATH"))
""")  # fmt: skip
    spack.build()
    own = {"PATH": f"/mine:{os.environ['PATH']}", "LD_LIBRARY_PATH": "/mine/lib"}
    for _ in range(2):
        done = spack("load", "--sh", environment={**own, **hooked(spack, hook)})
        assert (done.stdout, done.stderr) == (f"export PATH=/new:{own['PATH']} /mine/lib\n", "")
        done = spack("python", "-c", "import os; print(os.environ['PATH'])", environment=own)
        assert "/mine" not in done.stdout


def test_an_editor_that_the_jail_does_not_have_is_told(spack: Spack) -> None:
    """With the package to whitelist, by commands that start it and no others."""
    spack.build()
    for name in ("edit", "config"):
        spack.user_writes(
            spack.root / f"lib/spack/spack/cmd/{name}.py",
            "def setup_parser(subparser):\n    subparser.add_argument('words', nargs='*')\n"
            f"def {name}(parser, args):\n    pass\n",
        )
    told = (
        "==> Warning: the editor strace is outside of the jail: /usr/bin/strace belongs to the package strace"
    )
    for line, warned in (("config get", False), ("config edit", True), ("edit zlib", True)):
        for _ in range(2):
            done = spack(*line.split(), environment={"EDITOR": "strace -f", "VISUAL": ""})
            assert done.returncode == 0
            assert done.stderr.startswith(told) is warned
            assert done.stderr.endswith("or name another one in EDITOR\n") is warned
    assert spack("edit", environment={"VISUAL": "sh", "EDITOR": "strace"}).stderr == ""


@HOOKS
@pytest.mark.parametrize("way", ["script", "relative path", "setup-env.sh"])
def test_spack_is_found_through_links(spack: Spack, hook: str, way: str) -> None:
    """Spack, its Python, its home and its directories may all be behind links, as on clusters."""
    home = make(spack, "links", "real/mirror").parent
    for name, target in (("current", spack.root), ("venv", spack.python.parent.parent), ("me", home)):
        (home / "links" / name).symlink_to(target)
    (home / "links" / "mirror").symlink_to("../real/mirror")
    spack.configure("mirrors", json.dumps({"mirrors": {"mine": f"file://{home}/links/mirror"}}))
    through = spack._replace(
        root=home / "links" / "current", python=home / "links" / "venv" / "bin" / spack.python.name
    )
    own = {
        "HOME": f"{home}/links/me",
        "SPACK_ROOT": str(through.root),
        "SPACK_USER_CACHE_PATH": f"{home}/links/me/cache",
        "SPACK_ROOT_OF_TEST": str(through.root),
    }
    through.build(environment=own)
    code = f"""
import os
print(os.uname().nodename, os.access({f"{home}/links/mirror"!r}, os.W_OK), os.path.exists({through.script!r}))
"""
    words = ["python", "-c", f"exec({code!r})"]
    variables = through.variables(**{**own, **hooked(through, hook)})
    command = [through.script, *words]
    if way == "relative path":
        command = ["links/current/bin/spack", *words]
    elif way == "setup-env.sh":
        line = f". {through.root}/share/spack/setup-env.sh; spack {shlex.join(words)}"
        command = ["bash", "-c", line]
    for _ in range(2):
        done = spack.user.run(command, environment=variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "pkgjail True True\n", "")
