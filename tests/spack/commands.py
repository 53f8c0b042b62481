"""The commands of the table in docs/spack.md, in the order in which they run, and why some of them differ.

Words in braces are replaced: {work} is a directory that is bound in the jail, {root} Spack's own, {spec} the
concrete spec of hello-z as a file. Every command has one Spack and builds on what the earlier ones left.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A Spack command: its arguments, the versions that have it, and what is compared of it."""

    line: str
    since: tuple[int, int] = (0, 0)
    until: tuple[int, int] = (99, 0)
    # Whether only the status is compared, and why.
    only_status: str = ""


V1 = (1, 0)
V0 = (0, 99)
HOST = "lists what the host has"
ORDER = "parallel output comes in any order"

COMMANDS = (
    # About Spack
    Command("--version"),
    Command("help"),
    Command("commands"),
    Command("docs"),
    Command("debug report"),
    Command("python -c print(6*7)"),
    Command("python -c raise(SystemExit(3))"),
    Command("no-such-command"),
    # The machine and the compilers
    Command("arch"),
    Command("arch --known-targets"),
    Command("compiler list"),
    Command("compiler info gcc"),
    Command("external find --scope site gmake"),
    Command("external find --not-buildable --scope site openssl", only_status=HOST),
    Command("bootstrap status", only_status=HOST),
    # Recipes
    Command("list hello*"),
    Command("info zlib"),
    Command("providers mpi"),
    Command("dependencies hello-z"),
    Command("url parse https://example.org/zlib-1.3.1.tar.gz"),
    Command("resource list"),
    Command("blame hello-z"),
    Command("audit configs"),
    Command("audit packages hello-z"),
    Command("checksum --batch hello-z 1.0"),
    Command("create --skip-editor --name made --template generic file://{work}/hello-z-1.0.tar.gz"),
    Command("edit hello-z"),
    Command("repo list"),
    Command("repo create {work}/more more"),
    Command("repo add --scope site {work}/more", until=V0),
    Command("repo add --scope site {work}/more/spack_repo/more", since=V1),
    Command("repo remove --scope site more"),
    # Configuration
    Command("config get config"),
    Command("config get packages"),
    Command("config edit config"),
    Command("config add config:build_jobs:2"),
    Command("config remove config:build_jobs"),
    Command("config scopes", since=(1, 1)),
    Command("mirror list"),
    Command("mirror add mine {work}/mine"),
    Command("mirror create --directory {work}/mine hello-z"),
    # Concretization
    Command("spec hello-z"),
    Command("spec --json --install-status hello-z"),
    Command("solve --show=opt hello-z"),
    Command("graph hello-z"),
    # Building
    Command("fetch hello-z@1.1"),
    Command("stage hello-z@1.1"),
    Command("install {spec}", only_status=ORDER),
    Command("install --test=root hello-z@1.1", only_status=ORDER),
    Command("install hello-z", only_status=ORDER),
    Command("dev-build --source-path {work}/hello-z-1.0 hello-z@1.0 +extra", only_status=ORDER),
    # Its hash has the path of the sources, which differs between the copies.
    Command("uninstall --yes-to-all hello-z+extra", only_status="has that hash"),
    Command("build-env hello-z -- true"),
    # What is installed
    Command("find"),
    Command("find --long --variants --paths"),
    Command("find --json", only_status="times of installation"),
    Command("find --format {name}-{version}-{hash:7}"),
    Command("location --install-dir hello-z@1.1"),
    Command("location --package-dir hello-z"),
    Command("cd --spack-root"),
    Command("dependents --installed gcc-runtime"),
    Command("dependencies --installed hello-z@1.1"),
    Command("diff hello-z@1.0 hello-z@1.1"),
    Command("logs hello-z@1.1", only_status="addresses and times of a build"),
    Command("log-parse {work}/build.log"),
    Command("verify manifest --all"),
    Command("verify libraries"),
    Command("mark --explicit gcc-runtime"),
    Command("extensions"),
    Command("test list"),
    Command("test run --alias once hello-z@1.1"),
    Command("test results once"),
    Command("test remove --yes-to-all once"),
    Command("load --sh hello-z@1.1"),
    Command("module tcl refresh --yes-to-all"),
    Command("module lmod refresh --yes-to-all"),
    Command("view symlink {work}/view hello-z@1.1"),
    Command("view remove --all {work}/view"),
    Command("deprecate --yes-to-all hello-z@1.0 hello-z@1.1"),
    Command("reindex"),
    # Environments
    Command("env create one"),
    Command("env create --dir {root}/var/project"),
    Command("env list"),
    Command("--env one add hello-z@1.1"),
    Command("--env one concretize"),
    Command("--env one install", only_status=ORDER),
    Command("--env one find"),
    Command("--env one config get"),
    Command("--env one env view disable"),
    Command("--env one env view enable {work}/one-view"),
    Command("--env one env depfile"),
    Command("--env one env update --yes-to-all one"),
    Command("--env one location --env"),
    Command("--env one develop --path {work}/hello-z-1.0 --no-clone hello-z@1.1"),
    Command("--env one undevelop hello-z"),
    Command("--env one containerize"),
    Command("--env one ci generate --output-file {root}/var/ci.yaml"),
    Command("--env one remove hello-z"),
    Command("--env-dir {root}/var/project add hello-z@1.1"),
    Command("--env-dir {root}/var/project concretize"),
    Command("env activate --sh one"),
    Command("env deactivate --sh"),
    Command("env remove --yes-to-all one"),
    Command("--env one find --long"),
    # Build caches
    Command("buildcache push --unsigned {work}/mine hello-z@1.1", only_status=ORDER),
    Command("buildcache update-index {work}/mine"),
    Command("buildcache list --allarch"),
    Command("uninstall --yes-to-all --dependents hello-z@1.1"),
    Command("buildcache install --unsigned hello-z@1.1", only_status=ORDER),
    Command("mirror remove mine"),
    # The end
    Command("isolate --help", since=(1, 2)),
    Command("gc --yes-to-all", only_status=ORDER),
    Command("uninstall --yes-to-all --all"),
    Command("find --explicit"),
    Command("clean --stage --downloads --failures --python-cache"),
)

# Why a command differs, by its line: the only differences that the table may have.
LISTED = "By the entry point, Spack also lists pkgjail's commands, `jail` and, up to 1.1, `isolate`."
DECLARED = (
    "Bare, hello-z was linked with the host's zlib, which its recipe does not declare, and Spack finds the "
    "fault afterwards. In the jail there was no zlib to link with."
)
SHOWN = (
    "For external packages Spack adds directories of the host, if they exist, to variables such as MANPATH "
    "and PKG_CONFIG_PATH. The jail has no `/usr/share/man`, `/usr/share/aclocal` and `/usr/lib/pkgconfig`."
)
REASONS: dict[str, str] = {
    "help": LISTED,
    "commands": LISTED,
    "verify libraries": DECLARED,
    "load --sh hello-z@1.1": SHOWN,
    "env activate --sh one": SHOWN,
}
