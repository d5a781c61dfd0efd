"""The step: the same numbers in every mode, for every company of seeds, and as torch's own Adam gives."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from zoo.densities import column_scale
from zoo.engine import Engine, Replica
from zoo.errors import OptionError
from zoo.guides import MeanFieldNormal
from zoo.models import VAE
from zoo.models.emissions import LearnedNormal
from zoo.noise import Tape
from zoo.objectives import ELBO, terms, traces
from zoo.pairs import VAEOptions, decoder, guide

COMPILED = pytest.param("inductor", marks=pytest.mark.slow)  # tens of seconds of compilation


@pytest.fixture(scope="module")
def x(iris):
    return torch.as_tensor(iris.scaled("train"))


def engine(pair, seeds, x, **settings):
    given = {"objective": ELBO(), "schedule": lambda _: (3e-3, 1.0), "batch_size": 16, "mode": "capture"}
    return Engine(pair, seeds, x, **given | settings)


def trained(engine, steps):
    return torch.stack([engine.step(step) for step in range(steps)])


@pytest.mark.parametrize("name", ["gaussian-learned", "gaussian-learned:full-rank", "gmm"])
def test_a_seed_is_the_same_alone_and_among_eight_for_100_steps(iris, x, name):
    pair = zoo.create(name, iris)
    among, alone = engine(pair, range(8), x), engine(pair, [3], x)
    torch.testing.assert_close(trained(among, 100)[..., 3], trained(alone, 100)[..., 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(among.state.theta[3], alone.state.theta[0], rtol=1e-6, atol=1e-6)
    assert (among.state.theta[3] - among.state.theta[4]).abs().max() > 1e-2


@pytest.mark.parametrize("mode", ["capture", COMPILED])
def test_every_mode_takes_the_step_that_pyro_takes(iris, x, mode):
    pair = zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,))
    plain, other = (engine(pair, [0, 5], x, mode=m, clip=1.0) for m in ("off", mode))
    assert other.mode == mode, other.note
    torch.testing.assert_close(trained(plain, 3), trained(other, 3), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(plain.state.theta, other.state.theta, rtol=1e-8, atol=1e-10)


def test_adam_is_torchs(iris, x):
    pair = zoo.create("gaussian-identity", iris, latent_dim=2, hidden=(8,))
    ours = engine(pair, [7], x, schedule=lambda step: (0.01 / (step + 1), 1.0))
    replica = pair.replica(7)
    program = Replica(replica.model, replica.guide).double()
    adam = torch.optim.Adam(program.parameters(), lr=0.01)
    decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 / (step + 1))
    for step in range(20):
        ours.step(step)
        rows, normal, uniform, _ = ours.inputs(step)
        with Tape(normal=normal[0], uniform=uniform[0]), pyro.settings.context(module_local_params=True):
            loss = ELBO()(program.model, program.guide, x[rows[0]]).value
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
    flat = torch.cat([p.detach().flatten() for p in program.parameters()])
    torch.testing.assert_close(ours.state.theta[0], flat, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("drawn", [True, False])
def test_every_datum_is_used_once_an_epoch_in_an_order_of_the_seeds_own(iris, x, drawn, monkeypatch):
    if not drawn:
        monkeypatch.setattr("zoo.batches.DRAWN_ORDER", 0)
    batches = engine(zoo.create("gmm", iris), [0, 1], x, batch_size=10, mode="off")
    n = len(x)
    steps = math.lcm(n, 10) // 10
    rows = torch.cat([batches.inputs(step).rows for step in range(steps)], dim=1)
    for seed in rows:
        for epoch in seed.split(n):
            assert sorted(epoch.tolist()) == list(range(n))
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0, :n], rows[0, n : 2 * n])
    shared = engine(zoo.create("gmm", iris), [4, 1], x, mode="off", same_batches=True)
    alone = engine(zoo.create("gmm", iris), [1], x, mode="off", same_batches=True)
    assert torch.equal(shared.inputs(3).rows[0], shared.inputs(3).rows[1])
    assert torch.equal(shared.inputs(3).rows[1], alone.inputs(3).rows[0])


def test_few_steps_are_made_ahead_where_they_are_large(iris):
    x = torch.randn(2**15, 4, generator=torch.Generator().manual_seed(0))
    e = engine(zoo.create("gmm", iris), [0], x, batch_size=len(x), mode="off")
    assert e.inputs(0).rows.untyped_storage().nbytes() == 8 * 2**18
    assert sorted(e.inputs(9).rows[0].tolist()) == list(range(len(x)))


def test_a_loss_that_is_not_finite_freezes_its_seed_alone(iris, x):
    pair = zoo.create("gaussian-learned", iris, latent_dim=2)
    broken, whole = engine(pair, [0, 1, 2], x), engine(pair, [0, 1, 2], x)
    trained(broken, 2), trained(whole, 2)
    column = list(broken.parameters(broken.state.theta)).index("model.decoder.2.bias")
    start = sum(math.prod(s) for s in broken.shapes[:column])
    broken.state.theta[1, start + x.shape[1] :][: x.shape[1]] = -2000.0  # log variances that underflow
    before = broken.state.theta[1].clone()
    statistics = broken.step(2)
    expected = whole.step(2)
    assert statistics[:, 1].isnan().all()
    assert torch.equal(broken.state.theta[1], before)
    assert broken.state.alive.tolist() == [True, False, True]
    for seed in (0, 2):
        assert torch.equal(statistics[:, seed], expected[:, seed])
        assert torch.equal(broken.state.theta[seed], whole.state.theta[seed])
    assert broken.step(3)[:, 1].isnan().all()


def test_clipping_bounds_the_gradient_of_each_seed(iris, x):
    pair = zoo.create("gaussian-learned", iris, latent_dim=2)
    free, clipped = engine(pair, [0, 1], x), engine(pair, [0, 1], x, clip=0.5)
    assert (free.step(0)[-1] > 0.5).all()
    clipped.step(0)
    # after one step Adam's first moment is a tenth of the gradient
    norms = (clipped.state.first * 10).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, 0.5))


def test_the_recorded_elbo_is_not_annealed(iris, x):
    pair = zoo.create("gaussian-constrained", iris)
    annealed, plain = engine(pair, [0], x, schedule=lambda _: (3e-3, 0.0)), engine(pair, [0], x)
    first, second = annealed.step(0), plain.step(0)
    torch.testing.assert_close(first[:4], second[:4])
    torch.testing.assert_close(first[0], first[1] - first[2])
    assert not torch.equal(annealed.state.theta, plain.state.theta)


def test_buffers_belong_to_their_seed(iris, x, catalogue):
    class Masked(VAE):
        def __init__(self, network, latent_dim):
            super().__init__(network, latent_dim)
            self.register_buffer("shift", torch.randn(4))

        def likelihood(self, z):
            return dist.Normal(self.decoder(z)[..., 0, :] + self.shift, 1.0).to_event(1)

    @zoo.register("masked", title="Own", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return Masked(decoder(data, options, 1), options.latent_dim), guide(data, options)

    pair = zoo.create("masked", iris)
    both = trained(engine(pair, [0, 1], x), 3)[..., 1]
    one = trained(engine(pair, [1], x), 3)[..., 0]
    plain = trained(engine(pair, [1], x, mode="off"), 3)[..., 0]
    torch.testing.assert_close(both, one)
    torch.testing.assert_close(plain, one)


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_a_steps_statistics_and_gradient_are_pyros(iris, x, kl_weight):
    pair = zoo.create("gaussian-constrained:full-rank", iris, latent_dim=2, hidden=(8,))
    ours = engine(pair, [7], x, schedule=lambda _: (3e-3, kl_weight))
    program = ours.program
    rows, normal, uniform, _ = ours.inputs(0)
    with Tape(normal=normal[0], uniform=uniform[0]), pyro.settings.context(module_local_params=True):
        of = terms(*traces(program.model, program.guide, x[rows[0]]), len(rows[0]))
    gradient = torch.autograd.grad(kl_weight * of.kl - of.log_likelihood, list(program.parameters()))
    flat = torch.cat([g.flatten() for g in gradient])
    told = ours.step(0)[:, 0]
    torch.testing.assert_close(
        told, torch.stack([of.elbo, *of[:3], of.elbo, flat.norm()]).detach(), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(ours.state.first[0], 0.1 * flat, rtol=1e-9, atol=1e-12)


def test_the_smallest_scale_is_the_decoders(iris, x):
    plain = engine(zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,)), [7], x, mode="off")
    model, seen = plain.program.model, []

    def spy(z):
        fn = type(model).likelihood(model, z)
        seen.append(fn.stddev.min().item())
        return fn

    model.likelihood = spy
    assert plain.step(0)[3, 0].item() == pytest.approx(seen[-1])


def test_every_step_and_every_seed_has_noise_of_its_own(iris, x):
    e = engine(zoo.create("gaussian-learned", iris), [0, 1], x, mode="off")
    first, second = e.inputs(0).normal, e.inputs(1).normal
    assert not torch.isclose(first, second).any()
    assert not torch.isclose(first[0], first[1]).any()


@pytest.mark.parametrize("mode", ["off", "capture", COMPILED])
def test_a_large_parameter_is_trained_apart_as_in_one_row(mode, iris, x, monkeypatch):
    pair = zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,))
    how = {"mode": mode, "clip": 0.5, "schedule": lambda _: (1e-2, 1.0)}
    whole = engine(pair, [0, 1], x, **how)
    monkeypatch.setattr("zoo.engine.LARGE", 20)
    apart = engine(pair, [0, 1], x, **how)
    assert len(whole.pieces) == 1
    assert len(apart.pieces) > 3
    assert apart.mode == mode, apart.note
    told = [trained(e, 5) for e in (whole, apart)]
    torch.testing.assert_close(*told, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(apart.state.theta, whole.state.theta, rtol=1e-9, atol=1e-12)
    apart.freeze([True, False])
    before = apart.state.theta.clone()
    apart.step(5)
    assert torch.equal(apart.state.theta[0], before[0])
    assert not torch.equal(apart.state.theta[1], before[1])


def test_a_gradient_within_the_limit_is_not_clipped(iris, x):
    pair = zoo.create("gaussian-learned", iris, latent_dim=2)
    free, wide = engine(pair, [0], x), engine(pair, [0], x, clip=1e6)
    free.step(0)
    wide.step(0)
    assert torch.equal(free.state.first, wide.state.first)


def test_the_scale_of_a_full_covariance_vanishes_with_its_determinant():
    tril = torch.tensor([[1.0, 0.0], [1.0, 1e-4]])
    assert column_scale(dist.MultivariateNormal(torch.zeros(2), scale_tril=tril)).tolist() == pytest.approx([1, 1e-4])


def test_the_scale_of_a_covariance_of_low_rank_vanishes_with_its_determinant():
    """Each deviation is the one given all other columns, 1 / sqrt of the precision's diagonal; marginal ones stay."""
    factor = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0)).double()
    for diagonal in (torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0, 0.7]).double(), torch.full((6,), 1e-10).double()):
        fn = dist.LowRankMultivariateNormal(torch.zeros(3, 6).double(), factor, diagonal)
        precision = torch.linalg.inv(fn.covariance_matrix).diagonal(dim1=-2, dim2=-1)
        assert torch.allclose(column_scale(fn), precision.rsqrt(), rtol=1e-4)
    assert column_scale(fn).min() < 2e-5 < 0.1 < fn.stddev.min()


class NoisyDecoder(VAE):
    """Draws in the ways that a program may, besides through torch.distributions."""

    draw = staticmethod(lambda mean: torch.randn(size=mean.shape, dtype=mean.dtype))

    def likelihood(self, z):
        mean = self.decoder(z)[..., 0, :]
        return dist.Normal(mean + self.draw(mean), 1.0).to_event(1)


def in_place(mean):
    noise = torch.empty_like(mean)
    noise.normal_()
    return noise


class Counter:
    """State that a recorded step would not see change."""

    def __init__(self):
        self.calls = 0

    def __call__(self, mean):
        self.calls += 1
        return torch.full_like(mean, self.calls)


@pytest.mark.parametrize(
    ("draw", "mode"),
    [
        (NoisyDecoder.draw, "capture"),
        (in_place, "off"),
        (Counter(), "off"),
        (lambda mean: torch.as_tensor(np.random.default_rng().normal(size=mean.shape)), "off"),
    ],
    ids=["by size", "in place", "python state", "numpy"],
)
def test_a_program_is_captured_only_if_the_graph_repeats_it(iris, x, catalogue, draw, mode):
    class Noisy(NoisyDecoder):
        pass

    Noisy.draw = staticmethod(draw)

    @zoo.register("noisy", title="Own", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return Noisy(decoder(data, options, 1), options.latent_dim), guide(data, options)

    taken = engine(zoo.create("noisy", iris), [0, 1], x)
    assert taken.mode == mode, taken.note
    assert bool(taken.note) == (mode == "off")


def test_what_cannot_be_captured_runs_through_pyro_and_says_why(iris, x, catalogue):
    class Counting(NoisyDecoder):
        draw = staticmethod(lambda mean: torch.poisson(mean.detach().exp()))

    @zoo.register("noisy", title="Own", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return Counting(decoder(data, options, 1), options.latent_dim), guide(data, options)

    pair = zoo.create("noisy", iris)
    first, again = engine(pair, [0, 1], x), engine(pair, [1], x)
    assert first.mode == "off"
    assert "random numbers that cannot be lifted" in first.note
    torch.testing.assert_close(trained(first, 5)[..., 1], trained(again, 5)[..., 0])


def registered(model_of):
    @zoo.register("own", title="Own", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return model_of(data, options), guide(data, options)


def test_parameters_that_want_no_gradient_stand_still(iris, x, catalogue):
    def frozen(data, options):
        model = VAE(decoder(data, options, 2), options.latent_dim, LearnedNormal())
        model.decoder.requires_grad_(False)
        return model

    registered(frozen)
    taken = engine(zoo.create("own", iris), [0, 1], x)
    before = {name: b.clone() for name, b in taken.buffers.items()}
    trained(taken, 3)
    assert all(name.startswith("guide.") for name in taken.names)
    assert {name for name in before if name.startswith("model.decoder")}
    assert all(torch.equal(taken.buffers[name], b) for name, b in before.items())


def test_batch_normalisation_is_refused_with_the_reason(iris, x, catalogue):
    def normalised(data, options):
        network = torch.nn.Sequential(torch.nn.BatchNorm1d(options.latent_dim), decoder(data, options, 2))
        return VAE(network, options.latent_dim, LearnedNormal())

    registered(normalised)
    with pytest.raises(OptionError, match=r"changes model.decoder.0.running_mean .*layer normalisation"):
        engine(zoo.create("own", iris), [0], x)


def test_dropout_is_on_in_training_and_off_in_scoring(iris, x, catalogue):
    def dropping(data, options):
        network = torch.nn.Sequential(decoder(data, options, 2), torch.nn.Dropout(0.5))
        return VAE(network, options.latent_dim, LearnedNormal())

    registered(dropping)
    run = zoo.fit(zoo.create("own", iris), iris, seeds=1, steps=5, progress=False)
    assert not run._program(0, gaps=False).training


def test_an_objective_with_a_penalty_is_what_is_trained(iris, x):
    def penalised(model, guide, batch, kl_weight):
        of = terms(*traces(model, guide, batch), len(batch))
        return of.loss_of(of.log_likelihood - 100 * of.kl, kl_weight)

    pair = zoo.create("gaussian-constrained", iris, latent_dim=2)
    plain, held = engine(pair, [0], x), engine(pair, [0], x, objective=penalised)
    trained(plain, 5), trained(held, 5)
    assert not torch.allclose(plain.state.theta, held.state.theta)


@pytest.mark.parametrize("seeds", [1, 3])
def test_large_products_by_onednn_are_products(seeds):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(seeds, 50, 70, generator=generator), torch.randn(seeds, 90, 70, generator=generator).mT
    torch.testing.assert_close(torch.ops.zoo.bmm(a, b), torch.bmm(a, b))


@pytest.mark.parametrize("mode", ["capture", COMPILED])
def test_a_step_with_large_products_is_the_step_without(digits, mode):
    x = torch.as_tensor(digits.scaled("train"), dtype=torch.float32)
    pair = zoo.create("gaussian-constrained", digits, hidden=(512,))
    fast, plain = (engine(pair, [0, 1], x, batch_size=128, mode=m) for m in (mode, "off"))
    torch.testing.assert_close(fast.step(0), plain.step(0), rtol=1e-4, atol=1e-4)
    if mode == "capture":
        assert fast._advance.graph.find_nodes(op="call_function", target=torch.ops.zoo.bmm.default)


def test_draws_without_a_reparametrisation_are_refused_not_trained_wrongly(iris, x, catalogue):
    class Discrete(VAE):
        def forward(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Bernoulli(x.new_full((self.latent_dim,), 0.5)).to_event(1))
                pyro.sample("x", self.likelihood(z), obs=x)

        def likelihood(self, z):
            return dist.Normal(self.decoder(z)[..., 0, :], 1.0).to_event(1)

    class DiscreteGuide(MeanFieldNormal):
        def forward(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)[..., 0, :]).to_event(1))

    @zoo.register(
        "discrete", title="Own", summary="", formula="", support="real", bounded=True, bound="b", reference=""
    )
    def build(data: zoo.Data, options: VAEOptions):
        model = Discrete(decoder(data, options, 1), options.latent_dim)
        return model, DiscreteGuide(guide(data, options).encoder)

    with pytest.raises(OptionError, match="'z' from a distribution that cannot be reparametrised"):
        engine(zoo.create("discrete", iris), [0], x)


class FullCovariance(VAE):
    """A covariance of its own, positive definite only while ``spread`` is above 0."""

    def __init__(self, decoder, latent_dim):
        super().__init__(decoder, latent_dim)
        self.spread = torch.nn.Parameter(torch.ones(()))

    def likelihood(self, z):
        mean = self.decoder(z).squeeze(-2)
        eye = torch.eye(mean.shape[-1], dtype=mean.dtype)
        return dist.MultivariateNormal(mean, self.spread * eye + 0.1)


@pytest.mark.parametrize("mode", ["off", "capture", COMPILED])
def test_a_factorisation_that_fails_freezes_its_seed_alone(iris, x, catalogue, mode):
    @zoo.register("full", title="Own", summary="", formula="", support="real", bounded=False, reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return FullCovariance(decoder(data, options, 1), options.latent_dim), guide(data, options)

    pair = zoo.create("full", iris, latent_dim=2, hidden=(8,))
    whole, broken = (engine(pair, [0, 1, 2], x, mode=mode) for _ in range(2))
    assert broken.mode == mode, broken.note
    broken.parameters(broken.state.theta)["model.spread"][1] = -1.0
    before = broken.state.theta[1].clone()
    expected, statistics = trained(whole, 3), trained(broken, 3)
    assert broken.state.alive.tolist() == [True, False, True]
    assert statistics[..., 1].isnan().all()
    assert torch.equal(broken.state.theta[1], before)
    torch.testing.assert_close(statistics[..., [0, 2]], expected[..., [0, 2]])
    assert "linalg.cholesky" in broken.fault(1, 0)
    assert broken.fault(0, 0) == "when repeated, the step was finite"


@pytest.mark.parametrize(
    ("broken", "value", "told"),
    [
        ("model.decoder", torch.nan, "the log_prob of the model's site 'x' was not finite"),
        ("model.decoder.2.bias", 1e200, "the log_prob of the model's site 'x' was not finite"),  # its square overflows
        ("guide", torch.nan, "the value of the guide's site 'z' was not finite"),
        ("guide.encoder.2.bias", -1e5, "the log_prob of the guide's site 'z' was not finite"),  # its scale vanishes
    ],
)
@pytest.mark.parametrize("mode", ["off", "capture"])
def test_a_fault_names_the_site(iris, x, mode, broken, value, told):
    of = engine(zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,)), [0, 1], x, mode=mode)
    name = next(name for name in of.names if name.startswith(broken))
    of.parameters(of.state.theta)[name][1] = value
    of.step(0)
    assert of.state.alive.tolist() == [True, False]
    assert of.fault(1, 0) == told


class Cliff(VAE):
    """Its density is finite where the square root's slope is not."""

    def __init__(self, decoder, latent_dim):
        super().__init__(decoder, latent_dim)
        self.edge = torch.nn.Parameter(torch.ones(()))

    def likelihood(self, z):
        return dist.Normal(self.decoder(z).squeeze(-2) + self.edge.sqrt(), 1.0).to_event(1)


def test_a_fault_names_the_parameter_whose_gradient_it_was(iris, x, catalogue):
    @zoo.register("cliff", title="Own", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return Cliff(decoder(data, options, 1), options.latent_dim), guide(data, options)

    of = engine(zoo.create("cliff", iris, latent_dim=2, hidden=(8,)), [0, 1], x)
    of.parameters(of.state.theta)["model.edge"][1] = 0.0
    of.step(0)
    assert of.state.alive.tolist() == [True, False]
    assert of.fault(1, 0) == "the gradient of model.edge was not finite"
