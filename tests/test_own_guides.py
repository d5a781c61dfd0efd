"""Guides and latents of one's own: flows, discrete latents beside continuous ones, and weighed terms."""

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import transforms
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm
from torch import nn

import zoo
from zoo.context import Stream, pyro_context, seeded
from zoo.evaluation.annealing import anneal
from zoo.evaluation.spread import spread
from zoo.inference import LogWeights, log_mean_exp, posterior_draws
from zoo.latents import log_density
from zoo.models import VAE
from zoo.models.emissions import ConstrainedNormal, FixedNormal
from zoo.objectives import ELBO, terms, traces
from zoo.pairs import ConstrainedOptions, VAEOptions, decoder, guide

pytestmark = pytest.mark.usefixtures("quick_scores", "blank_pictures")
FLOWS = {"iaf": lambda dim: transforms.affine_autoregressive(dim, [8]), "planar": transforms.Planar}


class FlowGuide(nn.Module):
    """A normal that an encoder gives, put through a flow: no mean, no variance, no family."""

    def __init__(self, features, latent_dim, flow):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, 2 * latent_dim))
        self.flow = flow(latent_dim)

    def forward(self, x):
        mean, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x), dim=-1):
            base = dist.Normal(mean, log_scale.exp()).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))


def registered(name, build, options=VAEOptions, **claims):
    """A pair of one's own, whose options are inherited from those of the zoo's VAEs."""

    def builds(data: zoo.Data, options):
        return build(data, options)

    builds.__annotations__["options"] = options
    claims = {
        "title": name,
        "summary": "",
        "formula": "",
        "support": "real",
        "bounded": False,
        "reference": "",
    } | claims
    zoo.register(name, **claims)(builds)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_fitted_scored_and_reported(name, catalogue, iris, tmp_path):
    def build(data, options):
        model = VAE(decoder(data, options, 2), options.latent_dim, ConstrainedNormal(options.floor))
        return model, FlowGuide(data.features, options.latent_dim, FLOWS[name])

    registered(name, build, ConstrainedOptions, bounded=True, bound="-(D/2) log(2π floor)", guide=name)
    assert zoo.testing.check_pair(name) == []
    pair = zoo.create(name, iris, latent_dim=2, hidden=(8,))
    assert pair.guide_name == name
    run = zoo.fit(pair, iris, seeds=1, steps=300, progress=False)  # so that some k is bad
    tree = zoo.evaluate(run, iris, samples=100, temperatures=3)
    absent = json.loads(tree.attrs["absent"])
    assert "family of Normal by" in absent.pop("spread: gaps")
    if name == "planar":  # known at its own draws alone
        for what in ("heldout: annealing", "heldout: annealing of the mass"):
            assert absent.pop(what).startswith("the density of Normal by Planar at a point")
        assert set(np.unique(tree["heldout/method"])) == {1}
    assert not absent
    assert np.isfinite(tree["heldout/log_evidence"]).all()
    assert tree["spread/contraction"].sizes == {"chain": 1, "latent": 2}
    assert name in zoo.report([run], tmp_path).read_text(encoding="utf-8")
    x = iris.test.values
    ((mean, drawn),) = run.each_seed(
        lambda model, guide: (
            torch.as_tensor(run.encode(x)[0]),
            posterior_draws(model, guide, torch.as_tensor(pair.view.inward(x), dtype=torch.float32), 4000).latents["z"],
        ),
        Stream.POSTERIOR,
    )
    error = drawn.std(0) * (1 / 1000 + 1 / 4000) ** 0.5
    assert ((mean - drawn.mean(0)).abs() < 5 * error).all()


class BlindGuide(nn.Module):
    """The prior itself, as a distribution whose mean torch does not know."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            normal = dist.Normal(x.new_zeros(2), x.new_ones(2))
            same = transforms.AffineTransform(0.0, 1.0)
            pyro.sample("z", dist.TransformedDistribution(normal, [same]).to_event(1))


def test_draws_do_not_make_a_unit_active(catalogue):
    """The means of 32 draws vary by 1/32 where the means themselves do not vary at all."""
    registered(
        "blind",
        lambda data, options: (VAE(decoder(data, options, 1), 2, FixedNormal(1.0)), BlindGuide()),
        guide="blind",
    )
    values = np.random.default_rng(0).normal(size=(1100, 2))
    data = zoo.Data.from_array(values, split=["train"] * 60 + ["validation"] * 40 + ["test"] * 1000)
    run = zoo.fit(zoo.create("blind", data, latent_dim=2, hidden=(4,)), data, seeds=1, steps=2, progress=False)
    x = torch.as_tensor(run.pair.view.inward(data.test.values), dtype=torch.float32)
    group = spread(run, x, run.tree["validation"].to_dataset())
    assert (group["mean_variance"] < 0.01).all()
    np.testing.assert_allclose(group["contraction"], 0, atol=0.1)
    assert "family of Normal by" in group.attrs["absent"]["gaps"]


# -- a discrete and a continuous latent --------------------------------------------------------------------------------


class TwoClusters(VAE):
    """p(y) p(z | y) p(x | y, z) with y one of three and z one number."""

    def __init__(self, network, latent_dim):
        super().__init__(network, latent_dim)
        self.logits = nn.Parameter(torch.tensor([0.5, -0.3, 0.1]))
        self.centres = nn.Parameter(torch.tensor([-1.5, 0.4, 2.0]))
        self.shift = nn.Parameter(torch.tensor([0.8, -0.5, 0.2]))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.logits))
            centre = self.centres[y][..., None].expand(*y.shape, self.latent_dim)
            z = pyro.sample("z", dist.Normal(centre, 0.7).to_event(1))
            (mean,) = self.decoder(z).unbind(-2)
            pyro.sample("x", dist.Normal(mean + self.shift[y][..., None], 0.6).to_event(1), obs=x)


class ClusterGuide(nn.Module):
    """q(y | x) q(z | x, y), or with ``apart`` q(z | x) q(y | x)."""

    def __init__(self, features, latent_dim, apart):
        super().__init__()
        self.of_y, self.of_z = nn.Linear(features, 3), nn.Linear(features, 2 * latent_dim)
        self.by_y = nn.Parameter(torch.tensor([-0.5, 0.0, 0.5]))
        self.apart = apart

    def forward(self, x):
        mean, log_scale = self.of_z(x).chunk(2, -1)
        with pyro.plate("data", len(x), dim=-1):
            enumerated = {"enumerate": "parallel"}
            y = pyro.sample("y", dist.Categorical(logits=self.of_y(x)), infer=enumerated)
            moved = mean if self.apart else mean + self.by_y[y][..., None]
            scale = log_scale.exp().clamp(min=0.8) + 0 * moved
            pyro.sample("z", dist.Normal(moved, scale).to_event(1))


def clusters(apart):
    registered(
        "clusters",
        lambda data, options: (
            TwoClusters(decoder(data, options, 1), options.latent_dim),
            ClusterGuide(data.features, options.latent_dim, apart),
        ),
        guide="clusters",
    )


@pytest.mark.parametrize("apart", [False, True])
def test_what_is_enumerated_is_summed_beside_what_is_drawn(catalogue, iris, apart):
    """Against a sum over y and quadrature over z in plain NumPy."""
    clusters(apart)
    pair = zoo.create("clusters", iris, latent_dim=1, hidden=(6,))
    x = torch.as_tensor(pair.view.inward(iris.test.values), dtype=torch.float32)[:10]
    with seeded(3), torch.no_grad(), pyro_context():
        weights = LogWeights(4000)(pair.model, pair.guide, x)
        draws = posterior_draws(pair.model, pair.guide, x, 5)
    first, _, last, _ = pair.model.decoder
    (w1, b1), (w2, b2) = ([p.detach().double().numpy() for p in (layer.weight, layer.bias)] for layer in (first, last))
    z = np.linspace(-8, 9, 4001)
    mean = np.tanh(z[:, None] @ w1.T + b1) @ w2.T + b2
    logits, centres, shift = (getattr(pair.model, n).detach().double().numpy() for n in ("logits", "centres", "shift"))
    joint = [
        log_softmax(logits)[y]
        + norm.logpdf(z, centres[y], 0.7)[:, None]
        + norm.logpdf(x.double().numpy(), (mean + shift[y])[:, None], 0.6).sum(-1)
        for y in range(3)
    ]
    exact = logsumexp(joint, axis=(0, 1)) + np.log(z[1] - z[0])
    estimate = log_mean_exp(weights)
    error = (weights - estimate).exp().std(0) / len(weights) ** 0.5
    assert weights.shape == (4000, 10)
    assert error.max() < 0.1
    assert (np.abs(estimate.numpy() - exact) <= 4 * error.numpy() + 1e-4).all()
    y, at = draws.latents["y"].numpy(), draws.latents["z"].double().numpy()[..., 0]
    by_hand = log_softmax(logits)[y] + norm.logpdf(at, centres[y], 0.7)
    by_hand += norm.logpdf(
        x.double().numpy(), np.tanh(at[..., None] @ w1.T + b1) @ w2.T + b2 + shift[y][..., None], 0.6
    ).sum(-1)
    np.testing.assert_allclose(draws.lp, by_hand, atol=1e-3)


def test_a_discrete_and_a_continuous_latent_go_through_everything(catalogue, iris, tmp_path):
    clusters(apart=False)
    (unknown,) = zoo.testing.check_pair("clusters")
    assert unknown.startswith("witness: the path is integrated over a standard normal prior")
    run = zoo.fit(zoo.create("clusters", iris, latent_dim=2, hidden=(8,)), iris, seeds=1, steps=30, progress=False)
    tree = zoo.evaluate(run, iris, samples=60, temperatures=3)
    absent = json.loads(tree.attrs["absent"])
    assert absent["spread: gaps"].endswith("this one has z, y.")
    assert set(absent) == {"spread: gaps", "wellposedness"}
    assert tree["posterior/y"].dims == ("chain", "draw", "obs")
    assert tree["posterior/z"].dims == ("chain", "draw", "obs", "latent")
    assert run.encode(iris.test.values).shape == (1, 30, 2)
    pit = tree["calibration/pit"].sel(kind="leave-one-out")
    assert ((pit >= 0) & (pit <= 1)).all()
    zoo.report([run], tmp_path)


# -- terms that are weighed in training --------------------------------------------------------------------------------


class BetaVAE(VAE):
    """A KL term that weighs four times, as a user writes it."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Normal(x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)).to_event(1)
            with poutine.scale(scale=4.0):
                z = pyro.sample("z", prior)
            pyro.sample("x", self.likelihood(z), obs=x)


class BetaGuide(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, x):
        with poutine.scale(scale=4.0):
            self.plain(x)


class TemperedVAE(VAE):
    """The same proportion, by a datum that weighs a quarter."""

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Normal(x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)).to_event(1)
            z = pyro.sample("z", prior)
            with poutine.scale(scale=0.25):
                pyro.sample("x", self.likelihood(z), obs=x)


WEIGHED = {"own-beta": (BetaVAE, BetaGuide, 1.0, 4.0), "tempered": (TemperedVAE, lambda plain: plain, 0.25, 1.0)}


def weighed(name):
    model, wrap, *_ = WEIGHED[name]
    registered(
        name,
        lambda data, options: (
            model(decoder(data, options, 1), options.latent_dim, FixedNormal(0.5)),
            wrap(guide(data, options)),
        ),
        bounded=True,
        bound="-(D/2) log(2π scale²)",
    )


@pytest.mark.parametrize("name", WEIGHED)
def test_scores_are_of_densities_as_they_are(name, catalogue, iris):
    """Every number is that of the same programs without weights."""
    weighed(name)
    pair = zoo.create(name, iris, latent_dim=2, hidden=(8,))
    model, q = pair.model.double(), pair.guide.double()
    plain = VAE(model.decoder, 2, FixedNormal(0.5)), getattr(q, "plain", q)
    x = torch.as_tensor(pair.view.inward(iris.test.values))[:6]
    found = []
    for programs in ((model, q), plain):
        with seeded(1), torch.no_grad(), pyro_context():
            draws = posterior_draws(*programs, x, 3)
            density = log_density(programs[0], x, draws.latents)
            found.append(
                [
                    LogWeights(3)(*programs, x), draws.lp, draws.lq, density,
                    anneal(*programs, x, temperatures=3, chains=4).log_evidence,
                    *terms(*traces(*programs, x), len(x))[:2],
                ]
            )  # fmt: skip
    for ours, unweighed in zip(*found, strict=True):
        torch.testing.assert_close(ours, unweighed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WEIGHED)
def test_training_keeps_its_weights_and_records_the_elbo(name, catalogue, iris):
    weighed(name)
    of_x, of_kl = WEIGHED[name][2:]
    assert zoo.testing.check_pair(name) == []
    run = zoo.fit(zoo.create(name, iris, latent_dim=2, hidden=(8,)), iris, seeds=1, steps=40, warmup=20, progress=False)
    told = run.tree["optimization"].to_dataset()
    np.testing.assert_allclose(told["elbo"], told["log_likelihood"] - told["kl"], atol=1e-4)
    unit = run.pair.view.log_volume
    weighed_sum = of_x * (told["log_likelihood"] + unit) - of_kl * told["kl"] - unit
    np.testing.assert_allclose(told["objective"], weighed_sum, atol=1e-4)


def test_a_warm_up_weighs_what_is_weighed(catalogue, iris):
    weighed("own-beta")
    pair = zoo.create("own-beta", iris, latent_dim=2, hidden=(8,))
    x = torch.as_tensor(pair.view.inward(iris.train.values), dtype=torch.float32)
    for share in (0.0, 0.5, 1.0):
        with seeded(0), pyro_context():
            value, of = ELBO()(pair.model, pair.guide, x, torch.tensor(share))
        assert value.item() == pytest.approx((share * 4 * of["kl"] - of["log_likelihood"]).item(), rel=1e-5)


def test_the_kit_catches_weights_of_weighed_densities(catalogue, monkeypatch):
    weighed("own-beta")
    monkeypatch.setattr(zoo.inference, "plain_log_prob", lambda node: node["log_prob"])
    with pytest.raises(AssertionError, match=r"check 'weights': .*poutine\.scale"):
        zoo.testing.check_pair("own-beta")
