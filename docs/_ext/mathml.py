"""Formulas as MathML, which browsers set by themselves: no script, no network, and a screen reader can read them."""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def _set(tex: str, *, as_block: bool) -> str:
    return str(tex2mathml(tex.replace(r"\dots", r"\ldots"), as_block=as_block))  # docutils knows one of the two


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(_set(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{_set(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True}
