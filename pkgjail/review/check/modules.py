"""The standard modules of Python and Perl: each is loaded in the jail by the interpreter of the set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.model import raw_path, text_path
from pkgjail.review.check.findings import Want

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.paths import Names
    from pkgjail.review.check.compiler import Runner

_PYTHON = re.compile(rb"/usr/(?:local/)?bin/python3(?:\.[0-9]+)?")
_PERLS = (b"/usr/bin/perl", b"/usr/local/bin/perl")
# What `from PACKAGE import MODULE` says.
_FROM = re.compile(r""".cannot import name '([^']+)' from (?:partially initialized module )?'([^']+)'""")
# A module that ends the interpreter is left out the next time; so many may.
_MOST_RUNS = 20
# Python 3.13 has 300 modules, and no interpreter looks in as many places.
_MOST_SAID, _MOST_PLACES = 2000, 100

# It needs nothing of what it tries. Those left out open a browser, print a poem, or are programs.
_PYTHON_CODE = """
import _imp, sys
print("suffixes", ".py", "/__init__.py", *_imp.extension_suffixes(), sep="\\t")
print("path", *sys.path, sep="\\t", flush=True)
for name in sorted(getattr(sys, "stdlib_module_names", ())):
    if name in ("antigravity", "this", "__main__", "idlelib"):
        continue
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print("none", name, error.name or name, ascii(str(error)), sep="\\t", flush=True)
    except BaseException as error:
        print("fail", name, "", ascii(str(error)), sep="\\t", flush=True)
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


def python_wants(names: Names, inside: Runner) -> Iterator[Want]:
    """The standard modules that a Python of the set cannot import.

    A distribution may leave some to packages of their own (tkinter). Such a module makes a finding only
    where a package of the set has it, or a rule took it away.
    """
    for path in _interpreters(names, [name for name in sorted(names.entries) if _PYTHON.fullmatch(name)]):
        ran = inside.run([text_path(path), "-I", "-W", "ignore", "-c", _PYTHON_CODE])
        lines = [line.split("\t") for line in ran.out.decode("utf-8", "surrogateescape").splitlines()]
        if ran.status or not lines:
            said = ran.err.decode("utf-8", "replace").strip()[-300:]
            cause = f"it ends with status {ran.status} while standard modules are imported: {said}"
            yield Want(path=path, kind="module", wanted=b"", cause=cause, places=())
        told = {line[0]: line[1:] for line in lines}
        forms = [(place, suffix) for place in told.get("path", ()) for suffix in told.get("suffixes", ())]
        del forms[_MOST_PLACES:]
        for line in lines[:_MOST_SAID]:
            if line[0] in ("none", "fail"):
                yield _python_want(path, line[1:4], forms)


def _python_want(path: bytes, failed: list[str], forms: list[tuple[str, str]]) -> Want:
    module, missing, said = failed
    cause = f"importing the standard module {module} fails: {said}"
    submodule = _FROM.match(said)
    if submodule is not None:
        missing = f"{submodule[2]}.{submodule[1]}"
    if not missing:
        return Want(path=path, kind="module", wanted=raw_path(module), cause=cause, places=())
    relative = missing.replace(".", "/")
    places = tuple(raw_path(f"{place}/{relative}{suffix}") for place, suffix in forms)
    return Want(
        path=path, kind="module", wanted=raw_path(missing), cause=cause, places=places, of_the_set=True
    )


def perl_wants(names: Names, inside: Runner) -> Iterator[Want]:
    """The modules in Perl's own directories that cannot be loaded for what another lacks.

    Many are for other systems, and say so. What is lacking makes a finding only where a package of the
    set has it, or a rule took it away.
    """
    for path in _interpreters(names, _PERLS):
        ran = inside.run([text_path(path), "-MConfig", "-e", r'print join("\n", @INC)'])
        include = [place for place in ran.out.split(b"\n") if place.startswith(b"/")][:_MOST_PLACES]
        if ran.status or not include:
            said = ran.err.decode("utf-8", "replace").strip()[-300:]
            yield Want(
                path=path, kind="module", wanted=b"Config", cause=f"it does not start: {said}", places=()
            )
            continue
        seen: set[bytes] = set()
        for want in _perl_module_wants(path, inside, include, _perl_modules(names, include)):
            if want.wanted not in seen:
                seen.add(want.wanted)
                yield want


def _perl_modules(names: Names, include: list[bytes]) -> list[bytes]:
    """The files to require, relative to the directory of @INC that has them."""
    found: dict[bytes, None] = {}
    for directory in include:
        real = names.find(directory)
        prefix = real.place + b"/"
        if real.entry is not None:
            found.update(
                (path[len(prefix) :], None)
                for path in names.entries
                if path.startswith(prefix) and path.endswith(b".pm") and b"\n" not in path
            )
    return list(found)


def _perl_module_wants(
    path: bytes, inside: Runner, include: list[bytes], files: list[bytes]
) -> Iterator[Want]:
    for _ in range(_MOST_RUNS):
        ran = inside.run([text_path(path), "-e", _PERL_CODE], b"\n".join(files) + b"\n")
        asked = b""
        count = 0
        for line in ran.out.splitlines()[: 2 * len(files)]:
            if line.startswith(b"? "):
                asked = line[2:]
                count += 1
            elif line.startswith(b"! ") and (want := _perl_want(path, include, asked, line[2:])):
                yield want
        files = files[count:]
        if not files:
            return


def _perl_want(path: bytes, include: list[bytes], asked: bytes, said: bytes) -> Want | None:
    text = said.partition(b" (you may need")[0].decode("utf-8", "replace")[:300]
    cause = f"loading the module {text_path(asked)} fails: {text}"
    missing = re.match(rb"Can't locate (\S+\.(?:pm|pl|ph|al)) in @INC", said)
    if missing is not None:
        places = tuple(place + b"/" + missing[1] for place in include)
        return Want(path=path, kind="module", wanted=missing[1], cause=cause, places=places, of_the_set=True)
    if b"cannot open shared object file" in said or b"loadable object for module" in said:
        return Want(path=path, kind="module", wanted=asked, cause=cause, places=())
    return None


def _interpreters(names: Names, paths: tuple[bytes, ...] | list[bytes]) -> Iterator[bytes]:
    """Those of `paths` that the set has, each program once."""
    places = set()
    for path in paths:
        found = names.find(path)
        if found.entry is not None and found.place not in places:
            places.add(found.place)
            yield path
