"""Options under the names of published codes, and what a newcomer met with pairs that are not of real numbers."""

import numpy as np
import pytest
import torch
from scipy import stats

import zoo
from zoo.errors import OptionError
from zoo.models.emissions import ContinuousBernoulli, LogisticMixtureOrdinal


def test_a_preset_sets_options_and_none_that_is_said_too(iris):
    assert zoo.create("student-t[preset=miwae]", iris).options.smallest == 1e-3
    assert zoo.create("gaussian-column", iris, preset="tvae").options.soft_clip == pytest.approx(np.log(0.01))
    assert zoo.create("student-t[preset=miwae]", iris, latent_dim=3).options.latent_dim == 3
    with pytest.raises(OptionError, match="preset=miwae sets smallest, which is also given: leave one out"):
        zoo.create("student-t[preset=miwae, smallest=0.1]", iris)
    with pytest.raises(OptionError, match="preset='tvae'; choose from takahashi, miwae, not-miwae"):
        zoo.create("student-t[preset=tvae]", iris)
    with pytest.raises(OptionError, match="preset='tvae'; this pair has none"):
        zoo.create("laplace[preset=tvae]", iris)


@pytest.mark.parametrize("name", [name for name in zoo.list_pairs() if zoo.card(name).presets])
def test_a_preset_has_the_cap_that_its_bound_says(name):
    card = zoo.card(name)
    for preset in card.presets:
        pair = zoo.create(f"{name}[preset={preset.name}]", zoo.testing.example_data(card.support))
        cap = pair.model.log_density_bound(1)
        # nats per value: from a continuous Bernoulli's to that of a deviation of 1e-6
        assert cap == 0 if card.base_measure == "mass" else 2 < cap < 13
        assert preset.link.startswith("https://")


@pytest.mark.usefixtures("quick_scores", "blank_pictures")
def test_a_report_tells_of_floors_that_are_none_and_of_presets(iris, tmp_path):
    runs = []
    for name in ("gaussian-low-rank", "gaussian-constrained[preset=suave]"):
        runs.append(zoo.fit(zoo.create(name, iris, latent_dim=2, hidden=(4,)), iris, seeds=1, steps=5, progress=False))
        zoo.evaluate(runs[-1], iris, samples=20, temperatures=0, reference=0)
    page = zoo.report(runs, tmp_path).read_text(encoding="utf-8")
    assert "suave: variance clipped to at least 1e-6" in page
    assert "No value scores more than 5.99 nats in scaled units" in page


@pytest.mark.parametrize("name", ["log-normal", "beta-binomial", "poisson", "truncated-normal", "cumulative-logit"])
def test_gaps_in_new_rows_of_a_pair_that_was_trained_on_complete_ones(name):
    data = zoo.testing.example_data(zoo.card(name).support, features=4)
    run = zoo.fit(zoo.create(name, data, latent_dim=2, hidden=(4,)), data, seeds=1, steps=5, progress=False)
    x = data.test.values[:3].copy()
    x[0, 1] = np.nan
    assert np.isfinite(run.log_evidence(x, samples=50)).all()
    filled = run.impute(x, draws=2, method="importance")
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("name", ["beta", "logit-normal"])
def test_an_exact_end_is_refused_where_it_has_no_density(name):
    x = np.random.default_rng(0).random((60, 3))
    x[::7, 0] = 1.0
    data = zoo.Data.from_array(x, support="unit")
    with pytest.raises(OptionError, match="is defined only for 0 < x < 1, and the data hold 1 "):
        zoo.fit(zoo.create(name, data), data, seeds=1, steps=2, progress=False)


def test_a_collapse_is_seen_where_the_rest_of_the_data_lose_more(iris):
    found = zoo.witness(zoo.create("gaussian-natural", iris), iris.train)
    assert found.grows and found.gain == pytest.approx(4 / 2 * np.log(2), rel=0.1)
    assert "grows without end, by" in str(found)


def test_a_clip_keeps_a_continuous_bernoulli_from_its_ends():
    """Against torch's own at the clipped probability, and a bound that is met at the ends alone."""
    emission = ContinuousBernoulli(1e-3)
    numbers = torch.tensor([[-40.0, -2.0, 0.5, 40.0]]).double()
    probability = 1e-3 + (1 - 2e-3) * torch.sigmoid(numbers[0])
    x = torch.linspace(0, 1, 11)[:, None].double()
    expected = torch.distributions.ContinuousBernoulli(probability).log_prob(x)
    np.testing.assert_allclose(emission(numbers).log_prob(x), expected, rtol=1e-6)
    assert expected.max().item() == pytest.approx(emission.log_density_bound(), rel=1e-6)
    means = torch.tensor([0.2, 0.5, 0.8])
    np.testing.assert_allclose(emission(emission.start(means.expand(4, 3))).mean, means, atol=1e-4)
    assert ContinuousBernoulli().log_density_bound() == np.inf


@pytest.mark.parametrize("clip", [1e-5, 1e-7, 1e-9, 1e-12])
def test_a_small_clip_holds_in_single_precision(clip):
    emission, numbers = ContinuousBernoulli(clip), torch.tensor([[-90.0, 90.0]], requires_grad=True)
    log_density = emission(numbers).log_prob(torch.tensor([0.0, 1.0]))
    assert (log_density <= emission.log_density_bound() + 1e-6).all()
    assert log_density.detach() == pytest.approx(emission.log_density_bound(), rel=1e-5)
    assert torch.autograd.grad(log_density.sum(), numbers)[0].isfinite().all()


def test_the_smallest_scale_of_a_logistic_mixture_is_that_of_images_from_minus_one_to_one():
    emission = LogisticMixtureOrdinal([[float(v) for v in range(256)]], components=1, smallest=np.exp(-7))
    numbers = torch.tensor([[0.0], [0.0], [-1000.0]]).double()
    mass = emission(numbers).log_prob(torch.tensor([127.0]).double()).exp().item()
    grey = 2 * np.array([126.5, 127.5]) / 255 - 1  # of a scale of e^-7 there, about the middle
    assert mass == pytest.approx(np.diff(stats.logistic.cdf(grey, scale=np.exp(-7)))[0], rel=1e-4)


def test_a_preset_that_is_no_name_is_refused(iris):
    with pytest.raises(OptionError, match=r"student-t: preset=\['miwae'\]; choose from"):
        zoo.create("student-t", iris, preset=["miwae"])
