"""Training rules on the Gaussian head: what they maximise, and which parameters which part of it moves."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import integrate, stats
from scipy.special import logsumexp

import zoo
from zoo.context import pyro_context, seeded
from zoo.lenses import observed
from zoo.models import VAE
from zoo.models.emissions import FixedNormal, GammaPrecision
from zoo.models.precisions import GRID
from zoo.objectives import CRPS, ELBO, BetaNLL, Faithful, MapGamma, Quantile, Split, VariationalVariance
from zoo.parts import OBJECTIVES

RULES = "gaussian-faithful", "gaussian-split", "gaussian-beta-nll", "gaussian-map-gamma", "gaussian-v3ae"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return zoo.Data.from_array(rng.normal(size=(60, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(60, 4)))


def small(name, data):
    """A pair in double precision, rows, and one with gaps in them."""
    pair = zoo.create(name, data, latent_dim=2, hidden=(6,))
    x = torch.as_tensor(pair.view.inward(data.train.values))[:8]
    pair.model.double()
    pair.guide.double()
    with torch.no_grad(), seeded(1):
        for parameter in pair.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return pair, x


def value(rule, model, guide, x):
    with seeded(0), pyro_context():
        loss = rule(model, guide, x)
    return -loss.value, SimpleNamespace(**loss.diagnostics)


def gradients(rule, model, guide, x):
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(value(rule, model, guide, x)[0], list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, found, strict=True))


def plugged(model, guide, x):
    """Mean and variance at the draws that :func:`value` has."""
    with seeded(0), torch.no_grad(), pyro_context():
        q = poutine.trace(guide).get_trace(x)
        fn = poutine.trace(poutine.replay(model, trace=q)).get_trace(x).nodes["x"]["fn"]
    return fn.mean.numpy(), fn.variance.numpy(), fn


class MeanOnly(torch.nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, z):
        return self.decoder(z)[..., :1, :]


def test_faithful_is_the_sum_of_two_densities(data):
    pair, x = small("gaussian-faithful", data)
    total, terms = value(Faithful(), pair.model, pair.guide, x)
    mean, variance, _ = plugged(pair.model, pair.guide, x)
    two = stats.norm.logpdf(x, mean, 1) + stats.norm.logpdf(x, mean, np.sqrt(variance))
    assert total.item() == pytest.approx(two.sum(1).mean() - terms.kl.item())


def test_a_faithful_mean_learns_as_under_a_fixed_variance(data):
    """Every parameter but the variance's own row has the gradient that a variance of 1 gives it."""
    pair, x = small("gaussian-faithful", data)
    ours = gradients(Faithful(), pair.model, pair.guide, x)

    plain = VAE(MeanOnly(pair.model.decoder), 2, FixedNormal(1.0)).double()
    theirs = gradients(ELBO(), plain, pair.guide, x)
    *trunk, weight, bias = ours
    for name in trunk:
        torch.testing.assert_close(ours[name], theirs[name.replace("decoder.", "decoder.decoder.")])
    for name in (weight, bias):  # of the last layer's rows the first four are the mean's
        torch.testing.assert_close(ours[name][:4], theirs[name.replace("decoder.", "decoder.decoder.")][:4])
        assert ours[name][4:].abs().min() > 0


def test_split_is_a_normal_and_a_students_t_that_leaves_the_mean_alone(data):
    """By SciPy; every parameter but the rows of alpha and beta has the gradient that the fixed variance gives it."""
    pair, x = small("gaussian-split", data)
    rule = Split(0.5)
    total, terms = value(rule, pair.model, pair.guide, x)
    _, _, fn = plugged(pair.model, pair.guide, x)
    each = fn.base_dist
    rest = stats.t.logpdf(x, each.df, each.loc, each.scale)
    expected = (stats.norm.logpdf(x, each.loc, 0.5) + rest).sum(1).mean() - terms.kl.item()
    assert total.item() == pytest.approx(expected)

    plain = VAE(MeanOnly(pair.model.decoder), 2, FixedNormal(0.5)).double()
    ours, theirs = gradients(rule, pair.model, pair.guide, x), gradients(ELBO(), plain, pair.guide, x)
    for number, (name, gradient) in enumerate(ours.items()):
        of_mean = theirs[name.replace("decoder.", "decoder.decoder.")]
        last = number >= len(ours) - 2  # of the last layer's rows the first four are the mean's
        torch.testing.assert_close(gradient[:4] if last else gradient, of_mean[:4] if last else of_mean)
        assert not last or gradient[4:].abs().min() > 0


def test_beta_nll_is_the_elbo_at_0_and_moves_the_mean_as_squared_error_at_1(data):
    pair, x = small("gaussian-beta-nll", data)
    at_0, plain = (value(rule, pair.model, pair.guide, x)[0].item() for rule in (BetaNLL(0.0), ELBO()))
    assert at_0 == pytest.approx(plain)
    mean, variance, _ = plugged(pair.model, pair.guide, x)
    total, terms = value(BetaNLL(0.5), pair.model, pair.guide, x)
    weighed = np.sqrt(variance) * stats.norm.logpdf(x, mean, np.sqrt(variance))
    assert total.item() == pytest.approx(weighed.sum(1).mean() - terms.kl.item())
    bias = list(gradients(BetaNLL(1.0), pair.model, pair.guide, x).values())[-1]
    np.testing.assert_allclose(bias[:4], (x.numpy() - mean).mean(0))


def test_beta_nll_multiplies_the_gradient_of_one_value_by_a_power_of_its_variance():
    column = zoo.Data.from_array(np.random.default_rng(0).normal(size=(40, 1)))
    pair, x = small("gaussian-beta-nll", column)
    x = x[:1]
    plain, weighted = (gradients(BetaNLL(beta), pair.model, pair.guide, x) for beta in (0.0, 0.7))
    _, variance, _ = plugged(pair.model, pair.guide, x)
    assert abs(variance.item() - 1) > 0.1
    for name, gradient in plain.items():
        torch.testing.assert_close(weighted[name], variance.item() ** 0.7 * gradient)


def test_a_gamma_prior_on_the_precision_bounds_the_objective(data):
    pair, x = small("gaussian-map-gamma", data)
    total, terms = value(MapGamma(), pair.model, pair.guide, x)
    _, variance, _ = plugged(pair.model, pair.guide, x)
    log_prior = stats.gamma.logpdf(1 / variance, 1.0, scale=1e3)
    assert total.item() == pytest.approx(terms.elbo.item() + log_prior.sum(1).mean())
    # the best precision of a mean without error is 1/2 over the rate
    rate = 0.2
    heights = [math.log(p) / 2 - math.log(2 * math.pi) / 2 + math.log(rate) - rate * p for p in (0.5 / rate, 2, 3)]
    program = torch.nn.ModuleList([pair.model, pair.guide])
    adam = torch.optim.Adam(program.parameters(), 0.1)
    rule, highest = MapGamma(1.0, rate), -math.inf
    for _ in range(300):
        total, terms = value(rule, pair.model, pair.guide, x[:1])
        loss = -(total + terms.kl)  # without the KL term, whose estimate at one draw may be negative
        highest = max(highest, -loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert highest <= 4 * heights[0] and heights[0] == max(heights)


@pytest.mark.parametrize("name", ["gmm", "gmvae"])
def test_a_component_counts_by_its_probability(name, data):
    pair, x = small(name, data) if name == "gmvae" else mixture(data)
    elbo, _ = value(ELBO(), pair.model, pair.guide, x)
    rule, _ = value(BetaNLL(0.0), pair.model, pair.guide, x)
    torch.testing.assert_close(rule, elbo)


def mixture(data):
    pair = zoo.create("gmm", data, components=3)
    x = torch.as_tensor(pair.view.inward(data.train.values))[:8]
    pair.model.double()
    with torch.no_grad(), seeded(1):
        for parameter in pair.model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return pair, x


def test_rules_of_a_mixture_are_means_over_its_components(data):
    """By the components' own means and variances, and their posterior probabilities, without Pyro."""
    pair, x = mixture(data)
    with torch.no_grad():
        fn, weights = pair.model.likelihood(torch.arange(3)), pair.model.logits.log_softmax(0).numpy()
    mean, scale, rows = fn.mean.numpy(), fn.stddev.numpy(), x.numpy()[:, None]
    joint = stats.norm.logpdf(rows, mean, scale).sum(2) + weights
    share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    z, below = (rows - mean) / scale, rows - (mean + stats.norm.ppf(0.15) * scale)
    crps = scale * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5)
    pinball = np.maximum(0.15 * below, -0.85 * below) + np.abs(rows - mean) / 2
    terms = {
        Quantile(): -pinball,
        Faithful(): stats.norm.logpdf(rows, mean) + stats.norm.logpdf(rows, mean, scale),
        BetaNLL(0.5): scale * stats.norm.logpdf(rows, mean, scale),
        MapGamma(2.0, 0.7): stats.norm.logpdf(rows, mean, scale) + stats.gamma.logpdf(scale**-2, 2, scale=1 / 0.7),
        CRPS(0.5): -crps,
    }
    kl = (share * (np.log(share) - weights)).sum(1)
    for rule, of_columns in terms.items():
        total, _ = value(rule, pair.model, pair.guide, x)
        expected = (share * of_columns.sum(2)).sum(1) - kl
        assert total.item() == pytest.approx(expected.mean(), rel=1e-5), rule


def test_variational_variance_is_an_expectation_under_its_gammas(data):
    """By quadrature over one precision, and below the density that the prior's precisions give."""
    pair, x = small("gaussian-v3ae", data)
    rule = VariationalVariance(2.0, 0.7)
    total, terms = value(rule, pair.model, pair.guide, x)
    _, _, fn = plugged(pair.model, pair.guide, x)
    each = fn.base_dist
    alpha = (each.df / 2).numpy()
    beta = alpha * each.scale.numpy() ** 2
    q, p = stats.gamma(alpha, scale=1 / beta), stats.gamma(2.0, scale=1 / 0.7)
    log_precision = np.linspace(np.log(q.ppf(1e-14)), np.log(q.isf(1e-14)), 2000)
    precision = np.exp(log_precision)
    density = stats.norm.logpdf(x, each.loc, precision**-0.5)
    integrand = q.pdf(precision) * precision * (density + p.logpdf(precision) - q.logpdf(precision))
    expected = integrate.trapezoid(integrand, log_precision, axis=0)
    under_prior = stats.t.logpdf(x, 4.0, each.loc, math.sqrt(0.7 / 2.0))
    assert total.item() == pytest.approx(expected.sum(1).mean() - terms.kl.item(), rel=1e-5)
    assert (expected < under_prior).all()


def test_a_mixture_of_gammas_is_the_log_density_of_all_precisions_together(data):
    """One component is that of all columns that are there; the grid's gammas are the authors'."""
    pair, x = small("gaussian-v3ae[precisions=vbem]", data)
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).double()
    precision, there = (x.square() + 0.1), torch.ones_like(x, dtype=torch.bool)
    there[2, 1] = False
    found = pair.model.log_precision_prior(precision, there, z, None).detach()
    log_weights = pair.model.weights(z).log_softmax(-1).detach().numpy()
    each = np.array([(a, b) for a in GRID for b in GRID])
    log_p = stats.gamma.logpdf(precision.numpy()[:, None], each[:, :1], scale=1 / each[:, 1:])
    log_p[2, :, 1] = 0
    np.testing.assert_allclose(found, logsumexp(log_weights + log_p.sum(-1), axis=1), rtol=1e-5)


def test_one_gamma_by_draws_is_the_closed_form_in_the_mean(data):
    pair, x = small("gaussian-v3ae[precisions=vbem-learned, components=1]", data)
    with torch.no_grad():
        pair.model.gammas.copy_(torch.tensor([2.0, 0.7]).expm1().log()[:, None, None].expand(2, 1, 4))
    plain = VAE(pair.model.decoder, 2, GammaPrecision()).double()
    off = []
    for seed in range(300):
        both = []
        for model, rule in ((pair.model, VariationalVariance()), (plain, VariationalVariance(2.0, 0.7))):
            with seeded(seed), pyro_context(), torch.no_grad():  # of which z is drawn first
                both.append(-rule(model, pair.guide, x).value.item())
        off.append(both[0] - both[1])
    assert np.std(off) > 0
    assert abs(np.mean(off)) < 3 * np.std(off) / len(off) ** 0.5


def test_pseudo_inputs_are_training_rows_and_their_gammas_those_of_their_latents(data):
    pair, x = small("gaussian-v3ae[precisions=vamp, components=12]", data)
    with seeded(0):
        pair.model.initialise(x)
    assert all((x == row).all(1).any() for row in pair.model.pseudo)  # eight rows, some twice
    assert len(pair.model.pseudo.unique(dim=0)) == 8
    with seeded(1), pyro_context(), torch.no_grad():
        log_weights, shape, rate = pair.model.components(torch.zeros(8, 2), pair.guide)
    with seeded(1), pyro_context(), torch.no_grad():
        z = poutine.trace(pair.guide).get_trace(pair.model.pseudo).nodes["z"]["value"]
        _, a, b = pair.model.decoder(z).numpy().swapaxes(0, 1)
    np.testing.assert_allclose(log_weights, -math.log(12))
    np.testing.assert_allclose(shape, np.logaddexp(0, a))
    np.testing.assert_allclose(rate, np.logaddexp(0, b) + 1e-3)


@pytest.mark.parametrize("precisions", ["vamp", "vbem", "vbem-learned"])
def test_a_prior_of_precisions_is_trained_and_left_out_of_the_elbo(data, precisions):
    pair = zoo.create("gaussian-v3ae", data, precisions=precisions, latent_dim=2, hidden=(6,))
    for objective in (None, "elbo"):
        run = zoo.fit(pair, data, seeds=2, steps=20, objective=objective, progress=False)
        assert np.isfinite(run.tree["optimization/objective"]).all()
        gap = (run.tree["optimization/objective"] - run.tree["optimization/elbo"]).values
        assert (gap == 0).all() == (objective == "elbo")


def test_an_integrated_precision_is_students_t():
    numbers = np.random.default_rng(0).normal(size=(5, 3, 2))
    fn = GammaPrecision()(torch.as_tensor(numbers))
    mean, alpha, beta = numbers[:, 0], np.logaddexp(0, numbers[:, 1]), np.logaddexp(0, numbers[:, 2])
    for at in np.ndindex(5, 2):
        density, _ = integrate.quad(
            lambda p, at=at: stats.norm.pdf(0.7, mean[at], p**-0.5) * stats.gamma.pdf(p, alpha[at], scale=1 / beta[at]),
            0, np.inf, limit=400,
        )  # fmt: skip
        assert fn.log_prob(torch.tensor(0.7).double())[at].exp().item() == pytest.approx(density, rel=1e-6)


@pytest.mark.parametrize("name", [*RULES])
def test_what_was_not_observed_is_left_out(name, data):
    """Hiding a column's entries leaves the rule that of the others."""
    pair, x = small(name, data)
    rule = OBJECTIVES.make(zoo.card(name).objective)
    model, guide = observed(pair.model, pair.guide, torch.zeros(4).double())
    hidden = x.clone()
    hidden[:, 1] = torch.nan
    (of_hidden, _), (again, _) = (value(rule, model, guide, rows) for rows in (hidden, hidden.clone()))
    assert torch.isfinite(of_hidden) and of_hidden == again
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(of_hidden, parameters, allow_unused=True)
    assert all(g is None or torch.isfinite(g).all() for g in found)
    last = found[-1]  # the biases of the last layer: column 1 of every output has none but what another column gives it
    outputs = len(last) // 4
    assert (last.reshape(outputs, 4)[:, 1] == 0).all() and (last.reshape(outputs, 4)[:, 0] != 0).all()


def test_rules_take_options_by_name():
    assert OBJECTIVES.make("beta-nll[beta=0.2]") == BetaNLL(0.2)
    assert OBJECTIVES.make("map-gamma[shape=2.0, rate=0.5]") == MapGamma(2.0, 0.5)
    with pytest.raises(zoo.errors.OptionError, match=r"beta=1\.5"):
        OBJECTIVES.make("beta-nll[beta=1.5]")
