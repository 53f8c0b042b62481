"""Compare jails of pkgjaild with the default jail: a command that does nothing, and a whole build.

sudo python benchmarks/helper.py [RUNS] [USER]

GNU hello is configured and compiled (tests/hello.py) by an ordinary user, in the default jail and by
`--stage helper` in turn. Each pair of runs is compared, so that other load on the machine affects both.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import hello
from tests.service import VARIABLE, running_service

_PYTHON = "/usr/bin/python3"


class _Build:
    """A user's directory, with a manifest, and a build to do again and again."""

    def __init__(self, place: Path, library: Path, user: int, socket: str, source: bytes) -> None:
        self._place, self._user, self._source = place, user, source
        self._environment = {
            "HOME": str(place), "LANG": "C.UTF-8", "PATH": os.environ["PATH"], "PYTHONPATH": str(library),
            VARIABLE: socket,
        }  # fmt: skip
        os.chown(place, user, user)
        self._run("resolve", "build", "-o", "m.jsonl", "--no-hash")

    def nothing(self, *stage: str) -> float:
        """Run `true` in a jail; return the seconds."""
        return self._run("run", *stage, "m.jsonl", "--", "true")

    def hello(self, *stage: str) -> float:
        """Build; return the seconds."""
        build = hello.prepare(self._place / "hello", self._source)
        script = (build / "build").read_text(encoding="utf-8").replace("cd /srv && ", "cd hello && ")
        (build / "build").write_text(script.replace("&& exec ./hello-z", "&& true"), encoding="utf-8")
        subprocess.run(["/bin/chown", "-R", f"{self._user}:{self._user}", build], check=True)
        seconds = self._run(
            "run", "--bind", str(build), *stage, "m.jsonl", "--", "sh", "-c", self._words(build)
        )
        shutil.rmtree(build)
        return seconds

    @staticmethod
    def _words(build: Path) -> str:
        return f"cd {build.parent} && . {build}/build"

    def _run(self, *words: str) -> float:
        began = perf_counter()
        subprocess.run(
            [_PYTHON, "-m", "pkgjail", *words],
            cwd=self._place, env=self._environment, user=self._user, group=self._user, extra_groups=(),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        return perf_counter() - began


def main() -> None:
    """Measure, and print medians of seconds and of the ratios of pairs."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    user = pwd.getpwnam(sys.argv[2] if len(sys.argv) > 2 else "nobody").pw_uid  # noqa: PLR2004
    with tempfile.TemporaryDirectory(prefix="pkgjail-bench-") as made:
        library = Path(made, "library")
        library.mkdir()
        Path(made).chmod(0o755)
        shutil.copytree("pkgjail", library / "pkgjail", ignore=shutil.ignore_patterns("__pycache__"))
        for name in (
            "argcomplete",
            "debian",
            "networkx",
            "pathspec",
            "rich",
            "pygments",
            "markdown_it",
            "mdurl",
        ):
            shutil.copytree(Path(__import__(name).__file__ or "").parent, library / name)
        subprocess.run([_PYTHON, "-m", "compileall", "-q", library], check=True)
        (Path(made) / "home").mkdir()
        with running_service(library) as service:
            build = _Build(Path(made) / "home", library, user, service.socket, hello.download())
            for name, run in (("true", build.nothing), ("GNU hello", build.hello)):
                run()
                run("--stage", "helper")
                pairs = []
                for _ in range(runs):
                    pairs.append((run(), run("--stage", "helper")))
                    print(f"{name}: {pairs[-1][0]:.2f} {pairs[-1][1]:.2f}", file=sys.stderr, flush=True)
                default, helped = (median(times) for times in zip(*pairs))
                ratio = median(after / before for before, after in pairs)
                print(
                    f"{name:10} default {default:6.2f} s, helper {helped:6.2f} s, ratio of pairs {ratio:.3f}"
                )


if __name__ == "__main__":
    main()
