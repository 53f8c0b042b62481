"""Find languages of the set that do not start, and parts of their standard libraries that they cannot load.

Each program runs in a jail and prints a line `fail<TAB>PART<TAB>ERROR` for each part that fails. It is asked
for what the set has: packages of the language that the set lacks are no part of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.text import text_path
from pkgjail.review.check.findings import Gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.core.paths import Names
    from pkgjail.core.programs import ProgramOutput
    from pkgjail.review.check.runner import Runner

_MOST_LINES = 2000
# A path in an error, which may be what is lacking.
_PATH = re.compile(rb"/(?:[\w.+@-]+/)*[\w.+@-]*[\w+@-]")

# "high" is what R itself has, and what it recommends.
_R = """
for (p in rownames(installed.packages(priority = "high")))
    tryCatch(suppressWarnings(suppressPackageStartupMessages(library(p, character.only = TRUE))),
             error = function(e)
                 cat("fail\\t", p, "\\t", gsub("\\\\s+", " ", conditionMessage(e)), "\\n", sep = ""))
if (Sys.getenv("R_PLATFORM") == "" || Sys.getenv("PAGER") == "") cat("fail\\tRenviron\\tit sets nothing\\n")
"""
_OCTAVE = """
parts = {"inv", "fft", "quad", "lsode", "eig", "svd", "regexprep", "glpk", "interp1", "strsplit"};
for i = 1:numel(parts)
    if (! exist(parts{i})) printf("fail\\t%s\\tthere is no such function\\n", parts{i}); end
end
try
    inv([2 0; 0 2]); fft([1 2]); eig([2 0; 0 3]); pkg list;
catch e
    printf("fail\\tarithmetic\\t%s\\n", e.message);
end
"""
_PHP = """
foreach (["date_create", "json_encode", "preg_match", "hash", "ctype_alpha"] as $f)
    if (!function_exists($f)) echo "fail\\t$f\\tthere is no such function\\n";
"""
_LUA = """
for _, p in ipairs({"coroutine", "debug", "io", "math", "os", "package", "string", "table"}) do
    local good, error = pcall(require, p)
    if not good then print("fail", p, (error:gsub("%s+", " "))) end
end
"""
_OCAML = """
cd /tmp && program=$1 && shift && echo 'let () = print_int (List.fold_left (+) 0 [1; 2])' >a.ml &&
    out=$("$program" "$@" a.ml -o a.out 2>&1 && ./a.out 2>&1) ||
    printf 'fail\\tits libraries\\t%s\\n' "$(echo $out)"
"""
_LATEX = r"\documentclass{article}\begin{document}x\end{document}"
_PLAIN = r"\relax x\bye"
_TEX = """
cd /tmp && out=$("$1" -interaction=batchmode "$2" 2>&1 </dev/null) ||
    printf 'fail\\tits format\\t%s\\n' "$(echo $out)"
"""


class _Language(NamedTuple):
    """Programs, the arguments and standard input of each, and which lines of its own show a part that fails.

    A program may have several names. It runs once, unless its name chooses what it does (`by_name`).
    """

    programs: re.Pattern[bytes]
    arguments: Callable[[str, Names], Sequence[str]]
    stdin: Callable[[Names], bytes] = lambda _: b""
    failures: re.Pattern[bytes] | None = None
    by_name: bool = False


def _always(*arguments: str) -> Callable[[str, Names], Sequence[str]]:
    return lambda program, _: [program, *arguments]


def _tex(document: str) -> Callable[[str, Names], Sequence[str]]:
    return lambda program, _: ["/bin/sh", "-c", _TEX, "sh", program, document]


def _ghc(program: str, names: Names) -> list[str]:
    """Return a command that makes GHC look up all packages of the set, which are named by their records."""
    found = (_GHC_PACKAGE.fullmatch(path) for path in sorted(names.entries))
    packages = [word for match in found if match for word in ("-package-id", text_path(match[1]))]
    return [program, "-v0", "-ignore-dot-ghci", *packages, "-e", "putStrLn (show (sum [1 .. 10]))"]


def _ocaml_libraries(names: Names) -> list[tuple[bytes, bytes]]:
    """Return OCaml's own libraries of which the set has any part, each after those that it needs.

    Each comes with the directory that it has below the others', or b"".
    """
    matches = filter(None, map(_OCAML_LIBRARY.fullmatch, names.entries))
    found = {match["name"]: match["directory"] or b"" for match in matches}
    return [(name, found[name]) for name in (b"unix", b"str", b"dynlink", b"threads") if name in found]


def _ocaml(names: Names) -> bytes:
    """Return phrases that load the libraries of OCaml itself."""
    libraries = _ocaml_libraries(names)
    directories = [b'#directory "+%s";;' % directory for _, directory in libraries if directory]
    loads = [b'#load "%s.cma";;' % name for name, _ in libraries]
    return b"\n".join([*directories, *loads, b"print_int (List.fold_left (+) 0 [1; 2]);;", b""])


def _ocaml_compiler(program: str, names: Names) -> list[str]:
    """Return a command that links a program with all libraries of OCaml itself, and runs it."""
    suffix = "cmxa" if "opt" in program else "cma"
    libraries = [(text_path(name), text_path(directory)) for name, directory in _ocaml_libraries(names)]
    directories = [word for _, directory in libraries if directory for word in ("-I", f"+{directory}")]
    files = [f"{name}.{suffix}" for name, _ in libraries]
    return ["/bin/sh", "-c", _OCAML, "sh", program, "-linkall", *directories, *files]


_GHC_PACKAGE = re.compile(rb"/(?:var|usr)/.*/package\.conf\.d/([\w.+-]+)\.conf")
# Since OCaml 5 each has a directory of its own. Any part of a library shows that the set should have it.
_OCAML_LIBRARY = re.compile(
    rb"/usr/.*/ocaml/(?:[0-9.]+/)?(?:(?P<directory>unix|str|dynlink|threads)/)?"
    rb"(?P<name>unix|str|dynlink|threads)\.(?:cma|cmi|cmxa|a)"
)
_BIN = rb"/usr/(?:local/)?bin/"
_LANGUAGES = (
    _Language(re.compile(_BIN + rb"Rscript"), _always("-e", _R)),
    _Language(re.compile(_BIN + rb"ghc"), _ghc),
    # Not LuaTeX, which makes an index of all fonts when it starts first.
    _Language(re.compile(_BIN + rb"(?:pdf)?latex"), _tex(_LATEX), by_name=True),
    _Language(re.compile(_BIN + rb"(?:|e|pdf)tex"), _tex(_PLAIN), by_name=True),
    _Language(re.compile(_BIN + rb"java"), _always("--validate-modules")),
    _Language(re.compile(_BIN + rb"keytool"), _always("-list", "-cacerts", "-storepass", "changeit")),
    _Language(
        re.compile(_BIN + rb"ocaml"),
        lambda program, _: [program, "-noprompt", "-no-version"],
        _ocaml,
        re.compile(rb"(?:Error|Cannot find file|Cannot load)\b.*"),
    ),
    _Language(re.compile(_BIN + rb"ocaml(?:c|opt)"), _ocaml_compiler),
    _Language(
        re.compile(_BIN + rb"php(?:[0-9.]+)?"),
        _always("-d", "display_errors=1", "-d", "display_startup_errors=1", "-r", _PHP),
        failures=re.compile(rb"(?:(?:PHP )?Warning: .*Unable to load dynamic library|Failed loading ).*"),
    ),
    _Language(re.compile(_BIN + rb"lua5\.[0-9]"), _always("-e", _LUA)),
    _Language(
        re.compile(_BIN + rb"octave-cli(?:-[0-9.]+)?"),
        _always("--no-gui", "--quiet", "--norc", "--eval", _OCTAVE),
    ),
)


def language_gaps(names: Names, runner: Runner) -> Iterator[Gap]:
    """Yield languages of the set that do not start, and what they cannot load of their standard libraries."""
    for language in _LANGUAGES:
        places = set()
        for path in sorted(filter(language.programs.fullmatch, names.entries)):
            found = names.find(path)
            if found.entry is None or (found.place in places and not language.by_name):
                continue
            places.add(found.place)
            program = text_path(path)
            ran = runner.run(language.arguments(program, names), language.stdin(names))
            runner.last_program = path
            yield from _gaps_of(path, language, ran, names)


def _gaps_of(path: bytes, language: _Language, ran: ProgramOutput, names: Names) -> Iterator[Gap]:
    failed = False
    for line in (ran.out + b"\n" + ran.err).splitlines()[:_MOST_LINES]:
        words = line.split(b"\t", 2)
        if words[0] == b"fail" and len(words) == 3:  # noqa: PLR2004 - the line's form
            failed = True
            yield _gap(
                path, words[1], f"loading {text_path(words[1])} fails: {_shown(words[2])}", words[2], names
            )
        elif language.failures is not None and (match := language.failures.search(line)):
            failed = True
            yield _gap(
                path, b"", f"a part of its library cannot be loaded: {_shown(match[0])}", match[0], names
            )
    if ran.status and not failed:
        error = ran.err.strip() or ran.out.strip()
        yield _gap(path, b"", f"it ends with status {ran.status}: {_shown(_ends(error))}", error, names)


def _gap(path: bytes, wanted: bytes, cause: str, error: bytes, names: Names) -> Gap:
    lacking = [found for found in _PATH.findall(error[:4000]) if found not in names.entries]
    return Gap(
        path=path, kind="module", wanted=wanted, cause=cause, candidates=tuple(dict.fromkeys(lacking))[:100]
    )


def _ends(error: bytes) -> bytes:
    """Return the beginning and end of a long error: Java says first what is wrong, and others last."""
    return error if len(error) <= 300 else error[:147] + b"..." + error[-150:]  # noqa: PLR2004


def _shown(error: bytes) -> str:
    return " ".join(error.decode("utf-8", "replace").split())[:300]
