"""What tests ask of pictures, and reports without their cost; torch is not imported here: reports do without it."""

import xml.etree.ElementTree as ET

from zoo.comparison import outcomes
from zoo.reporting.ink import panel

SVG = "{http://www.w3.org/2000/svg}"


def draw_nothing(monkeypatch):
    """Figures are made and not rendered, for tests that ask of a report only what its words say."""
    canvas = "zoo.reporting.ink.FigureCanvas"
    monkeypatch.setattr(f"{canvas}SVG.print_svg", lambda _, text, **__: text.write("<svg></svg>"))
    monkeypatch.setattr(f"{canvas}Agg.print_png", lambda _, file, **__: file.touch())


def only(tree):
    """The one run of a tree, as the report reads it."""
    return outcomes(tree)[0]


def titles(figure, folder):
    """What the marks of a figure say, on the page and in the file beside it."""
    drawn = panel(figure, "one", folder=folder, title="", alt="")
    said = [title.text for title in ET.parse(folder / "one.svg").iter(f"{SVG}title")]
    assert str(drawn.svg).count("<title>") == len(said)
    return said
