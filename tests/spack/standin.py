"""A stand-in for Spack that loads commands and calls entry points as Spack does, and can do little else.

It behaves like Spack in these respects: commands are modules of `spack.cmd`, or of extensions; extensions
come from `config:extensions` and the entry points `spack.extensions`; the configuration is made on first
use, and calls the entry points `spack.config`; main catches SystemExit and reads the configuration. The
configuration files are JSON, which is also YAML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "bin/spack": '''\
#!/bin/sh
""":"
exec "${SPACK_PYTHON:-python3}" "$0" "$@"
":"""
import os
import sys

root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(root, "lib", "spack"))
from spack.main import main

sys.exit(main())
''',
    "share/spack/setup-env.sh": """\
spack() { command "$SPACK_ROOT_OF_TEST/bin/spack" "$@"; }
""",
    "etc/spack/config.yaml": '{"config": {"misc_cache": "$spack/var/misc"}}\n',
    "lib/spack/spack/__init__.py": 'spack_version = "0.23.0.standin"\n',
    "lib/spack/spack/paths.py": """\
import os

prefix = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
command_path = os.path.join(prefix, "lib", "spack", "spack", "cmd")
user_cache_path = os.environ["SPACK_USER_CACHE_PATH"]
user_config_path = os.environ["SPACK_USER_CONFIG_PATH"]
gpg_path = os.path.join(prefix, "opt", "spack", "gpg")
""",
    "lib/spack/spack/error.py": """\
class SpackError(Exception):
    def __init__(self, message, long_message=None):
        super().__init__(message)
        self.long_message = long_message
""",
    "lib/spack/spack/config.py": """\
import importlib.metadata
import json
import os

import spack.paths


class Scope:
    def __init__(self, path):
        self.path = path


class Configuration:
    def __init__(self):
        site = os.path.join(spack.paths.prefix, "etc", "spack")
        self.scopes = {"site": Scope(site), "site/linux": Scope(os.path.join(site, "linux"))}
        for path in config_paths_from_entry_points():
            self.scopes[path] = Scope(path)
        self.values = {}
        for scope in self.scopes.values():
            for name in sorted(os.listdir(scope.path)) if os.path.isdir(scope.path) else ():
                if name.endswith(".yaml"):
                    with open(os.path.join(scope.path, name)) as file:
                        self.values.update(json.load(file))


def entry_points(group):
    try:
        return importlib.metadata.entry_points(group=group)
    except TypeError:
        return importlib.metadata.entry_points().get(group, [])


def config_paths_from_entry_points():
    return [path for path in (point.load()() for point in entry_points("spack.config")) if path]


class Lazy:
    def __getattr__(self, name):
        if "made" not in self.__dict__:
            self.__dict__["made"] = Configuration()
        return getattr(self.made, name)


CONFIG = Lazy()


def set(path, value):
    section, _, key = path.partition(":")
    values = CONFIG.values.setdefault(section, {})
    values[key] = value + values.get(key, [])


def get(path):
    found = CONFIG.values
    for part in path.split(":"):
        found = found.get(part) if isinstance(found, dict) else None
    return found
""",
    "lib/spack/spack/extensions.py": """\
import importlib.util
import os

import spack.config
import spack.error


def get_extension_paths():
    paths = list(spack.config.get("config:extensions") or [])
    for point in spack.config.entry_points("spack.extensions"):
        paths.extend(point.load()())
    return paths


def get_module(name):
    for folder in get_extension_paths():
        extension = os.path.basename(folder)[len("spack-") :]
        path = os.path.join(folder, extension, "cmd", name + ".py")
        if os.path.exists(path):
            spec = importlib.util.spec_from_file_location(f"spack.extensions.{extension}.cmd.{name}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise spack.error.SpackError(f"{name} is not a recognized Spack command or extension command")
""",
    "lib/spack/spack/cmd/__init__.py": """\
import importlib

import spack.extensions


def get_module(name):
    try:
        return importlib.import_module("spack.cmd." + name)
    except ImportError:
        return spack.extensions.get_module(name)
""",
    "lib/spack/spack/cmd/python.py": """\
description = "run Python"
section = "developer"
level = "long"


def setup_parser(subparser):
    subparser.add_argument("-c", dest="code")


def python(parser, args):
    exec(args.code, {})
""",
    "lib/spack/spack/cmd/install.py": """\
def setup_parser(subparser):
    pass


def install(parser, args):
    return 0
""",
    "lib/spack/spack/environment.py": """\
import json
import os

import spack.error

_active = None


class View:
    def __init__(self, root):
        self.root = root


class Environment:
    def __init__(self, path):
        self.path = os.path.abspath(path)
        with open(os.path.join(path, "spack.yaml")) as file:
            found = json.load(file)["spack"]
        self.views = {name: View(view["root"]) for name, view in found["view"].items()}
        self.dev_specs = found["develop"]


def activate(path):
    global _active
    if not os.path.isfile(os.path.join(path, "spack.yaml")):
        raise spack.error.SpackError(f"no environment in {path}")
    _active = Environment(path)


def active_environment():
    return _active
""",
    "lib/spack/spack/repo.py": """\
class Package:
    executables = ["^faketool$"]


class Path:
    def get_pkg_class(self, name):
        return {"faketool": Package}[name]


PATH = Path()
""",
    "lib/spack/spack/stage.py": """\
import spack.paths


def get_stage_root():
    return spack.paths.user_cache_path + "/stage"
""",
    "lib/spack/spack/store.py": """\
import spack.paths


class Store:
    root = spack.paths.prefix + "/opt/spack"


STORE = Store()
""",
    "lib/spack/spack/util/__init__.py": "",
    "lib/spack/spack/util/path.py": """\
import os

import spack.paths


def canonicalize_path(path):
    return os.path.abspath(os.path.expanduser(os.path.expandvars(path.replace("$spack", spack.paths.prefix))))
""",
    "lib/spack/spack/main.py": """\
import argparse
import sys

import spack.cmd
import spack.config
import spack.environment
import spack.error


def run(argv):
    parser = argparse.ArgumentParser("spack", add_help=False)
    parser.add_argument("-V", "--version", action="store_true")
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("-e", "--env")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    if args.version:
        print("0.23.0.standin")
        return 0
    spack.config.CONFIG.scopes
    for setting in args.config:
        path, _, value = setting.rpartition(":")
        spack.config.set(path, [value.strip('[]"')])
    if args.env:
        spack.environment.activate(args.env)
    name = args.command[0]
    module = spack.cmd.get_module(name)
    commands = argparse.ArgumentParser("spack").add_subparsers(dest="name")
    subparser = commands.add_parser(name)
    module.setup_parser(subparser)
    return getattr(module, name)(parser, subparser.parse_args(args.command[1:]))


def main():
    try:
        return run(sys.argv[1:])
    except spack.error.SpackError as error:
        sys.stderr.write(f"==> Error: {error.args[0]}\\n")
        if error.long_message:
            sys.stderr.write(error.long_message + "\\n")
        return 1
    except SystemExit as error:
        spack.config.get("config:debug")
        return error.code
""",
}


def make_standin(root: Path) -> None:
    """Write the stand-in into `root`."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "bin" / "spack").chmod(0o755)
