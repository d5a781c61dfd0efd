"""How every figure of the report looks, on paper and on a page that may be light or dark."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import Collection
from matplotlib.figure import Figure

__all__ = [
    "DASH",
    "INK",
    "LINE",
    "MINUS",
    "PALETTE",
    "PAPER",
    "SOFT",
    "STYLE",
    "TIMES",
    "WIDTH",
    "Panel",
    "canvas",
    "hover",
    "panel",
]

# Figures are drawn in these colours, which the page replaces by its own to follow light and dark mode.
INK, SOFT, LINE, PAPER = "#1c2028", "#6a7180", "#d8dce4", "#fefefe"
PALETTE = ("#0067a5", "#c4500c", "#00805d", "#a03c86", "#80690a", "#4c5fc4", "#a3303f", "#3d7f8f")
_ROLES = {INK: "currentColor", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--panel)"} | {
    colour: f"var(--pair-{number})" for number, colour in enumerate(PALETTE)
}

MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", " \N{MULTIPLICATION SIGN} "  # as set in print
WIDTH = 4.15  # inches: at 72 units an inch as wide as a phone, where text then keeps its size
TEXT = 10.5  # points: the one size of text, on every figure
ENLARGED = 1.25  # largest scale of a figure on the page: beyond it, its text outgrows the text around it

LINK = re.compile(r"""<a xlink:href=(?:"([^"]*)"|'([^']*)')(?: target="_blank")?\s*(/?)>""")  # 3.11 adds a target

STYLE = {
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.grid": False,
    "axes.labelcolor": SOFT,
    "axes.labelsize": TEXT,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": SOFT,
    "axes.titlesize": TEXT,
    "axes.titley": 1.0,  # nothing stands above the axes that a title would have to avoid
    "axes.unicode_minus": True,
    "figure.constrained_layout.use": True,
    "figure.edgecolor": "none",
    "figure.facecolor": PAPER,
    "font.size": TEXT,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
    "svg.hashsalt": "zoo",  # the same picture has the same names within
    "svg.fonttype": "none",  # text stays text: it takes the page's font and can be read out and searched
    "text.color": INK,
    "text.parse_math": False,  # a column may be called "$"
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": TEXT,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
    "ytick.labelsize": TEXT,
}


@dataclass(frozen=True)
class Panel:
    """One small figure of the page: what it shows, in a picture and in words."""

    title: str
    note: str
    alt: str
    colour: int
    svg: Markup


def canvas(height: float) -> tuple[Figure, Axes]:
    """An empty figure outside pyplot's global registry."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def hover(mark: Artist | Iterable[Artist], *texts: str) -> None:
    """Set what shows under the pointer on a mark, or on each mark of a collection: the ``<title>`` of an SVG.

    It is stored as the mark's link, the only text that matplotlib keeps for each mark of a collection.
    """
    if isinstance(mark, Collection):
        mark.set_urls(list(texts) or [None])
    else:
        marks = [mark] if isinstance(mark, Artist) else mark
        for one, text in zip(marks, texts, strict=True):
            one.set_url(text)


def panel(
    figure: Figure,
    name: str,
    *,
    folder: Path,
    title: str,
    alt: str,
    colour: int = 0,
    note: str = "",
    png: bool = False,
) -> Panel:
    """Write a figure as SVG, and as PNG if asked, and prepare it for the page."""
    figure.patch.set_gid("paper")
    text = io.StringIO()
    # straight through the canvases: savefig() draws everything twice and repeats the layout for each format
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = _slender(_with_titles(text.getvalue()))
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    if png:
        figure.set_layout_engine("none")
        figure.set_dpi(200)
        FigureCanvasAgg(figure).print_png(folder / f"{name}.png")
    return Panel(title, note, alt, colour, _inline(svg, name))


def _with_titles(svg: str) -> str:
    """Turn the links of marks into titles, and drop marks that have nothing to draw."""
    opened = re.sub(LINK, lambda found: "" if found[3] else f"<g><title>{found[1] or found[2] or ''}</title>", svg)
    return opened.replace("</a>", "</g>")


def _slender(svg: str) -> str:
    """Round coordinates to a hundredth of a unit and drop indents: half of a page would be invisible detail."""
    svg = re.sub(r"\n +", "\n", svg)
    return re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)


def _inline(svg: str, name: str) -> Markup:
    """An SVG that can share a page with others: unique ids, the page's colours, as wide as there is room."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', _at_most, svg, count=1)
    svg = re.sub("|".join(_ROLES), lambda match: _ROLES[match[0]], svg)
    return Markup(svg.replace("<svg", '<svg aria-hidden="true"', 1))


def _at_most(width: re.Match[str]) -> str:
    return f'{width[1]} style="max-width: {ENLARGED * float(width[2]):.0f}px"'
