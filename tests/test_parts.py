"""Guides and priors as parts: by name, for every pair they serve, held to the kit; and those of others."""

from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from likelihoods import Poisson, register
from torch import nn

import zoo
from zoo.catalogue import origins
from zoo.errors import OptionError, UnknownPair
from zoo.guides import WithComponent, amortized
from zoo.parts import GUIDES, PRIORS
from zoo.parts.guides import InverseAutoregressive, OfVector
from zoo.parts.priors import Flow
from zoo.runs import RECIPE
from zoo.testing import CHECKS, check_engine, guides_of, make_subject, priors_of

OF_VECTOR = [part.name for part in GUIDES if issubclass(part.kind, OfVector)]
CHOSEN = [part.name for part in PRIORS if part.name != "normal"]
OPTIONS = {"latent_dim": 2, "hidden": (6,)}
QUICK = ("gradients", "objective")
REST = ("sites", "weights", "sampling", "saving")


def subject_of(name, **parts):
    return make_subject(name, **OPTIONS, **parts)


@pytest.mark.parametrize("check", QUICK)
@pytest.mark.parametrize("guide", OF_VECTOR)
def test_every_guide_is_held_to_the_kit(guide, check):
    CHECKS[check](subject_of("gaussian-constrained", guide=guide))


@pytest.mark.parametrize("guide", [g for g in OF_VECTOR if g not in ("mean-field", "full-rank")])
def test_a_step_of_every_guide_is_recorded(guide):
    assert check_engine(subject_of("gaussian-constrained", guide=guide)) == "capture"


@pytest.mark.parametrize("check", QUICK)
@pytest.mark.parametrize("prior", CHOSEN)
def test_every_prior_is_held_to_the_kit(prior, check):
    CHECKS[check](subject_of("gaussian-constrained", prior=prior))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("poisson", {"guide": "iaf", "prior": "vamp"}),  # whose encoder sees counts on a scale of their own
        pytest.param("bernoulli", {"guide": "spline", "prior": "flow"}, marks=pytest.mark.slow),
        pytest.param("mixed", {"guide": "mixture", "prior": "vamp"}, marks=pytest.mark.slow),
        ("gmvae", {"guide": "mixture"}),
        ("linear-shared", {"guide": "low-rank"}),
    ],
)
def test_parts_serve_data_of_every_kind(name, parts):
    options = {name: value for name, value in OPTIONS.items() if name in zoo.create("gmvae", _iris()).choices}
    options = {"latent_dim": 2} if name == "linear-shared" else options
    made = make_subject(name, **options, **parts)
    CHECKS["objective"](made)
    assert check_engine(made) == "capture"


def _iris():
    return zoo.load_data("iris")


@pytest.mark.slow
@pytest.mark.parametrize(("sort", "serving"), [("guide", guides_of), ("prior", priors_of)])
@pytest.mark.parametrize("name", zoo.list_pairs())
def test_every_part_conforms_with_every_pair_it_serves(name, sort, serving):
    for part in serving(name)[1:]:  # which are found by building each: too much for whoever only collects the tests
        made = make_subject(name, **{sort: part})
        for check in (*QUICK, *REST):
            CHECKS[check](made)
        assert check_engine(made) == "capture", f"{sort} {part}"


@pytest.mark.slow
@pytest.mark.parametrize("parts", [*({"guide": g} for g in OF_VECTOR), *({"prior": p} for p in CHOSEN)], ids=str)
def test_a_compiled_step_with_every_part_is_the_step(parts):
    assert check_engine(subject_of("gaussian-constrained", **parts), mode="inductor") == "inductor"


BOUNDS = ("elbo[kl=analytic]", "elbo[gradient=path]", "beta-vae", "tempered", "free-bits",
          "iwae", "iwae[gradient=dreg]",
          "miwae", "renyi")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("objective", BOUNDS)
@pytest.mark.parametrize("name", zoo.list_pairs())
def test_every_objective_is_recorded_with_every_pair(name, objective):
    assert check_engine(make_subject(name), objective=objective) == "capture"


# -- by name -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [GUIDES, PRIORS], ids=lambda parts: parts.sort)
def test_every_part_is_named_and_read_back(parts):
    for part in parts:
        assert part.summary.endswith(".")
        assert parts.spelled(part.name) == parts.spelled(parts.make(part.name)) == part.name


def test_options_after_a_guide_are_the_pairs_or_its_own(iris):
    pair = zoo.create("gaussian-constrained:iaf[floor=0.1, layers=3, prior=vamp[components=7]]", iris)
    assert (pair.guide_name, pair.prior_name, pair.options.floor) == ("iaf[layers=3]", "vamp[components=7]", 0.1)
    beside = zoo.create(
        "gaussian-constrained", iris, guide=InverseAutoregressive(3), prior="vamp[components=7]", floor=0.1
    )
    assert beside.choices == pair.choices
    assert zoo.create(pair.name, iris, **pair.choices).choices == pair.choices
    # hidden units are those of the pair; a guide's own are said with it
    both = zoo.create("gaussian-constrained:iaf[hidden=(9,)]", iris, guide=None)
    assert both.options.hidden == (9,) and both.guide_name == "iaf"
    assert zoo.create("gaussian-constrained[guide=iaf[hidden=5]]", iris).guide_name == "iaf[hidden=5]"


def test_an_option_of_a_guide_reaches_it(iris):
    made = zoo.create("gaussian-learned:semi-amortized[start=full-rank, steps=3, rate=0.1, draws=7]", iris).guide
    assert (made.steps, made.rate, made.draws, type(made.start).__name__) == (3, 0.1, 7, "FullRankNormal")
    assert len(zoo.create("gaussian-learned:spline[layers=3, bins=5]", iris).guide.layers) == 3
    assert zoo.create("gaussian-learned:low-rank[rank=5]", iris).guide.rank == 5
    assert zoo.create("gaussian-learned:mixture[components=5]", iris).guide.components == 5


def test_the_same_name_has_the_same_weights(iris):
    one, same = (zoo.create("gaussian-learned:spline[prior=flow]", iris).replica(3) for _ in range(2))
    other = zoo.create("gaussian-learned:spline[prior=flow]", iris).replica(4)
    weights = [torch.cat([p.detach().flatten() for p in pair.guide.parameters()]) for pair in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_vamp_prior_is_made_of_the_guides_own_encoder(iris):
    pair = zoo.create("gaussian-constrained:mixture[prior=vamp[components=4]]", iris, latent_dim=2)
    assert pair.model.prior.guide is amortized(pair.guide) is pair.guide
    assert pair.model.prior.pseudo_inputs.shape == (4, 4)


def test_a_component_is_known_given_the_latent_of_any_guide(iris):
    pair = zoo.create("gmvae:full-rank", iris, latent_dim=2)
    assert isinstance(pair.guide, WithComponent) and pair.prior_name == "own"


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        (
            "gmm",
            {"guide": "iaf"},
            "gmm has the latents component, which the guide 'iaf' does not serve: choose from enumeration.",
        ),
        (
            "gaussian-two-stage",
            {"guide": "full-rank"},
            "u, z, which the guide 'full-rank' does not serve: only its own, mean-field, does.",
        ),
        (
            "gaussian-learned",
            {"guide": "exact"},
            "z, which the guide 'exact' does not serve: choose from mean-field",
        ),
        ("gaussian-learned", {"guide": "iad"}, "guide='iad'; did you mean 'iaf'? choose from mean-field, full-rank"),
        ("gaussian-learned", {"guide": "iaf[depth=3]"}, "guide iaf: no option is called 'depth'. Options: layers=4"),
        ("gaussian-learned", {"guide": 3}, "guide=3: give a name, or an instance registered with zoo.register_guide"),
        ("gaussian-learned", {"guide": np.full((5, 4), np.nan)}, "guide=array([[nan, nan, nan, nan],"),
        ("gaussian-learned:iaf", {"guide": np.zeros(3)}, "guide=array([0., 0., 0.]): give a name, or an instance"),
        ("gaussian-learned", {"guide": ""}, "guide=''; choose from mean-field, full-rank"),
        ("gaussian-learned", {"prior": np.zeros(3)}, "prior=array([0., 0., 0.]): give a name, or an instance"),
        ("gaussian-learned", {"prior": ""}, "prior=''; choose from normal"),
        ("gaussian-learned", {"prior": "vamp[components=0]"}, "prior vamp: components=0: input should be greater"),
        ("gaussian-learned", {"prior": Flow}, "give a name, or an instance registered with zoo.register_prior"),
        ("gaussian-learned", {"guide": "semi-amortized[start=semi-amortized]"}, "has no encoder to start from."),
        ("gaussian-learned", {"guide": "semi-amortized[start=exact]"}, "start='exact' has no encoder to start from."),
        ("gmm", {"prior": "flow"}, "gmm has its own prior, which prior='flow' cannot replace."),
        ("linear-shared", {"prior": "flow"}, "linear-shared has its own prior, which prior='flow' cannot"),
        ("gmvae", {"prior": "mixture"}, "gmvae has its own prior, which prior='mixture' cannot replace."),
        ("linear-shared:linear", {"prior": "vamp"}, "linear-shared has its own prior"),
        (
            "gaussian-learned:iaf",
            {"guide": "spline"},
            "its guide is iaf, and guide='spline' is another: leave one out.",
        ),
    ],
)
def test_what_does_not_serve_is_told_what_does(iris, name, parts, said):
    with pytest.raises(OptionError) as error:
        zoo.create(name, iris, **parts)
    assert said in str(error.value)


def test_a_run_comes_back_with_its_parts(iris, tmp_path):
    pair = zoo.create("gaussian-constrained:iaf[layers=3, prior=vamp[components=5]]", iris, latent_dim=2, hidden=(6,))
    run = zoo.fit(pair, iris, seeds=2, steps=5, progress=False)
    back = zoo.load_run(run.save(tmp_path / "run"))
    assert back.pair.choices == pair.choices
    x = iris.test.values
    np.testing.assert_array_equal(run.log_evidence(x, samples=20), back.log_evidence(x, samples=20))
    assert (run.tree.attrs["guide"], run.tree.attrs["prior"]) == ("iaf[layers=3]", "vamp[components=5]")
    assert run.encode(x).shape == (2, len(x), 2)


# -- of others ---------------------------------------------------------------------------------------------------------


class Laplacian(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        location, v = self.encoder(x).unbind(-2)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Laplace(location, v.exp()).to_event(1))


def test_a_guide_and_a_prior_of_ones_own_serve_every_vae(catalogue, iris, tmp_path):
    @zoo.register_guide("own-laplace", summary="Independent Laplaces.")
    @dataclass(frozen=True)
    class Laplaces(OfVector):
        def build(self, target):
            return Laplacian(target.encoder(2))

    @zoo.register_prior("own-wide", summary="A wide normal.")
    @dataclass(frozen=True)
    class Wide:
        scale: float = 3.0

        def build(self, setting):
            scale = self.scale

            class Prior(nn.Module):
                def forward(self, x):
                    return dist.Normal(x.new_zeros(setting.latent_dim), scale).to_event(1)

            return Prior()

    made = subject_of("gaussian-constrained", guide="own-laplace", prior="own-wide[scale=2]")
    for check in QUICK:
        CHECKS[check](made)
    assert check_engine(made) == "capture"
    own = register(Poisson, name="poisson", support="count", base_measure="mass", bounded=True, bound="0")
    counts = zoo.testing.example_data("count")
    assert zoo.create(own, counts, guide="own-laplace", prior="own-wide").guide_name == "own-laplace"
    assert "own-laplace" in guides_of(own)
    pair = zoo.create("gaussian-constrained:own-laplace[prior=own-wide]", iris, **OPTIONS)
    assert origins(pair) == [__file__]
    path = zoo.fit(pair, iris, seeds=1, steps=3, progress=False).save(tmp_path / "run")
    del GUIDES._parts["own-laplace"]
    with pytest.raises(
        OptionError, match=r"guide='own-laplace'.*To load it, run .*test_parts\.py first, which registers"
    ):
        zoo.load_run(path)


def test_a_run_of_a_package_that_is_not_there_names_it(catalogue, iris, tmp_path, monkeypatch):
    name = register(Poisson, name="away", support="real", bounded=False)
    monkeypatch.setattr("zoo.runs.origins", lambda _: ["package vae-zoo-away 0.3.1"])
    path = zoo.fit(zoo.create("gaussian-learned", iris), iris, seeds=1, steps=3, progress=False).save(tmp_path / "run")
    assert "vae-zoo-away 0.3.1" in (path / RECIPE).read_text()
    monkeypatch.setattr(
        "zoo.runs.create", lambda *_, **__: (_ for _ in ()).throw(UnknownPair(f"no pair is called {name!r}."))
    )
    with pytest.raises(UnknownPair, match=r"To load it, install vae-zoo-away 0\.3\.1, which is not here\."):
        zoo.load_run(path)


def test_what_is_written_down_has_every_option(iris):
    pair = zoo.create("gaussian-constrained:iaf[prior=vamp]", iris)
    assert (
        pair.choices["guide"]
        == f"iaf[layers={InverseAutoregressive().layers}, hidden={InverseAutoregressive().hidden}]"
    )
    assert pair.choices["prior"].startswith("vamp[components=")
    assert zoo.create(pair.name, iris, **pair.choices).guide_name == "iaf"


def test_a_part_without_what_it_needs_is_refused_when_it_is_registered(catalogue):
    with pytest.raises(OptionError, match="guide 'bare': Bare has no method serves, build"):
        zoo.register_guide("bare", summary="")(dataclass(frozen=True)(type("Bare", (), {})))
    with pytest.raises(OptionError, match="prior 'bare': Bare has no method build"):
        zoo.register_prior("bare", summary="")(dataclass(frozen=True)(type("Bare", (), {})))
