"""What a pair's programs may hold: what a fit would leave out is refused before the first step, the rest is trained."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn

import zoo
from zoo.errors import OptionError
from zoo.models import VAE, Emission
from zoo.pairs import VAEOptions, decoder, guide

D, L = 4, 2
QUICK = {"seeds": 1, "steps": 3, "progress": False}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return zoo.Data.from_array(rng.normal(size=(120, L)) @ rng.normal(size=(L, D)) + 0.3 * rng.normal(size=(120, D)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder, self.log_scale = nn.Linear(L, D), nn.Parameter(torch.zeros(D))

    def beside(self, z, x):
        """Another term."""

    def likelihood(self, z):
        return dist.Normal(self.decoder(z), self.log_scale.exp()).to_event(1)

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            self.beside(z, x)
            pyro.sample("x", self.likelihood(z), obs=x)


class Guide(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D, 2 * L)

    def encode(self, x):
        return self.encoder(x)

    def forward(self, x):
        mean, log_scale = self.encode(x).unflatten(-1, (2, L)).unbind(-2)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))


class Factor(Model):
    def beside(self, z, _):
        pyro.factor("penalty", -z.square().sum(-1))


class TwoObserved(Model):
    def beside(self, z, x):
        pyro.sample("y", dist.Normal(z[..., 0], 1.0), obs=x[..., 0])


class Loose(Model):
    def likelihood(self, z):
        return dist.Normal(self.decoder(z), pyro.param("loose", torch.ones(D))).to_event(1)


class GlobalLatent(Model):
    def forward(self, x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        super().forward(x)


class GlobalLatentGuide(Guide):
    def forward(self, x):
        pyro.sample("w", dist.Normal(self.encoder.bias[0], 1.0))
        super().forward(x)


class TwoPlates(Model):
    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", D, dim=-1):
            pyro.sample("x", dist.Normal(self.decoder(z), self.log_scale.exp()), obs=x)


class Torchs(Model):
    def likelihood(self, z):
        return torch.distributions.Independent(torch.distributions.Normal(self.decoder(z), self.log_scale.exp()), 1)


class Centred(Guide):
    def encode(self, x):
        return self.encoder(x - x.mean(0))


class Normalised(Guide):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(D, track_running_stats=False)

    def encode(self, x):
        return self.encoder(self.norm(x))


def frozen(program):
    return program.requires_grad_(False)


def pair_of(model, made, table, name="contract"):
    @zoo.register(name, title="t", summary="s.", formula="p", support="real", bounded=True, bound="b", reference="r")
    def build(data: zoo.Data, options: VAEOptions):
        return model(), made()

    return zoo.create(name, table)


@pytest.mark.parametrize(
    ("model", "made", "told"),
    [
        (Factor, Guide, "model has the observed site 'penalty'"),
        (TwoObserved, Guide, "model has the observed site 'y'"),
        (Loose, Guide, r"model has pyro.param\('loose'\).* nn.Parameter"),
        (GlobalLatent, GlobalLatentGuide, "'w' of the model should be in one plate, .* its plate is none"),
        (TwoPlates, Guide, "'x' of the model should be in one plate, .* 'rows' and 'columns'"),
        (Torchs, Guide, "Independent of torch.distributions.*take the one of pyro.distributions"),
        (Model, Centred, "'z' for a row depends on the rows beside it"),
        (Model, Normalised, "'z' for a row depends on the rows beside it"),
        (lambda: frozen(Model()), lambda: frozen(Guide()), "no parameter to train"),
        (lambda: Model().double(), Guide, r"a Model in double precision.* leave out .double\(\)"),
    ],
)
def test_what_would_be_left_out_or_fail_in_scoring_is_refused(model, made, told, table, catalogue):
    with pytest.raises(OptionError, match=told):
        zoo.fit(pair_of(model, made, table), table, **QUICK)
    pyro.clear_param_store()


class Noted(Model):
    def beside(self, z, _):
        pyro.deterministic("length", z.norm(dim=-1))


class WholeModule(PyroModule, Model):
    pass


class WholeGuide(PyroModule, Guide):
    pass


class Shaken(Guide):
    def encode(self, x):
        noise = torch.normal(0.0, 0.01, (L,)) + torch.normal(0.0, torch.full((L,), 0.01)) + torch.normal(torch.zeros(L))
        return self.encoder(x) + torch.cat([noise, noise])


class Mixture(Emission):
    """Two normals of all columns together."""

    outputs = 2

    def forward(self, parameters):
        mean, apart = parameters.unbind(-2)
        each = dist.Normal(torch.stack([mean - apart, mean + apart], dim=-2), 1.0).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)).expand(each.batch_shape[:-1]), each)


@pytest.mark.parametrize(("model", "made"), [(Noted, Guide), (WholeModule, WholeGuide), (Model, Shaken)])
def test_what_can_be_trained_is_recorded_and_scored(model, made, table, catalogue, monkeypatch, quick_scores):
    run = zoo.fit(pair_of(model, made, table), table, **QUICK, compile="capture")
    assert run.tree.attrs["compile"] == "capture"
    assert np.isfinite(zoo.evaluate(run, table, samples=20, temperatures=0)["heldout/log_evidence"]).all()


def test_a_parameter_of_a_pyro_module_is_no_loose_one(table, catalogue):
    class Scaled(PyroModule):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Linear(L, D)
            self.loose = PyroParam(torch.ones(D), dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), self.loose).to_event(1), obs=x)

    pyro.param("loose", torch.ones(D))
    try:
        run = zoo.fit(pair_of(Scaled, Guide, table), table, **QUICK)
    finally:
        pyro.clear_param_store()
    assert any("loose" in name for name in run.weights)


def test_a_joint_mixture_is_a_likelihood(table, catalogue):
    def model():
        return VAE(decoder(table, VAEOptions(), 2), VAEOptions().latent_dim, Mixture())

    run = zoo.fit(pair_of(model, lambda: guide(table, VAEOptions()), table), table, **QUICK)
    assert np.isfinite(run.log_evidence(table.test.values)).all()


@pytest.mark.parametrize("gaps", [False, True])
def test_a_default_of_double_precision_is_left_alone(gaps, table, quick_scores):
    if gaps:
        x = table.train.values.copy()
        x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
        table = zoo.Data.from_array(x)
    torch.set_default_dtype(torch.float64)
    try:
        run = zoo.fit(zoo.create("gaussian-constrained", table), table, **QUICK)
        assert np.isfinite(zoo.evaluate(run, table, samples=20, temperatures=1)["heldout/log_evidence"]).all()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
