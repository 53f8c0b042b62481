"""The module of `spack jail` that Spack loads: the only one of pkgjail that imports Spack.

Spack expects of a command `description`, `section`, `level`, `setup_parser`, and a function of the command's
name. What differs between Spack 0.13 and 1.2 is looked up by name, and omitted if this Spack lacks it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

# By name, as these modules exist only when Spack loads this one.
_config: Any = importlib.import_module("spack.config")
_paths: Any = importlib.import_module("spack.paths")

description = "run Spack in a jail that shows the files of whitelisted system packages, and no others"
section = "environments"
level = "short"

# This file is pkgjail/integrations/spack/extension/spack-jail/jail/cmd/jail.py. If Spack found it by
# `config:extensions`, pkgjail need not be installed in Spack's Python.
_LIBRARY = os.path.abspath(__file__).rsplit(os.sep + "pkgjail" + os.sep, 1)[0]

# The settings of directories that Spack writes to.
_WRITABLE_SETTINGS = (
    "config:source_cache",
    "config:misc_cache",
    "config:test_stage",
    "config:license_dir",
    "config:environments_root",
    "bootstrap:root",
)


def setup_parser(subparser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    _command().add_arguments(subparser)


def jail(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run the command; Spack ends with the status that this returns."""
    del parser
    return run("spack jail", args)


def run(name: str, args: argparse.Namespace) -> int:
    """Run the command under the name that messages use."""
    status: int = _command().run(name, args, describe, _module("spack.error").SpackError)
    return status


def _command() -> Any:
    if importlib.util.find_spec("pkgjail") is None:
        sys.path.append(_LIBRARY)
    return importlib.import_module("pkgjail.integrations.spack.command")


def describe() -> dict[str, Any]:
    """Describe this Spack in the form that `pkgjail.integrations.spack.instance.parse_instance` reads."""
    return {
        "root": _paths.prefix,
        "python": sys.executable,
        "writable": list(filter(None, _writable())),
        "readable": list(filter(None, _readable())),
        "tools": list(_compilers()) + list(_externals()),
        "groups": list(_groups()),
        "watched": list(_watched()),
    }


def _writable() -> Iterator[str | None]:
    yield _paths.prefix
    if "SPACK_DISABLE_LOCAL_CONFIG" not in os.environ:
        yield _path("user_config_path")
    yield _path("user_cache_path")
    yield os.environ.get("SPACK_GNUPGHOME") or _path("gpg_path")
    yield tempfile.gettempdir()
    yield from _scopes()
    yield from _stores()
    yield _module("spack.stage").get_stage_root()
    for key in _WRITABLE_SETTINGS:
        yield _canonical(_config.get(key))
    for modules in _mapping("modules").values():
        roots = modules.get("roots") if isinstance(modules, dict) else None
        yield from map(_canonical, (roots or {}).values())
    yield from _repositories()
    yield from _mirrors()
    yield from _environment()


def _readable() -> Iterator[str | None]:
    for upstream in _mapping("upstreams").values():
        yield _canonical(upstream.get("install_tree"))
    yield from _module("spack.extensions").get_extension_paths()
    yield from map(_canonical, _config.get("config:template_dirs") or ())
    yield _canonical(_config.get("config:ssl_certs"))
    # Spack's Python: its virtual environment, the Python of that, and the directories of modules.
    yield sys.prefix
    yield sys.base_prefix
    yield from sys.path


def _groups() -> Iterator[str]:
    """Yield the groups to which installed packages are given: `permissions` in packages.yaml."""
    for settings in _mapping("packages").values():
        permissions = settings.get("permissions") if isinstance(settings, dict) else None
        group = permissions.get("group") if isinstance(permissions, dict) else None
        if isinstance(group, str) and group:
            yield group


def _path(name: str) -> str | None:
    """Return an attribute of `spack.paths`; Spack 0.13 has fewer."""
    found: str | None = getattr(_paths, name, None)
    return found


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _mapping(key: str) -> dict[str, Any]:
    found = _config.get(key)
    return found if isinstance(found, dict) else {}


def _canonical(path: object) -> str | None:
    """Return a path of the configuration with its variables expanded; None if it is not a local path.

    A path with an unset variable is not one either, as in Spack's own `ssl_certs: $SSL_CERT_FILE`.
    """
    if not isinstance(path, str) or not path:
        return None
    path = path.removeprefix("file://")
    full: str = _module("spack.util.path").canonicalize_path(path)
    return full if os.path.isabs(full) and "://" not in path and "$" not in full else None


def _scopes() -> Iterator[str]:
    configuration = getattr(_config, "CONFIG", None) or _config.config
    for scope in list(configuration.scopes.values()):
        path = getattr(scope, "path", None)
        if isinstance(path, str) and os.path.isabs(path):
            yield path


def _watched() -> Iterator[str]:
    """Yield the files that this description depends on, and the directories where more may appear."""
    for directory in filter(os.path.isdir, _scopes()):
        yield directory
        for name in sorted(os.listdir(directory)):
            if name.endswith(".yaml"):
                yield os.path.join(directory, name)
    environment = _active_environment()
    if environment is not None:
        yield os.path.join(str(environment.path), "spack.yaml")


def _stores() -> Iterator[str]:
    store = getattr(_module("spack.store"), "STORE", None) or _module("spack.store").store
    yield str(store.root)
    yield str(getattr(store, "unpadded_root", store.root))


def _repositories() -> Iterator[str | None]:
    found = _config.get("repos")
    for value in found.values() if isinstance(found, dict) else found or ():
        # Since 1.0 a repository may be a clone: a table that may have its path.
        yield _canonical(value.get("destination") if isinstance(value, dict) else value)


def _mirrors() -> Iterator[str | None]:
    for value in _mapping("mirrors").values():
        found = [value]
        while found:
            one = found.pop()
            if isinstance(one, dict):
                found += one.values()
            elif isinstance(one, str) and one.startswith(("file://", "/")):
                yield _canonical(one)


def _active_environment() -> Any:
    active = getattr(_module("spack.environment"), "active_environment", None)
    return active() if callable(active) else None


def _environment() -> Iterator[str | None]:
    environment = _active_environment()
    if environment is None:
        return
    yield str(environment.path)
    for view in getattr(environment, "views", {}).values():
        yield str(view.root)
        yield os.path.dirname(str(view.root))
    for spec in (getattr(environment, "dev_specs", None) or {}).values():
        yield os.path.join(str(environment.path), spec.get("path", ""))


def _compilers() -> Iterator[dict[str, Any]]:
    """Yield the compilers of a section of their own, up to 0.23; since 1.0 they are external packages."""
    with contextlib.suppress(Exception):  # this Spack does not have the section
        for entry in _config.get("compilers") or ():
            values = entry["compiler"]
            for path in sorted(filter(None, values["paths"].values())):
                yield {"name": "compiler " + str(values["spec"]), "paths": [path]}


def _externals() -> Iterator[dict[str, Any]]:
    for name, settings in _mapping("packages").items():
        for external in (settings or {}).get("externals") or ():
            what = "external " + str(external.get("spec", name))
            compilers = (external.get("extra_attributes") or {}).get("compilers") or {}
            for path in sorted(compilers.values()):
                yield {"name": what, "paths": [path]}
            if not compilers and isinstance(external.get("prefix"), str):
                yield from _external(what, name, _canonical(external["prefix"]))


def _external(what: str, name: str, prefix: str | None) -> Iterator[dict[str, Any]]:
    """Yield the files by which Spack detects the package below `prefix`, or else the prefix."""
    if prefix is None:
        return
    found: list[str] = []
    with contextlib.suppress(Exception):  # no repository has the package any more
        repositories = getattr(_module("spack.repo"), "PATH", None) or _module("spack.repo").path
        package = repositories.get_pkg_class(name)
        for attribute, places in (("executables", ("bin",)), ("libraries", ("lib", "lib64"))):
            patterns = [re.compile(pattern) for pattern in getattr(package, attribute, ())]
            for directory in (os.path.join(prefix, place) for place in places if patterns):
                found += _matching(directory, patterns)
    yield {"name": what, "paths": found or [prefix]}


def _matching(directory: str, patterns: list[re.Pattern[str]]) -> Iterator[str]:
    for file in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if any(pattern.search(file) for pattern in patterns):
            yield os.path.join(directory, file)
