"""Find standard modules of Python and Perl that the set's own interpreters cannot load, in a jail."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.text import raw_path, text_path
from pkgjail.review.check.findings import Gap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.paths import Names
    from pkgjail.review.check.runner import Runner

_PYTHON = re.compile(rb"/usr/(?:local/)?bin/python3(?:\.[0-9]+)?")
_PERLS = (b"/usr/bin/perl", b"/usr/local/bin/perl")
# The error of `from PACKAGE import MODULE`.
_FROM = re.compile(r""".cannot import name '([^']+)' from (?:partially initialized module )?'([^']+)'""")
# A module that ends the interpreter is left out of the next run; this many may.
_MOST_RUNS = 20
# The most lines of an answer, and directories: Python 3.13 has 300 modules and a few directories.
_MOST_LINES, _MOST_DIRECTORIES = 2000, 100

# It uses none of the modules that it tries. Those left out open a browser, print a poem, or are programs.
_PYTHON_CODE = """
import _imp, sys
print("suffixes", ".py", "/__init__.py", *_imp.extension_suffixes(), sep="\\t")
print("path", *sys.path, sep="\\t", flush=True)
for name in sorted(getattr(sys, "stdlib_module_names", ())):
    if name in ("antigravity", "this", "__main__", "idlelib"):
        continue
    try:
        __import__(name)
    except BaseException as error:
        # turtle raises another ImportError when it finds no tkinter.
        cause = error
        while type(cause) is ImportError and cause.__context__ is not None:
            cause = cause.__context__
        missing = (cause.name or name) if isinstance(cause, ModuleNotFoundError) else ""
        print("none" if missing else "fail", name, missing, ascii(str(error)), sep="\\t", flush=True)
"""

_PERL_CODE = """
$| = 1; $SIG{__WARN__} = sub {};
print "\\@INC ", join(":", @INC), "\\n";
while (my $file = <STDIN>) {
    chomp $file;
    print "? $file\\n";
    eval { require $file; 1 } or print "! ", join(" ", split(/\\s+/, $@)), "\\n";
}
"""


def python_gaps(names: Names, runner: Runner) -> Iterator[Gap]:
    """Yield the standard modules that a Python of the set cannot import.

    A distribution may have some of them in packages of their own (tkinter). Such a module makes a finding
    only if a package of the set has it or a rule dropped it.
    """
    for path in _interpreters(names, [name for name in sorted(names.entries) if _PYTHON.fullmatch(name)]):
        ran = runner.run([text_path(path), "-I", "-W", "ignore", "-c", _PYTHON_CODE])
        lines = [line.split("\t") for line in ran.out.decode("utf-8", "surrogateescape").splitlines()]
        if ran.status or not lines:
            error = ran.err.decode("utf-8", "replace").strip()[-300:]
            cause = f"it ends with status {ran.status} while it imports standard modules: {error}"
            yield Gap(path=path, kind="module", wanted=b"", cause=cause, candidates=())
        search = {line[0]: line[1:] for line in lines}
        forms = [(place, suffix) for place in search.get("path", ()) for suffix in search.get("suffixes", ())]
        del forms[_MOST_DIRECTORIES:]
        for line in lines[:_MOST_LINES]:
            if line[0] in ("none", "fail"):
                yield _python_gap(path, line[1:4], forms)


def _python_gap(path: bytes, failed: list[str], forms: list[tuple[str, str]]) -> Gap:
    module, missing, error = failed
    cause = f"importing the standard module {module} fails: {error}"
    submodule = _FROM.match(error)
    if submodule is not None:
        missing = f"{submodule[2]}.{submodule[1]}"
    if not missing:
        return Gap(path=path, kind="module", wanted=raw_path(module), cause=cause, candidates=())
    relative = missing.replace(".", "/")
    candidates = tuple(raw_path(f"{place}/{relative}{suffix}") for place, suffix in forms)
    return Gap(
        path=path,
        kind="module",
        wanted=raw_path(missing),
        cause=cause,
        candidates=candidates,
        only_if_attributed=True,
    )


def perl_gaps(names: Names, runner: Runner) -> Iterator[Gap]:
    """Yield what modules in Perl's own directories need in order to load and the set lacks.

    Many modules are for other systems, and their errors are ignored. A missing module makes a finding only
    if a package of the set has it or a rule dropped it.
    """
    for path in _interpreters(names, _PERLS):
        ran = runner.run([text_path(path), "-MConfig", "-e", r'print join("\n", @INC)'])
        directories = [line for line in ran.out.split(b"\n") if line.startswith(b"/")][:_MOST_DIRECTORIES]
        if ran.status or not directories:
            error = ran.err.decode("utf-8", "replace").strip()[-300:]
            cause = f"it does not start: {error}"
            yield Gap(path=path, kind="module", wanted=b"Config", cause=cause, candidates=())
            continue
        seen: set[bytes] = set()
        for gap in _perl_module_gaps(path, runner, directories, _perl_modules(names, directories)):
            if gap.wanted not in seen:
                seen.add(gap.wanted)
                yield gap


def _perl_modules(names: Names, directories: list[bytes]) -> list[bytes]:
    """Return the files to require, relative to the directory of @INC that has them."""
    found: dict[bytes, None] = {}
    for directory in directories:
        real = names.find(directory)
        prefix = real.place + b"/"
        if real.entry is not None:
            found.update(
                (path[len(prefix) :], None)
                for path in names.entries
                if path.startswith(prefix) and path.endswith(b".pm") and b"\n" not in path
            )
    return list(found)


def _perl_module_gaps(
    path: bytes, runner: Runner, directories: list[bytes], files: list[bytes]
) -> Iterator[Gap]:
    for _ in range(_MOST_RUNS):
        ran = runner.run([text_path(path), "-e", _PERL_CODE], b"\n".join(files) + b"\n")
        module = b""
        count = 0
        for line in ran.out.splitlines()[: 2 * len(files)]:
            if line.startswith(b"? "):
                module = line[2:]
                count += 1
            elif line.startswith(b"! ") and (gap := _perl_gap(path, directories, module, line[2:])):
                yield gap
        files = files[count:]
        if not files:
            return


def _perl_gap(path: bytes, directories: list[bytes], module: bytes, error: bytes) -> Gap | None:
    shown = error.partition(b" (you may need")[0].decode("utf-8", "replace")[:300]
    cause = f"loading the module {text_path(module)} fails: {shown}"
    missing = re.match(rb"Can't locate (\S+\.(?:pm|pl|ph|al)) in @INC", error)
    if missing is not None:
        return Gap(
            path=path,
            kind="module",
            wanted=missing[1],
            cause=cause,
            candidates=tuple(place + b"/" + missing[1] for place in directories),
            only_if_attributed=True,
        )
    if b"cannot open shared object file" in error or b"loadable object for module" in error:
        return Gap(path=path, kind="module", wanted=module, cause=cause, candidates=())
    return None


def _interpreters(names: Names, paths: tuple[bytes, ...] | list[bytes]) -> Iterator[bytes]:
    """Yield those of `paths` that the set has, each program once."""
    places = set()
    for path in paths:
        found = names.find(path)
        if found.entry is not None and found.place not in places:
            places.add(found.place)
            yield path
