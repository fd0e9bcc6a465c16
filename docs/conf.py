"""How Sphinx builds the pages: `make docs`."""

import re
from importlib.metadata import version as installed
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

project = "seqrl"
author = "the seqrl contributors"
copyright = author
version = release = installed("seqrl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

# Markdown: $...$ is mathematics, every heading down to the third can be linked to
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# docstrings: plain English, `code` in single backticks, arguments under Args
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# links to names of ours must lead somewhere; other packages' pages are not at hand
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!seqrl\.).*")]

html_theme = "furo"
html_title = "seqrl"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", list_arguments)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


def inline_math(writer: Any, node: nodes.math) -> None:
    """An equation as MathML, which browsers draw themselves."""
    writer.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def block_math(writer: Any, node: nodes.math_block) -> None:
    """The same in lines of its own."""
    writer.body.append(f'<div class="math">{mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element, *, block: bool) -> str:
    """What stands for an equation in the page; a wrong one is a warning."""
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        logging.getLogger(__name__).warning("equation: %s", error, location=node)
        return ""


def list_arguments(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn lines `name: meaning` of a docstring, continued indented, into a list."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    shown: list[str] = []
    inside = False
    for line in lines:
        argument = re.match(r"((?:[a-z_]+, )*[a-z_]+): (.*)", line)
        if argument:
            shown += [] if inside else [""]
            line = f"- **{argument[1]}**: {argument[2]}"
        elif inside and line.startswith("    "):
            line = line[2:]
        elif inside:
            shown.append("")
        inside = bool(argument) or (inside and line.startswith("  "))
        shown.append(line)
    lines[:] = shown
