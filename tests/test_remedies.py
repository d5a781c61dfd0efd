"""What each remedy constrains, and what the bound that its card names is a bound of."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import FactorAnalysis

import zoo
from zoo.context import pyro_context, seeded
from zoo.engine import Engine, Replica
from zoo.models import GaussianMixture, OptimalVAE, PenalizedMixture
from zoo.models.emissions import SharedNormal
from zoo.objectives import pinball
from zoo.parts import OBJECTIVES


@pytest.fixture(scope="module")
def data():
    """Two factors in five columns, one of which is constant."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(120, 4))
    return zoo.Data.from_array(np.column_stack([x, np.full(120, 2.0)]), name="factors")


def objective_of(pair, x, value=lambda loss: -loss.value, kl_weight=1.0):
    with seeded(0), pyro_context():
        return value(OBJECTIVES.make(pair.card.objective)(pair.model, pair.guide, x, kl_weight))


def scaled(pair, data):
    return torch.as_tensor(pair.view.inward(data.train.values))


def pushed_up(pair, x, steps=300, rate=0.1, **value):
    """The highest objective that Adam reaches, with the largest steps."""
    program = Replica(pair.model, pair.guide).double()
    if hasattr(pair.model, "initialise"):
        with seeded(0):
            pair.model.initialise(x)
    adam = torch.optim.Adam(program.parameters(), rate)
    highest = -math.inf
    for _ in range(steps):
        loss = -objective_of(pair, x, **value)
        highest = max(highest, -loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return highest


def test_a_variance_a_column_finds_the_noise_of_each_column():
    rng = np.random.default_rng(0)
    noise = np.array([0.5, 0.6, 0.8, 1.6, 0.7, 0.5, 1.0, 0.9, 0.7, 1.2])
    angle = np.arange(10)
    x = rng.normal(size=(3000, 2)) @ np.stack([np.cos(angle), np.sin(angle)]) + noise * rng.normal(size=(3000, 10))
    data = zoo.Data.from_array(x, name="factors", resolution=None)
    pair = zoo.create("gaussian-column:full-rank", data, latent_dim=2, hidden=(32,))
    run = zoo.fit(pair, data, seeds=1, steps=1500, learning_rate=5e-3, progress=False)
    found = run.weights["model.emission.log_scale"][0].exp().numpy() * pair.view.scale
    reference = FactorAnalysis(2).fit(data.train.values).noise_variance_ ** 0.5  # by scikit-learn
    np.testing.assert_allclose(found, reference, rtol=0.1)
    np.testing.assert_allclose(reference, noise, rtol=0.15)


@pytest.mark.slow
def test_one_column_of_few_values_is_enough_for_the_collapse_of_its_variance():
    x = np.random.default_rng(0).normal(size=(40, 3))
    for few in (np.ones(40), np.arange(40) % 3 - 1.0):
        data = zoo.Data.from_array(np.column_stack([x, few]), support="real", resolution=None)
        path = zoo.witness(zoo.create("gaussian-column", data, hidden=(4,)), data.train)
        assert path.grows and path.needs == "" and "column of fewest" in path.path
        clipped = zoo.witness(zoo.create("gaussian-column", data, hidden=(4,), soft_clip=-3.0), data.train)
        assert not clipped.grows and (clipped.log_likelihood <= clipped.bound).all()
    assert "27 units" in zoo.witness(zoo.create("gaussian-column", zoo.Data.from_array(x), hidden=(4,)), x[:28]).needs


def test_the_prior_bounds_what_the_likelihood_of_tanh_units_may_gain(data):
    pair = zoo.create("gaussian-map", data, latent_dim=1, hidden=(3,))
    x = scaled(pair, data)[:3]
    n, d, h = len(x), x.shape[1], 3
    # log p(X, θ) <= D(H + 1) n² / 8 - (nD/2) log 2π, here per datum
    bound = d * (h + 1) * n / 8 - d / 2 * math.log(2 * math.pi)
    unpenalised = zoo.create("gaussian-learned", data, latent_dim=1, hidden=(3,))
    assert pushed_up(unpenalised, x, steps=400) > bound
    reached = pushed_up(pair, x, steps=400)
    assert -math.inf < reached < bound
    assert float(pair.model.rows) == n


def test_the_prior_of_a_mixture_bounds_it_even_on_one_datum(data):
    pair = zoo.create("gmm-map", data, components=3)
    x = scaled(pair, data)
    reached = pushed_up(pair, x)
    assert reached < pair.model.log_penalized_bound(len(x))
    with seeded(0):
        worst = PenalizedMixture(2, 5, "diagonal", 0.01).double()
        worst.initialise(x)
    densities = []
    with torch.no_grad():
        worst.means[0] = x[0]
        for log_variance in (0.0, -10.0, -20.0, -40.0):
            worst.covariance.log_excess[0] = log_variance
            total = worst.likelihood(torch.arange(2)).log_prob(x[:, None]) + worst.logits.log_softmax(0)
            densities.append(float(total.logsumexp(-1).mean() + worst.log_prior()))
    assert densities == sorted(densities, reverse=True)  # a collapse onto one datum costs more than it gains


@pytest.mark.parametrize("covariance", ["diagonal", "spherical", "full", "tied"])
def test_the_prior_is_an_inverse_wishart(covariance):
    with seeded(0):
        model = PenalizedMixture(3, 2, covariance, 0.01).double()
        for parameter in model.covariance.parameters():
            parameter.data.normal_(0, 0.5)
    model.rows.fill_(7)
    fn = model.likelihood(torch.arange(3))
    matrices = (
        fn.covariance_matrix if covariance in ("full", "tied") else torch.diag_embed(fn.variance)
    ).detach().numpy()[: model.covariances]  # fmt: skip
    expected = sum(stats.invwishart(4, np.diag(model.scale.numpy())).logpdf(m) for m in matrices) / 7
    constant = len(matrices) * stats.invwishart(4, np.diag(model.scale.numpy())).logpdf(np.eye(2)) / 7
    identity = -len(matrices) * float(model.scale.sum()) / 2 / 7
    assert model.log_prior().item() == pytest.approx(expected - constant + identity, rel=1e-9)


@pytest.mark.parametrize("covariance", ["diagonal", "spherical", "full", "tied"])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_the_ratio_holds_over_all_components(covariance, spread):
    with seeded(1):
        model = GaussianMixture(4, 3, covariance, ratio=10.0).double()
        for parameter in model.covariance.parameters():
            parameter.data.normal_(0, spread)
    fn = model.likelihood(torch.arange(4))
    matrices = fn.covariance_matrix if covariance in ("full", "tied") else torch.diag_embed(fn.variance)
    eigenvalues = torch.linalg.eigvalsh(matrices)
    assert eigenvalues.max() <= 10 * eigenvalues.min() * (1 + 1e-6)
    assert eigenvalues.max() > 1.01 * eigenvalues.min() or covariance == "spherical"


def test_a_ratio_stays_below_hathaways_bound(data):
    pair = zoo.create("gmm-ratio", data, components=3, ratio=10.0)
    x = scaled(pair, data)
    scatter = torch.linalg.eigvalsh(x.T.cov(correction=0) * len(x)).flip(0)
    rest, (n, d) = float(scatter[2:].sum()), x.shape
    bound = -d / 2 * (math.log(2 * math.pi * rest / (10.0 * n * d)) + 1)
    assert pushed_up(pair, x) < bound


def test_a_ratio_mixture_starts_from_the_data(data):
    for covariance in ("diagonal", "full"):
        pair = zoo.create("gmm-ratio", data, components=1, covariance=covariance, ratio=1e4)
        x = scaled(pair, data)
        with seeded(0):
            pair.model.double().initialise(x)
        fn = pair.model.likelihood(torch.zeros(1, dtype=torch.long))
        expected = torch.where(x.var(0, correction=0) > 0, (x - fn.mean).square().mean(0), 1.0)
        torch.testing.assert_close(fn.variance[0], expected, rtol=1e-4, atol=0)


def test_a_decoders_ratio_holds_over_all_latents(data):
    pair = zoo.create("gaussian-ratio", data, ratio=5.0)
    with seeded(0), torch.no_grad():
        for parameter in pair.model.decoder.parameters():
            parameter.mul_(30)
        variance = pair.model.likelihood(torch.randn(1000, 8)).variance
    assert 4.0 < variance.max() / variance.min() <= 5.0 * (1 + 1e-5)


def test_quantiles_are_ordered_and_their_objective_is_bounded(data):
    pair = zoo.create("gaussian-quantile", data, latent_dim=3)
    x = scaled(pair, data)[:4]
    assert pushed_up(pair, x, steps=400, value=lambda loss: loss.diagnostics["kl"] - loss.value) <= 0
    fn = pair.model.likelihood(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double())
    assert (fn.variance > 0).all()


def test_pinball_is_least_at_the_quantiles():
    x = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0)).double()
    losses = {}
    for shift in (-0.2, 0.0, 0.2):
        for factor in (0.8, 1.0, 1.2):
            fn = torch.distributions.Normal(torch.tensor([shift]).double(), torch.tensor([factor]).double())
            losses[shift, factor] = float(pinball(fn, x).mean())
    assert min(losses, key=losses.get) == (0.0, 1.0)


@pytest.mark.parametrize("clip", [None, -2.0])
def test_one_shared_variance(data, clip):
    pair = zoo.create("gaussian-shared", data, soft_clip=clip)
    scale = pair.model.likelihood(torch.linspace(-2, 2, 240).reshape(30, 8)).variance.sqrt()
    assert scale.unique().numel() == 1
    pair.model.emission.log_scale.data.fill_(-50.0)
    bound = pair.model.log_density_bound(5)
    fn = pair.model.likelihood(torch.zeros(1, 8))
    assert fn.log_prob(fn.mean).item() <= bound
    assert math.isinf(bound) == (clip is None)
    if clip is not None:
        assert fn.log_prob(fn.mean).item() == pytest.approx(bound, rel=1e-6)


def test_the_optimal_variance_is_settled_on_the_training_part(data):
    run = zoo.fit(
        zoo.create("gaussian-shared", data, optimal=True, latent_dim=2), data, seeds=2, steps=300, progress=False
    )
    x = torch.as_tensor(run.pair.view.inward(data.train.values)).float()

    def mean_square(model, guide):
        assert not model.training
        z = torch.stack([guide.encoder(x)[..., 0, :] for _ in range(1)])[0]
        draws = z + (guide.encoder(x)[..., 1, :] / 2).exp() * torch.randn(50, *z.shape)
        return float((x - model.decoder(draws)[..., 0, :]).square().mean()), float(model.emission.log_scale.exp() ** 2)

    for expected, settled in run.each_seed(mean_square, stream=0):
        assert settled == pytest.approx(expected, rel=0.05)
    learned = zoo.fit(zoo.create("gaussian-shared", data, latent_dim=2), data, seeds=2, steps=300, progress=False)
    assert isinstance(learned.pair.model.emission, SharedNormal)
    assert isinstance(run.pair.model, OptimalVAE)
    rows = data.test.values
    alone = run.log_evidence(rows[:1], samples=50)
    assert alone.shape == (2, 1)  # a datum's score does not depend on the data beside it
    weights = run.weights["model.emission.log_scale"]
    assert weights.shape == (2,)
    assert weights[0] != weights[1]


@pytest.mark.parametrize("kl_weight", [1.0, 0.1])
def test_the_second_stage_never_moves_the_first(kl_weight, data):
    pair = zoo.create("gaussian-two-stage", data, latent_dim=2)
    x = scaled(pair, data)
    program = Replica(pair.model, pair.guide).double()
    objective_of(pair, x, kl_weight=kl_weight).backward()
    first = {n: p.grad.clone() for n, p in program.named_parameters() if ".first." in f".{n}"}
    for parameter in pair.model.second.parameters():
        parameter.data += 1.0
    program.zero_grad()
    objective_of(pair, x, kl_weight=kl_weight).backward()
    again = dict(program.named_parameters())
    assert first
    assert all(torch.equal(gradient, again[name].grad) for name, gradient in first.items())


@pytest.mark.usefixtures("quick_scores")
def test_two_stages_are_scored_jointly(data):
    run = zoo.fit(zoo.create("gaussian-two-stage", data, latent_dim=2), data, seeds=1, steps=50, progress=False)
    tree = zoo.evaluate(run, data, samples=100, temperatures=5)
    assert tree["heldout"]["log_evidence"].notnull().all()
    assert set(tree["posterior"].data_vars) >= {"z", "u"}


def test_a_penalty_is_recorded_beside_the_elbo(data):
    pair = zoo.create("gaussian-map", data, latent_dim=2)
    trace = zoo.fit(pair, data, seeds=1, steps=20, progress=False).tree["optimization"]
    assert (trace["objective"] < trace["elbo"]).all()
    plain = zoo.fit(zoo.create("gmm-ratio", data), data, seeds=1, steps=20, progress=False).tree["optimization"]
    assert np.array_equal(plain["objective"], plain["elbo"])


def test_the_prior_counts_the_training_rows_once(data):
    pair = zoo.create("gmm-map", data)
    x = scaled(pair, data).float()
    engine = Engine(pair, [0], x, objective=OBJECTIVES.make("penalized"), schedule=lambda _: (1e-3, 1.0), batch_size=16)
    assert engine.buffers["model.rows"].tolist() == [len(x)]
