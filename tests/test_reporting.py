import errno
import itertools
import json
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_runs import EXTRAS, digits_runs, replace, synthetic_run, table_runs

from zoo.comparison import compare, outcomes
from zoo.errors import OptionError, RunError
from zoo.reporting import axes, calibration, imputation, latents, posedness, report, training
from zoo.reporting.ink import STYLE, canvas, panel
from zoo.reporting.page import _environment
from zoo.reporting.ranking import ranking
from zoo.reporting.text import decade, number

VOID = {"meta", "br", "link", "img", "hr"}
SECTIONS = (
    "answer", "pictures", "ranking", "trust", "wellposed", "odd-rows", "elbo", "scale", "spread", "predictive",
    "calibration", "cards", "repeat", "data", "glossary",
)  # fmt: skip
QUESTIONS = ("answer", "trust", "wellposed", "odd-rows", "repeat", "glossary")
SMALL = {"steps": 60, "obs": 20}


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order, every id once, and where it reaches out to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.tags, self.text = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action"):
                self.references.append((tag, value))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def shown(path):
    page = Page(path.read_text(encoding="utf-8"))
    return page, " ".join(" ".join(page.text).split())


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return report(digits_runs(**SMALL), tmp_path_factory.mktemp("digits"))


def test_the_page_is_whole_and_needs_no_network(digits):
    text = digits.read_text(encoding="utf-8")
    page, words = shown(digits)
    assert len(page.ids) == len(set(page.ids))
    for section in SECTIONS:
        assert section in page.ids
    for section in QUESTIONS:
        assert ("a", f"#{section}") in page.references
    for tag, target in page.references:
        assert target.startswith(("#", "data:image/png")) or (tag == "a" and target.startswith("https://"))
    assert set(re.findall(r"url\(([^)]{0,6})", text)) <= {f"#{x}" for x in re.findall(r"url\(#([^)]{0,5})", text)}
    assert "@import" not in text
    assert not {"iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert len(text) < 3_000_000
    assert "apart" in words
    assert "ran away: decoder scale" in words
    assert "digits (binarized by threshold), scored by probability" in words
    assert "different quantities" in words


def test_references_inside_every_figure_resolve(digits):
    text = digits.read_text(encoding="utf-8")
    page, _ = shown(digits)
    wanted = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert wanted <= set(page.ids)


def test_figures_lie_beside_the_page(digits):
    folder = digits.parent / "figures"
    pictures = {path.stem for path in folder.iterdir()}
    for section in (
        "ranking-1",
        "ranking-2",
        "elbo-5-gaussian-learned",
        "scale-5-gaussian-learned",
        "columns-5-gaussian-learned",
        "spread-3-gmm",
        "predictive-1-bernoulli",
        "wellposed-5-gaussian-learned",
        "aggregate-2-gaussian-constrained",
        "reference-1-bernoulli",
        "calibration-3-gmm",
    ):
        assert section in pictures
    assert "reference-3-gmm" not in pictures  # its posterior is exact
    assert "scale-1-bernoulli" not in pictures  # a mass has no scale
    for path in folder.iterdir():  # drawn once: as SVG and nothing else
        assert path.suffix == ".svg"
        ET.parse(path)


def test_pictures_of_both_kinds_have_room_for_their_labels(tmp_path):
    """SVG and PNG are laid out once."""
    with mpl.rc_context(STYLE):
        drawn, ax = canvas(2.0)
        ax.set_yticks([0.5], ["a label as long as the names of columns may be"])
        panel(drawn, "one", folder=tmp_path, title="", alt="", png=True)
        (label,) = ax.get_yticklabels()
        assert label.get_window_extent(FigureCanvasAgg(drawn).get_renderer()).x0 >= 0
    whole = mpl.image.imread(tmp_path / "one.png")[..., :3]
    assert (whole[:, 0] == whole[0, 0]).all(), "nothing is cut off at the left edge"
    text = ET.parse(tmp_path / "one.svg").iter("{http://www.w3.org/2000/svg}text")
    assert any("a label as long" in "".join(each.itertext()) for each in text)


def test_colours_follow_the_page(digits):
    text = digits.read_text(encoding="utf-8")
    for drawn in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", drawn))
        assert colours <= {"#ffffff"}, colours  # crosses on the map of scales
        assert "currentColor" in drawn or "var(--" in drawn


def test_names_from_anywhere_are_escaped(tmp_path):
    evil = '<script>alert("x")</script>&$\\frac'
    columns = [evil, "$", "$$x", *[f"c{i}" for i in range(5)]]
    tree = synthetic_run(
        evil,
        title=evil,
        data=evil,
        images=False,
        columns=columns,
        constant=[0],
        ran_away=True,
        machine=evil,
        repeat=evil,
        options={evil: evil},
        **SMALL,
    )
    tree["wellposedness"].attrs |= {"path": evil, "needs": evil}
    page, words = shown(report(tree, tmp_path, failures={evil: evil}))
    assert page.tags.count("script") == 1  # the page's own
    assert words.count(evil) >= 13


@pytest.mark.usefixtures("blank_pictures")
def test_a_pair_that_failed_is_a_row(tmp_path):
    told = {"broken": "RuntimeError: no such luck"}
    words = shown(report(synthetic_run("plain", **SMALL), tmp_path, failures=told))[1]
    ranking = words[words.index("All pairs, ranked") :]
    assert "Could not be judged broken, RuntimeError: no such luck" in words
    assert "Failed pair reason broken RuntimeError: no such luck" in ranking
    assert "Failed" not in shown(report(synthetic_run("plain", **SMALL), tmp_path))[1]
    for wrong in (["broken"], {"broken": 3}, {3: "broken"}, "broken"):
        with pytest.raises(OptionError, match="failures="):
            report(synthetic_run("plain", **SMALL), tmp_path, failures=wrong)


def test_a_link_that_is_not_of_the_web_is_no_link():
    web = _environment().filters["web"]
    assert web("https://arxiv.org/abs/1") == "https://arxiv.org/abs/1"
    assert [web(link) for link in ("javascript:alert(1)", "data:text/html,x", "", "file:///etc")] == [""] * 4


def test_nothing_global_changes(tmp_path):
    pyplot = sys.modules.get("matplotlib.pyplot")
    figures = pyplot and pyplot.get_fignums()
    with mpl.rc_context({"text.usetex": True, "figure.dpi": 7}):  # nor does the caller's style reach the page
        settings, random = dict.copy(mpl.rcParams), np.random.get_state()[1].tolist()
        report(table_runs(**SMALL)[:1], tmp_path)
        assert dict.copy(mpl.rcParams) == settings
        assert np.random.get_state()[1].tolist() == random
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        assert pyplot.get_fignums() == (figures or [])


@pytest.mark.usefixtures("blank_pictures")
def test_tables_say_which_columns_are_shown(tmp_path):
    wide = synthetic_run(images=False, columns=[f"column {i}" for i in range(40)], **SMALL)
    _, words = shown(report([wide, *table_runs(**SMALL)], tmp_path))
    assert "The first 15 of 40 columns." in words
    assert "The 24 columns with the smallest scale, of 40." in words
    assert "frozen (1 of 4 seeds, step 30)" in words


@pytest.mark.usefixtures("blank_pictures")
def test_trained_but_not_evaluated(tmp_path):
    _, words = shown(report(synthetic_run(evaluated=False, **SMALL), tmp_path))
    assert words.count("gaussian-identity: not evaluated.") == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_do_not_crash(tmp_path, bad):
    runs = [*digits_runs(**SMALL)[::4], table_runs(**SMALL)[0]]
    for tree in runs:
        for group, name in (
            ("optimization", "elbo"),
            ("optimization", "min_scale"),
            ("validation", "elbo"),
            ("validation", "column_scale"),
            ("heldout", "log_evidence"),
            ("heldout", "pareto_k"),
            ("posterior_predictive", "x"),
            ("reconstruction", "scale"),
            ("calibration", "pit"),
            ("calibration", "coverage"),
            ("calibration", "crps"),
            ("calibration", "outside"),
            ("calibration", "beyond_chance"),
            ("calibration", "reconstruction_check"),
            ("spread", "aggregate_mmd"),
            ("spread", "amortization_gap"),
            ("spread", "certainty"),
            ("reference_posterior", "scale_ratio"),
            ("reference_posterior", "shift"),
            ("wellposedness", "log_likelihood"),
            ("wellposedness", "train_evidence"),
        ):
            if group not in tree.children or name not in tree[group]:
                continue
            values = tree[group][name].values.copy()
            values[(0, slice(1, 4))[: values.ndim]], values[-1] = bad, -bad
            replace(tree, group, name, values)
    shown(report(runs, tmp_path))


def test_minimal_sizes(tmp_path):
    shown(report(synthetic_run(seeds=1, steps=21, obs=2, latents=1, images=False, columns=["only"]), tmp_path))


@pytest.mark.usefixtures("blank_pictures")
def test_the_page_is_replaced_in_one_piece(tmp_path, monkeypatch):
    first = report(synthetic_run(evaluated=False, **SMALL), tmp_path).read_text(encoding="utf-8")
    monkeypatch.setattr(training, "traces", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report(synthetic_run("gmm", evaluated=False, **SMALL), tmp_path)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == first
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="it is a file"):
        report(synthetic_run(evaluated=False, **SMALL), tmp_path / "file")


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("extras", [(), *[(extra,) for extra in EXTRAS]])
def test_groups_that_are_missing_are_left_out(tmp_path, extras):
    _, words = shown(report(digits_runs(extras=extras, **SMALL)[3:], tmp_path))
    drawn = {path.name.partition("-")[0] for path in (tmp_path / "figures").glob("*.svg")}
    assert ("calibration" in drawn) is ("calibration" in extras)
    assert ("aggregate" in drawn) is ("approximation gap" in words) is ("spread" in extras)
    assert ("reference" in drawn) is ("Markov chains" in words) is ("reference_posterior" in extras)
    assert ("wellposed" in drawn) is ("sharpness 80" in words) is ("wellposedness" in extras)
    assert "a probability is at most 1, so log P(x) ≤ 0." in words  # what a pair claims needs no group


def test_a_reader_is_told_whether_a_pair_is_well_posed(digits):
    _, words = shown(digits)
    assert "the log likelihood reaches 220.0 nats at sharpness 80: it has no limit" in words
    assert "The watch for a likelihood that runs away fired in 4 of 4 seeds, at step 33" in words
    assert "fired in none of 4 seeds" in words
    assert "8 of 64 columns (" in words
    assert "8 of them constant in training" in words
    assert "which give 95.0 nats" in words
    assert "instead gaussian-constrained, gaussian-binned" in words
    assert "reaches at most −3,280 nats and stays below −3,100, its bound for these rows" in words
    assert "143 atoms; the run has" in words


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"bounded": False, "bounded_if": ""}, "The likelihood is not bounded."),
        ({"bounded": False, "bounded_if": "if it rains"}, "The likelihood is bounded only if it rains."),
        (
            {"bounded": False, "bounded_if": "always, by 0", "bounds": "objective"},
            "The likelihood is not bounded; the objective is, always, by 0.",
        ),
        ({"bounded": True, "bound": "7"}, "Bounded: log p(x) ≤ 7."),
    ],
)
def test_claims_in_words(card, words):
    tree = synthetic_run("gmm", components=2, extras=(), **SMALL)
    tree.attrs["card"] = json.dumps(card)
    assert dict(posedness.facts(outcomes(tree)[0]))["claim"] == words


def test_a_ceiling_is_drawn_only_over_the_path_of_its_own_rows():
    tree = synthetic_run("gaussian-constrained", bound=3.0, **SMALL)
    for rows, words in ((200, False), (50, True)):
        tree["wellposedness"].attrs |= {"ceiling_rows": rows, "ceiling": 40.0}
        figure, _ = posedness.path(outcomes(tree)[0], "#0067a5")
        assert any("ceiling" in text.get_text() for text in figure.axes[0].texts) is words


def test_calibration_is_told_of_columns_that_vary_and_seeds_that_are_scored():
    tree = synthetic_run(frozen=(1,), **SMALL)
    coverage, outside = (tree["calibration"][name].values.copy() for name in ("coverage", "outside"))
    coverage[:, 0], coverage[:, 1] = np.array([0.4, 0.7, 0.76, 0.9])[:, None], 0.91
    coverage[1], outside[:, 0, 1:5], outside[:, 0, 9:12] = 0.0, 1.0, 1.0
    flat = [0, 8, 16, 24, 32, 40, 48, 56]
    coverage[..., flat], outside[..., flat] = np.nan, np.nan
    outside[:, 0, 12:] *= 0
    outside[:, 0, 5:8] = 0
    replace(tree, "calibration", "coverage", coverage)
    replace(tree, "calibration", "outside", outside)
    beyond = np.where(np.isnan(outside), np.nan, 0.0)
    beyond[:, 0, 1:3], beyond[2, 0, 3], beyond[1, 0, 1:12] = 1.0, 1.0, 1.0
    beyond[..., flat] = np.nan
    replace(tree, "calibration", "beyond_chance", beyond)
    replace(tree, "calibration", "crps", np.full((4, 2, 64), 0.5) * tree["calibration"]["crps_reference"].values)
    run = outcomes(tree)[0]
    figure, note = calibration.curves(run, "#0067a5")
    assert note.startswith(
        "50\u00a0% intervals hold 40\u00a0%, 90\u00a0% intervals hold 76\u00a0%; 7 of 56 columns leave the band, "
        "2.8 expected by chance; beyond chance: 2 to 3;"
    )
    coloured = [line for line in figure.axes[0].lines if line.get_color() == "#0067a5"]
    assert len(coloured) == 2  # of the first seed, those beyond chance and not all that leave
    assert "CRPS 50\u00a0% of" in note
    cells = dict(zip(calibration.SCORES, calibration.scores(run), strict=True))
    assert cells["inside the prior's 90\u00a0% interval"] == ("91\u00a0%", "")
    assert cells["columns outside the band"] == ("7 of 56", "")
    assert cells["expected by chance"] == ("2.8", "")
    assert cells["beyond chance"] == ("2 to 3", "")


def test_scores_of_different_data_stand_in_tables_of_their_own(digits):
    _, words = shown(digits)
    part = words[words.index("How many of the held-out values") : words.index("Reconstructions, described")]
    assert "digits, scored by density" in part
    assert "digits (binarized by threshold), scored by probability" in part


def test_chains_that_disagree_are_hollow():
    tree = synthetic_run(**SMALL)
    r_hat = np.ones((4, 8, 4))
    r_hat[0, 0, 0] = 1.2
    replace(tree, "reference_posterior", "r_hat", r_hat)
    figure, note = latents.reference(outcomes(tree)[0], "#0067a5")
    full, hollow = figure.axes[0].collections
    assert len(full.get_offsets()) == 127
    assert len(hollow.get_offsets()) == 1
    assert "worst R-hat 1.200" in note
    assert "hollow: R-hat above 1.01, 1 of 128" in note


def test_active_units_are_those_of_the_means_where_they_are_known():
    tree = synthetic_run(latents=3, **SMALL)
    replace(tree, "spread", "mean_variance", np.array([[0.5, 0.011, 0.009]] * 4))
    assert latents.active_units(outcomes(tree)[0]) == [2] * 4
    cells = latents.costs(outcomes(tree)[0])
    assert len(cells) == len(latents.COSTS)
    assert cells[0] == ("2", "of 3")


def test_a_wild_seed_does_not_flatten_the_others():
    tree = synthetic_run(level=-100, steps=400)
    elbo = tree["optimization"]["elbo"].values.copy()
    elbo[0] = np.linspace(0, 1e6, 400)
    replace(tree, "optimization", "elbo", elbo)
    figure, note = training.traces(outcomes(tree)[0], "#0067a5")
    low, high = figure.axes[0].get_ylim()
    assert -400 < low < high < 200
    assert "lie outside the view" in note


def test_thinning_keeps_the_extremes_and_the_gaps():
    y = np.random.default_rng(0).normal(size=20_000)
    y[777], y[12_345], y[5_000:6_000] = 50, -50, np.nan
    x, kept = training.thin(np.arange(20_000), y)
    assert len(x) <= training.POINTS
    assert np.nanmax(kept) == 50
    assert np.nanmin(kept) == -50
    gap = kept[(x >= 5_100) & (x < 5_900)]
    assert gap.size
    assert np.isnan(gap).all()
    assert (np.diff(x) > 0).all()


@pytest.mark.parametrize(("low", "high"), [(1e-8, 2.0), (0.15, 0.36), (0.3, 40.0), (0.2, 0.21), (1e-300, 1e300)])
def test_ticks_of_logarithmic_axes_are_few(low, high):
    ticks = axes.log_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert low <= min(ticks) < max(ticks) <= high
    assert len(axes.log_ticks(0.4, 0.4)) == 1


def crowded(figure):
    """Pairs of neighbouring tick labels that touch, on the figure as it is drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    for ax in figure.axes:
        for axis, low, high in ((ax.xaxis, "x0", "x1"), (ax.yaxis, "y0", "y1")):
            ticks = [tick.label1 if tick.label1.get_visible() else tick.label2 for tick in axis.get_major_ticks()]
            view = sorted(axis.get_view_interval())
            inside = [
                label
                for label, at in zip(ticks, axis.get_majorticklocs(), strict=False)
                if view[0] <= at <= view[1] and label.get_text()
            ]
            boxes = sorted(
                (label.get_window_extent(canvas.get_renderer()) for label in inside), key=lambda b: b.x0 + b.y0
            )
            found += [
                (a, b) for a, b in itertools.pairwise(boxes) if getattr(b, low) - getattr(a, high) < 3 * (low == "x0")
            ]
    return found


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.09, 0.14),
        (0.2, 0.21),
        (0.0021, 0.0049),
        (2e-4, 5e-4),
        (0.11, 9.5),
        (4e-5, 2e-3),
        (1e-8, 2.0),
        (1.1, 9.9),
        (2100, 8700),
    ],
)
def test_tick_labels_do_not_touch(low, high):
    with mpl.rc_context(STYLE):
        for images in (True, False):
            tree = synthetic_run(images=images, constant=[], **SMALL)
            scale = tree["validation"]["column_scale"]
            replace(
                tree,
                "validation",
                "column_scale",
                np.broadcast_to(np.geomspace(low, high, scale.shape[-1]), scale.shape),
            )
            run = outcomes(tree)[0]
            assert not crowded(training.columns(run, "#0067a5")[0])
            assert not crowded(training.scales(run, "#0067a5", (low, high))[0])


@pytest.mark.parametrize("level", [-110.0, -1e5 - 0.35, -21_000_000.0, 1e-5])
def test_tick_labels_of_a_ranking_do_not_touch(level):
    evidence = level + np.random.default_rng(0).normal(0, 1e-3, (2, 20))
    runs = {run.label: run for run in outcomes(synthetic_run("gmm", evidence=evidence, seeds=2, obs=20, steps=40))}
    with mpl.rc_context(STYLE):
        figure, _ = ranking(compare([run.tree for run in runs.values()]), runs, {"gmm": "#0067a5"})
        assert not crowded(figure)
        assert figure.axes[0].get_xticklabels()


def test_ticks_on_a_logarithmic_axis_are_told_apart():
    for low, high in ((2e-4, 5e-4), (3e-7, 9e-7), (2e4, 6e4)):
        labels = [decade(tick) for tick in axes.log_ticks(low, high)]
        assert len(set(labels)) == len(labels) > 1
    assert decade(2e-4) == "2 \N{MULTIPLICATION SIGN} 10⁻⁴"


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    tree = synthetic_run(evaluated=False, **SMALL)
    (tmp_path / "ok.csv").touch()
    for place, blocking in (
        ("ok.csv", "it"),
        ("ok.csv/sub", f"{tmp_path}/ok.csv"),
        ("ok.csv/a/b", f"{tmp_path}/ok.csv"),
    ):
        with pytest.raises(RunError, match=f"{place}: {blocking} is a file; name a directory"):
            report(tree, tmp_path / place)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zoo.reporting.ink.FigureCanvasSVG.print_svg", full)
    with pytest.raises(RunError, match=f"cannot write a report to {tmp_path}/new: No space left"):
        report(tree, tmp_path / "new")


@pytest.mark.usefixtures("blank_pictures")
def test_figures_of_an_earlier_report_are_removed_and_no_others(tmp_path):
    kept = {"mine.png", "elbo.svg", "elbo-1-gmm.txt"}
    report(digits_runs(**SMALL)[3:], tmp_path)
    for name in kept:
        (tmp_path / "figures" / name).touch()
    report(synthetic_run(evaluated=False, **SMALL), tmp_path)
    there = {path.name for path in (tmp_path / "figures").iterdir()}
    assert kept < there
    assert not [name for name in there - kept if "gmm" in name or "bernoulli" in name or "ranking" in name]


@pytest.mark.usefixtures("blank_pictures")
def test_an_unknown_k_is_called_unknown(tmp_path):
    tree = synthetic_run(**SMALL)
    replace(tree, "heldout", "pareto_k", np.full((4, 20), np.nan))
    assert ">unknown</td>" in report(tree, tmp_path).read_text(encoding="utf-8")


def test_a_scale_that_never_moves_can_be_drawn(tmp_path):
    runs = [synthetic_run(**SMALL), synthetic_run("gmm", images=False, **SMALL)]
    for tree in runs:
        replace(tree, "optimization", "min_scale", np.ones((4, 60)))
        replace(tree, "validation", "column_scale", np.ones_like(tree["validation"]["column_scale"]))
    _, words = shown(report(runs, tmp_path))
    assert "Smallest value: 1.00." in words


def test_contraction_and_active_units_are_those_of_known_posteriors():
    rng = np.random.default_rng(0)
    seeds, draws, obs, sds = 2, 400, 300, np.array([1.0, 0.1, 0.5])
    mean = rng.normal(size=(seeds, 1, obs, 3)) * np.sqrt(1 - sds**2)
    tree = synthetic_run(seeds=seeds, obs=obs, latents=3, steps=40, extras=())
    z = mean + sds * rng.normal(size=(seeds, draws, obs, 3))
    dims = ("chain", "draw", "obs", "latent")
    tree["posterior"] = tree["posterior"].to_dataset().drop_vars("z").assign(z=(dims, z))
    run = outcomes(tree)[0]
    np.testing.assert_allclose(np.median(latents.contraction(run), -1), [[0.99, 0.75, 0.0]] * 2, atol=0.03)
    assert latents.active_units(run) == [2, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-111.44, "-111.4"),
        (-21_345.6, "-21,346"),
        (0.0731, "0.073"),
        (4.31e-8, "4.31 \N{MULTIPLICATION SIGN} 10⁻⁸"),
        (np.nan, "\N{EN DASH}"),
        (None, "\N{EN DASH}"),
        (-np.inf, "-∞"),
        (0.0, "0"),
        (-0.0, "0"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text.replace("-", "\N{MINUS SIGN}")


def with_imputation(tree, seed=0, nominal=(2,)):
    """The run with errors of what was hidden from it, by column, beside those of two imputers."""
    rng = np.random.default_rng(seed)
    names, seeds = list(tree["constant_data"]["train_std"].shape), tree["optimization"].sizes["chain"]
    rate = np.isin(np.arange(names[0]), nominal)
    error = np.where(rate, 0.25, tree["constant_data"]["train_std"].values / 2)
    others = np.stack([np.where(rate, 0.5, 2 * error), np.where(rate, 0.125, error)])
    tree["imputation"] = xr.Dataset(
        {
            "measure": ("feature", np.where(rate, "error rate", "RMSE")),
            "error": (("chain", "feature"), np.tile(error, (seeds, 1))),
            "baseline_error": (("imputer", "feature"), others),
            "log_score_mean": ("chain", rng.normal(-1.5, 0.01, seeds)),
            "rmse": ("chain", np.full(seeds, 0.5)),
            "baseline_rmse": ("imputer", [1.25, 0.75]),
            "error_rate": ("chain", np.full(seeds, 0.25 if rate.any() else np.nan)),
            "baseline_error_rate": ("imputer", [0.5, 0.125] if rate.any() else [np.nan, np.nan]),
        },
        {"imputer": ["column mean or mode", "nearest neighbours"], "chain": np.arange(seeds)},
        {"note": "26 entries hidden of the first 20 test rows"},
    )
    return tree


@pytest.mark.usefixtures("blank_pictures")
def test_what_was_hidden_is_told_beside_the_imputers(tmp_path):
    runs = [with_imputation(synthetic_run(pair, images=False, **SMALL)) for pair in ("gmm", "gaussian-identity")]
    page, words = shown(report(runs, tmp_path))
    assert "imputation" in page.ids
    assert "26 entries hidden of the first 20 test rows" in words
    assert words.count("Numbers: RMSE in standard deviations") == words.count("Names: error rate") == 1
    assert re.search(r"column mean or mode nearest neighbours gmm 0\.50 1\.25 0\.75 gaussian-identity 0\.50", words)
    assert re.search(r"gmm 25.% 50.% 12\.5.%", words)
    assert len(list((tmp_path / "figures").glob("imputation-*.svg"))) == 2


def test_a_column_of_numbers_is_drawn_in_its_standard_deviations():
    (run,) = outcomes(with_imputation(synthetic_run(images=False, **SMALL)))
    figure, note = imputation.by_column(run, "#0067a5")
    *others, ours = (scatter.get_offsets()[:, 0] for scatter in figure.axes[0].collections[1:])
    assert sorted(set(np.round(ours, 9))) == [0.25, 0.5]
    assert [sorted(set(np.round(one, 9))) for one in others] == [[0.5, 1.0], [0.125, 0.5]]
    assert note == "Better than column mean or mode in 13 of 13 columns."


@pytest.mark.usefixtures("blank_pictures")
def test_without_names_there_is_no_table_of_them(tmp_path):
    _, words = shown(report([with_imputation(synthetic_run(images=False, **SMALL), nominal=())], tmp_path))
    assert "Numbers: RMSE" in words
    assert "Names: error rate" not in words


def test_images_have_no_line_a_column():
    (run,) = outcomes(with_imputation(synthetic_run(**SMALL), nominal=()))
    assert imputation.by_column(run, "#0067a5") is None


@pytest.mark.usefixtures("blank_pictures")
def test_the_facts_tell_kinds_measure_and_gaps(tmp_path):
    tree = synthetic_run(images=False, **SMALL)
    summary = json.loads(tree.attrs["data_summary"])
    more = {"supports": {"real": 8, "categorical": 5}, "resolved": 5, "missing": 1234}
    tree.attrs["data_summary"] = json.dumps(summary | more)
    _, words = shown(report([tree], tmp_path))
    assert "8 real, 5 categorical" in words
    assert "counting in 5 columns, length in 8" in words
    assert "not observed 1,234 entries" in words


def test_pictures_are_png_too_where_that_is_asked(tmp_path, blank_pictures):
    tree = synthetic_run("gmm", steps=40, obs=12, seeds=2)
    page = report(tree, tmp_path / "report", png=True)
    names = {kind: {file.stem for file in (page.parent / "figures").glob(f"*.{kind}")} for kind in ("svg", "png")}
    assert names["png"] == names["svg"] != set()
    report(tree, tmp_path / "report")
    assert not [*(page.parent / "figures").glob("*.png")], "those of an earlier report are gone"
