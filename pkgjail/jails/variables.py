"""Choose which of the caller's environment variables a command in a jail gets.

A replay imports this module, so it must stay cheap to import.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Variables by which programs find files, options or code: shells, the dynamic loader, compilers and linkers,
# build systems, interpreters. Their values name files of the host, so no pattern passes them on.
_LEADING = (
    "*PATH", "*PATHS", "*_PRELOAD", "LD_*", "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "ENV",
    "GLIBC_TUNABLES", "HOSTALIASES", "RESOLV_HOST_CONF", "GETCONF_DIR", "MALLOC_TRACE", "CPP", "CC", "CXX",
    "FC", "F77", "AR", "AS", "LD", "NM", "RANLIB", "STRIP", "M4", "*CFLAGS", "*CXXFLAGS", "*CPPFLAGS",
    "*FFLAGS", "*FCFLAGS", "*LDFLAGS", "*LIBS", "GCC_EXEC_PREFIX", "COLLECT_*", "SYSROOT", "CMAKE_*",
    "*_DIR", "*_DIRS", "*_ROOT", "*_HOME", "*_PREFIX", "PKG_CONFIG*", "MAKEFILES", "MAKEFLAGS", "MFLAGS",
    "GNUMAKEFLAGS", "CONFIG_SITE", "ACLOCAL*", "AUTOM4TE*", "PYTHON*", "VIRTUAL_ENV", "CONDA_*", "PERL*",
    "RUBY*", "GEM_*", "BUNDLE_*", "NODE_*", "NPM_*", "npm_*", "LUA_*", "R_*", "OCAML*", "CAML*", "OPAM*",
    "GOROOT", "GOFLAGS", "GOENV", "CARGO*", "RUST*", "JAVA*", "JDK*", "_JAVA*", "ANT_*", "MAVEN_*",
    "GUILE_*", "TCL*", "TEX*", "PHP*", "ERL_*", "XDG_*",
)  # fmt: skip
# What a launcher of MPI, or a batch system, says to the processes that it starts.
_TOLD = ("OMPI_*", "PMIX_*", "PRTE_*", "PMI_*", "HYDRA_*", "MPIR_*", "SLURM_*", "PBS_*", "LSB_*", "FLUX_*")
# `pkgjail.jails.run.default_environment` sets the first ones; the others are true outside alone.
OWN = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER", "TERM", "PWD", "OLDPWD", "SHLVL", "TMPDIR", "_")
"""The variables that a jail has of its own; no pattern passes on the caller's."""


class Chosen:
    """The variables that were chosen, and why others were not.

    `unset` are the names and patterns that no variable of the caller's has. `withheld` are the variables that
    a pattern matches but does not pass on.
    """

    __slots__ = ("unset", "values", "withheld")

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.unset: list[str] = []
        self.withheld: dict[str, list[str]] = {}


def choose_variables(words: Sequence[str], variables: Mapping[str, str]) -> Chosen:
    """Choose variables by words, of which a later one takes precedence.

    Args:
        words: each is `NAME=VALUE`, `NAME` for the caller's value, or a pattern of names, in which `*` stands
            for any characters and `?` for one. A pattern passes on neither what the jail sets itself (`HOME`)
            nor what leads programs to files of the host (`LD_PRELOAD`, `PYTHONPATH`), unless that is the
            message of a launcher of MPI or of a batch system to its processes.
        variables: the caller's.

    """
    chosen = Chosen()
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            chosen.values[name] = value
        elif not is_pattern(name):
            if name in variables:
                chosen.values[name] = variables[name]
            else:
                chosen.unset.append(name)
        else:
            matching = sorted(each for each in variables if _matches(name, each) and each not in OWN)
            withheld = [each for each in matching if _leads_to_files(each)]
            chosen.values.update((each, variables[each]) for each in matching if each not in withheld)
            if withheld:
                chosen.withheld[name] = withheld
            elif not matching:
                chosen.unset.append(name)
    return chosen


def is_pattern(name: str) -> bool:
    """Check whether a word of `choose_variables` is a pattern of names."""
    return "*" in name or "?" in name


def _leads_to_files(name: str) -> bool:
    """Check whether programs find files by this variable."""
    return any(_matches(each, name) for each in _LEADING) and not any(_matches(each, name) for each in _TOLD)


def _matches(pattern: str, name: str) -> bool:
    """Check whether a pattern matches a whole name, as fnmatch does, which would import `re`."""
    here = there = mark = 0
    star = -1
    while there < len(name):
        if here < len(pattern) and pattern[here] == "*":
            star, mark = here, there
            here += 1
        elif here < len(pattern) and pattern[here] in ("?", name[there]):
            here += 1
            there += 1
        elif star >= 0:
            mark += 1
            here, there = star + 1, mark
        else:
            return False
    return not pattern[here:].strip("*")
