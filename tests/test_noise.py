"""Draws from lifted noise: their distributions and gradients, and pairs whose latents are not normal."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import integrate, stats
from torch import nn
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import zoo
from zoo.context import pyro_context, seeded
from zoo.engine import Engine
from zoo.models import VAE
from zoo.noise import PROPOSALS, Tape, dirichlet, standard_gamma
from zoo.objectives import ELBO
from zoo.pairs import VAEOptions, decoder, encoder

COMPILED = pytest.param("inductor", marks=pytest.mark.slow)  # tens of seconds of compilation
ALPHAS = [0.05, 0.3, 0.99, 1.0, 1.7, 8.0, 1000.0]
DRAWS = 40_000


def tape(draws, dtype=torch.float64, seed=0):
    """Noise for so many gammas."""
    generator = torch.Generator().manual_seed(seed)
    return Tape(
        normal=torch.randn(draws * PROPOSALS, generator=generator, dtype=dtype),
        uniform=torch.rand(draws * (PROPOSALS + 1), generator=generator, dtype=dtype),
    )


def parameter(*values, draws=DRAWS, dtype=torch.float64):
    """A row of parameters for each draw, so that each has a gradient of its own."""
    return torch.tensor(values, dtype=dtype).expand(draws, -1).clone().requires_grad_()


def drawn(make, *parameters, gammas, dtype=torch.float64, seed=0):
    with tape(gammas, dtype, seed):
        return pyro.sample("z", make(*parameters))


def assert_mean_is(gradient, expected):
    """Within four standard errors, or what torch's approximations of a gradient are off by."""
    error = gradient.std().item() / len(gradient) ** 0.5
    assert error < 0.05 * abs(expected)
    assert gradient.mean().item() == pytest.approx(expected, abs=4 * error + 1e-4 * abs(expected))


def test_categories_are_drawn_without_replacement():
    weights, draws = torch.tensor([4.0, 2.0, 1.0, 0.0]), 20_000
    with Tape(uniform=torch.rand(4 * draws, generator=torch.Generator().manual_seed(0))):
        found = torch.multinomial(weights.expand(draws, -1), 2, replacement=False)
    assert (found[:, 0] != found[:, 1]).all() and found.max() == 2
    for pair, expected in {(0, 1): 4 / 7 * 2 / 3, (1, 0): 2 / 7 * 4 / 5, (2, 0): 1 / 7 * 4 / 6}.items():
        share = (found == torch.tensor(pair)).all(1).double().mean().item()
        assert share == pytest.approx(expected, abs=4 * (expected / draws) ** 0.5)


# -- distributions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        dist.Normal(torch.zeros(3), 2.0),
        dist.Uniform(torch.zeros(3), 2.0),
        dist.Laplace(torch.zeros(3), 2.0),
        dist.Exponential(torch.full((3,), 2.0)),
        dist.LogNormal(torch.zeros(3), 1.0),
        dist.Cauchy(torch.ones(3), 2.0),
        dist.HalfCauchy(torch.full((3,), 2.0)),
    ],
    ids=lambda d: type(d).__name__,
)
def test_the_tape_feeds_draws_of_the_right_distribution(draw):
    generator = torch.Generator().manual_seed(0)
    noise = {
        "normal": torch.randn(30000, generator=generator),
        "uniform": torch.rand(30000, generator=generator),
    }
    with Tape(**noise):
        drawn = draw.rsample((4000,))
    assert stats.kstest(draw.cdf(drawn).flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("alpha", [*ALPHAS, 1e6])
def test_gammas_are_gammas(alpha, dtype):
    z = drawn(dist.Gamma, parameter(alpha, dtype=dtype), 2.0, gammas=DRAWS, dtype=dtype)
    assert z.dtype == dtype
    z = 2 * z.detach().double().numpy().ravel()
    underflown = z <= 4 * torch.finfo(dtype).tiny
    below = stats.gamma.cdf(z[underflown].max(initial=0), alpha)
    assert underflown.mean() == pytest.approx(below, abs=4 * (below / DRAWS) ** 0.5)
    assert below < 0.02
    z = z[~underflown]
    assert stats.kstest((stats.gamma.cdf(z, alpha) - below) / (1 - below), "uniform").pvalue > 0.01


@pytest.mark.parametrize("concentration", [(0.05, 0.4), (0.5, 0.5), (1.0, 3.0), (20.0, 300.0)])
def test_betas_are_betas(concentration):
    a, b = (parameter(c) for c in concentration)
    z = drawn(dist.Beta, a, b, gammas=2 * DRAWS).detach().numpy().ravel()
    assert stats.kstest(z, stats.beta(*concentration).cdf).pvalue > 0.01


def test_each_part_of_a_dirichlet_is_a_beta_and_they_add_up_to_1():
    alpha = [0.1, 0.7, 2.0, 5.0]
    z = drawn(dist.Dirichlet, parameter(*alpha), gammas=4 * DRAWS).detach()
    torch.testing.assert_close(z.sum(-1), torch.ones(DRAWS).double())
    for part, own in zip(z.T.numpy(), alpha, strict=True):
        assert stats.kstest(part, stats.beta(own, sum(alpha) - own).cdf).pvalue > 0.01
    correlation = np.corrcoef(z.T.numpy())[2, 3]
    assert correlation == pytest.approx(-math.sqrt(2 * 5 / ((7.8 - 2) * (7.8 - 5))), abs=0.02)


def test_shares_of_gammas_that_underflow_are_shares():
    """Of Gamma(0.01) in single precision two in five are below the smallest number."""
    concentration = parameter(0.01, dtype=torch.float32)
    z = drawn(dist.Beta, concentration, concentration, gammas=2 * DRAWS, dtype=torch.float32)
    (gradient,) = torch.autograd.grad((z.log() + torch.log1p(-z)).sum(), concentration)
    assert gradient.isfinite().all()
    assert ((z > 0) & (z < 1)).all()
    for below in (1e-30, 1e-6, 0.5, 1 - 1e-6):
        assert (z < below).double().mean().item() == pytest.approx(stats.beta.cdf(below, 0.01, 0.01), abs=0.01)


@pytest.mark.parametrize("alpha", [1.0, 1.7, 8.0])
def test_how_often_all_proposals_are_rejected(alpha):
    """By quadrature of Marsaglia and Tsang's own bound, and by the formula in the docstring."""
    d = alpha - 1 / 3

    def bound(x):
        v = (1 + x / math.sqrt(9 * d)) ** 3
        return math.exp(x**2 / 2 + d * (1 - v + math.log(v))) * stats.norm.pdf(x)

    accepted = integrate.quad(bound, -math.sqrt(9 * d) + 1e-12, 12, points=[0])[0]
    assert accepted == pytest.approx(
        math.exp(d) * math.gamma(alpha) * d ** (0.5 - alpha) / math.sqrt(2 * math.pi), rel=1e-8
    )
    assert (1 - accepted) ** PROPOSALS <= 6.2e-10
    noise = tape(DRAWS)
    first = d * (1 + noise.noise["normal"][:DRAWS] / math.sqrt(9 * d)) ** 3
    rejected = ~torch.isclose(standard_gamma(torch.full_like(first, alpha), noise), first)
    assert rejected.double().mean().item() == pytest.approx(1 - accepted, abs=4 * math.sqrt((1 - accepted) / DRAWS))


def test_the_first_accepted_proposal_is_taken_and_without_one_the_middle():
    outside, d = -100.0, 2 - 1 / 3
    uniform = torch.full((PROPOSALS + 1,), 0.5).double()
    alpha = torch.tensor(2.0).double()
    for x, expected in (([0.3, 0.9], 0.3), ([outside, 0.9, 0.3], 0.9), ([outside] * 7, 0.0)):
        normal = torch.tensor((x + [2.0] * PROPOSALS)[:PROPOSALS]).double()
        draw = standard_gamma(alpha, Tape(normal=normal, uniform=uniform))
        assert draw.item() == pytest.approx(d * (1 + expected / math.sqrt(9 * d)) ** 3)
    # a proposal far out is accepted only by a uniform number near enough to 0
    normal = torch.tensor([-3.5, 0.0, *[2.0] * (PROPOSALS - 2)]).double()
    t = -3.5 / math.sqrt(9 * d)
    bound = math.exp(3.5**2 / 2 + d * (1 - (1 + t) ** 3 + 3 * math.log1p(t)))
    for share, expected in ((1.01, 0.0), (0.99, t)):
        uniform[0] = 1 - share * bound
        draw = standard_gamma(alpha, Tape(normal=normal, uniform=uniform))
        assert draw.item() == pytest.approx(d * (1 + expected) ** 3)


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradients_of_expectations_of_gammas(alpha):
    """E x = α, E x² = α (α + 1) and E log x = ψ(α)."""
    c = parameter(alpha)
    z = drawn(dist.Gamma, c, 1.0, gammas=DRAWS)
    trigamma = torch.polygamma(1, torch.tensor(alpha).double()).item()
    for of, expected in ((z, 1.0), (z.square(), 2 * alpha + 1), (z.log(), trigamma)):
        assert_mean_is(torch.autograd.grad(of.sum(), c, retain_graph=True)[0], expected)


@pytest.mark.parametrize("concentration", [(0.1, 0.5), (1.0, 2.0), (5.0, 9.0), (100.0, 30.0)])
def test_gradients_of_expectations_of_betas(concentration):
    """E x = α / n, E x² = α (α + 1) / (n (n + 1)) and E log x = ψ(α) - ψ(n) with n = α + β."""
    a, b = (parameter(c) for c in concentration)
    z = drawn(dist.Beta, a, b, gammas=2 * DRAWS)
    x, y = (torch.tensor(c).double().requires_grad_() for c in concentration)
    n = x + y
    mean = (x / n, x * (x + 1) / (n * (n + 1)), torch.digamma(x) - torch.digamma(n))
    for of, closed in zip((z, z.square(), z.log()), mean, strict=True):
        ours = torch.autograd.grad(of.sum(), (a, b), retain_graph=True)
        exact = torch.autograd.grad(closed, (x, y), retain_graph=True)
        for found, expected in zip(ours, exact, strict=True):
            assert_mean_is(found, expected.item())


def test_the_gradient_of_a_draw_is_torchs():
    alpha = torch.tensor([[0.2, 1.5, 4.0], [3.0, 0.7, 30.0]]).double().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5]).double()
    z = dirichlet(alpha, tape(6))
    (ours,) = torch.autograd.grad((z * weights).sum(), alpha)
    torchs = torch.distributions.dirichlet._Dirichlet_backward(z.detach(), alpha.detach(), weights.expand(2, 3))
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-14)
    g = standard_gamma(alpha, tape(6))
    (ours,) = torch.autograd.grad((g * weights).sum(), alpha)
    torch.testing.assert_close(ours, torch._standard_gamma_grad(alpha.detach(), g.detach()) * weights)


def test_a_gamma_that_underflows_is_the_smallest_number_and_still_has_a_gradient():
    alpha = torch.full((100,), 1e-5).requires_grad_()
    g = standard_gamma(alpha, tape(100, torch.float32))
    assert g.min() == torch.finfo(torch.float32).tiny
    (gradient,) = torch.autograd.grad(g.log().sum(), alpha)
    assert gradient.isfinite().all()
    assert (gradient > 0).all()


# -- what is lifted ----------------------------------------------------------------------------------------------------

EYE = torch.eye(3).double()
LIFTED = {
    "Normal": lambda p: dist.Normal(p, p),
    "HalfNormal": dist.HalfNormal,
    "LogNormal": lambda p: dist.LogNormal(p, p),
    "LogisticNormal": lambda p: dist.LogisticNormal(p, p),
    "MultivariateNormal": lambda p: dist.MultivariateNormal(p, EYE),
    "LowRankMultivariateNormal": lambda p: dist.LowRankMultivariateNormal(p, p[:, None], p),
    "Uniform": lambda p: dist.Uniform(-p, p),
    "Kumaraswamy": lambda p: dist.Kumaraswamy(p, p),
    "ContinuousBernoulli": lambda p: dist.ContinuousBernoulli(p / 4),
    "Laplace": lambda p: dist.Laplace(p, p),
    "AsymmetricLaplace": lambda p: dist.AsymmetricLaplace(p, p, p),
    "SoftLaplace": lambda p: dist.SoftLaplace(p, p),
    "Logistic": lambda p: dist.Logistic(p, p),
    "Gumbel": lambda p: dist.Gumbel(p, p),
    "Exponential": dist.Exponential,
    "Weibull": lambda p: dist.Weibull(p, p),
    "Pareto": lambda p: dist.Pareto(p, p),
    "Cauchy": lambda p: dist.Cauchy(p, p),
    "HalfCauchy": dist.HalfCauchy,
    "RelaxedBernoulli": lambda p: dist.RelaxedBernoulli(p.sum(), p / 4),
    "RelaxedOneHotCategorical": lambda p: dist.RelaxedOneHotCategorical(p.sum(), p / p.sum()),
    "Gamma": lambda p: dist.Gamma(p, p),
    "InverseGamma": lambda p: dist.InverseGamma(p, p),
    "Chi2": dist.Chi2,
    "StudentT": lambda p: dist.StudentT(p, p, p),
    "MultivariateStudentT": lambda p: dist.MultivariateStudentT(p.sum(), p, EYE),
    "FisherSnedecor": lambda p: dist.FisherSnedecor(p, p),
    "Beta": lambda p: dist.Beta(p, 2 * p),
    "AffineBeta": lambda p: dist.AffineBeta(p, p, p, p),
    "Dirichlet": dist.Dirichlet,
    "logit of a Beta": lambda p: dist.TransformedDistribution(
        dist.Beta(p, p), [dist.transforms.SigmoidTransform().inv]
    ),
    "events of a masked Beta": lambda p: dist.Beta(p, p).mask(p > 1).to_event(1),
}


@pytest.mark.parametrize("name", LIFTED)
def test_a_lifted_draw_is_the_same_in_every_mode(name):
    """No random number of torch's, no loop over seeds (of which torch warns), and one seed alone is as among others."""

    def loss(p, normal, uniform):
        with Tape(normal=normal, uniform=uniform):
            z = pyro.sample("z", LIFTED[name](p))
        return z.square().sum() + z.sum(), z

    of_seeds = torch.tensor([[0.4, 1.7, 2.5], [1e-4, 1.1, 3.0]]).double()  # a gamma of 1e-4 underflows
    with pyro_context(), seeded(0):
        before = torch.random.get_rng_state()
        with Tape() as counted:
            pyro.sample("z", LIFTED[name](of_seeds[0]))
        assert torch.equal(before, torch.random.get_rng_state())
        normal, uniform = torch.randn(2, counted.used["normal"]), torch.rand(2, counted.used["uniform"])
        inputs = of_seeds, normal.double(), uniform.double()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            recorded = make_fx(vmap(grad(loss, has_aux=True)))(*inputs)(*inputs)
    for row, (p, *noise) in enumerate(zip(*inputs, strict=True)):
        p = p.clone().requires_grad_()
        with pyro_context():
            value, z = loss(p, *noise)
        (gradient,) = torch.autograd.grad(value, p)
        assert recorded[1][row].isfinite().any()
        torch.testing.assert_close(recorded[0][row], gradient, rtol=1e-12, atol=1e-12, equal_nan=True)
        torch.testing.assert_close(recorded[1][row], z.detach(), rtol=1e-12, atol=1e-300)


def test_only_what_has_to_be_is_drawn_by_gammas():
    """An observed Beta, one whose value a replay gives, and what holds no Dirichlet."""
    half = torch.tensor(0.5)
    with seeded(0), tape(100, torch.float32) as noise:
        pyro.sample("x", dist.Beta(half, half), obs=half)
        assert noise.used == {"normal": 0, "uniform": 0}
        trace = poutine.trace(lambda: pyro.sample("z", dist.Beta(half, half))).get_trace()
        used = dict(noise.used)
        assert used == {"normal": 2 * PROPOSALS, "uniform": 2 * (PROPOSALS + 1)}
        assert (
            poutine.replay(lambda: pyro.sample("z", dist.Beta(half, half)), trace=trace)() == trace.nodes["z"]["value"]
        )
        assert noise.used == used
        assert pyro.sample("three", dist.Beta(half, half), (3,)).shape == (3,)
    assert type(trace.nodes["z"]["fn"]) is dist.Beta
    with seeded(0):
        torchs = pyro.sample("z", dist.Beta(half, half))
    with seeded(0):
        assert pyro.sample("z", dist.Beta(half, half)) == torchs


# -- pairs -------------------------------------------------------------------------------------------------------------

PRIORS = {
    "gamma": lambda one: dist.Gamma(2 * one, one).to_event(1),
    "beta": lambda one: dist.Beta(2 * one, 3 * one).to_event(1),
    "dirichlet": lambda one: dist.Dirichlet(0.7 * one),
    "student-t": lambda one: dist.StudentT(5 * one, 0 * one, one).to_event(1),
}
POSTERIORS = {
    "gamma": lambda a, b: dist.Gamma(a.exp(), b.exp()).to_event(1),
    "beta": lambda a, b: dist.Beta(a.exp(), b.exp()).to_event(1),
    "dirichlet": lambda a, _: dist.Dirichlet(a.exp()),
    "student-t": lambda a, b: dist.StudentT(3 + a.exp(), b, 1.0).to_event(1),
}


class Model(VAE):
    """A latent that is not normal."""

    def __init__(self, network, latent_dim, kind):
        super().__init__(network, latent_dim)
        self.kind = kind

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", PRIORS[self.kind](x.new_ones(self.latent_dim)))
            pyro.sample("x", self.likelihood(z), obs=x)

    def likelihood(self, z):
        return dist.Normal(self.decoder(z)[..., 0, :], 1.0).to_event(1)

    def log_density_bound(self, features):
        return -features / 2 * math.log(2 * math.pi)


class Guide(nn.Module):
    def __init__(self, network, kind):
        super().__init__()
        self.encoder = network
        self.kind = kind

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", POSTERIORS[self.kind](*self.encoder(x).unbind(-2)))


@pytest.fixture(params=PRIORS)
def own(request, catalogue):
    """The name of a pair with a latent of this kind."""
    kind = request.param

    @zoo.register(
        f"own-{kind}",
        title="Own",
        summary="",
        formula="",
        support="real",
        bounded=True,
        bound="-(D/2) log 2π",
        reference="",
    )
    def build(data: zoo.Data, options: VAEOptions):
        return Model(decoder(data, options, 1), options.latent_dim, kind), Guide(encoder(data, options, 2), kind)

    return f"own-{kind}"


@pytest.fixture(scope="module")
def x(iris):
    return torch.as_tensor(iris.scaled("train"))


def engine(name, data, seeds, x, mode):
    pair = zoo.create(name, data, latent_dim=3, hidden=(8,))
    settings = {"objective": ELBO(), "schedule": lambda _: (1e-2, 1.0), "batch_size": 16, "mode": mode, "clip": 10.0}
    return Engine(pair, seeds, x, **settings)


@pytest.mark.parametrize("mode", ["capture", COMPILED])
def test_a_pair_trains_captured_as_it_does_through_pyro(own, iris, x, mode):
    plain, other = (engine(own, iris, [0, 5], x, m) for m in ("off", mode))
    assert plain.lifts_noise
    assert other.mode == mode, other.note
    told = [torch.stack([e.step(step) for step in range(5)]) for e in (plain, other)]
    assert told[0].isfinite().all()
    torch.testing.assert_close(*told, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plain.state.theta, other.state.theta, rtol=1e-10, atol=1e-10)


def test_a_seed_is_the_same_alone_and_among_three(own, iris, x):
    among, alone = engine(own, iris, [0, 3, 4], x, "capture"), engine(own, iris, [3], x, "capture")
    told = [torch.stack([e.step(step) for step in range(20)]) for e in (among, alone)]
    torch.testing.assert_close(told[0][..., 1], told[1][..., 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(among.state.theta[1], alone.state.theta[0], rtol=1e-6, atol=1e-6)


def test_the_step_is_pyros(own):
    """Loss and gradient are those of Trace_ELBO at the same draws."""
    assert zoo.testing.check_engine(zoo.testing.make_subject(own, latent_dim=3, hidden=(8,))) == "capture"


def test_all_seeds_are_drawn_at_once(own, iris, x):
    graph = engine(own, iris, [0, 1, 2], x, "capture")._advance.graph
    operators = torch.ops.zoo.standard_gamma_grad.default, torch.ops.zoo.dirichlet_grad.default
    (call,) = [node for operator in operators for node in graph.find_nodes(op="call_function", target=operator)]
    assert call.meta["val"].shape[0] == 3


@pytest.mark.parametrize("kind", ["gamma", "beta"])
def test_a_step_with_torchs_own_draws_has_the_same_mean_gradient(kind):
    """Of the KL term and a likelihood, over many draws: lifted ones are no other objective."""
    a, b = parameter(0.3), parameter(-0.4)

    def guide():
        return pyro.sample("z", POSTERIORS[kind](a, b))

    found = []
    for lifted in (True, False):
        with seeded(0), pyro_context(), tape(2 * DRAWS) if lifted else pyro_context():
            q = poutine.trace(guide).get_trace()
        z, fn = q.nodes["z"]["value"], q.nodes["z"]["fn"]
        value = fn.log_prob(z) - PRIORS[kind](torch.ones(1).double()).log_prob(z) + (z.squeeze(-1) - 0.2).square()
        gradients = torch.autograd.grad(value.sum(), (a, b))
        found.append([(g.mean().item(), g.std().item() / DRAWS**0.5) for g in gradients])
    for (ours, error), (torchs, other) in zip(*found, strict=True):
        assert ours == pytest.approx(torchs, abs=4 * math.hypot(error, other))
