"""Which pairs are the same model of the data as loaded whether columns are scaled alike or each by itself."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis

import zoo
from zoo.context import seeded

RNG = np.random.default_rng(0)
FACTORS = 3 * RNG.normal(size=(600, 2)) @ RNG.normal(size=(2, 6))
ROWS = FACTORS * [0.1, 1, 1, 5, 5, 20] + RNG.normal(size=(600, 6))  # columns of widths that differ, and one noise
# those whose every constant a change of units can take up; floors, ratios and priors are in scaled units by definition
FREE = [("gaussian-learned", {}), ("linear-diagonal", {})]
SHARED = {"gaussian-identity", "gaussian-shared", "gaussian-two-stage", "linear-shared"}
MIXTURES = [("gmm", {"covariance": covariance}) for covariance in ("diagonal", "full", "tied")]


@pytest.fixture(scope="module")
def scaled():
    """The same rows and split, scaled by column and all alike."""
    return [zoo.Data.from_array(ROWS, scaling=kind) for kind in ("column", "scalar")]


def rescale(model, ratio, shift):
    """Make a model of x the same model of ratio * x + shift."""
    with torch.no_grad():
        match type(getattr(model, "emission", None) or model).__name__:
            case "LearnedNormal":
                weight, bias = (part.unflatten(0, (2, -1)) for part in model.decoder[-2].parameters())
                weight[0] *= ratio[:, None]
                bias[0].mul_(ratio).add_(shift)
                bias[1] += 2 * ratio.log()
            case "FactorAnalysis":
                model.decoder.weight *= ratio[:, None]
                model.decoder.bias.mul_(ratio).add_(shift)
                model.log_scale += ratio.log()
            case "GaussianMixture":
                model.means.mul_(ratio).add_(shift)
                for name, parameter in model.covariance.named_parameters():  # variances, or the rows of a factor
                    parameter += {"log_excess": 2, "log_diagonal": 1, "below": 0}[name] * ratio.log()


@pytest.mark.parametrize(("name", "options"), FREE + MIXTURES)
def test_a_pair_without_constants_in_scaled_units_has_one_density_as_loaded(name, options, scaled):
    pairs = [zoo.create(name, data, **options) for data in scaled]
    by_column, alike = (pair.model.double() for pair in pairs)
    with seeded(0), torch.no_grad():
        for parameter in by_column.parameters():
            parameter.normal_(0, 0.5)
        z = torch.randn(5, 8).double() if hasattr(by_column, "latent_dim") else torch.arange(5)
    alike.load_state_dict(by_column.state_dict())
    (of_columns, of_all) = (torch.as_tensor(pair.view.scale) for pair in pairs)
    (centers, center) = (torch.as_tensor(pair.view.center) for pair in pairs)
    rescale(alike, of_columns / of_all, (centers - center) / of_all)
    densities = [
        model.likelihood(z).log_prob(torch.as_tensor(pair.view.inward(ROWS[:9]))[:, None]) - pair.view.log_volume
        for model, pair in zip((by_column, alike), pairs, strict=True)
    ]
    torch.testing.assert_close(*densities, rtol=1e-9, atol=1e-9)


def test_cards_say_which_variance_is_one_in_scaled_units():
    assert {name for name in zoo.list_pairs(support="real") if zoo.card(name).in_scaled_units} == SHARED


def highest(kind, data, part="test"):
    """Mean log density of a part, as loaded, at the maximum of the likelihood of the training part, by scikit-learn."""
    return kind.fit(data.scaled("train")).score(data.scaled(part)) - data.scaling.log_volume


def test_factor_analysis_is_one_model_under_both_scalings_and_probabilistic_pca_two(scaled):
    analysis = FactorAnalysis(2, svd_method="lapack", tol=1e-9, max_iter=20_000)
    assert highest(analysis, scaled[0]) == pytest.approx(highest(analysis, scaled[1]), abs=1e-3)
    by_column, alike = (highest(PCA(2, svd_solver="full"), data) for data in scaled)
    assert alike > by_column + 0.5  # nats per datum: these rows are probabilistic PCA's own
    assert alike > highest(analysis, scaled[0])  # and its fewer parameters generalise better
    assert zoo.card("linear-shared").in_scaled_units and not zoo.card("linear-diagonal").in_scaled_units
