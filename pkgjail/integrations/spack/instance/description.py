"""What this Spack needs in the jail, as its own configuration says. This runs in Spack's own process."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pkgjail
from pkgjail.core.errors import PkgjailError
from pkgjail.integrations.spack.instance.adapters import adapter, spack_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.integrations.spack.instance.adapters.current import Adapter

# How the configuration refers to environment variables (`_variables`).
_REFERENCES = (
    re.compile(r"\$\{?([A-Za-z_]\w*)"),
    re.compile(r"""\benv(?:\.get\(|\[)\s*["'](\w+)["']"""),
    re.compile(r"""\b(?:id|secret|access_token|username|password)_variable:\s*["']?(\w+)"""),
)

# The variant of a spec that names a directory of sources.
_DEV_PATH = re.compile(r"""dev_path=['"]?([^\s'",\]]+)""")

# The settings of directories that Spack writes to.
_WRITABLE_SETTINGS = (
    "config:source_cache",
    "config:misc_cache",
    "config:binary_index_root",
    "config:test_stage",
    "config:license_dir",
    "config:environments_root",
    "concretizer:concretization_cache:url",
    "bootstrap:root",
)


def describe() -> dict[str, Any]:
    """Describe the Spack of this process in the form that `instance.parse_instance` reads.

    Raises:
        PkgjailError: this Spack is not as its adapter expects.

    """
    spack = adapter()
    try:
        return {
            "root": spack.path("prefix"),
            "python": sys.executable,
            "writable": list(filter(None, _writable(spack))),
            "readable": list(filter(None, _readable(spack))),
            "tools": [*_compilers(spack), *_externals(spack)],
            "groups": list(_groups(spack)),
            "watched": list(_watched(spack)),
            "variables": sorted(set(_variables(spack))),
            "own": list(filter(None, _own(spack))),
            "private": list(filter(None, _private(spack))),
            "module_roots": list(filter(None, _module_roots(spack))),
        }
    except (AttributeError, ImportError) as error:
        raise PkgjailError(
            f"cannot learn from Spack {spack_version()} what it needs in the jail: {error}; use a version of "
            "Spack that docs/spack.md names, or a newer pkgjail"
        ) from error


def _writable(spack: Adapter) -> Iterator[str | None]:
    yield from _places(spack)
    yield os.environ.get("SPACK_GNUPGHOME") or spack.path("gpg_path")
    yield tempfile.gettempdir()
    yield from _stores(spack)
    yield spack.stage()
    for key in _WRITABLE_SETTINGS:
        yield _local_path(spack, spack.setting(key))
    yield from _module_roots(spack)
    yield from _mirrors(spack)
    yield from _environment(spack)


def _readable(spack: Adapter) -> Iterator[str | None]:
    yield from _upstreams(spack)
    for upstream in _mapping(spack, "upstreams").values():
        for root in (upstream.get("modules") or {}).values():
            yield _local_path(spack, root)
    yield from _sources(spack)
    yield from _origins(spack)
    yield from _concrete_environments(spack)
    yield from _code(spack)


def _own(spack: Adapter) -> Iterator[str | None]:
    yield from _places(spack)
    yield from _code(spack)
    for key in ("config:misc_cache", "config:license_dir"):
        yield _local_path(spack, spack.setting(key))


def _private(spack: Adapter) -> Iterator[str | None]:
    yield from _stores(spack)
    yield from _upstreams(spack)
    yield spack.stage()
    for view in getattr(spack.environment(), "views", {}).values():
        yield str(view.root)


def _places(spack: Adapter) -> Iterator[str | None]:
    """Yield the directories of Spack itself: its root, its configuration and its recipes."""
    yield spack.path("prefix")
    if "SPACK_DISABLE_LOCAL_CONFIG" not in os.environ:
        yield spack.path("user_config_path")
    yield spack.path("user_cache_path")
    # Not missing ones: they may be files (`config.yaml`), and directories of the system.
    yield from filter(os.path.exists, _scopes(spack))
    yield from _repositories(spack)


def _stores(spack: Adapter) -> Iterator[str]:
    yield str(spack.store().root)
    yield str(getattr(spack.store(), "unpadded_root", spack.store().root))


def _upstreams(spack: Adapter) -> Iterator[str | None]:
    for upstream in _mapping(spack, "upstreams").values():
        yield _local_path(spack, upstream.get("install_tree"))


def _module_roots(spack: Adapter) -> Iterator[str | None]:
    for modules in _mapping(spack, "modules").values():
        roots = modules.get("roots") if isinstance(modules, dict) else None
        for root in (roots or {}).values():
            yield _local_path(spack, root)


def _code(spack: Adapter) -> Iterator[str | None]:
    """Yield what Spack loads besides its root: extensions, templates, and Python."""
    yield from spack.extensions()
    for directory in spack.setting("config:template_dirs") or ():
        yield _local_path(spack, directory)
    yield _local_path(spack, spack.setting("config:ssl_certs"))
    # Where Spack's own clingo, gnupg and patchelf are described: directories of the user's for offline use.
    for source in spack.setting("bootstrap:sources") or ():
        yield _local_path(spack, source.get("metadata"))
    # Spack's Python: its virtual environment, the Python of that, and the directories of modules. An editable
    # installation of pkgjail is in none of these, and Spack calls the entry points inside too.
    yield sys.prefix
    yield sys.base_prefix
    yield from sys.path
    yield os.path.dirname(os.path.dirname(os.path.abspath(pkgjail.__file__)))


def _groups(spack: Adapter) -> Iterator[str]:
    """Yield the groups to which installed packages are given: `permissions` in packages.yaml."""
    for settings in _mapping(spack, "packages").values():
        permissions = settings.get("permissions") if isinstance(settings, dict) else None
        group = permissions.get("group") if isinstance(permissions, dict) else None
        if isinstance(group, str) and group:
            yield group


def _mapping(spack: Adapter, key: str) -> dict[str, Any]:
    found = spack.setting(key)
    return found if isinstance(found, dict) else {}


def _local_path(spack: Adapter, path: object) -> str | None:
    """Return a path of the configuration with its variables expanded; None if it is not a local path.

    A path with an unset variable is not one either, as in Spack's own `ssl_certs: $SSL_CERT_FILE`.
    """
    if not isinstance(path, str) or not path:
        return None
    path = path.removeprefix("file://")
    full = spack.canonical_path(path)
    return full if os.path.isabs(full) and "://" not in path and "$" not in full else None


def _scopes(spack: Adapter) -> Iterator[str]:
    for scope in spack.scopes():
        path = getattr(scope, "path", None)
        if isinstance(path, str) and os.path.isabs(path):
            yield path


def _watched(spack: Adapter) -> Iterator[str]:
    """Yield the files that this description depends on, and the directories where more may appear."""
    yield from filter(os.path.isfile, _scopes(spack))  # those that others include
    for directory in filter(os.path.isdir, _scopes(spack)):
        yield directory
        for name in sorted(os.listdir(directory)):
            if name.endswith(".yaml"):
                yield os.path.join(directory, name)
    # A scope that may be missing and appears later, such as /etc/spack.
    for missing in itertools.filterfalse(os.path.exists, _scopes(spack)):
        yield _nearest_directory(missing)
    environment = spack.environment()
    if environment is not None:
        yield os.path.join(str(environment.path), "spack.yaml")


def _nearest_directory(path: str) -> str:
    """Return the lowest directory of a path that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _variables(spack: Adapter) -> Iterator[str]:
    """Yield the names of environment variables that files of the configuration refer to.

    A path may have `$NAME` or `${NAME}`, a condition (`when`) `env["NAME"]` or `env.get("NAME")`, and a
    mirror the names of variables that have its user and password. Spack's own names (`$spack`) are found too.
    """
    for path in filter(os.path.isfile, _watched(spack)):
        text = _text(path)
        for pattern in _REFERENCES:
            yield from pattern.findall(text)


def _origins(spack: Adapter) -> Iterator[str | None]:
    """Yield the local repositories of git from which Spack clones recipes; since 1.0."""
    for value in _mapping(spack, "repos").values():
        origin = value.get("git") if isinstance(value, dict) else None
        # Not `HOST:PATH`, which git reaches by ssh.
        if isinstance(origin, str) and origin.startswith(("/", "~", "$", "file://")):
            yield _local_path(spack, origin)


def _repositories(spack: Adapter) -> Iterator[str | None]:
    found = spack.setting("repos")
    for value in found.values() if isinstance(found, dict) else found or ():
        # Since 1.0 a repository may be a clone: a table that may have its path.
        yield _local_path(spack, value.get("destination") if isinstance(value, dict) else value)


def _mirrors(spack: Adapter) -> Iterator[str | None]:
    for value in _mapping(spack, "mirrors").values():
        found = [value]
        while found:
            one = found.pop()
            if isinstance(one, dict):
                found += one.values()
            elif isinstance(one, str) and one.startswith(("file://", "/")):
                yield _local_path(spack, one)


def _environment(spack: Adapter) -> Iterator[str | None]:
    environment = spack.environment()
    if environment is None:
        return
    yield str(environment.path)
    for view in getattr(environment, "views", {}).values():
        yield str(view.root)
        yield os.path.dirname(str(view.root))
    for spec in (getattr(environment, "dev_specs", None) or {}).values():
        yield _path_from(spack, environment, spec.get("path"))
    for path in _DEV_PATH.findall(_text(os.path.join(str(environment.path), "spack.yaml"))):
        yield _path_from(spack, environment, path)


def _sources(spack: Adapter) -> Iterator[str | None]:
    """Yield the repositories and directories from which the configuration has packages fetched."""
    for settings in _mapping(spack, "packages").values():
        attributes = settings.get("package_attributes") if isinstance(settings, dict) else None
        for value in (attributes or {}).values() if isinstance(attributes, dict) else ():
            if isinstance(value, str) and value.startswith(("file://", "/", "~", "$")):
                yield _local_path(spack, value)


def _concrete_environments(spack: Adapter) -> Iterator[str | None]:
    """Yield the environments whose concrete specs the active environment includes, or reuses."""
    environment = spack.environment()
    for name in ("included_concrete_envs", "included_concrete_env_root_dirs"):
        for path in getattr(environment, name, None) or ():
            yield _path_from(spack, environment, path)
    reuse = _mapping(spack, "concretizer").get("reuse")
    for source in reuse.get("from") or () if isinstance(reuse, dict) else ():
        yield _local_path(spack, source.get("path"))


def _path_from(spack: Adapter, environment: Any, path: object) -> str | None:
    """Return a path of an environment, which is relative to its directory, as `_local_path` does."""
    if not isinstance(path, str) or not path:
        return None
    is_relative = not path.startswith(("/", "~", "$", "file://"))
    return _local_path(spack, os.path.join(str(environment.path), path) if is_relative else path)


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
    return ""


def _compilers(spack: Adapter) -> Iterator[dict[str, Any]]:
    """Yield the compilers of a section of their own, up to 0.23; since 1.0 they are external packages."""
    with contextlib.suppress(Exception):  # this Spack does not have the section
        for entry in spack.setting("compilers") or ():
            values = entry["compiler"]
            for path in sorted(filter(None, values["paths"].values())):
                yield {"name": "compiler " + str(values["spec"]), "paths": [path]}


def _externals(spack: Adapter) -> Iterator[dict[str, Any]]:
    for name, settings in _mapping(spack, "packages").items():
        for external in (settings or {}).get("externals") or ():
            what = "external " + str(external.get("spec", name))
            compilers = (external.get("extra_attributes") or {}).get("compilers") or {}
            for path in sorted(compilers.values()):
                yield {"name": what, "paths": [path]}
            prefix = _local_path(spack, external.get("prefix"))
            if not compilers and prefix is not None:
                paths = _detected(spack, name, prefix) or [prefix]
                yield {"name": what, "paths": paths, "has_headers": True}


def _detected(spack: Adapter, name: str, prefix: str) -> list[str]:
    """Return the files below `prefix` by which Spack detects a package."""
    found: list[str] = []
    with contextlib.suppress(Exception):  # no repository has the package any more
        package = spack.package_class(name)
        for attribute, places in (("executables", ("bin",)), ("libraries", ("lib", "lib64"))):
            patterns = [re.compile(pattern) for pattern in getattr(package, attribute, ())]
            for directory in (os.path.join(prefix, place) for place in places if patterns):
                found += _matching(directory, patterns)
    return found


def _matching(directory: str, patterns: list[re.Pattern[str]]) -> Iterator[str]:
    for file in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if any(pattern.search(file) for pattern in patterns):
            yield os.path.join(directory, file)
