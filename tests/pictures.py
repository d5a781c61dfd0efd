"""Reports without the cost of their pictures; torch is not imported here, since reports do without it."""


def draw_nothing(monkeypatch):
    """Figures are made and not rendered, for tests that ask of a report only what its words say."""
    canvas = "zoo.reporting.ink.FigureCanvas"
    monkeypatch.setattr(f"{canvas}SVG.print_svg", lambda _, text, **__: text.write("<svg></svg>"))
    monkeypatch.setattr(f"{canvas}Agg.print_png", lambda _, file, **__: file.touch())
