"""The pictures of the report: what their marks say, whether their texts have room, and what they leave out."""

import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pictures import SVG, only, titles
from scipy.spatial.distance import pdist
from synthetic_runs import digits_runs, replace, synthetic_run

from zoo.comparison import compare, outcomes
from zoo.reporting import calibration, latents, predictive, report, training
from zoo.reporting.ink import STYLE, TEXT, WIDTH, canvas, hover, panel
from zoo.reporting.ranking import ranking
from zoo.reporting.text import distinct

SMALL = {"steps": 60, "obs": 20}
BLUE = "#0067a5"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # as the page does: means of nothing


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context(STYLE):
        yield


def ranked(*levels, **about):
    """Pairs with these scores on the same rows, and their ranking."""
    noise = np.random.default_rng(0).normal(0, 0.3, (2, 20))
    about = {"title": "Pair", "seeds": 2, "images": False, "columns": ["one"], "extras": ()} | SMALL | about
    trees = [
        synthetic_run(f"pair-{i}", evidence=level + noise - noise.mean(), **about | {"title": f"{about['title']} {i}"})
        for i, level in enumerate(levels)
    ]
    runs = {run.label: run for run in outcomes(trees)}
    return ranking(compare(trees), runs, dict.fromkeys(runs, BLUE))


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


# -- how all of them look ----------------------------------------------------------------------------------------------


LONG = "Gaussian, constrained variance with a name that is long (floor=0.01)"
PAGES = {
    "images": lambda: [digits_runs(**SMALL)[i] for i in (0, 4)],
    "a table": lambda: [
        synthetic_run(images=False, columns=[f"A COLUMN WITH A NAME THAT IS WIDE {j}" for j in range(9)], seeds=1,
                      latents=1, title=LONG, **SMALL)
    ],
}  # fmt: skip


def drawn_on(page, folder, monkeypatch):
    """The figures of a report, which are laid out and not written."""
    found = []

    def lay_out(self, text, **_):
        FigureCanvasAgg(self.figure).draw()
        found.append(self.figure)
        text.write("<svg></svg>")

    monkeypatch.setattr("zoo.reporting.ink.FigureCanvasSVG.print_svg", lay_out)
    report(page, folder)
    return found


def written(figure):
    """The texts that a figure shows, with their boxes."""
    shown = []
    for ax in figure.axes:
        axes = [axis for axis, on in ((ax.xaxis, ax.axison), (ax.yaxis, ax.axison)) if on]
        ticks = [label for axis in axes for label in axis.get_ticklabels() if _inside(axis, label)]
        shown += [*ticks, *(axis.label for axis in axes), *ax.texts, ax.title, ax._left_title]
    shown += [text for legend in figure.legends for text in legend.get_texts()]
    renderer = FigureCanvasAgg(figure).get_renderer()
    return {text: text.get_window_extent(renderer) for text in shown if text.get_text() and text.get_visible()}


def _inside(axis, label):
    low, high = sorted(axis.get_view_interval())
    at = label.get_position()[0 if axis.axis_name == "x" else 1]
    return low <= at <= high


def has_room(figure):
    """All texts of one size, inside of the figure, and none over another."""
    assert figure.get_figwidth() == WIDTH
    boxes = written(figure)
    assert {text.get_fontsize() for text in boxes} == {TEXT}
    for text, box in boxes.items():
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, text
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 2 or b.y1 <= a.y0 + 2
        assert apart, (one, other)


@pytest.mark.parametrize("page", PAGES)
def test_texts_have_one_size_and_room(page, tmp_path, monkeypatch):
    for figure in drawn_on(PAGES[page](), tmp_path, monkeypatch):
        has_room(figure)


@pytest.mark.parametrize("count", [1, 2, 6, 17])
def test_a_ranking_has_room_whatever_the_number_of_pairs(count):
    figure, _ = ranked(*(-18 - 0.03 * i - 40 * (i % 5 == 4) for i in range(count)), title=LONG, steps=21)
    FigureCanvasAgg(figure).draw()
    has_room(figure)
    assert sum("−" in text for text in texts_of(figure)) == count


def test_no_picture_is_shown_much_larger_than_it_is_drawn(tmp_path):
    svg = str(panel(canvas(2.0)[0], "one", folder=tmp_path, title="", alt="").svg)
    most = float(re.search(r'<svg[^>]*style="max-width: (\d+)px"', svg)[1])
    assert 72 * WIDTH <= most <= 1.3 * 72 * WIDTH
    assert not re.search(r"<svg[^>]* (width|height)=", svg)


# -- what marks say ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["plain", "<script>alert(1)</script>", 'it\'s "quoted" & <b>', 'a "b', "$\\frac$\n</a>"]
)
def test_any_text_comes_back_as_the_title_of_its_mark(text, tmp_path):
    figure, ax = canvas(2.0)
    hover(ax.plot([0, 1]), text)
    hover(ax.scatter([0, 1, 2], [0, 1, 2]), "first", text, "third")
    hover(ax.scatter([], []), *())
    hover(ax.plot([0, 1], [np.nan, np.nan], "o"), "nothing to point at")
    assert titles(figure, tmp_path) == ["first", text, "third", text]  # lines lie over collections


def test_the_ranking_says_its_numbers_and_those_of_its_seeds(tmp_path):
    said = titles(ranked(-18.0, -21.5)[0], tmp_path)
    assert sum(title.startswith("Pair 0: −18.0 nats per datum, two standard errors are 0.") for title in said) == 3
    assert [title for title in said if title.startswith("seed 1: −21.")]


def test_scores_that_differ_are_labelled_apart():
    figure, _ = ranked(-18.112, -18.103, -18.092)
    assert {"−18.11", "−18.10", "−18.09"} <= set(texts_of(figure))
    assert distinct([-18.1, -18.1]) == ["−18.1", "−18.1"]


def test_a_pair_far_behind_does_not_flatten_the_others():
    figure, note = ranked(-18.0, -19.0, -18.5, -1e6)
    low, high = figure.axes[0].get_xlim()
    assert -25 < low < -19 < -18 < high < -15
    assert note == "1 beyond the view, drawn as an arrowhead."
    assert ranked(-18.0, -90.0)[1] == ""


def test_a_pair_without_a_finite_score_is_named():
    assert ranked(-18.0, -np.inf)[1] == "Without a finite score, and not drawn: Pair 1."


def test_every_line_of_the_calibration_says_its_column(tmp_path):
    tree = synthetic_run(**SMALL)
    varying = [name for i, name in enumerate(f"pixel_{i // 8}_{i % 8}" for i in range(64)) if i % 8]
    replace(tree, "calibration", "pit", np.full((4, 2, 20, 64), 0.9) + 0 * tree["calibration"]["pit"].values)
    said = titles(calibration.curves(only(tree), BLUE)[0], tmp_path)
    assert [title.partition(":")[0] for title in said] == varying
    # all values lie at 0.9: up to the point before it, 0.85, there are none
    assert all("85 % too few low values" in title.replace("\xa0", " ") for title in said)


def test_a_ring_at_the_end_of_training_is_whole(tmp_path):
    tree = synthetic_run(**SMALL)
    replace(tree, "optimization", "best_step", np.full(4, 60))
    panel(training.traces(only(tree), BLUE)[0], "one", folder=tmp_path, title="", alt="")
    svg = ET.parse(tmp_path / "one.svg")
    titles = [title.text for title in svg.iter(f"{SVG}title") if ", scored: " in title.text]
    assert len(titles) == 4
    assert all("at step 60" in title for title in titles)
    clipped = [part for part in svg.iter() if "clip-path" in part.attrib]
    assert not [title for part in clipped for title in part.iter(f"{SVG}title") if ", scored: " in title.text]


def test_seeds_that_are_not_scored_lend_no_other_their_number(tmp_path):
    figure, _ = latents.components(run := only(synthetic_run("gmm", components=3, frozen=(1,), **SMALL)),
                                   latents.memberships(run), BLUE)  # fmt: skip
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0", "2", "3"]
    assert {title.partition(",")[0] for title in titles(figure, tmp_path)} == {"seed 0", "seed 2", "seed 3"}


# -- scales ------------------------------------------------------------------------------------------------------------


def test_a_scale_of_zero_is_drawn_at_the_edge_and_said():
    tree = synthetic_run(**SMALL)
    scale = tree["optimization"]["min_scale"].values.copy()
    scale[1, 30:] = 0
    replace(tree, "optimization", "min_scale", scale)
    run = only(tree)
    limits = training.scale_limits([run])
    figure, note = training.scales(run, BLUE, limits)
    assert note == "Smallest value: 0; in 1 of 4 seeds it falls to 0, drawn at the lower edge."
    assert figure.axes[0].lines[1].get_ydata()[-1] == limits[0] == figure.axes[0].get_ylim()[0]


@pytest.mark.parametrize("images", [True, False])
def test_columns_whose_scale_is_zero_or_unknown_are_told(images, tmp_path):
    tree = synthetic_run(images=images, constant=[], **SMALL)
    scale = tree["validation"]["column_scale"].values.copy()
    scale[..., 3], scale[..., 5] = 0, np.nan
    replace(tree, "validation", "column_scale", scale)
    figure, note = training.columns(only(tree), BLUE)
    said = titles(figure, tmp_path)
    names = only(tree).summary["columns"]
    assert f"{names[3]}: 0" in said
    assert "1 fell to 0, drawn like the smallest of the others" in note
    if images:
        assert note.startswith("A dash: no scale, 1 of 64 pixels;")
        assert f"{names[5]}: –" in said and len(said) == 64
        dashes = [line for line in figure.axes[0].lines if line.get_marker() == "_"]
        assert [line.get_xydata().tolist() for line in dashes] == [[[5, 0]]]
    else:
        assert "Without a scale: 1 of 13 columns;" in note
        assert len(said) == 12


def test_a_map_of_one_value_has_no_scale_of_its_own():
    tree = synthetic_run(constant=[], **SMALL)
    replace(tree, "validation", "column_scale", np.ones_like(tree["validation"]["column_scale"]))
    figure, note = training.columns(only(tree), BLUE)
    assert len(figure.axes) == 1
    assert note == "The same in all, 1.00."


def test_draws_that_are_no_numbers_do_not_thin_a_marginal():
    tree = synthetic_run(images=False, **SMALL)
    whole = predictive.marginals(only(tree), BLUE)[0]
    drawn = tree["posterior_predictive"]["x"].values
    twice = np.concatenate([drawn, np.full_like(drawn, np.nan)], axis=1)
    dims = tree["posterior_predictive"]["x"].dims
    tree["posterior_predictive"] = xr.Dataset({"x": (dims, twice)}, {"chain": np.arange(4)})
    halves = predictive.marginals(only(tree), BLUE)[0]
    for one, other in zip(whole.axes, halves.axes, strict=True):
        for a, b in zip(one.patches, other.patches, strict=True):
            np.testing.assert_allclose(a.get_data().values, b.get_data().values)


# -- the map of the latents --------------------------------------------------------------------------------------------


def with_means(means, labels=None, **about):
    """A run whose posterior means are these, (N, L), to a thousandth."""
    obs, dims = len(means), ("chain", "draw", "obs", "latent")
    tree = synthetic_run(latents=means.shape[1], **SMALL | {"obs": obs} | about)
    draws = np.array([-1e-3, 1e-3])[None, :, None, None]
    z = np.broadcast_to(means + draws, (4, 2, *means.shape))
    tree["posterior"] = xr.DataTree(xr.Dataset({"z": (dims, z)}, {"obs": np.arange(obs) + 100, "chain": range(4)}))
    heldout, x = tree["heldout"].to_dataset(), tree["observed_data"].to_dataset()
    tree["heldout"] = heldout.assign_coords(obs=np.arange(obs) + 100)
    told = {} if labels is None else {"label": ("obs", labels[::-1])}  # in another order than the latents
    tree["observed_data"] = x.assign_coords(obs=np.arange(obs)[::-1] + 100, **told)
    return tree


def drawn_points(figure):
    return np.concatenate([group.get_offsets() for group in figure.axes[0].collections])


def test_the_map_keeps_the_distances_of_means_that_lie_in_a_plane():
    rng = np.random.default_rng(3)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    means = rng.normal(size=(30, 2)) @ plane.T
    figure, note = latents.map_of(only(with_means(means)), BLUE)
    points = drawn_points(figure)
    np.testing.assert_allclose(np.sort(pdist(points)), np.sort(pdist(means)), rtol=1e-6)
    shares = re.findall(r"([\d.]+)\xa0% of variance", figure.axes[0].get_xlabel() + figure.axes[0].get_ylabel())
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.11)
    assert note.startswith("Posterior means of 30 held-out rows, seed 0;")


def test_the_map_has_each_row_under_its_own_label(tmp_path):
    means = np.stack([np.arange(12.0), np.arange(12.0) % 4], 1)
    labels = np.array(["red squirrel", "owl", "newt"])[np.arange(12) // 4]
    tree = with_means(means, labels)
    figure, note = latents.map_of(only(tree), BLUE)
    points = {group.get_label(): group.get_offsets() for group in figure.axes[0].collections}
    assert [*points] == ["newt", "owl", "red squirrel"]
    np.testing.assert_allclose(points["owl"], means[4:8], atol=1e-9)
    assert "coloured by label" in note
    scores = only(tree).evidence
    said = titles(figure, tmp_path)
    assert len(said) == 12
    assert f"row 104: −{-scores[4]:.1f} nats, labelled owl" in said


def test_labels_of_a_letter_are_the_marks_themselves():
    means = np.stack([np.arange(12.0), np.arange(12.0) % 4], 1)
    figure, note = latents.map_of(only(with_means(means, np.arange(12) % 3)), BLUE)
    assert not figure.legends
    assert note.endswith("each row is drawn as its label.")
    some = np.where(np.arange(12) < 3, None, (np.arange(12) % 3).astype(str).astype(object))
    figure, note = latents.map_of(only(with_means(means, some)), BLUE)
    assert len(drawn_points(figure)) == 9
    assert "as its label, 3 without one are not drawn" in note


def test_without_labels_the_lowest_scores_stand_out():
    means = np.random.default_rng(0).normal(size=(40, 2))
    tree = with_means(means)
    figure, note = latents.map_of(only(tree), BLUE)
    groups = {float(group.get_alpha()): np.asarray(group.get_offsets()) for group in figure.axes[0].collections}
    worst = np.argsort(only(tree).evidence)[:2]
    np.testing.assert_allclose(np.sort(groups[1.0], 0), np.sort(means[worst], 0), atol=1e-9)
    assert [len(groups[shade]) for shade in sorted(groups)] == [30, 8, 2]
    assert "the lowest 5\xa0% by score stand out most" in note


def test_one_latent_stands_against_the_score():
    means = np.arange(20.0)[:, None]
    tree = with_means(means)
    figure, _ = latents.map_of(only(tree), BLUE)
    points = drawn_points(figure)
    points = points[points[:, 0].argsort()]
    np.testing.assert_allclose(points, np.column_stack([means[:, 0], only(tree).evidence]), atol=1e-9)


def test_a_mixture_without_latents_has_no_map():
    assert latents.map_of(only(synthetic_run("gmm", components=3, **SMALL)), BLUE) is None
