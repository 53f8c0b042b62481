"""Configuration of the documentation site. `make docs` builds it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import from_code
from sphinx.addnodes import desc_signature, pending_xref

import pkgjail

if TYPE_CHECKING:
    from docutils.nodes import document
    from sphinx.application import Sphinx

project = "pkgjail"
author = "the pkgjail authors"
copyright = author  # noqa: A001 - the name that Sphinx reads
release = version = pkgjail.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["requirements.txt"]

# Markdown. Every heading has an anchor, so that links to sections are checked.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# Docstrings: Google's sections, Markdown's backticks.
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 80
add_module_names = False

html_theme = "furo"
html_title = "pkgjail"
html_static_path = ["static", *(str(path) for path in (Path(__file__).parent / "pictures").glob("*.svg"))]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": True,
}
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

# "$ " and "# " begin commands; everything else in a console block is output, and is not copied.
copybutton_prompt_text = r"[$#] "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

# For `make docs LINKS=1`, which visits each external address.
linkcheck_retries = 1
linkcheck_timeout = 10


def _pages_from_code(*event: Any) -> list[str]:
    """Return the pages to read again although their own files are unchanged: the code may have changed."""
    del event
    return ["api", "commands"]


def _insert_from_code(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace the marks in a page by what the code says."""
    del app, name
    source[0] = from_code.filled(source[0])


def _prepare_docstring(*event: Any) -> None:
    """Make a docstring reStructuredText, before napoleon reads its sections."""
    lines: list[str] = event[-1]
    lines[:] = from_code.as_rest(lines)


def _name_types(app: Sphinx, doctree: document) -> None:
    """Give the types in signatures their full names instead of short ones, so that they are links."""
    del app
    for signature in doctree.findall(desc_signature):
        for reference in signature.findall(pending_xref):
            name = from_code.full_name(signature["module"], signature["fullname"], reference["reftarget"])
            reference["reftarget"] = name or reference["reftarget"]


def setup(app: Sphinx) -> None:
    """Add what the pages need: parts made from the code, and a name for the colours of blacklists."""
    from pygments.lexers.special import TextLexer

    os.environ["COLUMNS"] = "80"  # the width of usages
    app.add_lexer("gitignore", TextLexer)
    app.connect("env-get-outdated", _pages_from_code)
    app.connect("source-read", _insert_from_code)
    app.connect("autodoc-process-docstring", _prepare_docstring, priority=100)
    app.connect("doctree-read", _name_types)
