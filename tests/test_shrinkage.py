"""Whether a scale was still falling when a run was scored: known laws, and data of known degeneracy."""

import json

import numpy as np
import pytest

import zoo
from zoo.comparison.shrinkage import SETTLED, fall, falls, unsettled

STEPS = np.arange(40, 2001, 40)
RATE = (1 + np.cos(np.pi * np.arange(2000) / 2000)) / 2
COSINE = RATE.cumsum()[STEPS - 1]
ROUNDS = np.concatenate([(1 + np.cos(np.pi * np.arange(n) / n)) / 2 for n in (1000, 2000, 4000)]).cumsum()
LATE = np.linspace(0, 6999, 150, dtype=int)


@pytest.mark.parametrize("clock", [COSINE, STEPS * 1.0, ROUNDS[LATE]], ids=["cosine", "constant", "rounds"])
def test_the_rate_is_the_power_of_the_law(clock):
    powers = np.array([0.0, 0.25, 1.0, 2.0])
    assert fall(-np.log(clock)[:, None] * powers, clock) == pytest.approx(powers)


def test_under_a_cosine_the_number_of_steps_would_take_the_end_for_rest():
    law = -np.log(COSINE)[:, None]
    assert fall(law, STEPS)[0] < SETTLED < fall(law, COSINE)[0]


def test_a_scale_that_rests_or_has_only_begun_to_fall_does_not_fall_steadily():
    rest = 0.1 + 5 * np.exp(-STEPS / 80)
    until, since = (np.log(share * COSINE[-1]) for share in (0.7, 0.8))
    log = np.log(COSINE)
    columns = np.log(rest), -np.minimum(log, until), -np.maximum(log, since), log, np.full_like(log, np.nan)
    rates = fall(np.stack(columns, axis=1), COSINE)
    assert (rates < 0.01).all()
    assert fall(np.log(rest)[:2, None], COSINE[:2]) == 0, "too few checks to tell"


def test_noise_about_rest_is_not_a_fall_and_noise_about_a_fall_hides_none():
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(len(COSINE), 500))
    assert (fall(noise, COSINE) >= SETTLED).mean() < 0.01
    assert (fall(noise - 1.5 * np.log(COSINE)[:, None], COSINE) >= SETTLED).mean() > 0.99


def test_asked_are_degenerate_columns_and_the_weights_that_are_scored():
    law = 1 / COSINE
    stops = 3 * np.maximum(1 / COSINE, 1 / COSINE[20])
    scales = np.stack([np.stack([law, law / 2, stops], axis=1)] * 3)
    last, dependent, no = len(STEPS) - 1, np.array([False, True, True]), np.zeros(3)
    rates = falls(scales, COSINE, [last, last, 20], dependent, no)
    assert (rates >= SETTLED).tolist() == [[False, True, False], [False, True, False], [False, True, True]]
    shared = falls(np.stack([law, law, law], axis=1)[None], COSINE, [last], dependent, no)
    assert (shared == 0).all(), "the first column holds a common scale up"
    repeats = falls(scales, COSINE, [last] * 3, [False] * 3, [law[last] * 1.1, law[last] * 0.4, 0])
    assert (repeats >= SETTLED).tolist() == [[True, False, False]] * 3


def fitted(name, x, *, dependent=(), steps=800, **options):
    """A small run, and the names of columns in exact dependence in what it knows about its data."""
    data = zoo.Data.from_array(x, name="made up")
    pair = zoo.create(name, data, **options)
    tree = zoo.fit(pair, data, seeds=1, steps=steps, batch_size=64, progress=False).tree
    about = json.loads(tree.attrs["data_summary"])
    tree.attrs["data_summary"] = json.dumps(about | {"dependent_columns": list(dependent)})
    return tree


def factors(rng, columns=3):
    return rng.normal(size=(300, 1)) @ rng.normal(size=(1, columns)) + 0.5 * rng.normal(size=(300, columns))


SMALL = {"hidden": (32,), "latent_dim": 4}


def test_celsius_beside_fahrenheit_is_not_settled_and_without_it_is():
    x = factors(np.random.default_rng(0))
    both = np.column_stack([x, 32 + 1.8 * x[:, 0]])
    run = fitted("gaussian-learned", both, dependent=["x0", "x3"], **SMALL)
    said = unsettled(run)
    assert said.startswith("not settled: its scale on x0 and x3, where the data are degenerate, still shrinks ")
    assert "depends on when it stopped" in said
    assert unsettled(fitted("gaussian-learned", x, **SMALL)) == ""
    run.attrs["card"] = json.dumps(json.loads(run.attrs["card"]) | {"bounded": True})
    assert unsettled(run) == ""


def test_one_variance_on_data_in_a_plane_is_not_settled():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4))
    assert "its scale on x0, x1, x2 and 1 more" in unsettled(
        fitted("gaussian-shared", plane, dependent=["x0", "x1", "x2", "x3"], **SMALL)
    )


def test_a_mixture_on_copies_of_a_row_is_not_settled_and_without_them_is():
    x = factors(np.random.default_rng(0))
    copies = np.vstack([x, np.tile(x[:1], (40, 1))])
    assert "not settled" in unsettled(fitted("gmm", copies, steps=1000))
    assert unsettled(fitted("gmm", x, components=4, steps=1000)) == ""


def test_a_run_without_the_traces_says_nothing():
    import xarray as xr

    about = {"card": json.dumps({"bounded": False})}
    assert unsettled(xr.DataTree(xr.Dataset(attrs=about))) == ""
