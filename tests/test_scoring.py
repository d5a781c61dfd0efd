"""Scores of rows, synthetic rows and embeddings, held against closed forms and against what is drawn."""

import pickle

import numpy as np
import pandas as pd
import polars
import pytest
from scipy import special, stats

import zoo
from zoo import scoring
from zoo.errors import DataError, OptionError, RunError, Unknown


def fitted(name, data, **options):
    return zoo.fit(zoo.create(name, data, **options), data, seeds=[4, 9], steps=150, compile="off", progress=False)


@pytest.fixture(scope="module")
def wine():
    return zoo.load_data("wine")


@pytest.fixture(scope="module")
def mixture(wine):
    return fitted("gmm-constrained", wine, components=3)


@pytest.fixture(scope="module")
def vae(iris):
    return fitted("gaussian-constrained", iris, latent_dim=2, hidden=(8,))


@pytest.fixture(scope="module")
def factors(wine):
    return fitted("linear-diagonal", wine, latent_dim=2)


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(0)
    weight = rng.normal(70, 9, 200).round(1)
    frame = pd.DataFrame(
        {
            "weight": weight,
            "city": np.where(weight > 70, "Rome", "Bonn"),
            "children": rng.poisson(1.5, 200),
        },
        index=[f"row {i}" for i in range(200)],
    )
    data = zoo.load_data(frame.mask(rng.random(frame.shape) < 0.05))
    return fitted("mixed", data, hidden=(8,))


def seeds_and_others(run, x):
    """Log p(x) by seed and log p(x_-j), (N, D), both by the evidence of rows with gaps."""
    whole = run.log_evidence(x, samples=2000)
    hidden = [np.where(np.arange(x.shape[1]) == j, np.nan, x) for j in range(x.shape[1])]
    return whole, np.stack([run.log_evidence(rows, samples=2000) for rows in hidden], axis=2)


def of_mixture(log_p):
    return special.logsumexp(log_p, axis=0) - np.log(len(log_p))


@pytest.mark.parametrize(("name", "most_off"), [("mixture", 1e-4), ("vae", 0.1)])
def test_a_column_costs_what_the_evidence_loses_with_it(name, most_off, request, wine, iris):
    """The evidence without a column is integrated by code that knows nothing of weights without it."""
    run, data = (request.getfixturevalue(name), wine if name == "mixture" else iris)
    features = data.features
    given = []
    train, test = data.train.values[:15], data.test.values[:5]
    for x in (train, test):
        whole, others = seeds_and_others(run, x)
        given.append(of_mixture(whole)[:, None] - of_mixture(others))
    expected = np.median(given[0], axis=0) - given[1]
    scores = run.score(test, columns=features, samples=2000, training=train)
    for row in range(5):
        found = {scores.loc[row, f"column_{k}"]: scores.loc[row, f"cost_{k}"] for k in range(1, features + 1)}
        np.testing.assert_allclose([found[name] for name in data.names], expected[row], atol=most_off)
    costs = scores[[f"cost_{k}" for k in range(1, features + 1)]].to_numpy()
    assert (np.diff(costs) <= 0).all()


def test_evidence_and_costs_of_a_linear_model_are_those_of_a_normal(factors, wine):
    """Of each seed a normal with covariance W W' + Psi, by SciPy and by what a normal is given the rest."""
    x, unit = wine.test.values[:6], factors.pair.view
    scaled = unit.inward(x)
    whole, others = [], []
    for row in range(2):
        weight, bias, log_scale = (
            factors.weights[f"model.{name}"][row].double().numpy()
            for name in ("decoder.weight", "decoder.bias", "log_scale")
        )
        covariance = weight @ weight.T + np.diag(np.exp(2 * log_scale))
        whole.append(stats.multivariate_normal(bias, covariance).logpdf(scaled))
        kept = [np.delete(np.arange(13), j) for j in range(13)]
        others.append([stats.multivariate_normal(bias[k], covariance[np.ix_(k, k)]).logpdf(scaled[:, k]) for k in kept])
    scores = factors.score(x, columns=13, samples=4000)
    np.testing.assert_allclose(
        scores["log_evidence"], of_mixture(np.array(whole)) - np.log(unit.scale).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(scores["seed_sd"], np.std(whole, axis=0, ddof=1), rtol=1e-3)
    given = of_mixture(np.array(whole)) - of_mixture(np.array(others))  # (D, N)
    reference = factors.references[np.ones(13, dtype=bool).tobytes(), 4000, True].columns
    names = np.array(wine.names)
    for row in range(6):
        j = int(np.flatnonzero(names == scores.loc[row, "column_1"])[0])
        assert scores.loc[row, "cost_1"] == pytest.approx(reference[j] - given[j, row], abs=0.2)


def test_the_rank_is_that_among_the_training_rows(mixture, wine):
    scores = mixture.score(wine.frame("test"), columns=1)
    train, test = (of_mixture(mixture.log_evidence(part.values)) for part in (wine.train, wine.test))
    np.testing.assert_allclose(scores["rank"], [(1 + (train <= one).sum()) / (len(train) + 1) for one in test])
    assert scores.index.tolist() == wine.test["obs"].values.tolist()
    own = mixture.score(wine.train.values, columns=0)
    assert list(own) == ["log_evidence", "seed_sd", "rank"]
    np.testing.assert_allclose(np.sort(own["rank"]), np.arange(2, len(train) + 2) / (len(train) + 1))


def test_a_row_scores_the_same_wherever_it_stands(vae, iris):
    frame = iris.frame("test")
    whole, backwards, alone = vae.score(frame), vae.score(frame[::-1]), vae.score(frame[3:4])
    pd.testing.assert_frame_equal(whole, backwards[::-1], rtol=1e-9)
    pd.testing.assert_frame_equal(whole[3:4], alone, rtol=1e-9)


def test_swapped_values_are_found_and_named(mixture, wine):
    """Of wines that are told apart, one with the alcohol and the ash of another."""
    x = wine.test.values.copy()
    j = wine.names.index("proline")
    x[0, j] = 60 + x[0, j] * 2
    scores = mixture.score(x)
    assert scores.loc[0, "column_1"] == "proline"
    assert scores.loc[0, "rank"] < 0.03 < scores["rank"].median()


def test_a_row_with_gaps_is_ranked_among_rows_with_the_same_columns(mixture, wine):
    x = np.where(np.arange(13) < 2, wine.test.values, np.nan)
    x[0] = wine.test.values[0]
    scores = mixture.score(x, columns=4)
    train = of_mixture(mixture.log_evidence(np.where(np.arange(13) < 2, wine.train.values, np.nan)))
    np.testing.assert_allclose(
        scores["rank"][1:], [(1 + (train <= one).sum()) / (len(train) + 1) for one in scores["log_evidence"][1:]]
    )
    assert scores["column_2"][1:].isin(wine.names[:2]).all() and scores["column_3"][1:].isna().all()
    pd.testing.assert_frame_equal(scores[:1], mixture.score(wine.test.values[:1], columns=4))


def test_where_no_training_row_has_those_columns_there_is_no_rank(mixture, wine):
    blank = wine.train.values.copy()
    blank[:, 0] = np.nan
    scores = mixture.score(wine.test.values[:2], training=blank)
    assert scores["rank"].isna().all() and scores["cost_1"].isna().all() and np.isfinite(scores["log_evidence"]).all()


def test_a_loaded_run_finds_its_training_rows_or_says_what_to_do(mixture, vae, iris, wine, tmp_path):
    loaded = zoo.load_run(mixture.save(tmp_path / "wine"))
    pd.testing.assert_frame_equal(loaded.score(wine.frame("test")), mixture.score(wine.frame("test")))
    away = zoo.load_run(vae.save(tmp_path / "iris"))
    away.tree.attrs["data_call"] = ""
    with pytest.raises(RunError, match="training="):
        away.score(iris.test.values)
    again = away.score(iris.test.values, training=iris.train.values)
    pd.testing.assert_frame_equal(again, vae.score(iris.test.values))
    away.tree.attrs["data_call"] = "load_data('iris', seed=3)"
    with pytest.raises(RunError, match="now gives other data"):
        away.score(iris.test.values)
    away.tree.attrs["data_call"] = "load_data('gone.csv')"
    with pytest.raises(RunError, match=r"gone\.csv.*--training"):
        away.score(iris.test.values)


def test_what_is_not_known_is_left_out_with_a_word(vae, iris, monkeypatch, caplog):
    def unknown(*_):
        raise Unknown("nobody knows.")

    monkeypatch.setattr(scoring, "each_feature_given_the_others", unknown)
    assert list(vae.score(iris.test.values)) == ["log_evidence", "seed_sd", "rank"]
    assert caplog.messages == ["score names no costly columns: nobody knows."]


def test_a_row_too_far_out_for_the_guide_has_the_smallest_rank(vae, iris):
    x = iris.test.values[:3].copy()
    x[1] = 1e12
    scores = vae.score(x)
    assert scores["rank"].idxmin() == 1 and scores["rank"][1] == pytest.approx(1 / (len(iris.train) + 1))


# -- synthetic rows ----------------------------------------------------------------------------------------------------


def test_synthetic_rows_are_recorded_as_the_data_are(mixed):
    frame = mixed.sample_frame(400, seed=3)
    assert list(frame) == ["weight", "city", "children"] and len(frame) == 400
    assert set(frame["city"]) == {"Bonn", "Rome"}
    assert frame["children"].dtype.kind == "i" and (frame["children"] >= 0).all()
    assert all(repr(value) == f"{value:.1f}" for value in frame["weight"].tolist())
    pd.testing.assert_frame_equal(frame, mixed.sample_frame(400, seed=3))
    assert not frame.equals(mixed.sample_frame(400, seed=4))
    assert len(mixed.sample_frame(1)) == 1
    with pytest.raises(OptionError, match="n=0"):
        mixed.sample_frame(0)


def test_synthetic_rows_are_of_all_seeds(factors, wine):
    """The mean of a mixture is the mean of the seeds' means, and its variance has that of the means."""
    biases = factors.pair.view.outward(factors.weights["model.decoder.bias"].numpy())
    frame = factors.sample_frame(20_000)
    error = frame.std() / 20_000**0.5
    assert (np.abs(frame.mean() - biases.mean(0)) < 5 * error).all()


# -- latents -----------------------------------------------------------------------------------------------------------


def test_an_embedding_is_that_of_one_seed_and_keeps_the_index(vae, mixed, iris):
    frame = iris.frame("test")
    best = vae.seeds.index(vae.best_seed)
    assert vae.tree["validation/elbo"].max("check").argmax("chain") == best
    embedded = vae.embed(frame)
    np.testing.assert_allclose(embedded, vae.encode(frame)[best], atol=1e-5)
    assert list(embedded) == ["z0", "z1"] and embedded.index.equals(frame.index)
    np.testing.assert_allclose(vae.embed(frame, seed=vae.seeds[1 - best]), vae.encode(frame)[1 - best], atol=1e-5)
    with pytest.raises(OptionError, match="seeds are 4, 9"):
        vae.embed(frame, seed=0)


def test_latents_are_decoded_to_means(factors, mixture, wine):
    x, unit = wine.test.values[:5], factors.pair.view
    z, row = factors.embed(x), factors.seeds.index(factors.best_seed)
    weight, bias = (factors.weights[f"model.decoder.{name}"][row].numpy() for name in ("weight", "bias"))
    np.testing.assert_allclose(factors.decode(z), unit.outward(z.to_numpy() @ weight.T + bias), rtol=1e-5)
    shares = mixture.embed(x)
    assert list(shares) == ["component0", "component1", "component2"]
    means = np.stack([mixture.decode(row[None])[0] for row in np.eye(3)])
    np.testing.assert_allclose(mixture.decode(shares), shares.to_numpy() @ means, rtol=1e-6)
    with pytest.raises(DataError, match=r"takes \(N, 3\)"):
        mixture.decode(np.zeros((2, 2)))


# -- data frames of other libraries ------------------------------------------------------------------------------------


def test_what_goes_in_as_polars_comes_out_as_polars(mixed):
    frame = mixed.pair.data.frame("test")
    whole = frame.dropna()
    table = polars.from_pandas(whole)
    for told, ours in (("score", mixed.score(whole)), ("embed", mixed.embed(whole)), ("fill_gaps", whole)):
        theirs = getattr(mixed, told)(table)
        assert isinstance(theirs, polars.DataFrame)
        pd.testing.assert_frame_equal(theirs.to_pandas(), ours.reset_index(drop=True), check_dtype=False)
    gaps = polars.from_pandas(frame, nan_to_null=True)
    assert gaps.null_count().sum_horizontal()[0] > 0
    assert mixed.fill_gaps(gaps, draws=3).null_count().sum_horizontal()[0] == 0
    np.testing.assert_array_equal(mixed.encode(gaps), mixed.encode(frame))
    with pytest.raises(DataError, match="no column 'city'"):
        mixed.score(table.drop("city"))


def test_polars_frames_are_loaded_as_pandas_frames_are(mixed):
    frame = mixed.pair.data.frame("train").reset_index(drop=True)
    table = polars.from_pandas(frame, nan_to_null=True)
    assert zoo.load_data(table).fingerprint == zoo.load_data(frame).fingerprint
    labelled = table.with_columns(polars.col("city").fill_null("Rome"))
    assert zoo.load_data(labelled, labels="city").names == ("weight", "children")
    assert zoo.Data.from_array(table, groups=frame["city"].fillna("")).features == 3


# -- pickle ------------------------------------------------------------------------------------------------------------


def test_a_pickled_run_is_a_saved_one(vae, iris):
    again = pickle.loads(pickle.dumps(vae))
    assert again.differences(vae) == []
    assert np.array_equal(again.log_evidence(iris.test.values, 9), vae.log_evidence(iris.test.values, 9))


def test_a_row_without_any_entry_scores_nothing_and_has_no_rank(vae, iris):
    x = iris.test.values[:3].copy()
    x[1] = np.nan
    scores = vae.score(x, samples=20)
    assert (scores.loc[1, ["log_evidence", "seed_sd"]] == 0).all() and np.isnan(scores.loc[1, "rank"])
    assert scores.loc[1, ["column_1", "column_2"]].isna().all() and scores.loc[[0, 2], "rank"].notna().all()
    assert (vae.log_evidence(x, samples=20)[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.empty((0, 4)), "x has no rows"),
        ([[1, 2, 3], [1, 2, 3, 4]], "x is a list, not an array of real numbers."),
        (np.ones((2, 4), complex), "x holds complex numbers"),
        (np.array([["a", 1, 2, 3]], dtype=object), "words need a data frame"),
        (polars.DataFrame({"a": [1.0]}).lazy(), "collect it first"),
        (np.full((1, 4), 4.7e30), "too far from the training rows"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_line(vae, x, told):
    with pytest.raises(DataError, match=told) as refused:
        vae.score(x)
    assert "\n" not in str(refused.value)


def test_latents_that_are_words_are_called_what_they_are(vae):
    with pytest.raises(DataError, match="z is a list, not an array of real numbers"):
        vae.decode([["a"]])
