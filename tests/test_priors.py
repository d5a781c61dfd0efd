"""Priors as parts of a VAE: densities, draws, what is learned of them, and what is shared with the guide."""

import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from torch import nn

import zoo
from zoo.context import pyro_context, seeded
from zoo.engine import Replica
from zoo.errors import Unknown
from zoo.guides import SplineLayer
from zoo.inference import LogWeights, log_mean_exp
from zoo.models import VAE, FlowPrior, MixturePrior, StandardNormal, VampPrior
from zoo.models.emissions import ConstrainedNormal, FixedNormal, LearnedNormal, Poisson
from zoo.objectives import terms, traces
from zoo.pairs import VAEOptions, decoder, encoder
from zoo.testing import check_engine, make_subject
from zoo.wellposed import witness


class Normals(nn.Module):
    """What a guide of the zoo has beside its program: an encoder, and q(z | x) by its numbers."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def distribution(self, numbers):
        mean, log_variance = numbers.unbind(-2)
        return dist.Normal(mean, (log_variance / 2).exp()).to_event(1)

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.distribution(self.encoder(x)))


def small_encoder(features, latent_dim):
    return nn.Sequential(
        nn.Linear(features, 6), nn.Tanh(), nn.Linear(6, 2 * latent_dim), nn.Unflatten(-1, (2, latent_dim))
    )


def flow(latent_dim, layers):
    return FlowPrior(latent_dim, [SplineLayer(latent_dim, 8, 8, context=1) for _ in range(layers)])


PRIORS = {
    "normal": lambda latent_dim, _: StandardNormal(latent_dim),
    "mixture": lambda latent_dim, _: MixturePrior(latent_dim, 3),
    "vamp": lambda _, guide: VampPrior(guide, 4, 3),
    "flow": lambda latent_dim, _: flow(latent_dim, 3),
}


def made(name, latent_dim, moved=0.15):
    """A prior in double precision, with parameters that are not where they start."""
    with seeded(0):
        prior = PRIORS[name](latent_dim, Normals(small_encoder(3, latent_dim))).double()
        for parameter in prior.parameters():
            parameter.data += moved * torch.randn_like(parameter)
    return prior


def grid(latent_dim):
    """Points (M, L) and the volume that each stands for."""
    at = torch.linspace(-12, 12, {1: 20001, 2: 601}[latent_dim], dtype=torch.float64)
    return torch.cartesian_prod(*[at] * latent_dim).reshape(-1, latent_dim), (at[1] - at[0]) ** latent_dim


def normal(*shape):
    with seeded(2):
        return torch.randn(*shape, dtype=torch.float64)


def of(prior):
    return prior(torch.zeros(5, 3, dtype=torch.float64))


# -- densities and draws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("name", PRIORS)
def test_a_density_integrates_to_one_and_is_that_of_the_draws(name, latent_dim):
    fn = of(made(name, latent_dim))
    assert fn.batch_shape == () and fn.event_shape == (latent_dim,)
    z, volume = grid(latent_dim)
    with torch.no_grad():
        mass = fn.log_prob(z).exp() * volume
        assert mass.sum().item() == pytest.approx(1, abs=1e-5)
        with seeded(1):
            drawn = fn.expand((4, 5000)).sample()
    assert drawn.shape == (4, 5000, latent_dim) and drawn.dtype == torch.float64
    for f in (torch.sin, torch.tanh, lambda z: z.square(), lambda z: (z > 0.3).double(), lambda z: z.prod(-1)):
        expected, found = (mass @ f(z)), f(drawn).flatten(0, 1)
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / len(found) ** 0.5 + 1e-4).all()


@pytest.mark.parametrize("name", PRIORS)
def test_a_batch_of_any_shape_is_that_of_its_parts(name):
    fn = of(made(name, 2))
    z = normal(3, 4, 2)
    apart = torch.stack([fn.log_prob(row) for row in z.flatten(0, 1)]).reshape(3, 4)
    torch.testing.assert_close(fn.expand((3, 4)).log_prob(z), apart, rtol=1e-12, atol=1e-12)


def test_a_mixture_is_scipys():
    prior = made("mixture", 2)
    logits, means, scales = (p.detach().numpy() for p in (prior.logits, prior.means, prior.log_scales.exp()))
    z = np.random.default_rng(0).normal(size=(50, 2))
    weights = np.exp(logits - logsumexp(logits))
    expected = logsumexp(
        [multivariate_normal(m, np.diag(s**2)).logpdf(z) for m, s in zip(means, scales, strict=True)],
        axis=0,
        b=weights[:, None],
    )
    np.testing.assert_allclose(of(prior).log_prob(torch.as_tensor(z)).detach(), expected, rtol=1e-12)
    given = prior.given(torch.tensor([2, 0])).log_prob(torch.as_tensor(z[:2])).detach()
    for found, c, at in zip(given, (2, 0), z, strict=False):
        assert found.item() == pytest.approx(norm(means[c], scales[c]).logpdf(at).sum(), rel=1e-12)


def test_a_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs():
    prior = made("vamp", 2)
    numbers = prior.guide.encoder(prior.pseudo_inputs).detach().numpy()
    z = np.random.default_rng(0).normal(size=(50, 2))
    each = [norm(mean, np.exp(v / 2)).logpdf(z).sum(-1) for mean, v in numbers]
    expected = logsumexp(each, axis=0) - np.log(len(each))
    np.testing.assert_allclose(of(prior).log_prob(torch.as_tensor(z)).detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_a_flow_starts_near_the_standard_normal_and_can_be_it(latent_dim):
    with seeded(0):
        prior = flow(latent_dim, 4).double()
        z = torch.randn(100, latent_dim, dtype=torch.float64)
    plain = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    far = (of(prior).log_prob(z) - plain).abs().max()
    assert 0 < far < 0.2 * latent_dim
    prior.standardise()
    torch.testing.assert_close(of(prior).log_prob(z), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_a_gradient_reaches_every_parameter(name, latent_dim):
    prior = made(name, latent_dim, moved=0.0)
    of(prior).log_prob(normal(20, latent_dim)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prior.parameters())


# -- in a VAE ----------------------------------------------------------------------------------------------------------


def test_the_default_prior_has_nothing_to_learn_or_to_keep():
    with seeded(0):
        model = VAE(nn.Linear(2, 3), 2)
    assert isinstance(model.prior, StandardNormal) and [*model.state_dict()] == ["decoder.weight", "decoder.bias"]
    fn = of(model.prior)
    assert fn.mean.dtype == torch.float64
    assert fn.log_prob(normal(1, 2)).item() == pytest.approx(norm.logpdf(normal(1, 2)).sum(), rel=1e-12)


def test_a_subclass_may_have_a_method_prior_but_not_be_given_another():
    class Wide(VAE):
        def prior(self, x):
            return dist.Normal(x.new_zeros(self.latent_dim), 2.0).to_event(1)

    with seeded(0):
        network = small_encoder(2, 3)
    model = Wide(network, 2, FixedNormal(1.0))
    assert (model.prior(torch.zeros(1, 3)).stddev == 2).all()
    model.initialise(torch.zeros(4, 3))
    with pytest.raises(TypeError, match=r"Wide has its own prior\(x\)"):
        Wide(network, 2, FixedNormal(1.0), StandardNormal(2))


def test_the_evidence_under_a_mixture_is_that_of_quadrature():
    with seeded(0):
        network = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 3), nn.Unflatten(-1, (1, 3)))
        guide = Normals(small_encoder(3, 1)).double()
        model = VAE(network, 1, FixedNormal(1.0), made("mixture", 1)).double()
        guide.encoder[2].bias.data[1] += 2  # wider than any posterior
        x = torch.randn(8, 3, dtype=torch.float64)
        with torch.no_grad(), pyro_context():
            weights = LogWeights(20_000)(model, guide, x)
    z, volume = grid(1)
    with torch.no_grad():
        joint = model.likelihood(z).log_prob(x[:, None]) + of(model.prior).log_prob(z)
    exact = joint.logsumexp(-1) + volume.log()
    error = (weights - log_mean_exp(weights)).exp().std(0) / len(weights) ** 0.5
    assert error.max() < 0.1
    assert ((log_mean_exp(weights) - exact).abs() < 5 * error).all()


def registered(prior, emission=lambda: ConstrainedNormal(0.01), support="real", bounded=True):
    """A pair of the zoo's networks under a prior, made of (guide, latent_dim, features)."""
    bound = {"bounded": True, "bound": "b"} if bounded else {"bounded": False}
    measure = {"base_measure": "mass"} if support == "count" else {}

    @zoo.register("own", title="Own", summary="", formula="", support=support, reference="", **bound, **measure)
    def build(data: zoo.Data, options: VAEOptions):
        likelihood, guide = emission(), Normals(encoder(data, options, 2, support))
        shape = prior(guide, options.latent_dim, data.features)
        return VAE(decoder(data, options, likelihood.outputs), options.latent_dim, likelihood, shape), guide

    return {"latent_dim": 3, "hidden": (6,)}


MADE = {
    "mixture": lambda _guide, latent_dim, _: MixturePrior(latent_dim, 4),
    "vamp": lambda guide, _, features: VampPrior(guide, 4, features),
    "flow": lambda _guide, latent_dim, _: flow(latent_dim, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_pair_under_each_prior_passes_the_kit(name, catalogue):
    """Gradients and captured steps against Pyro's own, two seeds beside each other, a run from disk, ..."""
    options = registered(MADE[name])
    unknown = zoo.testing.check_pair("own", **options)
    assert unknown == (["witness: " + NO_PATH] if name == "vamp" else [])
    assert check_engine(make_subject("own", **options)) == "capture"


NO_PATH = "the path is integrated over a standard normal prior, and VAE has another"


def test_the_witness_grows_under_a_prior_that_can_be_standard_normal(catalogue, iris):
    for name, prior in MADE.items():
        pair = zoo.create("own", iris, **registered(prior, LearnedNormal, bounded=False))
        if name == "vamp":
            with pytest.raises(Unknown, match=NO_PATH):
                witness(pair, iris.train)
        else:
            assert witness(pair, iris.train).grows


# -- what a VampPrior shares with the guide ----------------------------------------------------------------------------


@pytest.fixture
def counts(catalogue):
    """A pair of counts, whose encoder sees logarithms, under a VampPrior; as many rows as pseudo-inputs."""
    options = registered(MADE["vamp"], Poisson, "count")
    return zoo.create("own", zoo.testing.example_data("count", features=5), **options)


def test_pseudo_inputs_start_at_rows_as_the_network_sees_them(counts):
    pair = counts.replica(1)
    x = torch.as_tensor(counts.view.inward(counts.data.train.values), dtype=torch.float32)
    with seeded(0):
        pair.model.initialise(x)
    seen = pair.guide.encoder.seen(x)
    found = [(seen == row).all(1).nonzero()[0].item() for row in pair.model.prior.pseudo_inputs]
    assert len(set(found)) == 4
    torch.testing.assert_close(pair.guide.encoder(x), pair.guide.encoder.network(seen), rtol=0, atol=0)
    assert not torch.equal(seen, x)
    with seeded(0):  # more than there are rows
        pair.model.prior.initialise(x[:3])
    assert len(pair.model.prior.pseudo_inputs.unique(dim=0)) == 3


def test_shared_parameters_have_one_name_and_stay_shared(counts):
    program = Replica(counts.model, counts.guide)
    names = [name for name, _ in program.named_parameters()]
    assert not any(name.startswith("guide.") for name in names)
    assert "model.prior.guide.encoder.network.0.weight" in names
    twin = copy.deepcopy(program).double().train().eval()
    assert twin.model.prior.guide.encoder is twin.guide.encoder is not program.guide.encoder
    assert [name for name, _ in twin.named_parameters()] == names


def test_the_gradient_of_a_shared_parameter_is_the_sum_of_both(counts):
    """With two copies of the encoder in the place of one, in double precision; the kit has the captured step's."""
    pair = counts.replica(1)
    model, guide = pair.model.double(), pair.guide.double()
    x = torch.as_tensor(counts.view.inward(counts.data.train.values))[:9]
    apart = copy.deepcopy(model)
    gradients = []
    for programs in ((model, guide), (apart, guide)):
        with seeded(0), pyro_context():
            value = terms(*traces(*programs, x), len(x)).elbo
        weights = [programs[0].prior.guide.encoder.network[0].weight, guide.encoder.network[0].weight]
        gradients.append(torch.autograd.grad(value, weights))
    (whole, same), (of_prior, of_guide) = gradients
    assert torch.equal(whole, same) and of_prior.abs().max() > 0 and of_guide.abs().max() > 0
    torch.testing.assert_close(whole, of_prior + of_guide, rtol=1e-10, atol=1e-12)


def test_a_run_of_shared_parameters_is_trained_and_comes_back(counts, tmp_path):
    settings = {"seeds": 2, "steps": 40, "progress": False, "learning_rate": 1e-2}
    run = zoo.fit(counts, counts.data, **settings)
    loaded = zoo.load_run(run.save(tmp_path / "run"))
    assert loaded.differences(run) == []
    (same,) = run.each_seed(lambda model, guide: model.prior.guide.encoder is guide.encoder, 0)[:1]
    assert same
    moved = run.weights["model.prior.pseudo_inputs"]
    assert moved.shape == (2, 4, 5) and not torch.equal(moved[0], moved[1])
    x = counts.data.test.values[:6]
    assert np.array_equal(run.log_evidence(x, samples=50), loaded.log_evidence(x, samples=50))
    off = zoo.fit(counts, counts.data, compile="off", **settings)
    for name, weights in run.weights.items():
        torch.testing.assert_close(weights, off.weights[name], rtol=0, atol=2e-3)
