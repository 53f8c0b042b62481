"""The documentation: it builds without a warning, its links lead somewhere, and its code imports."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pkgjail

TOP = Path(__file__).resolve().parent.parent
PAGES = sorted(TOP.glob("docs/*.md"))
# What is read on the forge too, where Sphinx does not check the links.
AT_THE_TOP = [TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^(`{3,}).*?^\1`*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as forges and Sphinx make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a warning is an error."""
    place = tmp_path_factory.mktemp("docs") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", TOP / "docs", place],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (built.returncode, built.stderr) == (0, "")
    return place


@pytest.mark.gate
def test_the_site_has_what_the_code_has(site: Path) -> None:
    """It builds without a warning, and no public name and no verb is left out."""
    api = (site / "api.html").read_text(encoding="utf-8")
    functions = [name for name in pkgjail.__all__ if not isinstance(getattr(pkgjail, name), type)]
    public = (getattr(pkgjail, name) for name in pkgjail.__all__)
    types = [f"{each.__module__}.{each.__qualname__}" for each in public if isinstance(each, type)]
    names = [*(f"pkgjail.{name}" for name in functions), *types]
    assert [name for name in names if f'id="{name}"' not in api] == []
    commands = (site / "commands.html").read_text(encoding="utf-8")
    man = subprocess.run([sys.executable, "-m", "pkgjail", "man"], capture_output=True, text=True, check=True)
    verbs = re.findall(r"^\.SS pkgjail (\w+)$", man.stdout, flags=re.MULTILINE)
    assert len(verbs) > 10
    assert [verb for verb in verbs if f'<section id="{verb}">' not in commands] == []


@pytest.mark.gate
def test_the_site_fits_a_phone_and_needs_no_network(site: Path) -> None:
    """No page is wider than its window, complains, or asks for anything that is not a file of the site."""
    from tests.browser import Browser

    browser = Browser()
    try:
        window = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        for page in sorted(site.glob("*.html")):
            browser.driver.get(page.as_uri())
            assert browser.js("document.documentElement.scrollWidth") == 390, page.name
        assert browser.console() == []
        assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []
    finally:
        browser.close()


@pytest.mark.parametrize("page", [*AT_THE_TOP, *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links to files and headings exist; external ones are complete addresses (nobody is asked)."""
    wrong = []
    for link in _LINK.findall(prose(page)):
        parts = urlsplit(link)
        if parts.scheme:
            right = parts.scheme == "https" and "." in parts.netloc
        else:
            target = page.parent / parts.path if parts.path else page
            made = {"commands.md", "api.md", "contributing.md", "changelog.md"}  # by code, or included
            known = not parts.fragment or target.name in made or parts.fragment in anchors(target)
            right = target.exists() and known
        if not right:
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", [*AT_THE_TOP, *PAGES], ids=lambda page: page.name)
def test_python_in_pages_imports_what_exists(page: Path) -> None:
    """Names of the library that an example imports are there; the rest of it is Python."""
    for block in re.findall(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pkgjail"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_pictures_are_as_their_script_draws_them() -> None:
    """A change of the script, or of a picture by hand, needs the other."""
    command = [sys.executable, str(TOP / "docs/pictures/pipeline.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


def test_each_term_is_explained_once() -> None:
    """The glossary gives each term one meaning."""
    terms = re.findall(
        r"^([^\n:#].*)\n: ", (TOP / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(terms) > 40
    assert sorted(set(terms)) == sorted(terms)
