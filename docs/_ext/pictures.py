"""The directive ``picture``: a figure drawn by a function of ``drawings``, set into the page as SVG.

It takes the colours of the page, light or dark, and is redrawn only if the code is newer than the drawing.
"""

from __future__ import annotations

import html
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import drawings
import matplotlib as mpl
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from zoo.reporting.ink import STYLE, panel

ROOT = Path(__file__).parents[2]


def newest_source() -> float:
    """When the code behind the drawings was last changed."""
    folders = [ROOT / "zoo", ROOT / "models", ROOT / "guides", ROOT / "docs" / "_ext"]
    return max(file.stat().st_mtime for folder in folders for file in folder.rglob("*.py"))


def drawn(name: str, argument: str, kept: Path) -> str:
    """The figure as SVG for a page, from an earlier build if it is still current."""
    stem = f"{name}-{argument}" if argument else name
    file = kept / f"{stem}.svg"
    if not file.exists() or file.stat().st_mtime < newest_source():
        kept.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE), TemporaryDirectory() as folder:
            figure = getattr(drawings, name)(*[argument] * bool(argument))
            file.write_text(str(panel(figure, stem, folder=Path(folder), title="", alt="").svg), encoding="utf-8")
    return file.read_text(encoding="utf-8")


class Picture(SphinxDirective):
    """``{picture} function [argument]``, with the caption as its content."""

    required_arguments, optional_arguments, has_content = 1, 1, True
    option_spec: ClassVar = {"alt": directives.unchanged_required, "wide": directives.flag}

    def run(self) -> list[nodes.Node]:
        """The figure with its caption."""
        name, argument = [*self.arguments, ""][:2]
        self.env.note_dependency(drawings.__file__)
        svg = drawn(name, argument, Path(self.env.app.outdir).parent / "pictures")
        label = html.escape(self.options.get("alt", f"{name} {argument}"), quote=True)
        kind = "picture wide" if "wide" in self.options else "picture"
        figure = nodes.container(classes=kind.split())
        figure += nodes.raw("", f'<div role="img" aria-label="{label}">{svg}</div>', format="html")
        caption = nodes.container(classes=["caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        figure += caption
        return [figure]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
