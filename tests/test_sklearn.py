"""A pair as scikit-learn's estimators are: by its own checks, in a pipeline, a grid search and a pickle."""

import pickle

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import zoo
from zoo.sklearn import ZooDensity


@pytest.fixture
def unseeded():
    """scikit-learn's checks seed NumPy's own generator."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@parametrize_with_checks([ZooDensity(steps=5, samples=20)])
@pytest.mark.usefixtures("unseeded")
def test_a_vae_passes_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([ZooDensity("gmm-constrained[components=2]", seeds=2, steps=5)])
@pytest.mark.usefixtures("unseeded")
def test_a_mixture_passes_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def density(wine):
    return ZooDensity("gmm-constrained[components=3]", steps=400, random_state=0).fit(wine)


def test_its_scores_are_those_of_scikit_learns_mixture_with_its_parameters(density, wine):
    """The same means, covariances and weights, as scikit-learn writes them down."""
    unit, model = density.run_.pair.view, density.run_._program(0, gaps=False).model
    variance = model.likelihood(torch.arange(3)).variance
    theirs = GaussianMixture(3, covariance_type="diag")
    theirs.means_, theirs.weights_ = model.means.double().numpy(), model.logits.double().softmax(0).numpy()
    theirs.precisions_cholesky_ = variance.double().numpy() ** -0.5
    expected = theirs.score_samples(unit.inward(wine.to_numpy())) - unit.log_volume
    np.testing.assert_allclose(density.score_samples(wine), expected, rtol=1e-5)


def test_one_row_in_ten_is_odd(density, wine):
    odd = density.predict(wine) == -1
    assert odd.sum() == pytest.approx(0.1 * len(wine), abs=1)
    np.testing.assert_array_equal(odd, density.decision_function(wine) < 0)
    np.testing.assert_allclose(density.score(wine), density.score_samples(wine).mean())


def test_names_and_kinds_of_tables_are_kept(density, wine):
    assert density.feature_names_in_.tolist() == list(wine)
    names = ["component0", "component1", "component2"]
    assert density.get_feature_names_out().tolist() == names
    as_frame = clone(density).set_params(steps=5).set_output(transform="pandas").fit(wine)
    assert list(as_frame.transform(wine)) == names and as_frame.transform(wine).index.equals(wine.index)
    assert isinstance(ZooDensity(steps=5, random_state=0).fit(polars.from_pandas(wine)).sample(2, 0), polars.DataFrame)
    arrow = ZooDensity(steps=5, random_state=0).fit(pyarrow.Table.from_pandas(wine))
    assert isinstance(arrow.sample(2, 0), pyarrow.Table)
    as_table = density.set_output(transform="polars").transform(polars.from_pandas(wine))
    assert isinstance(as_table, polars.DataFrame)
    np.testing.assert_allclose(as_table.to_numpy().sum(axis=1), 1, rtol=1e-6)
    density.set_output(transform="default")
    assert density.inverse_transform(density.transform(wine)).shape == wine.shape
    assert list(density.sample(4, random_state=1)) == list(wine)
    with pytest.raises(ValueError, match="feature names should match"):
        density.score_samples(wine.rename(columns={"ash": "dust"}))


def test_a_pickle_scores_the_same(density, wine):
    again = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(again.score_samples(wine), density.score_samples(wine))


def test_a_grid_search_finds_the_floor_in_a_pipeline(wine):
    """A variance of at least one unit is far too wide for standardised wine, and a hundredth is not."""
    pipeline = make_pipeline(StandardScaler(), ZooDensity("gmm-constrained", steps=60, random_state=0))
    grid = {"zoodensity__options": [{"floor": 0.01, "components": 2}, {"floor": 4.0, "components": 2}]}
    search = GridSearchCV(pipeline, grid, cv=KFold(2, shuffle=True, random_state=0)).fit(wine)
    assert search.best_params_["zoodensity__options"]["floor"] == 0.01
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_words_and_gaps_are_taken_as_they_are():
    frame = zoo.load_data("penguins").frame("train")
    density = ZooDensity("mixed", steps=20, samples=50, random_state=0).fit(frame)
    assert np.isfinite(density.score_samples(frame)).all() and frame.isna().any(axis=None)
    drawn = density.sample(3, random_state=0)
    assert isinstance(drawn, pd.DataFrame) and drawn["species"].isin(["Adelie", "Chinstrap", "Gentoo"]).all()


def test_an_array_may_have_gaps():
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[::7, 1] = np.nan
    density = ZooDensity(steps=5, samples=20, random_state=0).fit(x)
    assert np.isfinite(density.score_samples(x)).all() and density.sample(2).shape == (2, 3)


def test_mistakes_are_value_errors_with_a_remedy():
    x = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match="contamination=2; give a share"):
        ZooDensity(contamination=2, random_state=0).fit(x)
    with pytest.raises(ValueError, match="flor"):
        ZooDensity(options={"flor": 1}, random_state=0).fit(x)
    with pytest.raises(ValueError, match="options=3: give them by name"):
        ZooDensity(options=3, random_state=0).fit(x)
    with pytest.raises(ValueError, match="minimum of 3"):
        ZooDensity().fit(pd.DataFrame(x[:2]))
