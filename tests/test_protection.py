"""Protected paths: no command can change what later runs depend on, whatever a writable bind shows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.environments.build import build_environment
from pkgjail.jails import protected_paths as protected_paths_module
from pkgjail.jails.protected_paths import ProtectedPath, protected_paths
from pkgjail.jails.protection import protect
from pkgjail.jails.run import default_environment, prepare, prepare_jail
from pkgjail.manifest import write_manifest
from pkgjail.policy import list_files
from pkgjail.sandbox.steps import Bind, OneMountNamespace, Plan
from tests.conftest import SYSTEM_PYTHON
from tests.spack.interpreter import make_python
from tests.tree_text import in_child

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

# Replaces `ci/m.jsonl` from a mount namespace that has let go of all of the jail's mounts.
_BY_A_NAMESPACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
held = os.open("ci", os.O_RDONLY | os.O_DIRECTORY)
user, group = os.geteuid(), os.getegid()
call("unshare", 0x10000000 | 0x00020000)
for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    with open("/proc/self/" + name, "w") as file:
        file.write(line)
call("mount", b"none", b"/", None, 0x44000, None)
call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
os.mkdir("/tmp/old")
os.chdir("/tmp")
call("syscall", 155, b".", b"old")
call("umount2", b"/old", 2)
os.unlink("m.jsonl", dir_fd=held)
os.close(os.open("m.jsonl", os.O_CREAT | os.O_WRONLY, dir_fd=held))
"""


class Reporter:
    """Records warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Remember it."""
        self.warned.append(message)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a manifest in a subdirectory."""
    (tmp_path / "project" / "ci").mkdir(parents=True)
    (tmp_path / "project" / "ci" / "m.jsonl").write_text("the manifest")
    return tmp_path / "project"


def _options(project: Path, *binds: UserBind, manifest: str = "ci/m.jsonl") -> JailOptions:
    bind = UserBind(source=bytes(project), destination=b"/srv/project", writable=True)
    return JailOptions(
        binds=(bind, *binds),
        cwd=b"/srv/project",
        environment=default_environment(),
        inputs=(bytes(project / manifest),),
    )


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo forged > ci/m.jsonl", id="written to"),
        pytest.param("rm -f ci/m.jsonl; echo forged > ci/m.jsonl", id="deleted and made anew"),
        pytest.param("echo forged > ci/new; mv -f ci/new ci/m.jsonl", id="renamed over"),
        pytest.param("chmod 666 ci/m.jsonl && echo forged > ci/m.jsonl", id="its mode changed"),
        pytest.param("ln ci/m.jsonl ci/other && echo forged > ci/other", id="by a hard link"),
        pytest.param("mv ci old; mkdir ci; echo forged > ci/m.jsonl", id="its directory put aside"),
        pytest.param("mv ci/m.jsonl old; echo forged > ci/m.jsonl", id="itself put aside"),
        pytest.param(f"python3 -c {shlex.quote(_BY_A_NAMESPACE)}", id="by a namespace"),
    ],
)
def test_a_command_cannot_change_a_manifest_in_a_writable_bind(
    user: Caller, spack_manifest: Manifest, script: str
) -> None:
    """The next run outside uses it. Other files in the bind can be written to."""
    place = user.home / "project" / "ci"
    place.mkdir(parents=True)
    write_manifest(spack_manifest, place / "m.jsonl")
    for path in (place.parent, place, place / "m.jsonl"):
        os.chown(path, user.uid, user.uid)
    before, content = (place / "m.jsonl").stat(), (place / "m.jsonl").read_bytes()
    command = ["sh", "-c", f"({script}) 2>/dev/null; echo built > ci/built"]
    done = user.pkgjail("run", "--cwd", "ci/m.jsonl", "--", *command, cwd=place.parent)
    assert done.returncode == 0, done.stderr
    after = (place / "m.jsonl").stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert (place / "m.jsonl").read_bytes() == content
    assert (place / "built").read_text() == "built\n"


def test_there_is_one_warning_of_read_only_paths(base_manifest: Manifest, project: Path) -> None:
    """It explains why a build cannot write there."""
    reporter = Reporter()
    jail = prepare_jail(base_manifest, _options(project), reporter=reporter)
    assert [jail.enter(["true"]), jail.enter(["true"])] == [0, 0]
    path = project / "ci" / "m.jsonl"
    assert reporter.warned == [f"shown read-only in the jail, because later runs depend on it: {path}"]


def test_a_path_outside_of_binds_needs_no_mount(
    base_manifest: Manifest, project: Path, tmp_path: Path
) -> None:
    """Nor does a jail without such paths lose anything."""
    (tmp_path / "m.jsonl").touch()
    options = _options(project, manifest="../m.jsonl")
    assert not _is_closed(prepare(base_manifest, options))
    read_only = UserBind(source=bytes(tmp_path), destination=b"/srv/project", writable=False)
    only = JailOptions(binds=(read_only,), inputs=(bytes(tmp_path / "m.jsonl"),))
    assert not _is_closed(prepare(base_manifest, only))


def _is_closed(plan: Plan) -> bool:
    return any(isinstance(step, OneMountNamespace) for step in plan.steps)


def test_a_users_bind_stays_on_top(base_manifest: Manifest, project: Path) -> None:
    """The directories that become mount points do not cover it."""
    (project / "ci" / "data").mkdir()
    closed = UserBind(source=bytes(project / "ci/data"), destination=b"/srv/project/ci/data", writable=False)
    jail = prepare_jail(base_manifest, _options(project, closed))
    assert jail.enter(["sh", "-c", "touch ci/new && ! touch ci/data/new && ! touch ci/m.jsonl"]) == 0


def test_a_name_covered_by_another_bind_is_not_mounted(base_manifest: Manifest, project: Path) -> None:
    """The jail shows the other bind there."""
    (project.parent / "other").mkdir()
    other = UserBind(source=bytes(project.parent / "other"), destination=b"/srv/project/ci", writable=True)
    jail = prepare_jail(base_manifest, _options(project, other))
    assert jail.enter(["sh", "-c", "echo mine > ci/m.jsonl"]) == 0
    assert (project.parent / "other" / "m.jsonl").read_text() == "mine\n"


@pytest.mark.parametrize("covered", ["a/b", "a/b/c", "a/b/c/m.jsonl"])
def test_directories_on_the_way_to_a_covered_name_cannot_be_renamed(
    base_manifest: Manifest, project: Path, covered: str
) -> None:
    """Otherwise a command could rename one and make the name anew on the host."""
    (project / "a/b/c").mkdir(parents=True)
    (project / "a/b/c/m.jsonl").write_text("the manifest")
    shown = project.parent / "other"
    shown.touch() if covered.endswith(".jsonl") else shown.mkdir()
    cover = UserBind(source=bytes(shown), destination=b"/srv/project/" + covered.encode(), writable=True)
    jail = prepare_jail(base_manifest, _options(project, cover, manifest="a/b/c/m.jsonl"))
    script = "touch a/mine; mv a old; mkdir -p a/b/c; echo forged > a/b/c/m.jsonl; test -e a/mine"
    assert jail.enter(["sh", "-c", script]) == 0
    assert (project / "a/b/c/m.jsonl").read_text() == "the manifest"


@pytest.mark.parametrize(
    ("links", "manifest"),
    [
        pytest.param({"project/m.jsonl": "ci/m.jsonl"}, "m.jsonl", id="to it, within the bind"),
        pytest.param({"project/m.jsonl": "../far"}, "m.jsonl", id="to it, out of the bind"),
        pytest.param({"project/to": "..", "link": "far"}, "to/link", id="to a directory, and on"),
        pytest.param({"project/a": "b", "project/b": "../far"}, "a", id="to a link"),
        pytest.param({"project/ci/a": "../../far"}, "ci/a", id="further down"),
    ],
)
def test_a_link_to_a_manifest_cannot_be_changed(
    base_manifest: Manifest, project: Path, links: dict[str, str], manifest: str
) -> None:
    """The next run follows it. Neither the link nor its directory can be replaced or renamed."""
    (project.parent / "far").write_text("the manifest")
    for name, target in links.items():
        (project.parent / name).symlink_to(target)
    names = " ".join(name.partition("project/")[2] for name in links if "project/" in name)
    script = f"for name in {names} ci; do mv $name old-$name; rm -rf $name; echo forged > $name; done; true"
    jail = prepare_jail(base_manifest, _options(project, manifest=manifest))
    assert jail.enter(["sh", "-c", script]) == 0
    assert (project / manifest).read_text() == "the manifest"


def test_a_manifest_with_hard_links_is_refused(base_manifest: Manifest, project: Path) -> None:
    """A write to another name changes the file."""
    os.link(project / "ci" / "m.jsonl", project / "other")
    with pytest.raises(JailError, match="has other names"):
        prepare(base_manifest, _options(project))


def test_a_missing_path_is_refused(base_manifest: Manifest, project: Path) -> None:
    """It cannot be mounted, and the command could make it."""
    with pytest.raises(JailError, match="is in it"):
        prepare(base_manifest, _options(project, manifest="ci/none.jsonl"))


def test_the_manifest_itself_cannot_be_bound_writable(base_manifest: Manifest, project: Path) -> None:
    """By any of its names."""
    (project.parent / "link").symlink_to("project/ci/m.jsonl")
    for source in (project / "ci" / "m.jsonl", project.parent / "link"):
        bind = UserBind(source=bytes(source), destination=b"/srv/m", writable=True)
        options = JailOptions(binds=(bind,), inputs=(bytes(project / "ci/m.jsonl"),))
        with pytest.raises(JailError, match="is in it, and later runs depend on it"):
            prepare(base_manifest, options)


def test_an_environment_cannot_have_itself_as_a_writable_bind(
    base_manifest: Manifest, tmp_path: Path
) -> None:
    """Every entry would be refused."""
    bind = UserBind(source=bytes(tmp_path), destination=b"/srv", writable=True)
    with pytest.raises(JailError, match="later entries depend on it"):
        build_environment(base_manifest, bytes(tmp_path / "env"), binds=(bind,))
    assert os.listdir(tmp_path) == []


# --- by other mounts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mount", "bound", "refused"),
    [
        pytest.param("true", "home/cache", True, id="by its own name"),
        pytest.param("mount --bind home mnt", "mnt", True, id="the directory above it, mounted elsewhere"),
        pytest.param("mount --bind home mnt", "mnt/cache/pkgjail", True, id="itself, mounted elsewhere"),
        pytest.param("mount --bind home/cache mnt/sub", "mnt", True, id="it is mounted below the bind"),
        pytest.param("mount --bind home/cache/pkgjail mnt", "mnt", True, id="it is mounted at the bind"),
        pytest.param("mount --bind mnt home/cache", "home", True, id="a mount covers the old one"),
        pytest.param("mount --bind home mnt", "mnt/sub", False, id="a directory beside it"),
        pytest.param(
            "mount -t tmpfs none home/sub", "home/sub", False, id="another filesystem, which has the path"
        ),
    ],
)
def test_the_cache_is_found_through_other_mounts(
    user: Caller, base_manifest: Manifest, mount: str, bound: str, *, refused: bool
) -> None:
    """The directory is compared, and not its path."""
    for name in ("home/cache/pkgjail", "home/sub", "mnt/sub"):
        (user.home / name).mkdir(parents=True)
    write_manifest(base_manifest, user.home / "m.jsonl")
    script = f"{mount}; exec {shlex.join(['/usr/bin/python3', '-m', 'pkgjail', 'run'])}"
    script += f" --bind {bound}:/srv/x m.jsonl -- true"
    for path, _, _ in os.walk(user.home):
        os.chown(path, user.uid, user.uid)
    done = user.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script],
        environment={"XDG_CACHE_HOME": str(user.home / "home" / "cache")},
    )
    assert done.returncode == (125 if refused else 0), done.stderr
    assert ("later jails depend on it" in done.stderr) == refused


@pytest.mark.parametrize(
    ("bound", "inner", "is_there"),
    [
        pytest.param("shared", "pkgjail-{}", False, id="what others are to read"),
        pytest.param("shared", "pkgjail-{}", True, id="what others read"),
        pytest.param("home", ".cache/pkgjail", False, id="the cache of processes with no XDG_CACHE_HOME"),
    ],
)
def test_the_usual_paths_of_caches_are_protected(
    user: Caller, base_manifest: Manifest, bound: str, inner: str, *, is_there: bool
) -> None:
    """With a forged baseline, changed content would be accepted without comparison."""
    write_manifest(base_manifest, user.home / "m.jsonl")
    for name in ("home", "shared"):
        (user.home / name).mkdir()
    place = user.home / bound / inner.format(user.uid)
    if is_there:
        place.mkdir(parents=True)
    for path, _, _ in os.walk(user.home):
        os.chown(path, user.uid, user.uid)
    variables = {"HOME": str(user.home / "home"), "PKGJAIL_SHARED_DIR": str(user.home / "shared")}
    inside = f"/srv/{place.relative_to(user.home / bound)}"
    script = f"mkdir -p {inside}/baselines; touch {inside}/x; mv {inside} /srv/old; mv /srv/.cache /srv/old"
    words = (
        "run",
        "--bind",
        f"{bound}:/srv",
        "m.jsonl",
        "--",
        "sh",
        "-c",
        f"({script}) 2>&1; touch /srv/mine",
    )
    done = user.pkgjail(*words, environment=variables)
    assert done.returncode == 0, done.stderr
    assert f"shown read-only in the jail, because later runs depend on it: {place}" in done.stderr
    assert (user.home / bound / "mine").exists()
    assert os.listdir(place) == []


def test_a_read_only_bind_hides_the_cache(user: Caller, base_manifest: Manifest) -> None:
    """A command that can open a file can lock it, and all later runs would wait for it."""
    write_manifest(base_manifest, user.home / "m.jsonl")
    (user.home / "home").mkdir()
    os.chown(user.home / "home", user.uid, user.uid)
    run = f"{os.environ['XDG_RUNTIME_DIR']}/{user.uid}"
    variables = {"HOME": str(user.home / "home"), "XDG_CACHE_HOME": ""}
    words = ("--ro-bind", f"{run}:/srv/run", "--ro-bind", "home:/srv/home", "m.jsonl")
    for _ in range(2):  # the long way, then the short one
        script = "ls -A /srv/run/pkgjail /srv/home/.cache/pkgjail; ! touch /srv/run/pkgjail/x"
        done = user.pkgjail("run", *words, "--", "sh", "-c", script, environment=variables)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "/srv/home/.cache/pkgjail:\n\n/srv/run/pkgjail:\n"
    assert os.listdir(f"{run}/pkgjail")
    assert os.listdir(user.home / "home/.cache/pkgjail")


def test_a_process_that_changed_its_user_finds_the_cache(tmp_path: Path) -> None:
    """It may not read the mount ids of its own descriptors."""
    place = ProtectedPath(bytes(tmp_path / "cache"), "it", read_only=False)
    plan = Plan(b"/", (Bind(b"/srv", bytes(tmp_path), writable=True),), network=True, hostname="pkgjail")
    (tmp_path / "cache").mkdir()

    def work() -> str:
        ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE, as setresuid(2) has it
        try:
            protect(plan, [place])
        except JailError as error:
            return str(error)
        return ""

    assert "is in it" in in_child(work, os.geteuid())


def test_a_mount_below_a_bind_that_shows_a_protected_directory_is_read_only(tmp_path: Path) -> None:
    """If a bind shows the directory by two names, both are read-only."""
    steps = (Bind(b"/srv", bytes(tmp_path), writable=True),)
    (tmp_path / "a" / "b").mkdir(parents=True)
    plan = Plan(root=b"/", steps=steps, network=True, hostname="pkgjail")
    place = ProtectedPath(bytes(tmp_path / "a" / "b"), "it")
    done, shown = protect(plan, [place])
    assert done.steps == (
        *steps,
        Bind(b"/srv/a", bytes(tmp_path / "a"), writable=True),
        Bind(b"/srv/a/b", bytes(tmp_path / "a" / "b"), writable=False),
        OneMountNamespace(),
    )
    assert shown == (place.path,)


# --- by the command line ------------------------------------------------------------------------


def test_a_project_that_contains_its_manifest_can_be_built(anyone: Caller, base_manifest: Manifest) -> None:
    """The usual case. The first entry warns; a replay is protected too."""
    project = anyone.home / "project"
    project.mkdir()
    os.chown(project, anyone.uid, anyone.uid)
    write_manifest(base_manifest, project / "m.jsonl")
    os.chown(project / "m.jsonl", anyone.uid, anyone.uid)
    before = (project / "m.jsonl").read_bytes()
    words = ["run", "--cwd", "m.jsonl", "--", "sh", "-c"]
    for told in (True, False):
        done = anyone.pkgjail(*words, "echo '#' > m.jsonl; rm -f m.jsonl; echo built > built", cwd=project)
        assert done.returncode == 0
        said = f"shown read-only in the jail, because later runs depend on it: {project}/m.jsonl\n"
        assert (said in done.stderr) == told
        assert "cannot create m.jsonl: Read-only file system" in done.stderr
        assert (project / "m.jsonl").read_bytes() == before
        assert (project / "built").read_text() == "built\n"


def test_a_command_cannot_change_lists_in_a_writable_bind(user: Caller) -> None:
    """The whitelist in place of a manifest, the lists that it includes, and blacklists given by path."""
    texts = {
        "site.toml": 'include = ["base", "more/more.toml"]\n[options]\nblacklists = ["mine.ignore"]\n',
        "more/more.toml": "[files]\ninclude = ['/etc/none']\n",
        "mine.ignore": "/usr/share/man/\n",
        "given.ignore": "/usr/share/doc/\n",
    }
    (user.home / "more").mkdir()
    for name, text in texts.items():
        (user.home / name).write_text(text)
        os.chown(user.home / name, user.uid, user.uid)
    os.chown(user.home / "more", user.uid, user.uid)
    script = (
        f"for name in {' '.join(texts)}; do echo '# forged' >> $name; rm -f $name; done; rm -rf more; true"
    )
    words = ["run", "--cwd", "--blacklist", "./given.ignore", "./site.toml", "--", "sh", "-c", script]
    done = user.pkgjail(*words)
    assert done.returncode == 0, done.stderr
    assert {name: (user.home / name).read_text() for name in texts} == texts


def test_the_files_of_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipped lists, unreadable files and duplicates are left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('include = ["b.toml", "base", "none.toml"]\n')
    (tmp_path / "b.toml").write_text('include = ["a.toml"]\n[options]\nblacklists = ["c.ignore", "docs"]\n')
    (tmp_path / "c.ignore").touch()
    names = [bytes(tmp_path / name) for name in ("a.toml", "b.toml", "c.ignore")]
    assert list_files(["a.toml", "base", "unknown"], ["docs"]) == tuple(names)


@pytest.fixture
def clone(user: Caller, library: Path, base_manifest: Manifest) -> Path:
    """A project of the user's with the virtual environment that pkgjail is in, and a manifest beside it."""
    project = user.home / "project"
    project.mkdir()
    make_python(project / ".venv", library)
    write_manifest(base_manifest, user.home / "m.jsonl")
    for path, directories, files in os.walk(user.home):
        for name in (path, *(os.path.join(path, each) for each in (*directories, *files))):
            os.chown(name, user.uid, user.uid, follow_symlinks=False)
    return project


def _by_its_own_python(user: Caller, clone: Path, *words: str, cwd: Path) -> tuple[int, str]:
    done = user.run([clone / ".venv/bin/pkgjail", "run", *words], environment={"PYTHONPATH": ""}, cwd=cwd)
    return done.returncode, done.stderr


def test_a_command_cannot_change_the_virtual_environment_in_a_writable_bind(
    user: Caller, clone: Path
) -> None:
    """Its content runs outside whenever Python starts."""
    script = "touch built; echo 'import os' > .venv/x.pth; mv .venv old; touch .venv/bin/new"
    status, told = _by_its_own_python(
        user, clone, "--cwd", "../m.jsonl", "--", "sh", "-c", f"{script}; true", cwd=clone
    )
    assert status == 0, told
    assert f"later runs depend on it: {clone}/.venv\n" in told
    assert sorted(os.listdir(clone)) == [".venv", "built"]
    assert not (clone / ".venv/x.pth").exists()


def test_a_writable_bind_of_pkgjails_python_or_code_is_refused(
    user: Caller, clone: Path, library: Path
) -> None:
    """Nothing could be shown read-only there."""
    for place, noun in (
        (clone / ".venv", "the Python that runs pkgjail"),
        (clone / ".venv/lib", "the Python that runs pkgjail"),
        (library / "pkgjail", "pkgjail's own code"),
        (library / "pkgjail/integrations/spack", "pkgjail's own code"),
        (library / "networkx", "a directory that pkgjail's Python imports from"),
    ):
        words = ["--bind", f"{place}:/srv/x", "../m.jsonl", "--", "true"]
        status, told = _by_its_own_python(user, clone, *words, cwd=clone)
        assert status == 125
        assert noun in told, place


def test_a_bind_beside_the_code_is_allowed(user: Caller, clone: Path, library: Path) -> None:
    """As in a clone: a directory below one that modules come from, which is no package."""
    (library / "examples").mkdir()
    words = ["--bind", f"{library}/examples:/srv/x", "../m.jsonl", "--", "true"]
    assert _by_its_own_python(user, clone, *words, cwd=clone) == (0, "")
    (library / "examples").rmdir()


def test_a_command_cannot_change_where_python_imports_from(user: Caller, clone: Path, library: Path) -> None:
    """By PYTHONPATH, or the user's own site directory, which is made if it is missing."""
    modules = clone / "modules"
    modules.mkdir()
    words: list[str | Path] = ["run", "--bind", f"{user.home}:/srv", user.home / "m.jsonl", "--", "sh", "-c"]
    site = ".local/lib/python3*/site-packages"
    script = f"touch /srv/project/modules/x; mv /srv/.local /srv/old; cd /srv/{site} && ! touch a.pth"
    variables = {"PYTHONPATH": f"{library}:{modules}"}
    for _ in range(2):
        done = user.pkgjail(*words, script, environment=variables)
        assert done.returncode == 0, done.stderr
    assert os.listdir(modules) == []
    refused = user.pkgjail("run", "--cwd", words[3], "--", "true", environment=variables, cwd=modules)
    assert "a directory that pkgjail's Python imports from" in refused.stderr


@pytest.mark.parametrize(
    ("place", "is_allowed", "is_made"),
    [
        pytest.param("home/.local/lib/site-packages", True, True, id="in the user's home directory"),
        pytest.param("usr/lib/dist-packages", False, False, id="elsewhere"),
        pytest.param("usr/python/dist-packages", True, False, id="elsewhere, in what is read-only"),
    ],
)
def test_a_directory_that_is_missing_is_made_in_the_home_directory_alone(
    place: str, *, is_allowed: bool, is_made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root once made /usr/lib/python3.11/dist-packages, which no other user's pip could then read."""
    for name in ("home", "usr/lib", "usr/python"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(protected_paths_module, "_module_directories", lambda: iter([str(tmp_path / place)]))
    monkeypatch.setattr(
        protected_paths_module, "_python_directories", lambda: iter([str(tmp_path / "usr/python")])
    )
    path = os.fsencode(tmp_path)
    plan = Plan(b"/r", (Bind(b"/srv", path, writable=True),), network=False, hostname="")
    with contextlib.nullcontext() if is_allowed else pytest.raises(JailError, match="imports from"):
        protect(plan, protected_paths(JailOptions()))
    assert (tmp_path / place).is_dir() == is_made


def test_a_missing_home_directory_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user nobody has /nonexistent."""
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    plan = Plan(b"/r", (Bind(b"/srv", os.fsencode(tmp_path), writable=True),), network=False, hostname="")
    with pytest.raises(JailError, match="pkgjail's cache"):
        protect(plan, protected_paths(JailOptions()))
    assert os.listdir(tmp_path) == []


def test_a_command_cannot_change_the_directory_of_the_script(
    user: Caller, base_manifest: Manifest, library: Path
) -> None:
    """In ~/.local/bin, where `pip install --user` puts it: Python first imports modules beside a script."""
    write_manifest(base_manifest, user.home / "m.jsonl")
    script = user.home / "mine" / "bin" / "pkgjail"
    script.parent.mkdir(parents=True)
    script.write_text("import sys\nfrom pkgjail.__main__ import main\nsys.exit(main())\n")
    for path in (script, script.parent, script.parent.parent):
        os.chown(path, user.uid, user.uid)
    forge = "echo 'raise SystemExit(66)' > bin/argparse.py; mv bin old; rm -f bin/pkgjail; touch written"
    command = ["--", "sh", "-c", f"cd /srv; ({forge}) 2>&1"]
    words: list[str | Path] = [SYSTEM_PYTHON, script, "run", "--bind", "mine:/srv", "m.jsonl", *command]
    for _ in range(2):  # the long way, then the short one
        done = user.run(words, environment={"PYTHONPATH": str(library)})
        assert done.returncode == 0, done.stderr
    assert os.listdir(script.parent) == ["pkgjail"]
    assert (user.home / "mine" / "written").exists()


def test_a_new_mount_prevents_replay(user: Caller, base_manifest: Manifest) -> None:
    """A saved jail knows the mounts at that time. A new mount could show the cache."""
    for name in ("cache", "work/sub dir", "work/other"):
        (user.home / name).mkdir(parents=True)
    write_manifest(base_manifest, user.home / "m.jsonl")
    for path, _, _ in os.walk(user.home):
        os.chown(path, user.uid, user.uid)
    run = f"{shlex.join(['/usr/bin/python3', '-m', 'pkgjail', 'run'])} --bind work:/srv/x m.jsonl -- true"
    for mount, refused in (("cache", True), ("work/other", False)):
        script = f"{run}; {run}; mount --bind {mount} 'work/sub dir'; {run}"
        done = user.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script],
            environment={"XDG_CACHE_HOME": str(user.home / "cache")},
        )
        assert done.returncode == (125 if refused else 0), done.stderr
        assert done.stderr.count("later jails depend on it") == refused
