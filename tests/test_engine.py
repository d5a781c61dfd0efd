"""The step: the same numbers in every mode, for every company of seeds, and as torch's own Adam gives."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from zoo.engine import Engine, Program, Tape
from zoo.guides import MeanFieldNormal
from zoo.models import VAE
from zoo.objective import elbo
from zoo.pairs import VAEOptions, decoder, guide


@pytest.fixture(scope="module")
def x(iris):
    return torch.as_tensor(iris.scaled("train"))


def engine(pair, seeds, x, **settings):
    return Engine(pair, seeds, x, **{"objective": elbo, "batch_size": 16, "mode": "capture"} | settings)


def trained(engine, steps, rate=3e-3, kl_weight=1.0):
    return torch.stack([engine.step(step, rate, kl_weight) for step in range(steps)])


@pytest.mark.parametrize("name", ["gaussian-learned", "gaussian-learned:full-rank", "gmm"])
def test_a_seed_is_the_same_alone_and_among_eight_for_100_steps(iris, x, name):
    pair = zoo.create(name, iris)
    among, alone = engine(pair, range(8), x), engine(pair, [3], x)
    torch.testing.assert_close(trained(among, 100)[..., 3], trained(alone, 100)[..., 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(among.state.theta[3], alone.state.theta[0], rtol=1e-6, atol=1e-6)
    assert (among.state.theta[3] - among.state.theta[4]).abs().max() > 1e-2


@pytest.mark.parametrize("mode", ["capture", "inductor"])
def test_every_mode_takes_the_step_that_pyro_takes(iris, x, mode):
    pair = zoo.create("gaussian-constrained", iris, latent_dim=2, hidden=(8,))
    plain, other = (engine(pair, [0, 5], x, mode=m, clip=1.0) for m in ("off", mode))
    assert other.mode == mode, other.note
    torch.testing.assert_close(trained(plain, 3), trained(other, 3), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(plain.state.theta, other.state.theta, rtol=1e-8, atol=1e-10)


def test_adam_is_torchs(iris, x):
    pair = zoo.create("gaussian-identity", iris, latent_dim=2, hidden=(8,))
    ours = engine(pair, [7], x)
    replica = pair.replica(7)
    program = Program(replica.model, replica.guide).double()
    adam = torch.optim.Adam(program.parameters(), lr=0.01)
    for step in range(20):
        ours.step(step, 0.01)
        normal, uniform = ours.noise(step)
        with Tape(normal=normal[0], uniform=uniform[0]), pyro.settings.context(module_local_params=True):
            loss = -elbo(program.model, program.guide, x[ours.batch_rows(step)[0]]).elbo
        adam.zero_grad()
        loss.backward()
        adam.step()
    flat = torch.cat([p.detach().flatten() for p in program.parameters()])
    torch.testing.assert_close(ours.state.theta[0], flat, rtol=1e-9, atol=1e-12)


def test_every_datum_is_used_once_an_epoch_in_an_order_of_the_seeds_own(iris, x):
    batches = engine(zoo.create("gmm", iris), [0, 1], x, batch_size=10, mode="off")
    n = len(x)
    steps = math.lcm(n, 10) // 10
    rows = torch.cat([batches.batch_rows(step) for step in range(steps)], dim=1)
    for seed in rows:
        for epoch in seed.split(n):
            assert sorted(epoch.tolist()) == list(range(n))
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0, :n], rows[0, n : 2 * n])
    shared = engine(zoo.create("gmm", iris), [4, 1], x, mode="off", same_batches=True)
    alone = engine(zoo.create("gmm", iris), [1], x, mode="off", same_batches=True)
    assert torch.equal(shared.batch_rows(3)[0], shared.batch_rows(3)[1])
    assert torch.equal(shared.batch_rows(3)[1], alone.batch_rows(3)[0])


def test_a_loss_that_is_not_finite_freezes_its_seed_alone(iris, x):
    pair = zoo.create("gaussian-learned", iris, latent_dim=2)
    broken, whole = engine(pair, [0, 1, 2], x), engine(pair, [0, 1, 2], x)
    trained(broken, 2), trained(whole, 2)
    column = list(broken.parameters(broken.state.theta)).index("model.decoder.2.bias")
    start = sum(math.prod(s) for s in broken.shapes[:column])
    broken.state.theta[1, start + x.shape[1] :][: x.shape[1]] = -2000.0  # log variances that underflow
    before = broken.state.theta[1].clone()
    statistics = broken.step(2, 1e-3)
    expected = whole.step(2, 1e-3)
    assert statistics[:, 1].isnan().all()
    assert torch.equal(broken.state.theta[1], before)
    assert broken.state.alive.tolist() == [True, False, True]
    for seed in (0, 2):
        assert torch.equal(statistics[:, seed], expected[:, seed])
        assert torch.equal(broken.state.theta[seed], whole.state.theta[seed])
    assert broken.step(3, 1e-3)[:, 1].isnan().all()


def test_clipping_bounds_the_gradient_of_each_seed(iris, x):
    pair = zoo.create("gaussian-learned", iris, latent_dim=2)
    free, clipped = engine(pair, [0, 1], x), engine(pair, [0, 1], x, clip=0.5)
    assert (free.step(0, 1e-3)[4] > 0.5).all()
    clipped.step(0, 1e-3)
    # after one step Adam's first moment is a tenth of the gradient
    norms = (clipped.state.first * 10).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, 0.5))


def test_the_recorded_elbo_is_not_annealed(iris, x):
    pair = zoo.create("gaussian-constrained", iris)
    annealed, plain = engine(pair, [0], x), engine(pair, [0], x)
    first, second = annealed.step(0, 1e-3, kl_weight=0.0), plain.step(0, 1e-3, kl_weight=1.0)
    torch.testing.assert_close(first[:4], second[:4])
    torch.testing.assert_close(first[0], first[1] - first[2])
    assert not torch.equal(annealed.state.theta, plain.state.theta)


class GammaDecoder(VAE):
    """Draws from a Gamma, whose noise cannot be lifted out."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Gamma(x.new_ones(self.latent_dim), x.new_ones(())).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)

    def likelihood(self, z):
        return dist.Normal(self.decoder(z)[..., 0, :], 1.0).to_event(1)


class GammaGuide(MeanFieldNormal):
    def forward(self, x):
        shape, rate = self.encoder(x).unbind(-2)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Gamma(shape.exp(), rate.exp()).to_event(1))


def test_what_cannot_be_captured_runs_through_pyro_and_says_why(iris, x, catalogue):
    @zoo.register("gamma", title="", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        model = GammaDecoder(decoder(data, options, 1), options.latent_dim)
        return model, GammaGuide(guide(data, options).encoder)

    pair = zoo.create("gamma", iris)
    first, again = engine(pair, [0, 1], x), engine(pair, [1], x)
    assert first.mode == "off"
    assert "random numbers that cannot be lifted" in first.note
    torch.testing.assert_close(trained(first, 5)[..., 1], trained(again, 5)[..., 0])


def test_buffers_belong_to_their_seed(iris, x, catalogue):
    class Masked(VAE):
        def __init__(self, network, latent_dim):
            super().__init__(network, latent_dim)
            self.register_buffer("shift", torch.randn(4))

        def likelihood(self, z):
            return dist.Normal(self.decoder(z)[..., 0, :] + self.shift, 1.0).to_event(1)

    @zoo.register("masked", title="", summary="", formula="", support="real", bounded=True, bound="b", reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return Masked(decoder(data, options, 1), options.latent_dim), guide(data, options)

    pair = zoo.create("masked", iris)
    both = trained(engine(pair, [0, 1], x), 3)[..., 1]
    one = trained(engine(pair, [1], x), 3)[..., 0]
    plain = trained(engine(pair, [1], x, mode="off"), 3)[..., 0]
    torch.testing.assert_close(both, one)
    torch.testing.assert_close(plain, one)


@pytest.mark.parametrize(
    "draw",
    [
        dist.Normal(torch.zeros(3), 2.0),
        dist.Uniform(torch.zeros(3), 2.0),
        dist.Laplace(torch.zeros(3), 2.0),
        dist.Exponential(torch.full((3,), 2.0)),
        dist.LogNormal(torch.zeros(3), 1.0),
    ],
    ids=lambda d: type(d).__name__,
)
def test_the_tape_feeds_draws_of_the_right_distribution(draw):
    from scipy import stats

    generator = torch.Generator().manual_seed(0)
    noise = {
        "normal": torch.randn(30000, generator=generator),
        "uniform": torch.rand(30000, generator=generator),
    }
    with Tape(**noise):
        drawn = draw.rsample((4000,))
    assert stats.kstest(draw.cdf(drawn).flatten().numpy(), "uniform").pvalue > 1e-3
