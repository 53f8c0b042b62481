"""Which of the caller's variables a jail gets: by name, or by pattern if it does not lead to files."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.jails import variables
from pkgjail.jails.run import default_environment
from pkgjail.jails.variables import choose_variables

_CALLERS = {
    "HOME": "/home/me",
    "LD_LIBRARY_PATH": "/opt/x/lib",
    "LD_PRELOAD": "/opt/x/lib/libx.so",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OPAL_PREFIX": "/opt/ompi",
    "PATH": "/opt/x/bin:/usr/bin",
    "PMIX_DSTORE_21_BASE_PATH": "/tmp/ompi",
    "PYTHONPATH": "/home/me/lib",
    "SLURM_JOB_ID": "7",
    "WANTED": "yes",
}
_LEADING = """
LD_AUDIT LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH COMPILER_PATH GCC_EXEC_PREFIX
PKG_CONFIG_PATH PKG_CONFIG_LIBDIR CMAKE_PREFIX_PATH CMAKE_TOOLCHAIN_FILE CFLAGS LDFLAGS LIBS CC
PYTHONPATH PYTHONHOME PERL5LIB PERL5OPT RUBYLIB RUBYOPT NODE_PATH NODE_OPTIONS CLASSPATH
JAVA_TOOL_OPTIONS _JAVA_OPTIONS LUA_CPATH R_LIBS_SITE GOPATH BASH_ENV ENV BASH_FUNC_ls%%
XDG_DATA_DIRS MANPATH INFOPATH ACLOCAL_PATH CONFIG_SITE MAKEFLAGS GCONV_PATH MODULEPATH VIRTUAL_ENV
"""
# Each row: the words, what is passed, the names and patterns without a variable, and what is withheld.
CASES = [
    ("WANTED", "WANTED=yes", "", ""),
    ("WANTED=no", "WANTED=no", "", ""),
    ("WANTED ABSENT", "WANTED=yes", "ABSENT", ""),
    ("WANTED=no WANTED", "WANTED=yes", "", ""),
    ("WANTED WANTED=", "WANTED=", "", ""),
    ("OMPI_*", "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2", "", ""),
    ("OMPI_*_RANK SLURM_*", "OMPI_COMM_WORLD_RANK=1 SLURM_JOB_ID=7", "", ""),
    ("PMIX_*", "PMIX_DSTORE_21_BASE_PATH=/tmp/ompi", "", ""),
    ("?ANTED", "WANTED=yes", "", ""),
    ("MPICH_* wanted?", "", "MPICH_* wanted?", ""),
    ("LD_*", "", "", "LD_*: LD_LIBRARY_PATH LD_PRELOAD"),
    ("LD_* LD_PRELOAD", "LD_PRELOAD=/opt/x/lib/libx.so", "", "LD_*: LD_LIBRARY_PATH LD_PRELOAD"),
    ("O*", "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2", "", "O*: OPAL_PREFIX"),
    ("PATH", "PATH=/opt/x/bin:/usr/bin", "", ""),
    ("PAT?", "", "PAT?", ""),
    (
        "*",
        (
            "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMIX_DSTORE_21_BASE_PATH=/tmp/ompi SLURM_JOB_ID=7 "
            "WANTED=yes"
        ),
        "",
        "*: LD_LIBRARY_PATH LD_PRELOAD OPAL_PREFIX PYTHONPATH",
    ),
]


@pytest.mark.parametrize(("words", "passed", "unset", "withheld"), CASES)
def test_words_choose(words: str, passed: str, unset: str, withheld: str) -> None:
    chosen = choose_variables(words.split(), _CALLERS)
    assert " ".join(f"{name}={value}" for name, value in sorted(chosen.values.items())) == passed
    assert " ".join(chosen.unset) == unset
    assert "; ".join(f"{each}: {' '.join(names)}" for each, names in chosen.withheld.items()) == withheld


@pytest.mark.parametrize("name", _LEADING.split())
def test_no_pattern_passes_on_what_leads_to_files(name: str) -> None:
    """The variables by which a build finds what no manifest has. Each can be passed on by its own name."""
    assert choose_variables([f"{name[:2]}*"], {name: "/opt"}).values == {}
    assert choose_variables(["*"], {name: "/opt"}).withheld == {"*": [name]}
    assert choose_variables([name], {name: "/opt"}).values == {name: "/opt"}


def test_no_pattern_replaces_what_the_jail_sets() -> None:
    assert choose_variables(["*"], dict.fromkeys(default_environment(), "x")).values == {}


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_match_as_fnmatch_does(pattern: str, name: str) -> None:
    assert variables._matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)
