# ruff: noqa: E501 - programs in other languages
"""The table of languages: hello world and the standard library of each, inside a jail of its packages.

Run it as root in a Debian 12 of its own that has the packages of all rows and what they require
(`unowned_sweep` installs them), with this repository in PYTHONPATH. With other packages some rows print another
text: `python3-venv` brings a module of the standard library.

    python3 -m tests.host.languages [NAME...]

Each row's script runs twice in a new directory: outside, with the whole system, and in a jail of exactly the
row's packages, what they require, and the whitelist `base`. A row passes if both end with status 0 and print
the same. Both have the jail's default environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SHELL": "/bin/sh",
}


class Row(NamedTuple):
    """A language: its packages, the files of a program by name, and the script that builds and runs it."""

    packages: str
    script: str
    files: dict[str, str]


def _row(packages: str, script: str, **files: str) -> Row:
    """Return a row; in names of files, the last `_` stands for the dot."""
    return Row(packages, script, {".".join(name.rsplit("_", 1)): text for name, text in files.items()})


ROWS = {
    "C": _row(
        "gcc libc6-dev",
        "gcc -O2 -pthread a.c -lm -o a && ./a",
        a_c="""\
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <time.h>
static void *half(void *x) { *(double *)x /= 2; return x; }
int main(void) {
    pthread_t t; double x = sqrt(16); regex_t r; time_t zero = 0;
    pthread_create(&t, 0, half, &x); pthread_join(t, 0);
    printf("hello %g %d %s %.4s\\n", x, regcomp(&r, "^h", REG_EXTENDED), setlocale(LC_ALL, ""), asctime(gmtime(&zero)));
    return 0;
}
""",
    ),
    "C++": _row(
        "g++",
        "g++ -std=c++20 -O2 -pthread a.cc -o a && ./a",
        a_cc="""\
#include <bits/stdc++.h>
int main() {
    std::map<std::string, int> m{{"hello", 1}};
    std::thread t([&] { m["world"] = 2; }); t.join();
    std::regex r("w.*d");
    for (auto &[k, v] : m) std::cout << k << ' ' << v << ' ' << std::regex_match(k, r) << '\\n';
    std::cout << std::filesystem::exists("a.cc") << std::endl;
}
""",
    ),
    "Fortran": _row(
        "gfortran",
        "gfortran a.f90 -o a && ./a",
        a_f90="""\
program a
  use iso_fortran_env
  use iso_c_binding
  use ieee_arithmetic
  real(real64) :: x(3) = [1, 2, 3]
  print *, 'hello', matmul(reshape(x, [1, 3]), reshape(x, [3, 1])), ieee_is_nan(x(1)), c_sizeof(1_c_int)
end program
""",
    ),
    "Ada": _row(
        "gnat",
        "gnatmake -q a.adb && ./a",
        a_adb="""\
with Ada.Text_IO; with Ada.Containers.Vectors; with Ada.Calendar; with Ada.Strings.Fixed;
procedure A is
   package V is new Ada.Containers.Vectors (Positive, Integer);
   X : V.Vector;
begin
   X.Append (3);
   Ada.Text_IO.Put_Line ("hello" & X.Length'Image & Ada.Strings.Fixed.Index ("abc", "c")'Image);
end A;
""",
    ),
    "D": _row(
        "gdc",
        "gdc a.d -o a && ./a",
        a_d="""\
import std.stdio, std.algorithm, std.string, std.conv, std.math, std.array;
void main() {
    writeln("hello ", [3, 1, 2].sort, " ", indexOf("abc", "b"), " ", to!int("42"), " ", sqrt(4.0));
}
""",
    ),
    "Go": _row(
        "golang-go gcc libc6-dev tzdata",
        "go build -o a a.go && ./a && go vet a.go && gofmt -l a.go && CGO_ENABLED=0 go build -o b a.go && ./b",
        a_go="""\
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os/user"
	"regexp"
	"text/template"
	"time"
)

func main() {
	b, _ := json.Marshal(map[string]int{"hello": 1})
	_, err := user.Current()
	_ = template.New("x")
	zone, zoneErr := time.LoadLocation("Europe/Berlin")
	fmt.Println(string(b), sha256.Sum256(b)[0], http.StatusOK, regexp.MustCompile("a+").String(), err, zone, zoneErr)
}
""",
    ),
    "Rust": _row(
        "rustc cargo",
        "cargo build -q --offline --release && target/release/a && cargo test -q --offline | grep -c passed",
        Cargo_toml='[package]\nname = "a"\nversion = "0.1.0"\nedition = "2021"\n[[bin]]\nname = "a"\npath = "main.rs"\n',
        main_rs="""\
use std::{collections::HashMap, fs, net::Ipv4Addr, sync::mpsc, thread, time::Duration};
fn main() {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || { thread::sleep(Duration::from_millis(1)); tx.send("hello").unwrap(); });
    let m: HashMap<_, _> = [(rx.recv().unwrap(), Ipv4Addr::LOCALHOST)].into();
    println!("{:?} {}", m, fs::metadata("main.rs").unwrap().is_file());
}
#[test]
fn works() { assert_eq!(1 + 1, 2); }
""",
    ),
    "Java": _row(
        "default-jdk-headless",
        "javac A.java && java A && jar cfe a.jar A A*.class && java -jar a.jar && java --list-modules",
        A_java="""\
import java.net.http.HttpClient;
import java.security.KeyStore;
import java.time.ZoneId;
import javax.xml.parsers.DocumentBuilderFactory;
public class A {
    public static void main(String[] a) throws Exception {
        var d = DocumentBuilderFactory.newInstance().newDocumentBuilder().newDocument();
        var trust = javax.net.ssl.TrustManagerFactory.getInstance("PKIX");
        trust.init((KeyStore) null);
        var n = ((javax.net.ssl.X509TrustManager) trust.getTrustManagers()[0]).getAcceptedIssuers().length;
        System.out.println("hello " + (d != null) + (n > 100) + ZoneId.of("Europe/Berlin")
            + java.util.stream.IntStream.range(0, 9).sum() + (HttpClient.newHttpClient() != null)
            + new java.awt.image.BufferedImage(2, 2, 1).getWidth());
    }
}
""",
    ),
    "OCaml": _row(
        "ocaml",
        "ocamlfind ocamlopt -v >/dev/null 2>&1; ocamlopt -I +unix -I +str -I +threads unix.cmxa str.cmxa threads.cmxa"
        " a.ml -o a && ./a && ocaml b.ml",
        a_ml="""\
let () =
  let t = Thread.create (fun () -> print_endline "hello") () in
  Thread.join t;
  Printf.printf "%b %d\\n" (Str.string_match (Str.regexp "a+") "aa" 0) (Unix.gmtime 0.).Unix.tm_year
""",
        b_ml='let () = print_endline (String.concat " " (List.sort compare ["b"; "a"]))\n',
    ),
    "Haskell": _row(
        "ghc",
        "ghc -v0 a.hs -o a && ./a && ghc-pkg list --simple-output && ghc -v0 -e 'sum [1 .. 10]'",
        a_hs="""\
import qualified Data.ByteString.Char8 as B
import qualified Data.Map as M
import qualified Data.Text as T
import Control.Concurrent
import Data.Time.Clock.POSIX
import System.Directory
import System.Process
main = do
  v <- newEmptyMVar
  _ <- forkIO (putMVar v (M.fromList [(1, "hello")]))
  takeMVar v >>= print
  B.putStrLn (B.pack "bytes") >> print (T.length (T.pack "text")) >> print (posixSecondsToUTCTime 0)
  doesFileExist "a.hs" >>= print
  readProcess "echo" ["process"] "" >>= putStr
""",
    ),
    "Perl": _row(
        "perl libxml-simple-perl",
        "perl a.pl",
        a_pl="""\
use strict; use warnings;
use Encode; use POSIX; use Storable; use IO::Socket; use Digest::SHA; use JSON::PP; use Time::Piece; use DB_File;
use File::Temp; use List::Util; use Math::BigInt; use threads; use Unicode::UCD; use XML::Simple; use XML::SAX;
print "hello ", encode_json({a => 1}), Math::BigInt->new(2)->bpow(100), " ", Unicode::UCD::charinfo(65)->{name}, "\\n";
print XMLin("<a><b>1</b></a>")->{b}, " ", scalar(@{XML::SAX->parsers}), "\\n";
print threads->create(sub { 42 })->join, "\\n";
""",
    ),
    "Python": _row(
        "python3 python3-tk python3-distutils python3-lib2to3",
        "python3 a.py",
        a_py="""\
import sys, importlib
broken = []
for name in sorted(sys.stdlib_module_names):
    if name in ("antigravity", "this", "idlelib"): continue
    try: importlib.import_module(name)
    except ImportError: broken.append(name)
import ssl, sqlite3, zoneinfo, multiprocessing, locale
print("hello", broken, len(ssl.create_default_context().get_ca_certs()) >= 0, sqlite3.sqlite_version)
print(zoneinfo.ZoneInfo("Europe/Berlin"), locale.setlocale(locale.LC_ALL, ""), multiprocessing.Lock() is not None)
""",
    ),
    "Ruby": _row(
        "ruby",
        "ruby a.rb && gem list --local --no-versions",
        a_rb="""\
%w[json yaml openssl digest socket set csv net/http erb optparse fileutils tempfile zlib stringio bigdecimal date
   psych readline etc pathname securerandom logger ripper fiddle].each { |x| require x }
puts "hello #{JSON.generate({a: 1})} #{YAML.load('a: 1')} #{Digest::SHA256.hexdigest('')[0, 8]} #{BigDecimal('1.1')}"
""",
    ),
    "PHP": _row(
        "php-cli php-xml",
        "php a.php && php --ini && php -m",
        a_php="""\
<?php
$d = new DOMDocument(); $d->loadXML('<a><b>1</b></a>');
echo "hello ", json_encode(['a' => $d->textContent]), ' ', hash('sha256', ''), ' ', preg_match('/a+/', 'aa'), ' ',
    (new DateTime('@0', new DateTimeZone('Europe/Berlin')))->format('c'), ' ', ctype_alpha('a'), ' ', iconv('UTF-8', 'LATIN1', 'a'), "\\n";
""",
    ),
    "Lua": _row(
        "lua5.4 lua-socket",
        "lua a.lua && luac -p a.lua",
        a_lua="""\
print("hello", string.format("%q", "x"), table.concat({1, 2}, ","), math.pi, utf8.len("ä"), os.getenv("HOME"))
print(require("socket")._VERSION, coroutine.wrap(function() coroutine.yield(1) end)())
""",
    ),
    "R": _row(
        "r-base-core r-recommended",
        "Rscript a.R",
        a_R="""\
for (p in rownames(installed.packages(priority = "high"))) suppressPackageStartupMessages(library(p, character.only = TRUE))
cat("hello", mean(1:10), R.version$major, "\\n")
print(coef(lm(dist ~ speed, cars)))
print(solve(matrix(c(2, 0, 0, 2), 2)))
print(length(rownames(installed.packages())))
pdf("a.pdf"); plot(1:3); invisible(dev.off()); cat(file.exists("a.pdf"), Sys.getenv("R_PAPERSIZE"), Sys.getenv("PAGER"), "\\n")
""",
    ),
    "Octave": _row(
        "octave",
        "octave-cli --no-gui --quiet a.m",
        a_m="""\
disp("hello"); disp(inv([2 0; 0 2])); disp(abs(fft([1 0 0 0]))); disp(quad(@(x) x, 0, 1)); disp(eig([2 0; 0 3])');
disp(exist("lsode") > 0); disp(regexprep("abc", "b", "x")); pkg list; disp(jsonencode(struct("a", 1)));
""",
    ),
    "Tcl": _row(
        "tcl",
        "tclsh a.tcl",
        a_tcl="""\
foreach p {http msgcat tcltest opt} { package require $p }
puts "hello [expr {6 * 7}] [encoding convertto utf-8 x] [clock format 0 -timezone :Europe/Berlin] [llength [encoding names]]"
""",
    ),
    "Erlang": _row(
        "erlang",
        "erlc a.erl && erl -noshell -s a main -s init stop && escript b.escript",
        a_erl="""\
-module(a).
-export([main/0]).
main() ->
    {ok, _} = application:ensure_all_started(ssl), {ok, _} = application:ensure_all_started(mnesia),
    io:format("hello ~p ~p ~p~n", [maps:to_list(#{a => 1}), crypto:hash(md5, ""), lists:sort([2, 1])]),
    {ok, T, _} = erl_scan:string("1 + 1."), {ok, E} = erl_parse:parse_exprs(T),
    io:format("~p ~p~n", [erl_eval:exprs(E, []), element(1, xmerl_scan:string("<a/>"))]).
""",
        b_escript='#!/usr/bin/env escript\nmain(_) -> io:format("script ~p~n", [re:run("abc", "b")]).\n',
    ),
    "Elixir": _row(
        "elixir",
        "elixirc a.ex && elixir -e A.main",
        a_ex="""\
defmodule A do
  def main do
    {:ok, pid} = Agent.start_link(fn -> %{a: 1} end)
    IO.inspect({"hello", Agent.get(pid, & &1), Regex.run(~r/b/, "abc"), Date.new!(2000, 1, 1), Enum.sort([2, 1])})
  end
end
""",
    ),
    "Node.js": _row(
        "nodejs",
        "node a.js",
        a_js="""\
const m = require('module').builtinModules.filter(x => !x.startsWith('_'));
for (const x of m) require(x);
const c = require('crypto').createHash('sha256').update('').digest('hex');
console.log('hello', m.length, c.slice(0, 8), new Intl.DateTimeFormat('de', {timeZone: 'UTC'}).format(0));
""",
    ),
    "TeX": _row(
        "texlive-latex-base texlive-latex-recommended lmodern",
        "pdflatex -interaction=batchmode a.tex && lualatex -interaction=batchmode a.tex && latex -interaction=batchmode"
        " a.tex && dvips -q a.dvi -o a.ps && tex -interaction=batchmode b.tex && bibtex --version | head -1"
        " && grep -c 'Output written' a.log && ls *.pdf *.ps *.dvi",
        a_tex="""\
\\documentclass{article}
\\usepackage[T1]{fontenc}\\usepackage{lmodern,amsmath,amssymb,graphicx,hyperref,babel,xcolor,booktabs,geometry}
\\begin{document}hello \\[\\int_0^1 x\\,dx\\]\\tableofcontents\\section{One}\\end{document}
""",
        b_tex="hello $x^2$\\bye\n",
    ),
    "Common Lisp": _row(
        "sbcl",
        "sbcl --script a.lisp && sbcl --non-interactive --eval '(compile-file \"a.lisp\")' | grep -c wrote",
        a_lisp="""\
(dolist (x '(:asdf :sb-posix :sb-bsd-sockets :sb-md5 :sb-introspect :sb-cltl2 :sb-rotate-byte)) (require x))
(format t "hello ~a ~a~%" (reduce #'+ '(1 2 3)) (funcall (find-symbol "GETUID" :sb-posix)))
""",
    ),
    "Emacs Lisp": _row(
        "emacs-nox elpa-dash",
        "emacs --batch -l a.el",
        a_el="""\
(require 'cl-lib) (require 'json) (require 'org) (require 'subr-x) (require 'xml) (require 'url) (require 'dash)
(princ (format "hello %s %s %s\\n" (json-encode '(("a" . 1))) (-map '1+ '(1 2)) (cl-reduce '+ '(1 2))))
(princ (format "%s %s\\n" (org-version) (featurep 'debian-startup)))
""",
    ),
    "Scheme": _row(
        "guile-3.0",
        "guile --no-auto-compile a.scm",
        a_scm="""\
(use-modules (ice-9 regex) (ice-9 threads) (srfi srfi-1) (srfi srfi-19) (sxml simple) (web uri) (rnrs bytevectors))
(display (list "hello" (fold + 0 '(1 2 3)) (match:substring (string-match "b" "abc")) (xml->sxml "<a/>")))
(newline)
""",
    ),
    "Racket": _row(
        "racket",
        "racket a.rkt",
        a_rkt="""\
#lang racket
(require json net/url xml math/number-theory racket/date)
(displayln (list "hello" (jsexpr->string (hash 'a 1)) (prime? 7) (regexp-match #rx"b" "abc")))
""",
    ),
    "Prolog": _row(
        "swi-prolog-nox",
        "swipl -g main -t halt a.pl",
        a_pl="""\
:- use_module(library(lists)). :- use_module(library(clpfd)). :- use_module(library(http/json)).
:- use_module(library(dcg/basics)). :- use_module(library(sha)). :- use_module(library(date)).
main :- X #= 3 + 4, sum_list([1, 2], S), format("hello ~w ~w~n", [X, S]), json_write(current_output, json([a=1])), nl.
""",
    ),
    "Pascal": _row(
        "fp-compiler fp-units-base fp-units-fcl fp-units-rtl",
        "fpc -v0 a.pas && ./a",
        a_pas="""\
program a;
uses sysutils, classes, dateutils, math, fpjson;
begin
  writeln('hello ', power(2, 3):0:1, ' ', yearof(encodedate(2000, 1, 1)), ' ', TJSONObject.Create(['a', 1]).AsJSON);
end.
""",
    ),
    "C#": _row(
        "mono-mcs mono-runtime",
        "mcs -out:a.exe a.cs && mono a.exe",
        a_cs="""\
using System; using System.Linq; using System.Collections.Generic; using System.Text.RegularExpressions;
class A { static void Main() {
    var d = new Dictionary<string, int> { { "hello", 1 } };
    Console.WriteLine(string.Join(",", d.Keys) + Enumerable.Range(0, 5).Sum() + Regex.IsMatch("abc", "b")
        + TimeZoneInfo.FindSystemTimeZoneById("Europe/Berlin").Id);
} }
""",
    ),
    "Clojure": _row(
        "clojure",
        "clojure a.clj",
        a_clj="""\
(require '[clojure.string :as s] '[clojure.set :as set] '[clojure.edn :as edn] '[clojure.xml])
(println "hello" (s/upper-case "a") (set/union #{1} #{2}) (edn/read-string "{:a 1}"))
""",
    ),
    "Scala": _row(
        "scala",
        "scalac A.scala && scala A",
        A_scala='object A { def main(a: Array[String]): Unit = println("hello " + List(2, 1).sorted + Map(1 -> "a")) }\n',
    ),
    "Vala": _row(
        "valac gcc libc6-dev",
        "valac a.vala -o a && ./a",
        a_vala='void main() { var l = new GLib.List<string>(); l.append("hello"); print("%s %u\\n", l.data, l.length()); }\n',
    ),
    "Graphviz": _row(
        "graphviz",
        "dot -Tsvg a.gv | grep -c '<title>' && dot -Tpng a.gv | wc -c && neato -Tps a.gv | head -1 && dot -P | head -1",
        a_gv="digraph { hello -> world }\n",
    ),
    "Ghostscript": _row(
        "ghostscript",
        "gs -q -dNOPAUSE -dBATCH -sDEVICE=pdfwrite -sOutputFile=a.pdf a.ps && gs -q -dNODISPLAY -dBATCH -c '(hello) ='"
        " && head -c 5 a.pdf",
        a_ps="%!\n/Helvetica findfont 12 scalefont setfont 72 72 moveto (hello) show showpage\n",
    ),
    "Gnuplot": _row(
        "gnuplot-nox",
        "gnuplot a.gp && grep -c polygon a.svg; head -1 a.svg",
        a_gp="set term svg\nset out 'a.svg'\nplot sin(x)\n",
    ),
    "Maxima": _row(
        "maxima", "maxima --very-quiet -b a.mac | tail -4", a_mac="integrate(x, x);\nfactor(12);\n"
    ),
    "Forth": _row("gforth", "gforth a.fs -e bye", a_fs=': a ." hello " 6 7 * . cr ; a\n'),
    "Assembler": _row(
        "nasm binutils",
        "nasm -f elf64 a.asm && ld a.o -o a && ./a",
        a_asm='section .data\nm: db "hello", 10\nsection .text\nglobal _start\n_start: mov eax, 1\nmov edi, 1\nmov rsi, m\n'
        "mov edx, 6\nsyscall\nmov eax, 60\nxor edi, edi\nsyscall\n",
    ),
    "XML": _row(
        "xsltproc libxml2-utils docbook-xml docbook-xsl xmlto",
        "xmllint --nonet --noout --valid a.xml && xsltproc --nonet /usr/share/xml/docbook/stylesheet/docbook-xsl/html/docbook.xsl"
        " a.xml | grep -c hello && xmlto --skip-validation html a.xml 2>/dev/null; ls *.html",
        a_xml='<!DOCTYPE article PUBLIC "-//OASIS//DTD DocBook XML V4.5//EN"'
        ' "http://www.oasis-open.org/docbook/xml/4.5/docbookx.dtd">\n'
        "<article><title>hello</title><para>world</para></article>\n",
    ),
    "MPI": _row(
        "libopenmpi-dev openmpi-bin gcc",
        "mpicc a.c -o a && mpirun --oversubscribe --allow-run-as-root -n 2 ./a",
        a_c="""\
#include <mpi.h>
#include <stdio.h>
int main(int c, char **v) {
    int r, s; MPI_Init(&c, &v); MPI_Comm_rank(MPI_COMM_WORLD, &r); MPI_Comm_size(MPI_COMM_WORLD, &s);
    if (!r) printf("hello %d\\n", s);
    MPI_Finalize(); return 0;
}
""",
    ),
}


def _whitelist(row: Row) -> str:
    names = ", ".join(f'"{name}"' for name in row.packages.split())
    return f'include = ["base"]\n[packages]\ndebian = [{names}]\n'


def _run(argv: Sequence[str], place: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    ran = subprocess.run(
        argv,
        cwd=place,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")


def _compare(row: Row) -> tuple[str, str]:
    """Return "pass" or what is wrong, and what was printed."""
    pkgjail = [sys.executable, "-m", "pkgjail"]
    with tempfile.TemporaryDirectory(prefix="language-", dir="/var/tmp") as place:
        manifest = f"{place}/m.jsonl"
        Path(place, "w.toml").write_text(_whitelist(row), encoding="utf-8")
        status, _, said = _run([*pkgjail, "resolve", "--no-hash", "./w.toml", "-o", manifest], place)
        if status:
            return "not resolved", said
        results = []
        for jail in (False, True):
            work = f"{place}/work"
            Path(work).mkdir()
            for name, text in row.files.items():
                Path(work, name).write_text(text, encoding="utf-8")
            script = f"cd {work} && {row.script}"
            if jail:
                results.append(
                    _run(
                        [*pkgjail, "run", "--no-network", "--bind", work, manifest, "--", "sh", "-c", script],
                        place,
                    )
                )
            else:
                results.append(_run(["sh", "-c", script], place, _ENVIRONMENT))
            subprocess.run(["rm", "-rf", work], check=True)
    (outside, printed, said), (inside, printed_inside, said_inside) = results
    if outside:
        return f"fails outside ({outside})", printed + said
    if inside:
        return f"fails inside ({inside})", printed_inside + said_inside
    if _steady(printed) != _steady(printed_inside):
        return "prints another text", f"{printed}\n--- inside\n{printed_inside}"
    return "pass", printed


def _steady(text: str) -> list[str]:
    """Return the lines without what differs from run to run: times and addresses."""
    return [
        re.sub(r"0x[0-9a-f]+|\d+\.\d+ ?s(?:econds)?\b|\d{2}:\d{2}:\d{2}", "*", line)
        for line in text.splitlines()
    ]


def main(names: Sequence[str]) -> int:
    """Print a line for each row, and what went wrong in full."""
    failed = 0
    for name, row in ROWS.items():
        if names and name not in names:
            continue
        verdict, text = _compare(row)
        failed += verdict != "pass"
        print(f"| {name} | {row.packages} | {verdict} |", flush=True)  # noqa: T201
        if verdict != "pass":
            print(text[-3000:], flush=True)  # noqa: T201
    print(f"{failed} failed", flush=True)  # noqa: T201
    return bool(failed)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
