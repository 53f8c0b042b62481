"""Names of packages in Spack and in other families of distributions, by a table that users can extend.

The table comes with pkgjail (`assets/spack-names.toml`); `spack-names.toml` in the user's configuration
directory adds to it and replaces rows. A name that no row has may be guessed from names of files.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pkgjail.core.errors import PolicyError, Problem
from pkgjail.core.given import path_text
from pkgjail.core.model import is_word, record
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import LIST, read_named
from pkgjail.policy.toml_lines import load_table
from pkgjail.policy.whitelist import FAMILIES
from pkgjail.storage.locations import configuration_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pkgjail.core.given import AnyPath

USER_FILE = "spack-names.toml"
"""The name of the user's table in the configuration directory."""

_MOST_PROBLEMS = 100
_MOST_RECIPES = 100_000
_NOUN = "table of Spack's names"

_DEVELOPMENT = re.compile(r"-dev(?:el)?$")
_PACKAGE = re.compile(r"(?:lib)?(.+?)(?:-?[\d.]+)?(?:-dev(?:el)?|-libs?|-common|-bin|-utils)*$")
_PYTHON = re.compile(r"python3?-(.+)")
_PERL = re.compile(r"lib(.+)-perl|perl-(.+)")
_HEADER = re.compile(r"/include/(?:[\w-]+-linux-gnu\w*/)?([\w.+-]+?)(?:\.(?:h|hh|hpp|hxx))?(?:/|$)")
_PKG_CONFIG = re.compile(r"/pkgconfig/(.+?)(?:-[\d.]+)?\.pc$")
_CMAKE = re.compile(r"/(?:cmake/)?([\w.+]+?)(?:Config|-config)\.cmake$")


@record
class SpackName:
    """A package's name in Spack, and whether a row of a table has it or it is a guess. "" is no name."""

    name: str = ""
    basis: Literal["table", "guess", ""] = ""

    @property
    def directive(self) -> str:
        """Return the line that a recipe lacks: `depends_on("zlib-api")`; "" without a name."""
        return f'depends_on("{self.name}")' if self.name else ""


class SpackNames:
    """Tables of names: Spack's name -> family -> packages. Later tables replace rows of earlier ones."""

    def __init__(
        self, tables: Iterable[Mapping[str, Mapping[str, Collection[str]]]], recipes: Collection[str] = ()
    ) -> None:
        """Index the tables. With `recipes`, Spack's own names, only these are guessed."""
        rows: dict[str, Mapping[str, Collection[str]]] = {}
        for table in tables:
            rows.update(table)
        self._rows = rows
        self._recipes = frozenset(recipes)
        self._names = {
            (family, package): name
            for name, row in rows.items()
            for family, packages in row.items()
            for package in packages
        }

    def depends_on(self, family: str, package: str, paths: Iterable[bytes] = ()) -> SpackName:
        """Return Spack's name for a package of `family`, whose key or name is `package`; "" for none.

        `paths` are those of its files that a build asked for. By their names, a package without a row is
        guessed: its pkg-config file's, its CMake package's, its header's, then the package's own name.
        """
        name = package.partition(":")[0]
        found = self._names.get((family, name))
        if found:
            return SpackName(name=found, basis="table")
        for guess in _guesses(name, paths):
            if not self._recipes or guess in self._recipes:
                return SpackName(name=guess, basis="guess")
        return SpackName()

    def elsewhere(self, family: str, package: str) -> Mapping[str, str]:
        """Return the package that other families have for a package of `family`, by family: by table only."""
        name = package.partition(":")[0]
        row = self._rows.get(self._names.get((family, name), ""), {})
        return {
            other: _likest(name, packages) for other, packages in row.items() if other != family and packages
        }


def load_spack_names(recipes: AnyPath = "") -> SpackNames:
    """Read the table that comes with pkgjail, the user's own, and the names in a directory of recipes.

    Args:
        recipes: a directory `packages` of a repository of Spack's recipes, or "".

    Raises:
        PolicyError: the user's table cannot be used; all its problems at once.
        OSError: the directory of recipes cannot be listed, or the user's table cannot be read.

    """
    recipes = path_text(recipes, "recipes")
    shipped = (files("pkgjail.audit") / "assets" / USER_FILE).read_bytes()
    tables: list[Mapping[str, Mapping[str, Collection[str]]]] = [load_table(shipped, _NOUN)]
    with suppress(FileNotFoundError):
        tables.append(_user_table(read_named(f"{configuration_directory()}/{USER_FILE}", LIST)))
    names: Iterable[str] = ()
    if recipes:
        with os.scandir(recipes) as entries:
            names = [entry.name for entry in islice(entries, _MOST_RECIPES)]
    return SpackNames(tables, {name.lstrip("_").replace("_", "-") for name in names})


def _user_table(data: bytes) -> dict[str, dict[str, list[str]]]:
    """Read and check a user's table."""
    try:
        table = load_table(data, _NOUN)
    except ValueError as error:
        raise PolicyError([Problem(USER_FILE, f"not valid TOML: {error}")]) from error
    problems = list(islice(_problems(table), _MOST_PROBLEMS))
    if problems:
        raise PolicyError(problems)
    return table


def _problems(table: Mapping[str, Any]) -> Iterator[Problem]:
    example = 'write as in zlib-api = { debian = ["zlib1g-dev"] }'
    for name, row in table.items():
        if not is_word(name) or not isinstance(row, dict):
            yield Problem(USER_FILE, f"{name!r}: not a table of families; {example}")
            continue
        for family, packages in row.items():
            if family not in FAMILIES:
                yield Problem(
                    USER_FILE, f"{name}: unknown family {family!r}; write one of {', '.join(FAMILIES)}"
                )
            elif not isinstance(packages, list) or not all(
                isinstance(p, str) and is_word(p) for p in packages
            ):
                yield Problem(USER_FILE, f"{name}: {family} is not an array of packages' names; {example}")


def _guesses(package: str, paths: Iterable[bytes]) -> Iterator[str]:
    """Yield names that Spack may have for a package, the likeliest first."""
    if match := _PYTHON.fullmatch(package):
        yield f"py-{_spelled(_DEVELOPMENT.sub('', match[1]))}"
        return
    if match := _PERL.fullmatch(package):
        yield f"perl-{_spelled(match[1] or match[2])}"
        return
    texts = [text_path(path) for path in paths]
    for pattern in (_PKG_CONFIG, _CMAKE, _HEADER):
        for text in texts:
            if match := pattern.search(text):
                yield _spelled(match[1])
    if match := _PACKAGE.fullmatch(package):
        yield _spelled(package) if not _DEVELOPMENT.search(package) else _spelled(match[1])
        yield f"lib{_spelled(match[1])}"


def _spelled(name: str) -> str:
    return name.lower().replace("_", "-").replace("::", "-")


def _likest(package: str, packages: Collection[str]) -> str:
    """Return the one of `packages` that is of the same kind as `package`: for development, or not."""
    kind = bool(_DEVELOPMENT.search(package))
    alike = [other for other in packages if bool(_DEVELOPMENT.search(other)) == kind]
    return package if package in packages else next(iter(alike or packages))
