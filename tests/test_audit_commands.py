"""The command line of audits, in this process: what each command prints, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.main import main
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest


@pytest.fixture
def audited(base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a manifest, and the record of a command that wants a header and lists a directory."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/use.c").write_text("#include <zlib.h>\n")
    (tmp_path / "b/configure.ac").write_text("PKG_CHECK_MODULES([Z], [zlib])\n")
    script = "cat use.c configure.ac /usr/include/zlib.h; ls /usr/share/aclocal; [ -e /usr/bin/make ]; exit 3"
    monkeypatch.chdir(tmp_path / "b")
    assert main(["run", "--audit", "../a.jsonl", "--cwd", "../m.jsonl", "--", "sh", "-c", script]) == 3
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show(audited: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As text, with and without the manifest, as JSON and as markdown; 1 with --fail-on."""
    capfd.readouterr()
    assert main(["audit", "show", "--manifest", "m.jsonl", "--all", "a.jsonl"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("sh -c ")
    assert ": exit status 3, " in lines[0]
    assert any(line.startswith("used: ") for line in lines)
    assert any(line.startswith("never touched: ") for line in lines)
    assert "zlib1g-dev:amd64" in lines
    assert f"    {audited}/b/use.c:1: #include <zlib.h>" in lines
    assert any(line.startswith("  /usr/share/aclocal: ") for line in lines)
    assert "  /usr/share/aclocal/pkg.m4: its directory was listed by ls" in lines
    assert main(["audit", "show", "--fail-on", "wanted", "a.jsonl"]) == 1
    capfd.readouterr()
    assert main(["audit", "show", "--json", "a.jsonl"]) == 0
    wanted = [each["package"] for each in json.loads(capfd.readouterr().out)["wanted"]]
    ignoring = [word for name in wanted[1:] for word in ("--ignore", name.partition(":")[0])]
    assert main(["audit", "show", "--json", "--fail-on", "wanted", *ignoring, "a.jsonl"]) == 1
    assert [each["package"] for each in json.loads(capfd.readouterr().out)["wanted"]] == wanted[:1]
    assert main(["audit", "show", "--fail-on", "wanted", *ignoring, "--ignore", wanted[0], "a.jsonl"]) == 0
    capfd.readouterr()
    assert main(["audit", "show", "--json", "--manifest", "m.jsonl", "a.jsonl"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["status"] == 3
    assert {each["package"] for each in facts["wanted"]} >= {"zlib1g-dev:amd64", "make:amd64"}
    assert facts["used"]["packages"]
    assert main(["audit", "show", "--format", "markdown", "a.jsonl"]) == 0
    assert "| make:amd64 | /usr/bin/make |" in capfd.readouterr().out


def test_why(audited: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A path, a package, a file of a bind, what is nowhere, and what nobody asked for."""
    capfd.readouterr()
    words = ["/usr/include/zlib.h", "dash", f"{audited}/b/use.c", "/usr/bin/nope", "/no/such", "no-such"]
    assert main(["audit", "why", "a.jsonl", *words]) == 1
    out = capfd.readouterr().out
    assert "/usr/include/zlib.h: not in the jail; the source has it from zlib1g-dev:amd64" in out
    assert "/usr/bin/dash: regular, of dash:amd64" in out
    assert f"{audited}/b/use.c: regular, in a bind" in out
    assert "/no/such: the command did not ask for it" in out
    assert "no-such: the command asked for none of its paths" in out
    assert main(["audit", "why", "--json", "a.jsonl", "/usr/include/zlib.h"]) == 0
    (answer,) = json.loads(capfd.readouterr().out)
    assert answer["paths"][0]["programs"][0]["chain"].startswith("cat < dash")
    assert main(["audit", "why", "a.jsonl", "no/path"]) == 2


def test_diff(audited: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What another run wants and uses; 0 for the same."""
    assert main(["run", "--audit", "n.jsonl", "m.jsonl", "--", "true"]) == 0
    capfd.readouterr()
    assert main(["audit", "diff", "a.jsonl", "n.jsonl"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "exit status: 3 before, 0 now"
    assert "- wanted /usr/include/zlib.h (zlib1g-dev:amd64)" in lines
    assert main(["audit", "diff", "--json", "n.jsonl", "a.jsonl"]) == 1
    facts = json.loads(capfd.readouterr().out)
    assert "/usr/bin/make" in [each["path"] for each in facts["wanted"]["added"]]
    assert "dash:amd64" in facts["used"]["added"]
    assert main(["audit", "diff", "a.jsonl", "a.jsonl"]) == 0
    assert main(["audit", "diff", "a.jsonl", "m.jsonl"]) == 2
    assert "m.jsonl: this is a manifest, not a record of an audit" in capfd.readouterr().err
    del audited


def test_the_page_and_the_refusals(audited: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The review page has the audit; another stage, and a record that cannot be written, are refused."""
    assert main(["report", "--audit", "a.jsonl", "m.jsonl", "-o", "page.html"]) == 0
    assert "zlib1g-dev:amd64" in (audited / "page.html").read_text(encoding="utf-8")
    assert main(["run", "--stage", "bwrap", "--audit", "x.jsonl", "m.jsonl", "--", "true"]) == 125
    assert main(["run", "--audit", "/no/such/x", "m.jsonl", "--", "true"]) == 125
    assert main(["run", "--audit", ".", "m.jsonl", "--", "true"]) == 125
    assert main(["build", "m.jsonl", "env"]) == 0
    assert main(["enter", "--audit", "e.jsonl", "env", "--", "sh", "-c", "exit 4"]) == 4
    assert (audited / "e.jsonl").exists()
    assert "only the stage namespaces" in capfd.readouterr().err
