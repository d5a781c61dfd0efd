"""The guides: densities, draws and gradients against quadrature, with encoders whose output is known."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.transforms.spline import _monotonic_rational_spline
from scipy.optimize import brentq
from scipy.stats import kstest, norm
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import softplus

import zoo
from zoo.context import pyro_context, seeded
from zoo.engine import Engine, Tape
from zoo.guides import (
    FullRankNormal,
    InverseAutoregressive,
    LowRankNormal,
    MeanFieldNormal,
    MixtureNormal,
    NormalMixture,
    SemiAmortized,
    SplineFlow,
    SplineLayer,
)
from zoo.inference import log_weights
from zoo.latents import log_density
from zoo.models import VAE
from zoo.models.emissions import FixedNormal
from zoo.models.linear import ProbabilisticPCA
from zoo.models.mixture import _kmeans_plus_plus
from zoo.objectives import ELBO
from zoo.pairs import VAEOptions, decoder

FEATURES = 3

# each from L to how many rows an encoder gives, and to the guide of an encoder
FAMILIES = {
    "mean-field": lambda dim: (MeanFieldNormal.outputs(dim), MeanFieldNormal),
    "full-rank": lambda dim: (FullRankNormal.outputs(dim), FullRankNormal),
    "low-rank": lambda dim: (LowRankNormal.outputs(dim, 1), lambda e: LowRankNormal(e, 1)),
    "mixture": lambda dim: (MixtureNormal.outputs(dim, 3), lambda e: MixtureNormal(e, 3)),
    "iaf": lambda dim: (InverseAutoregressive.outputs(dim, 8), lambda e: InverseAutoregressive(e, dim, 3, 8)),
    "spline": lambda dim: (SplineFlow.outputs(dim, 8), lambda e: SplineFlow(e, dim, 2, 8, 5)),
}
FLOWS = ("iaf", "spline")
every_family = pytest.mark.parametrize("name", FAMILIES)
every_guide = pytest.mark.parametrize("name", [*FAMILIES, "semi-amortized"])


def built(name, latent_dim, features=FEATURES, model=None):
    if name == "semi-amortized":
        return SemiAmortized(built("full-rank", latent_dim, features), model or linear(latent_dim, features), 2, 0.5)
    outputs, guide = FAMILIES[name](latent_dim)
    return guide(nn.Sequential(nn.Linear(features, outputs * latent_dim), nn.Unflatten(-1, (outputs, latent_dim))))


def bent(name, latent_dim):
    """A guide in double precision that is far from where it starts."""
    with seeded(1), torch.no_grad():
        guide = built(name, latent_dim).double()
        for parameter in guide.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return guide


def bent_and_numbers(name, latent_dim):
    """That, with its numbers for one datum, (1, outputs, L)."""
    guide = bent(name, latent_dim)
    return guide, guide.encoder(torch.ones(1, FEATURES, dtype=torch.float64)).detach()


def linear(latent_dim, features=FEATURES, scale=0.3):
    """A model whose posterior is known, and narrower than where an encoder starts."""
    model = ProbabilisticPCA(features, latent_dim)
    model.log_scale.data.fill_(np.log(scale))
    return model


@functools.cache
def grid(latent_dim):
    """Points (N, 1, L) of a grid, and the volume of a cell."""
    line = torch.linspace(-14, 14, 4001 if latent_dim == 1 else 401, dtype=torch.float64)
    points = torch.cartesian_prod(*[line] * latent_dim).reshape(-1, 1, latent_dim)
    return points, float(line[1] - line[0]) ** latent_dim


def fn_of(guide, x):
    with seeded(0):
        return poutine.trace(guide).get_trace(x).nodes["z"]["fn"]


@every_family
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_density_integrates_to_one_and_is_that_of_the_draws(name, latent_dim):
    guide, numbers = bent_and_numbers(name, latent_dim)
    points, cell = grid(latent_dim)
    with torch.no_grad(), seeded(0):
        fn = guide.distribution(numbers)
        mass = fn.log_prob(points).exp()[:, 0] * cell
        draws = fn.rsample((4000,))[:, 0]
    assert fn.batch_shape == (1,) and fn.event_shape == (latent_dim,) and fn.has_rsample
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)
    mean = mass @ points[:, 0]
    covariance = (mass[:, None] * (points[:, 0] - mean)).mT @ (points[:, 0] - mean)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - mean).abs() < 4 * error).all()
    torch.testing.assert_close(draws.mT.cov().reshape(covariance.shape), covariance, rtol=0.12, atol=0.03)
    sides = mass.reshape([round(len(mass) ** (1 / latent_dim))] * latent_dim)
    for j in range(latent_dim):
        marginal = sides.movedim(j, 0).reshape(len(sides), -1).sum(1)
        at, level = points[:, 0, j].unique(), marginal.cumsum(0) - marginal / 2
        assert kstest(draws[:, j].numpy(), lambda z, at=at, level=level: np.interp(z, at, level)).pvalue > 1e-3
    if name not in FLOWS:  # torch knows no mean of a flow
        torch.testing.assert_close(fn.mean[0], mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fn.variance[0], covariance.diagonal(), rtol=1e-4, atol=1e-4)


def lopsided(z):
    """Some function without a symmetry, of z (..., L)."""
    first, last = z[..., 0], z[..., -1]
    return (first + 0.5).sin() + 0.3 * first**2 * (1 + last).cos() + (-(last - 1).square()).exp()


@every_family
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_gradient_of_an_expectation_is_that_of_quadrature(name, latent_dim):
    guide, numbers = bent_and_numbers(name, latent_dim)
    points, cell = grid(latent_dim)
    numbers.requires_grad_()
    by_grid = (guide.distribution(numbers).log_prob(points).exp()[:, 0] * lopsided(points[:, 0])).sum() * cell
    (exact,) = torch.autograd.grad(by_grid, numbers)

    def of_draws(numbers):
        return lopsided(guide.distribution(numbers.expand(500, -1, -1)).rsample()).mean()

    with seeded(2):
        found = torch.stack([torch.autograd.grad(of_draws(numbers), numbers)[0] for _ in range(100)])
    error = found.std(0) / 10
    assert exact.abs().max() > 0.05
    assert error.max() < 0.03
    assert ((found.mean(0) - exact).abs() <= 4.5 * error + 1e-6).all()


@every_guide
@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_the_density_of_a_draw_is_that_of_the_same_point_given(name, latent_dim):
    guide = bent(name, latent_dim)
    x = torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0)).double()
    with seeded(0), torch.no_grad():
        drawn = poutine.trace(guide).get_trace(x)
        z = drawn.nodes["z"]["value"]
        given = poutine.trace(poutine.condition(guide, data={"z": z.clone()})).get_trace(x)
    for trace in (drawn, given):
        trace.compute_log_prob()
    assert z.shape == (5, latent_dim)
    torch.testing.assert_close(drawn.nodes["z"]["log_prob"], given.nodes["z"]["log_prob"], rtol=1e-9, atol=1e-9)


@every_guide
def test_a_draw_and_its_density_move_every_parameter(name):
    with seeded(0):
        guide = built(name, 2).double()
        x = torch.randn(50, FEATURES, dtype=torch.float64)
        trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    loss = lopsided(trace.nodes["z"]["value"]).sum() + trace.nodes["z"]["log_prob"].sum()
    for (label, _), gradient in zip(
        guide.named_parameters(), torch.autograd.grad(loss, list(guide.parameters())), strict=True
    ):
        assert gradient.isfinite().all() and gradient.abs().max() > 0, label


@every_guide
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_seeds_are_the_same_together_and_one_by_one(name, latent_dim):
    with seeded(0):
        replicas = [built(name, latent_dim).double() for _ in range(2)]
        x = torch.randn(2, 6, FEATURES, dtype=torch.float64)
    with Tape() as tape, pyro_context():
        poutine.trace(replicas[0]).get_trace(x[0])
    with seeded(1):
        normal, uniform = torch.randn(2, tape.used["normal"]), torch.rand(2, tape.used["uniform"])

    def loss(parameters, buffers, x, normal, uniform):
        def run(x):
            with Tape(normal=normal.double(), uniform=uniform.double()):
                trace = poutine.trace(lambda x: functional_call(replicas[0], (parameters, buffers), (x,))).get_trace(x)
            trace.compute_log_prob()
            return lopsided(trace.nodes["z"]["value"]).sum() - trace.nodes["z"]["log_prob"].sum()

        return run(x)

    stacked = stack_module_state(replicas)
    with pyro_context():
        together = vmap(grad_and_value(loss))(*stacked, x, normal, uniform)
        for seed, replica in enumerate(replicas):
            own = dict(replica.named_parameters()), dict(replica.named_buffers())
            value = loss(*own, x[seed], normal[seed], uniform[seed])
            value.backward()
            torch.testing.assert_close(together[1][seed], value, rtol=1e-10, atol=1e-10)
            for label, parameter in replica.named_parameters():
                torch.testing.assert_close(together[0][label][seed], parameter.grad, rtol=1e-8, atol=1e-10)


@every_guide
def test_the_engine_records_a_step_that_pyro_takes(name, catalogue, iris):
    def build(data: zoo.Data, options: VAEOptions):
        model = VAE(decoder(data, options, 1), options.latent_dim, FixedNormal(0.5))
        return model, built(name, options.latent_dim, data.features, model)

    claims = {"title": name, "summary": "", "formula": "", "reference": "", "guide": name}
    bound = {"support": "real", "bounded": True, "bound": "-(D/2) log(2π scale²)"}
    zoo.register(f"own-{name}", **claims, **bound)(build)
    pair = zoo.create(f"own-{name}", iris, latent_dim=2, hidden=(8,))
    x = torch.as_tensor(iris.scaled("train"))
    settings = {"objective": ELBO(), "schedule": lambda _: (3e-3, 1.0), "batch_size": 16}
    plain, recorded = (Engine(pair, [0, 5], x, mode=mode, **settings) for mode in ("off", "capture"))
    assert recorded.mode == "capture" and recorded.note == "" and recorded.lifts_noise
    for step in range(3):
        torch.testing.assert_close(plain.step(step), recorded.step(step), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(plain.state.theta, recorded.state.theta, rtol=1e-8, atol=1e-8)


# -- normals -----------------------------------------------------------------------------------------------------------


def test_the_full_rank_guide_has_the_covariance_its_encoder_says():
    rows = torch.tensor([[1.0, 2.0], [0.5, 9.0], [0.3, -0.7]])  # mean; rows of T, the diagonal in logs
    fn = fn_of(FullRankNormal(lambda x: rows.expand(len(x), 3, 2)), torch.zeros(4, 7))
    factor = torch.tensor([[torch.tensor(0.5).exp(), 0.0], [0.3, torch.tensor(-0.7).exp()]])
    torch.testing.assert_close(fn.mean, rows[0].expand(4, 2))
    torch.testing.assert_close(fn.covariance_matrix[0], factor @ factor.T)
    assert abs(fn.covariance_matrix[0, 0, 1]) > 0.1


def test_the_mean_field_guide_has_the_variances_its_encoder_says():
    rows = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    fn = fn_of(MeanFieldNormal(lambda x: rows.expand(len(x), 2, 2)), torch.zeros(4, 7))
    torch.testing.assert_close(fn.variance[0], rows[1].exp())


def test_the_low_rank_guide_has_the_covariance_its_encoder_says():
    rows = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 0.5, 0.1], [0.3, -0.7, 2.0], [1.0, 0.2, 0.4]])
    fn = fn_of(LowRankNormal(lambda x: rows.expand(len(x), 4, 3), 2), torch.zeros(4, 7))
    torch.testing.assert_close(fn.mean, rows[0].expand(4, 3))
    torch.testing.assert_close(fn.covariance_matrix[0], rows[1].exp().diag() + rows[2:].T @ rows[2:])


# -- the mixture -------------------------------------------------------------------------------------------------------


def two_dimensional():
    """Logits (C,), means (C, 2) and scales (C, 2) of a mixture whose components overlap."""
    logits = torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64)
    mean = torch.tensor([[-1.0, 0.5], [0.7, -0.3], [0.2, 1.5]], dtype=torch.float64)
    return logits, mean, torch.tensor([[0.8, 0.5], [0.6, 1.1], [1.2, 0.7]], dtype=torch.float64)


def test_the_mixtures_draws_move_so_that_their_distribution_function_stays():
    """Of one number: against SciPy's normals, roots of F found by bisection, and differences of those."""
    logits, mean, scale = (t.requires_grad_() for t in two_dimensional())
    mean, scale = (t[:, :1].detach().requires_grad_() for t in (mean, scale))
    with seeded(0):
        draws = NormalMixture(logits, mean, scale).rsample((6,))
    where = [t.detach().numpy() for t in (logits, mean, scale)]

    def level(z, logits, mean, scale):
        return np.exp(logits) @ norm.cdf(z, mean[:, 0], scale[:, 0]) / np.exp(logits).sum()

    for draw in draws.flatten():
        moved = torch.autograd.grad(draw, (logits, mean, scale), retain_graph=True)
        stays = level(draw.item(), *where)
        for which, value in enumerate(where):
            for at in np.ndindex(value.shape):
                ends = []
                for sign in (1, -1):
                    of = [v.copy() for v in where]
                    of[which][at] += sign * 1e-4
                    ends.append(brentq(lambda z, of=of, stays=stays: level(z, *of) - stays, -30, 30, xtol=1e-13))
                assert moved[which][at].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, abs=1e-6)


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_what_the_mixtures_draws_carry_is_what_its_density_gains(latent_dim):
    """At any point the density grows by what flows in: dq + div(q dz) = 0, by differences of the flow."""
    with seeded(latent_dim):
        logits, mean = torch.randn(3, dtype=torch.float64), torch.randn(3, latent_dim, dtype=torch.float64)
        parts = [t.requires_grad_() for t in (logits, mean, 0.5 + torch.rand_like(mean))]
        points = torch.randn(5, latent_dim, dtype=torch.float64)

    def flow(z):
        """Q dz by each parameter, (L, P)."""
        fn = NormalMixture(*parts)
        carried = [torch.autograd.grad(moved, parts, retain_graph=True) for moved in fn._attached(z)]
        return torch.stack([torch.cat([g.flatten() for g in of]) for of in carried]) * fn.log_prob(z).exp().detach()

    for z in points:
        steps = 1e-5 * torch.eye(latent_dim, dtype=torch.float64)
        divergence = sum((flow(z + h)[j] - flow(z - h)[j]) / 2e-5 for j, h in enumerate(steps))
        gains = torch.autograd.grad(NormalMixture(*parts).log_prob(z).exp(), parts)
        torch.testing.assert_close(torch.cat([g.flatten() for g in gains]), -divergence, rtol=1e-6, atol=1e-9)


def test_the_mixtures_gradient_has_the_expectation_of_pyros():
    """MixtureOfDiagNormals moves its draws in another way, which has the same mean, but for the weights.

    What Pyro 1.9.2 has for the weights is another number than quadrature gives; ours is held to that.
    """
    logits, *normals = (t.requires_grad_() for t in two_dimensional())

    def gradient(fn, of):
        return torch.cat([g.flatten() for g in torch.autograd.grad(lopsided(fn.rsample((500,))).mean(), of)])

    with seeded(3):
        ours, theirs = (
            torch.stack([gradient(make(*normals), normals) for _ in range(100)])
            for make in (
                lambda mean, scale: NormalMixture(logits, mean, scale),
                lambda mean, scale: dist.MixtureOfDiagNormals(mean, scale, logits),
            )
        )
        by_weight = torch.stack([gradient(NormalMixture(logits, *normals), [logits]) for _ in range(100)])
    error = ((ours.var(0) + theirs.var(0)) / 100).sqrt()
    assert error.max() < 0.02
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * error).all()
    points, cell = grid(2)
    by_grid = (NormalMixture(logits, *normals).log_prob(points[:, 0]).exp() * lopsided(points[:, 0])).sum() * cell
    (exact,) = torch.autograd.grad(by_grid, logits)
    assert ((by_weight.mean(0) - exact).abs() < 4 * by_weight.std(0) / 10).all()


def test_the_mixture_is_pyros_mixture_and_expands():
    logits, mean, scale = (t.expand(4, *t.shape) for t in two_dimensional())
    fn = NormalMixture(logits, mean, scale)
    z = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(4, 2)
    theirs = dist.MixtureOfDiagNormals(mean, scale, logits)
    torch.testing.assert_close(fn.log_prob(z), theirs.log_prob(z))
    larger = fn.expand((3, 4))
    with seeded(0):
        assert larger.rsample((2,)).shape == (2, 3, 4, 2)
    torch.testing.assert_close(larger.log_prob(z), fn.log_prob(z).expand(3, 4))


def test_the_mixtures_gradients_are_finite_where_components_are_far_apart():
    logits = torch.tensor([3.0, -3.0, 0.0, -30.0]).requires_grad_()
    mean = torch.tensor([[-50.0], [50.0], [1e-3], [1e3]]).expand(4, 5).clone().requires_grad_()
    scale = torch.tensor([[1e-2], [1.0], [1e-4], [10.0]]).expand(4, 5).clone().requires_grad_()
    with seeded(0):
        z = NormalMixture(logits, mean, scale).rsample((10_000,))
    gradients = torch.autograd.grad(z.sum(), (logits, mean, scale))
    assert all(gradient.isfinite().all() for gradient in gradients)
    shares = torch.stack([(z[:, 0] - mean[c, 0]).abs() < 20 * scale[c, 0] for c in range(3)]).double().mean(1)
    torch.testing.assert_close(shares, logits.softmax(-1)[:3].double(), atol=0.02, rtol=0)
    torch.testing.assert_close(gradients[1][:2, 0], 1e4 * shares[:2].float(), rtol=1e-2, atol=1)


# -- flows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_a_flow_starts_as_a_mean_field_normal(name, latent_dim):
    with seeded(0):
        guide, x = built(name, latent_dim), torch.randn(50, FEATURES)
        fn = guide.distribution(guide.encoder(x))
        z = fn.rsample((20,))
    mean, log_variance = guide.encoder(x)[:, :2].unbind(-2)
    near = dist.Normal(mean, (log_variance / 2).exp()).to_event(1)
    gap = (fn.log_prob(z) - near.log_prob(z)).mean()
    assert abs(gap) < 0.05


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_a_flows_jacobian_is_that_of_its_draws(name, latent_dim):
    """Against the determinant of autograd's own Jacobian, and there and back again."""
    guide, numbers = bent_and_numbers(name, latent_dim)
    flow = guide.distribution(numbers[0]).transforms[0]
    with seeded(0):
        noise = 2 * torch.randn(20, latent_dim, dtype=torch.float64)
    for u in noise:
        y, log_det = flow(u), flow.log_abs_det_jacobian(u, flow(u))
        jacobian = torch.autograd.functional.jacobian(flow._call, u)
        assert log_det.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-9)
        torch.testing.assert_close(flow._inverse(y), u, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(flow.log_det, log_det, rtol=1e-8, atol=1e-8)
    assert (flow(noise) - noise).abs().max() > 0.5


@pytest.mark.parametrize("name", FLOWS)
def test_a_flows_own_draws_are_not_inverted(name, monkeypatch):
    guide, numbers = bent_and_numbers(name, 3)
    layer = type(guide.layers[0])
    monkeypatch.setattr(layer, "inverse", lambda *_: pytest.fail("inverted"))
    fn = guide.distribution(numbers).expand((4, 1))
    with seeded(0):
        fn.log_prob(fn.rsample((2,)))
    with pytest.raises(pytest.fail.Exception):
        fn.log_prob(torch.zeros(4, 1, 3, dtype=torch.float64))


def test_an_autoregressive_layer_sees_what_is_before_alone():
    guide, numbers = bent_and_numbers("iaf", 4)
    context = numbers[0, 2:].flatten()
    u = torch.linspace(-1, 1, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: guide.layers[0](u, context)[0].flip(-1), u)
    assert torch.equal(jacobian, jacobian.tril())
    assert (jacobian.tril(-1) != 0).sum() == 6


def test_a_spline_is_pyros_and_its_inverse_leads_back():
    bins = 8
    with seeded(0):
        layer = SplineLayer(1, 4, bins, context=1)
        numbers = torch.randn(200, 3 * bins - 1, dtype=torch.float64)
        x = 3 * torch.randn(200, dtype=torch.float64)
    layer.network = torch.nn.Identity()  # of which the numbers of the splines are what they see
    layer.kept, layer.moved = 3 * bins - 1, 1
    y, log_slope = layer._bent(x[:, None], *layer._knots(numbers, numbers[:, :0]), inverse=False)
    widths, heights, slopes = numbers.split((bins, bins, bins - 1), -1)
    pyros = _monotonic_rational_spline(
        x,
        widths.softmax(-1),
        heights.softmax(-1),
        layer.least + softplus(slopes + np.log(np.expm1(1 - layer.least))),
        bound=layer.bound,
        min_bin_width=layer.least,
        min_bin_height=layer.least,
        min_derivative=0.0,  # it would take that off the slopes at both ends
    )
    assert (x.abs() > layer.bound).any() and ((y[:, 0] != x).sum() > 150)
    torch.testing.assert_close((y[:, 0], log_slope[:, 0]), pyros, rtol=1e-9, atol=1e-9)
    back, slope = layer._bent(y, *layer._knots(numbers, numbers[:, :0]), inverse=True)
    torch.testing.assert_close((back[:, 0], slope), (x, log_slope), rtol=1e-9, atol=1e-9)


def test_splines_are_the_identity_beyond_their_ends():
    guide, numbers = bent_and_numbers("spline", 2)
    context = numbers[0, 2:].flatten()
    u = torch.tensor([[-7.0, 6.0], [5.0 + 1e-9, -5.0 - 1e-9]], dtype=torch.float64)
    y, log_det = guide.layers[0](u, context)
    torch.testing.assert_close(y, u.flip(-1))
    assert not log_det.any()
    near = torch.tensor([[4.0, 5.0 - 1e-7]], dtype=torch.float64)
    assert guide.layers[0](near, context)[0][0, 0].item() == pytest.approx(5, abs=1e-5)


# -- semi-amortized ----------------------------------------------------------------------------------------------------


def far_and_data(kind, latent_dim, scale):
    """A model, a guide whose encoder knows nothing of it, and its data."""
    with seeded(0), torch.no_grad():
        model, start = linear(latent_dim, 5, scale).double(), built(kind, latent_dim, 5).double()
        mean = model.decoder(torch.randn(60, latent_dim, dtype=torch.float64))
        return model, start, mean + scale * torch.randn_like(mean)


def divergence(guide, model, x):
    """KL(q, posterior) for each datum, log p(x) less the ELBO: in closed form, of two normals."""
    with torch.no_grad(), pyro_context():
        q, (mean, scale_tril) = fn_of(guide, x), model.posterior(x)
    covariance = getattr(q, "covariance_matrix", None)
    normal = dist.MultivariateNormal(q.mean, torch.diag_embed(q.variance) if covariance is None else covariance)
    return torch.distributions.kl_divergence(normal, dist.MultivariateNormal(mean, scale_tril=scale_tril))


@pytest.mark.parametrize("kind", ["mean-field", "full-rank", "low-rank"])
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_steps_raise_the_elbo_of_every_datum_and_lead_to_the_evidence(kind, scale):
    model, start, x = far_and_data(kind, 2, scale)
    before = divergence(start, model, x)
    few, some, many = (divergence(SemiAmortized(start, model, n, 0.5), model, x) for n in (5, 20, 150))
    assert (few < before).all()
    assert few.mean() < 0.4 * before.mean() and some.mean() < 0.1 * few.mean() + 0.05
    _, factor = model.posterior(x)
    precision = torch.cholesky_inverse(factor)
    of_mean_field = (precision.diagonal().log().sum() - precision.logdet()) / 2  # the least that independent ones have
    best = of_mean_field if kind == "mean-field" else 0.0
    torch.testing.assert_close(many, many * 0 + best, atol=0.02, rtol=0)


def test_the_gradient_goes_through_the_steps():
    """To the encoder and to the model, against differences."""
    guide = bent("semi-amortized", 2)
    with seeded(0):
        x = torch.randn(4, FEATURES, dtype=torch.float64)
    parameters = dict(guide.named_parameters())
    gradients = torch.autograd.grad(lopsided(guide.numbers(x)[:, 0]).sum(), list(parameters.values()))
    with torch.no_grad():
        for (label, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            entry, ends = parameter.flatten()[:1], []
            for change in (1e-5, -2e-5):
                entry.add_(change)
                ends.append(lopsided(guide.numbers(x)[:, 0]).sum())
            entry.add_(1e-5)
            assert gradient.flatten()[0].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-5, rel=1e-5), label


def test_steps_are_taken_once_for_each_datum_whatever_is_around_them():
    guide, x = bent("semi-amortized", 2), torch.ones(3, FEATURES, dtype=torch.float64)
    alone = guide.numbers(x)
    with torch.no_grad(), pyro_context(), seeded(5):
        assert torch.equal(guide.numbers(x), alone)
        before = torch.random.get_rng_state()
        guide.numbers(x)
        assert torch.equal(before, torch.random.get_rng_state())
        trace = poutine.trace(poutine.condition(guide, data={"z": x[:, :2]})).get_trace(x)
        assert [name for name, node in trace.nodes.items() if node["type"] == "sample"] == ["data", "z"]
        weights = log_weights(guide.model, guide, x, 7)
        z = torch.randn(7, 3, 2, dtype=torch.float64)
        density = log_density(guide, x, {"z": z})
    assert weights.shape == (7, 3)
    torch.testing.assert_close(density, guide.start.distribution(alone).log_prob(z))


class Switched(VAE):
    """p(component) p(z) p(x | component, z) with a component that is enumerated."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            logits = x.new_tensor([0.3, -0.2, 0.5])
            component = pyro.sample("component", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior(x))
            centre = x.new_tensor([-1.0, 0.0, 2.0])[component][..., None]
            pyro.sample("x", dist.Normal(self.decoder(z)[..., 0, :] + centre, 0.5).to_event(1), obs=x)


def test_what_the_model_enumerates_is_summed_out():
    with seeded(0):
        decoder = nn.Sequential(nn.Linear(2, FEATURES), nn.Unflatten(-1, (1, FEATURES))).double()
        x, z = torch.randn(4, FEATURES, dtype=torch.float64), torch.randn(5, 4, 2, dtype=torch.float64)
        guide = SemiAmortized(built("mean-field", 2).double(), Switched(decoder, 2), 3, 0.5)
    mean = decoder(z)[..., 0, :]
    by_hand = torch.stack(
        [
            logit + dist.Normal(mean + centre, 0.5).log_prob(x).sum(-1)
            for logit, centre in zip(torch.tensor([0.3, -0.2, 0.5]).log_softmax(0), (-1.0, 0.0, 2.0), strict=True)
        ]
    ).logsumexp(0)
    with pyro_context():
        found = guide._log_joint(x, z)
    torch.testing.assert_close(found, by_hand + dist.Normal(0.0, 1.0).log_prob(z).sum(-1), rtol=1e-6, atol=1e-6)


def test_another_latent_that_is_drawn_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("u", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., :1].expand_as(x), 1.0).to_event(1), obs=x)

    with seeded(0), pytest.raises(ValueError, match="'u' is drawn"):
        SemiAmortized(built("mean-field", 2), model, 1, 0.5)(torch.zeros(3, FEATURES))


def test_a_guide_of_another_model_has_the_same_encoder():
    with seeded(0):
        guide, other = built("semi-amortized", 2), linear(2)
    same = guide.of(other)
    assert same.start is guide.start and same.model is other
    assert (same.steps, same.rate, same.draws) == (guide.steps, guide.rate, guide.draws)


# -- starts of mixtures ------------------------------------------------------------------------------------------------


def test_kmeans_plus_plus_finds_far_clusters_however_small():
    with seeded(0):
        centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
        x = torch.cat([c + torch.randn(n, 2) for c, n in zip(centres, (200, 5, 5), strict=True)])
        found = [len(torch.cdist(_kmeans_plus_plus(x, 3), centres).argmin(1).unique()) for _ in range(50)]
    assert sum(count == 3 for count in found) >= 45  # by uniform draws about one in two hundred


@pytest.mark.parametrize("rows", [5, 1])
def test_kmeans_plus_plus_survives_data_with_fewer_points_than_centres(rows):
    with seeded(0):
        assert _kmeans_plus_plus(torch.ones(rows, 2), 7).shape == (7, 2)
