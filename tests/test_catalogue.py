"""From a name to a pair."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from likelihoods import Poisson, register
from torch import nn

import zoo
from zoo.cards import kept_weights
from zoo.catalogue import _ENTRIES, options_of
from zoo.errors import DataError, OptionError, UnknownPair
from zoo.pairs import VAEOptions


def test_names_are_listed_by_wildcard_support_and_bound_in_natural_order(catalogue):
    assert zoo.list_pairs("gmm*") == ["gmm", "gmm-constrained", "gmm-map", "gmm-ratio"]
    assert "bernoulli" not in zoo.list_pairs(support="real")
    assert {"bernoulli", "gaussian-learned"} <= set(zoo.list_pairs(support="binary"))
    assert set(zoo.list_pairs(bounded=True)) | set(zoo.list_pairs(bounded=False)) == set(zoo.list_pairs())
    entry = catalogue["gmm"]
    catalogue.update({"a-10": entry, "a-9": entry})
    assert zoo.list_pairs("a-*") == ["a-9", "a-10"]


def test_an_unknown_name_answers_with_the_nearest(iris):
    with pytest.raises(UnknownPair, match=r"'gausian-lerned'.* Nearest: gaussian-learned"):
        zoo.create("gausian-lerned", iris)
    with pytest.raises(UnknownPair, match=r"There are: .*bernoulli"):
        zoo.card("zzz")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flor": 1.0}, "no option is called 'flor'; did you mean 'floor'"),
        ({"floor": "low"}, "floor='low': input should be a valid number"),
        ({"floor": 0.0}, "floor=0.0: input should be greater than 0"),
        ({"latent_dim": 0}, "latent_dim=0: input should be greater than or equal to 1"),
        ({"hidden": ()}, "hidden=.*: .*at least 1"),
        ({"activation": "sine"}, "activation='sine': input should be 'tanh', 'relu'"),
    ],
)
def test_a_wrong_option_answers_with_the_option_list(iris, options, said):
    with pytest.raises(OptionError, match=f"gaussian-constrained: {said}.*Options: latent_dim=8, .*floor=0.01"):
        zoo.create("gaussian-constrained", iris, **options)


def test_a_name_may_carry_a_guide(iris):
    pair = zoo.create("gaussian-learned:full-rank", iris)
    assert pair.name == "gaussian-learned" and pair.guide_name == "full-rank"
    assert type(pair.guide).__name__ == "FullRankNormal"
    with pytest.raises(OptionError, match="guide='flow'; choose from mean-field, full-rank"):
        zoo.create("gaussian-learned:flow", iris)


def test_bernoulli_refuses_grey_pixels_and_says_how_to_binarise(digits):
    with pytest.raises(DataError, match=r'binarize="threshold".*binarize="stochastic".*gaussian-constrained'):
        zoo.create("bernoulli", digits)


def test_convolutions_want_images(iris, digits):
    with pytest.raises(OptionError, match="image_shape"):
        zoo.create("gaussian-learned", iris, network="conv")
    pair = zoo.create("gaussian-learned", digits, network="conv", hidden=(4, 8))
    assert any(type(m).__name__ == "ConvTranspose2d" for m in pair.model.modules())


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 8, 8), (28, 28)])
def test_convolutions_fit_every_image_size(shape):
    import torch

    from zoo.context import seeded
    from zoo.networks import NETWORKS

    features = torch.Size(shape).numel()
    with seeded(0):
        encoder, decoder = (build(shape, (4, 8, 16), "relu", 2, 3) for build in vars(NETWORKS["conv"]).values())
    assert encoder(torch.zeros(6, features)).shape == (6, 2, 3)
    assert decoder(torch.zeros(5, 6, 3)).shape == (5, 6, 2, features)


@pytest.mark.parametrize("name", zoo.list_pairs())
def test_cards_are_complete_and_true_to_the_options(name):
    card = zoo.card(name)
    assert card.title and card.summary.endswith(".") and card.formula and card.reference
    assert card.link.startswith("https://")
    assert bool(card.bound) == card.bounded
    assert bool(card.remedies) != card.bounded, "an unbounded pair names its cures, a bounded one needs none"
    for remedy in card.remedies:  # by itself, or by the options that it is named with
        features, data = 4, zoo.load_data("iris")
        assert zoo.card(remedy).bounded or zoo.create(remedy, data).model.log_density_bound(features) < np.inf
    assert "guide" not in options_of(name).__dataclass_fields__


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"name": "Not A Name"}, "lower-case"),
        ({"support": "anything"}, "choose from binary, ordinal, count, unit, positive, real"),
        ({"base_measure": "mass", "bounded": False}, "a mass is at most 1"),
        ({"bounds": "foo"}, "bounds='foo'; choose from likelihood"),
        ({"guide": ()}, r"guide=\(\); give the name of its default guide"),
        ({"remedies": ["gmm"]}, "remedies=.*; give a tuple of names"),
        ({"title": " "}, "title=' '; tables and pictures need a name"),
        ({"learning_rate": -1}, "learning_rate=-1; give a positive number"),
        ({"bounded": True}, "bounded=True without a bound"),
    ],
)
def test_claims_that_contradict_themselves_are_refused(claims, said):
    sound = {
        "name": "x",
        "title": "X",
        "summary": "",
        "formula": "",
        "support": "real",
        "bounded": False,
        "reference": "",
    }
    with pytest.raises(OptionError, match=said):
        zoo.register(**sound | claims)


def test_the_objective_of_a_card_is_one_there_is(iris, catalogue):
    name = register(Poisson, name="betta", support="real", bounded=False, objective="betta")
    with pytest.raises(OptionError, match=r"objective='betta'; did you mean 'beta-vae'\? choose from elbo, beta-vae"):
        zoo.create(name, iris)


def test_every_package_is_installed_with_the_rest():
    root = Path(zoo.__file__).parent
    listed = tomllib.loads((root.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(root.parent) for file in root.rglob("__init__.py")}
    links = {Path("zoo") / name / folder.relative_to(root.parent / name) for name in ("models", "guides")
             for folder in (file.parent for file in (root.parent / name).rglob("__init__.py"))}  # fmt: skip
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in folders | links)


def counts(catalogue):
    """A pair of counts: what it builds does not matter here."""

    @zoo.register(
        "counts",
        title="Own",
        summary="",
        formula="",
        support="count",
        base_measure="mass",
        bounded=True,
        bound="0",
        reference="",
    )
    def build(data: zoo.Data, options: VAEOptions):
        return nn.Linear(1, 1), nn.Linear(1, 1)


@pytest.mark.parametrize("levels", [range(-2, 3), [0.0, 0.5, 1.0, 1.5]])
def test_counts_are_no_levels_below_zero_or_between_integers(catalogue, levels):
    counts(catalogue)
    low, step = levels[0], levels[1] - levels[0]
    x = low + step * np.random.default_rng(0).integers(0, len(levels), (30, 2))
    data = zoo.Data.from_array(x, name="ranks", levels=levels)
    with pytest.raises(DataError, match=r"levels such as (-2|0\.5), which is not a count\. Number") as refused:
        zoo.create("counts", data)
    assert "gaussian-binned" in str(refused.value) and "them: counts" not in str(refused.value)
    assert zoo.create("counts", zoo.Data.from_array(x - x.min() if low else 2 * x, support="ordinal")).name == "counts"


def test_what_is_asked_of_a_pair_is_held_against_its_own_support(catalogue):
    counts(catalogue)
    x = np.random.default_rng(0).integers(0, 2, (30, 2))
    pair = zoo.create("counts", zoo.Data.from_array(x))
    assert pair.data.support == "binary"
    assert pair.view.checked([[7, 0]]).tolist() == [[7, 0]]  # a count, though no value of these data
    assert np.isnan(pair.view.checked([[1, np.nan]])[0, 1])
    for wrong in (-1.0, 0.5, np.inf):
        with pytest.raises(DataError, match=r"row 0 .*, column 'x1': counts takes 0, 1, 2, ... without an upper limit"):
            pair.view.checked([[1, wrong]])
    ordinal = zoo.create("categorical", zoo.Data.from_array(x))
    with pytest.raises(DataError, match=r"x holds 2 in row 0 .*, column 'x0': categorical takes 0 or 1 there"):
        ordinal.view.checked([[2, 0]])


def test_options_without_a_dataclass_are_refused(catalogue, iris):
    @zoo.register("bare", title="Own", summary="", formula="", support="real", bounded=False, reference="")
    def build(data, options):
        return None

    with pytest.raises(OptionError, match="annotate the second argument"):
        zoo.create("bare", iris)


def test_replicas_differ_by_seed_and_only_by_seed(iris):
    import torch

    pair = zoo.create("gaussian-learned", iris)

    def weight(seed):
        return pair.replica(seed).model.decoder[0].weight

    assert torch.equal(weight(1), weight(1)) and not torch.equal(weight(1), weight(2))


def test_listing_needs_neither_torch_nor_xarray():
    code = (
        "import sys, zoo; assert zoo.list_pairs() and zoo.card('gmm');"
        "print([m for m in ('torch', 'pyro', 'xarray', 'pandas', 'matplotlib', 'pydantic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert set(zoo.__all__) <= set(dir(zoo))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = zoo.trian
    assert _ENTRIES


def test_a_name_that_is_taken_is_refused(catalogue):
    def register(name):
        @zoo.register(name, title="Own", summary="", formula="", support="real", bounded=False, reference="")
        def build(data: zoo.Data, options: object):
            return None

    with pytest.raises(OptionError, match=r"zoo.pairs.* already registers a pair 'gmm'"):
        register("gmm")
    register("mine")
    register("mine")  # as a notebook's cell does that is run again


def test_a_builder_that_returns_something_else_is_told(catalogue, iris):
    from zoo.pairs import VAEOptions

    @zoo.register("empty", title="Own", summary="", formula="", support="real", bounded=False, reference="")
    def build(data: zoo.Data, options: VAEOptions):
        return None

    with pytest.raises(OptionError, match=r"returned NoneType; it must return \(model, guide\)"):
        zoo.create("empty", iris)
    with pytest.raises(DataError, match="data is a str; load it first"):
        zoo.create("gmm", "iris")


def test_a_pair_that_does_not_fit_into_memory_says_so(catalogue, iris):
    @zoo.register("vast", title="Own", summary="", formula="", support="real", bounded=False, reference="")
    def vast(data: zoo.Data, options: VAEOptions):
        return nn.Linear(2**40, 2**10), nn.Linear(1, 1)

    with pytest.raises(
        OptionError, match=r"vast with VAEOptions.* on 4 columns does not fit into memory: choose smaller"
    ):
        zoo.create("vast", iris)


def test_a_run_says_what_was_maximised_and_which_weights_were_kept(iris, tmp_path):
    from html import unescape

    pair = zoo.create("gaussian-map", iris)

    def page(**settings):
        run = zoo.fit(pair, iris, seeds=1, steps=3, progress=False, on_divergence="warn", **settings)
        text = unescape(zoo.report([run], tmp_path / "page").read_text(encoding="utf-8"))
        return run.tree.attrs["weights_kept"], text

    kept, text = page()
    assert kept == "those of the best validation ELBO, which is not what was maximised: that is the penalized objective"
    assert f"penalized; the weights are {kept}" in text
    kept, text = page(objective="elbo")
    assert kept == "those of the best validation ELBO"
    assert f"elbo, where the card says penalized; the weights are {kept}" in text
    assert page(keep="last")[0] == "those after the last step"


@pytest.mark.parametrize("objective", ["elbo", "elbo[kl=analytic]", "elbo[gradient=path]"])
def test_any_elbo_is_what_is_maximised(objective):
    assert kept_weights(objective, "best") == "those of the best validation ELBO"
    assert "that is the iwae[samples=5] objective" in kept_weights("iwae[samples=5]", "best")
