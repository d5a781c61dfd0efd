"""The report: reads runs, draws every figure, and writes one page that needs no network."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import matplotlib as mpl
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from zoo.comparison import (
    COLLAPSED,
    Answer,
    Outcome,
    Source,
    answer_over,
    cautions,
    compare,
    contenders,
    families,
    outcomes,
    with_ensembles,
)
from zoo.errors import OptionError, RunError
from zoo.options import location, switch
from zoo.reporting import calibration, choices, imputation, latents, oddities, posedness, predictive, text, training
from zoo.reporting.glossary import MEANINGS, NAT, WORDS
from zoo.reporting.ink import MINUS, PALETTE, STYLE, TIMES, Panel, panel
from zoo.reporting.ranking import ranking
from zoo.reporting.reading import image_shape
from zoo.reporting.standings import Standing, heading, numbers
from zoo.reporting.tables import Cell, Table
from zoo.reporting.text import power_of_ten

__all__ = ["report"]

Drawer = Callable[..., Panel]  # ``ink.panel`` with its folder

HERE = Path(__file__).parent
SECTIONS = (
    "wellposed", "elbo", "scale", "columns", "spread", "aggregate", "reference", "predictive", "calibration",
    "imputation", "map", "odd-columns",
)  # fmt: skip
FIRST = ("predictive", "map", "odd-columns", "calibration")  # pictures of the recommended pair shown at the top
DRAWN_HERE = re.compile(rf"(ranking-\d+|({'|'.join(SECTIONS)}|options)-\d+-[a-z0-9-]*)\.(png|svg)")


def report(
    runs: Source | Iterable[Source],
    path: str | Path,
    *,
    ensembles: bool = False,
    failures: Mapping[str, str] | None = None,
    png: bool = False,
) -> Path:
    """Write a report on runs and return the path of its page, ``path/index.html``.

    The page contains everything it shows and begins with the answer of :func:`zoo.answer`. Every figure is also written
    to ``path/figures`` as SVG, and with ``png`` as PNG.
    Runs that were trained but not evaluated are shown as far as they go. The page is written last; figures of an
    earlier report are removed.

    ``runs`` are runs, DataTrees, or paths of a run's directory or netCDF file: one or several. With ``ensembles`` the
    mixture of each run's seeds is also ranked, as by ``compare``. ``failures`` maps pairs that failed to the reason;
    each gets a row. Raises ``RunError`` as ``compare`` does, and for a ``path`` that cannot be written.

    >>> report([], "report")
    Traceback (most recent call last):
    zoo.errors.RunError: no runs to compare: pass at least one run, DataTree or path of a run's directory
    """
    folder, ensembles, png = location("path", path), switch("ensembles", ensembles), switch("png", png)
    failed = {} if failures is None else failures
    if not (isinstance(failed, Mapping) and all(isinstance(text, str) for row in failed.items() for text in row)):
        raise OptionError(f"failures={failures!r}; give the reason, as text, by the name of the pair.")
    read = outcomes(runs)
    try:
        return _write(read, failed, folder, ensembles, png)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            above = (folder / "figures", folder, *folder.parents)
            blocking = next(part for part in above if os.path.lexists(part) and not part.is_dir())
            reason = f"{'it' if blocking == folder else blocking} is a file; name a directory"
        raise RunError(f"cannot write a report to {folder}: {reason}") from error


def _write(runs: list[Outcome], failures: Mapping[str, str], folder: Path, ensembles: bool, png: bool) -> Path:
    """Write everything to a new place and replace the old report once it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=folder) as beside:
        drawn, page = Path(beside, "figures"), Path(beside, "index.html")
        drawn.mkdir()
        draw = partial(panel, folder=drawn, png=png)
        page.write_text(_page(runs, failures, draw, ensembles), encoding="utf-8")
        pictures = folder / "figures"
        pictures.mkdir(exist_ok=True)
        for earlier in pictures.iterdir():
            if DRAWN_HERE.fullmatch(earlier.name):
                earlier.unlink()
        for figure in drawn.iterdir():
            figure.replace(pictures / figure.name)
        return page.replace(folder / "index.html")


def _page(runs: list[Outcome], failures: Mapping[str, str], draw: Drawer, ensembles: bool) -> str:
    """The text of the page; its figures are written to files too."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever style the caller has set
        mpl.rcParams.update(STYLE)
        warnings.simplefilter("ignore", RuntimeWarning)  # of means over seeds that hold no finite value
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the page's own font may have it
        content = _content(runs, failures, draw, ensembles)
        content |= {"failures": failures, "families": list(_families(runs, content["hue"], failures, draw))}
        return _environment().get_template("page.html.j2").render(content)


@cache  # which keeps the template: compiling it takes a tenth of a report's time
def _environment() -> Environment:
    """The template environment. Names of columns and data can be anything, so every string is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = text.number
    environment.filters["plain"] = lambda value: f"{value:,}" if isinstance(value, Integral) else str(value)
    environment.filters["typeset"] = _typeset
    environment.filters["web"] = lambda link: link if urlsplit(str(link)).scheme in ("http", "https") else ""
    return environment


def _typeset(sentence: str) -> Markup:
    """A verdict with typographic minus signs and powers of ten, without line breaks around ± or within an option."""
    powers = re.sub(r"(?<=\d)e([+-]?\d+)\b", lambda found: f"{TIMES}{power_of_ten(int(found[1]))}", sentence)
    text = re.sub(r"(?<![^\s(])-(?=\d)", MINUS, powers).replace(" ± ", "\u00a0±\u00a0")
    return Markup(re.sub(r"--[a-z-]+( \d+)?", r"<span class=unbroken>\g<0></span>", str(escape(text))))


def _content(runs: list[Outcome], failures: Mapping[str, str], draw: Drawer, ensembles: bool) -> dict[str, Any]:
    """Everything the template shows; pairs and their colours follow the answer and its ranking."""
    table = compare([run.tree for run in runs], ensembles=ensembles)
    every = with_ensembles(runs) if ensembles else runs
    answer = answer_over([contenders(every)], failures)
    order = [each.table for each in answer.recommendations]
    table = table.iloc[
        np.argsort([order.index(each) if each in order else len(order) for each in table["table"]], kind="stable")
    ]
    place = {str(name): at for at, name in enumerate(table.index)}
    runs = sorted(runs, key=lambda run: place[run.label])
    number = {id(run.tree): i % len(PALETTE) for i, run in enumerate(runs)}
    hue = {run.label: number[id(run.tree)] for run in every}
    panels = _panels(runs, hue, draw)
    standings = list(_standings(table, answer, every, hue, draw))
    best = next((pair for each in answer.recommendations for why in each.best for pair in why.pairs), "")
    return {
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "js": Markup((HERE / "page.js").read_text(encoding="utf-8")),
        "palette": PALETTE,
        "runs": {run.label: run for run in runs},
        "hue": hue,
        "place": place,
        "datasets": list({run.read("data_fingerprint"): run for run in runs}.values()),
        "answer": answer,
        "standings": standings,
        "panels": panels,
        "best": best,
        "first": [_again(panels[section][best]) for section in FIRST if best in panels[section]],
        "hardest": [sheet for run in runs if (sheet := oddities.hardest(run))],
        "meanings": MEANINGS,
        "words": WORDS,
        "nat": NAT,
        "absent": {run.label: run.read("absent") or {} for run in runs},
        "facts": {run.label: list(posedness.facts(run)) for run in runs},
        "sheets": {
            "costs": _sheets(runs, latents.COSTS, latents.costs),
            "checks": _sheets(runs, calibration.CHECKS, calibration.checks),
            "scores": [  # like evidence, log scores compare only on the same data and base measure
                sheet
                for label, rows in table.groupby("table", sort=False)
                for sheet in _sheets(
                    [run for run in runs if run.label in rows.index],
                    calibration.SCORES,
                    calibration.scores,
                    heading(str(label)),
                )
            ],
        },
        "imputed": [
            (str(run.tree["imputation"].attrs.get("note", "")), sheets)
            for run, *others in _of_one_data_set(runs)
            if (sheets := list(imputation.tables([run, *others])))
        ],
        "limit": COLLAPSED,
    }


def _of_one_data_set(runs: list[Outcome]) -> list[list[Outcome]]:
    """The runs that imputed, by data set."""
    found: dict[str, list[Outcome]] = {}
    for run in runs:
        if "imputation" in run.tree.children:
            found.setdefault(str(run.read("mass_fingerprint") or run.read("data_fingerprint")), []).append(run)
    return [*found.values()]


def _standings(
    table: pd.DataFrame, answer: Answer, runs: list[Outcome], hue: dict[str, int], draw: Drawer
) -> Iterator[Standing]:
    """Each table of the comparison with its picture and its recommendation."""
    by_label, careful = {run.label: run for run in runs}, cautions(table)
    told = {each.table: each for each in answer.recommendations}
    colours = {name: PALETTE[number] for name, number in hue.items()}
    for i, (label, rows) in enumerate(table.groupby("table", sort=False)):
        picture = None
        if np.isfinite(rows["log_evidence"]).any():
            figure, note = ranking(rows, by_label, colours)
            scores = zip(rows["title"], rows["log_evidence"].astype(float), strict=True)
            alt = "; ".join(f"{title}: {text.number(score)}" for title, score in scores)
            drawn = heading(str(label))
            picture = draw(figure, f"ranking-{i + 1}", title=drawn, note=note, alt=f"Held-out log-likelihood. {alt}")
        records = [dict(row, pair=name, apart=pd.isna(row["rank"])) for name, row in rows.iterrows()]
        yield Standing(
            heading(str(label)), told.get(str(label)), records, numbers(rows), careful.get(str(label), []), picture
        )


def _again(panel: Panel) -> Panel:
    """A copy of a picture for a second place on the page, with new ids."""
    return replace(panel, svg=Markup(re.sub(r'\b(id="|url\(#|href="#)', r"\1first-", str(panel.svg))))


def _families(
    runs: list[Outcome], hue: dict[str, int], failures: Mapping[str, str], draw: Drawer
) -> Iterator[dict[str, Any]]:
    """For runs of a pair that differ in options: what validation chooses, in words, numbers and pictures."""
    for i, family in enumerate(families(runs)):
        first = family.runs[0]
        drawn = {name: choices.against(family, name) for name in (family.settings if family.chosen else ())}
        yield {
            "title": f"{first.read('title', first.read('pair'))}, {first.data_name}",
            "statement": family.statement,
            "failed": [name for name in failures if re.split(r"[:\[]", name)[0].strip() == first.read("pair")],
            "sheet": choices.numbers(family),
            "panels": [
                draw(figure, f"options-{i + 1}-{j + 1}-{_slug(name)}", title=name, note=note,
                      alt=f"Held-out score and validation ELBO against {name}. {note}", colour=hue[first.label])
                for j, (name, (figure, note)) in enumerate(drawn.items())
            ],
        }  # fmt: skip


def _slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower())[:40]


def _sheets(
    runs: list[Outcome], columns: tuple[str, ...], row: Callable[[Outcome], list[Cell] | None], title: str = ""
) -> list[Table]:
    """A table of the runs that have a row in it, or no table."""
    rows = [(run.label, cells) for run in runs if (cells := row(run)) is not None]
    return [Table(columns, rows, title)] if rows else []


def _panels(runs: list[Outcome], hue: dict[str, int], draw: Drawer) -> dict[str, dict[str, Panel]]:
    """The panels of every section: one for each run that has the data for it."""
    sections: dict[str, dict[str, Panel]] = {section: {} for section in SECTIONS}
    limits = training.scale_limits(runs)
    for i, run in enumerate(runs):
        colour, stem = PALETTE[hue[run.label]], f"{i + 1}-{_slug(run.label)}"

        def add(section: str, drawn: tuple[Figure, str], alt: str, run: Outcome = run, stem: str = stem) -> None:
            figure, note = drawn
            made = draw(figure, f"{section}-{stem}", title=run.title, note=note,
                         alt=f"{alt}, {run.title}. {note}", colour=hue[run.label])  # fmt: skip
            sections[section][run.label] = made

        if (way := posedness.path(run, colour)) is not None:
            add("wellposed", way, "Log likelihood along the path")
        if (elbo := run.get("optimization/elbo")) is not None and elbo.size:
            add("elbo", training.traces(run, colour), "ELBO along training, every seed")
        if (scale := run.get("optimization/min_scale")) is not None and bool((scale > 0).any()):
            add("scale", training.scales(run, colour, limits), "Smallest decoder scale")
        if run.last_scales is not None and (run.last_scales > 0).any():
            add("columns", training.columns(run, colour), "Smallest decoder scale for every column")
        if (contraction := latents.contraction(run)) is not None:
            add(
                "spread",
                latents.spread(run, contraction, colour),
                "Posterior contraction of every latent, every seed",
            )
        elif (memberships := latents.memberships(run)) is not None:
            add("spread", latents.components(run, memberships, colour), "Component weights of every seed")
        if (together := latents.aggregate(run, colour)) is not None:
            add("aggregate", together, "Quantiles of every latent against the prior's")
        if (beside := latents.reference(run, colour)) is not None:
            add("reference", beside, "Spread of the guide relative to NUTS against the shift of its mean")
        if (shape := image_shape(run)) and run.get("reconstruction/mean") is not None:
            add("predictive", predictive.images(run, shape), "Observed, reconstructed and drawn pictures")
        elif not shape and run.get("observed_data/x") is not None and run.get("posterior_predictive/x") is not None:
            add("predictive", predictive.marginals(run, colour), "Marginal distribution of every column")
        if (curves := calibration.curves(run, colour)) is not None:
            add("calibration", curves, "ECDF of the PIT of every column minus uniform")
        if (away := latents.map_of(run, colour)) is not None:
            add("map", away, "Held-out rows by the means of their latents")
        if (costly := oddities.by_column(run, colour)) is not None:
            add("odd-columns", costly, "How badly each column is predicted")
        if (errors := imputation.by_column(run, colour)) is not None:
            add("imputation", errors, "Errors of what was imputed in every column")
    return sections
