"""Whether the likelihood that data were simulated from is the one that wins, and what the others' calibration says."""

import numpy as np
import pytest

import zoo

pytestmark = pytest.mark.slow
ROWS, COLUMNS, DISPERSION = 3000, 8, 2.0


def compared(data, names, **settings):
    """Trained and scored, best first, and how many columns each pair's leave-one-out PITs fail."""
    runs = []
    for name in names:
        pair = zoo.create(name, data, latent_dim=2, hidden=(32,))
        runs.append(zoo.fit(pair, data, seeds=2, steps=1500, progress=False, on_divergence="warn", **settings))
        zoo.evaluate(runs[-1], data, samples=300, temperatures=0, reference=0)
    failed = {run.pair.name: float(run.tree["calibration"]["outside"].sel(kind="leave-one-out").mean()) for run in runs}
    return zoo.compare(runs), failed, runs


def test_counts_more_spread_than_poisson_ones():
    rng = np.random.default_rng(0)
    mean = np.exp(1.2 + rng.normal(size=(ROWS, 2)) @ (0.6 * rng.normal(size=(2, COLUMNS))))
    x = rng.negative_binomial(DISPERSION, DISPERSION / (DISPERSION + mean)).astype(float)
    data = zoo.Data.from_array(x, name="counts", support="count")
    names = ["negative-binomial", "poisson", "gaussian-constrained"]
    table, failed, runs = compared(data, names, learning_rate=5e-3)
    assert table.index[0] == "negative-binomial" and table["verdict"].iloc[1:].str.startswith("worse").all()
    found = runs[0].weights["model.emission.log_size"].exp()
    assert abs(float(found.mean()) - DISPERSION) < 0.1 * DISPERSION
    assert failed["negative-binomial"] < 0.3
    assert failed["poisson"] > 0.7 and failed["gaussian-constrained"] > 0.7


def test_heavy_tails():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2)) @ rng.normal(size=(2, COLUMNS)) + rng.standard_t(2.5, size=(ROWS, COLUMNS))
    data = zoo.Data.from_array(x, name="tails", resolution=None)
    table, failed, runs = compared(data, ["student-t", "gaussian-learned", "gaussian-constrained"])
    assert table.index[0] == "student-t" and table["verdict"].iloc[1:].str.startswith("worse").all()
    assert failed["student-t"] < 0.3
    assert failed["gaussian-learned"] > 0.7 and failed["gaussian-constrained"] > 0.7
    # and why: too much in the middle, and in both tails
    pit = runs[1].tree["calibration"]["pit"].sel(kind="leave-one-out").values
    shares = np.histogram(pit, bins=[0, 0.001, 0.3, 0.7, 0.999, 1])[0] / pit.size
    assert shares[2] > 0.42 and shares[0] > 0.002 and shares[4] > 0.002
