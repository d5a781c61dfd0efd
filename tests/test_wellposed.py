"""Paths along which a likelihood is unbounded, or saturates under its bound."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import zoo
from zoo.context import seeded
from zoo.errors import Unknown
from zoo.evaluation.wellposedness import wellposedness
from zoo.inference import log_mean_exp
from zoo.models import VAE, Emission
from zoo.models.emissions import LearnedNormal
from zoo.pairs import VAEOptions, decoder, guide
from zoo.wellposed import Witness, ceiling, witness
from zoo.wellposed.likelihood import elbo, log_likelihood
from zoo.wellposed.paths import Stepping, paths

TABLE = np.random.default_rng(0).normal(size=(20, 5))
LINEAR = zoo.list_pairs("linear-*")


@pytest.fixture(scope="module")
def table():
    return zoo.Data.from_array(np.vstack([TABLE] * 3), name="twenty rows, three times", scaling="none")


def along_theorem_1(a):
    """The model on the path of the theorem: one latent, mu = x_1, log variance a tanh(a z) - a."""
    x = torch.as_tensor(TABLE)
    levels = torch.stack([torch.stack([x[0], torch.full_like(x[0], value)]) for value in (-2.0 * a, 0.0)])
    return VAE(Stepping(levels, torch.zeros(1), a, latent_dim=1), 1, LearnedNormal()), x


def test_the_curve_of_theorem_1():
    """Values computed by another program's quadrature."""
    found = []
    for a in (2, 10, 20, 40, 80):
        model, x = along_theorem_1(a)
        found.append(float(log_likelihood(model, x, torch.zeros(1)).sum()))
    np.testing.assert_allclose(found, [-155.57, -110.85, -59.68, 41.04, 241.46], atol=0.005)


def test_the_elbo_is_unbounded_too():
    """Computed elsewhere on the same path, with the better of some variances of the encoder."""
    found = [elbo(*along_theorem_1(a), a) for a in (2, 10, 20, 40, 80, 160)]
    np.testing.assert_allclose(found, [-160.92, -131.28, -88.07, 5.06, 198.16, 591.25], atol=0.02)


def test_a_learned_variance_gains_half_a_nat_a_column_for_every_unit(table):
    found = witness(zoo.create("gaussian-learned", table, hidden=(1,)), TABLE)
    assert found.grows and found.needs == ""
    slopes = np.diff(found.log_likelihood) / np.diff(found.sharpness)
    assert slopes[-1] == pytest.approx(5 / 2, rel=0.01)
    assert (found.elbo < found.log_likelihood).all() and found.elbo[-1] > found.elbo[-2] + 50


def test_a_floor_stops_it_under_the_naive_bound(table):
    found = witness(zoo.create("gaussian-constrained", table, hidden=(1,), floor=0.1), TABLE)
    assert found.bound == pytest.approx(-20 * 5 / 2 * math.log(2 * math.pi * 0.1))
    assert (found.log_likelihood < found.bound).all()
    assert not found.grows


BOUNDED_HERE = ["continuous-bernoulli", "gmm-ratio", "quantile-spline", *LINEAR]  # by the condition on their cards
STEEPNESS = {  # nats that one column of one datum gains for every unit of sharpness
    "gaussian-learned": 1 / 2, "gaussian-full": 1, "gaussian-low-rank": 1 / 2, "gaussian-quantile": 1, "laplace": 1,
    "logistic": 1, "student-t": 1, "log-normal": 1 / 2, "gamma": 1 / 2, "beta": 1 / 2, "logit-normal": 1 / 2,
    "truncated-normal": 1 / 2,
}  # fmt: skip


def example(name, table):
    """The table, or some of the kind of data that the pair is a model of."""
    support = zoo.card(name).support
    data = table if support in ("real", "mixed") else zoo.testing.example_data(support, features=5)
    return data, (TABLE if data is table else data.train.values[:20])


@pytest.mark.parametrize("name", zoo.list_pairs())
def test_every_pair_has_its_path(name, table):
    card = zoo.card(name)
    assert "witness" not in card.unknown
    data, x = example(name, table)
    found = witness(zoo.create(name, data), x, sharpness=(16.0, 32.0, 64.0))  # where growth is what it is in the end
    assert found.grows == (not card.bounded and name not in BOUNDED_HERE)
    assert (found.log_likelihood <= found.bound).all()
    assert np.isfinite(found.log_likelihood).all()
    if name in STEEPNESS:
        slope = np.diff(found.log_likelihood)[-1] / np.diff(found.sharpness)[-1]
        assert slope == pytest.approx(5 * STEEPNESS[name], rel=0.02)


@pytest.mark.parametrize(
    "name",
    [
        "student-t[smallest=0.1]", "student-t[preset=miwae]", "laplace[smallest=0.1]", "logistic[smallest=0.1]",
        "gaussian-low-rank[floor=0.01]", "gaussian-shared[preset=sigma-vae]", "gaussian-column[preset=tvae]",
        "gaussian-constrained[preset=suave]", "mixed[real=constrained]", "mixed[real=student-t]",
    ],
)  # fmt: skip
def test_a_floor_ends_the_path_under_the_bound(name, table):
    found = witness(zoo.create(name, table), TABLE, sharpness=(16.0, 32.0, 64.0))
    assert math.isfinite(found.bound)
    assert not found.grows
    assert (found.log_likelihood <= found.bound).all()


@pytest.mark.parametrize("head", ["softplus", "exp"])
def test_natural_parameters_grow_as_a_logarithm(head, table):
    """A mean is a ratio of the two, so that no precision beyond the other's size is of use."""
    found = witness(zoo.create("gaussian-natural", table, head=head), TABLE)
    assert found.grows and found.gain == pytest.approx(5 / 2 * math.log(2), rel=0.1)  # by an ascent


def test_a_continuous_bernoulli_grows_at_an_exact_end_alone():
    x = np.random.default_rng(0).random((60, 3))
    x[0] = [0.0, 1.0, 0.0]
    data = zoo.Data.from_array(x, support="unit", split=["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
    found = witness(zoo.create("continuous-bernoulli", data), data.train.values[:20])
    assert np.diff(found.log_likelihood)[-1] == pytest.approx(3 * math.log(2), rel=0.05)


@pytest.mark.parametrize(
    ("name", "data"), [("gaussian-binned", "digits"), ("categorical", "digits"), ("bernoulli", "binary")]
)
def test_a_mass_saturates_at_most_at_zero(name, data, digits):
    data = digits if data == "digits" else zoo.load_data("digits", binarize="threshold")
    found = witness(zoo.create(name, data), data.train.values[:10])
    assert found.bound == 0
    assert (found.log_likelihood < 0).all()
    assert not found.grows


@pytest.mark.parametrize("covariance", ["diagonal", "spherical", "full", "tied"])
@pytest.mark.parametrize("name", zoo.list_pairs("gmm*"))
def test_a_component_on_one_datum(name, covariance, table):
    found = witness(zoo.create(name, table, covariance=covariance, components=3), TABLE)
    cured = name in ("gmm-constrained", "gmm-ratio")
    one_for_all = covariance == "tied"  # its collapse takes the other data's density away
    assert found.grows == (not cured and not one_for_all)
    assert (found.log_likelihood <= found.bound).all()


@pytest.mark.parametrize("name", ["gaussian-map", "gmm-map"])
def test_a_prior_stops_what_the_likelihood_does_not(name, table):
    found = witness(zoo.create(name, table), TABLE)
    assert found.grows
    assert np.argmax(found.penalized) < len(found.penalized) - 1


def test_width_is_asked_for_where_the_pair_has_too_little(table):
    def shared(**options):
        return witness(zoo.create("gaussian-shared", table, **options), TABLE, sharpness=(16.0, 32.0, 64.0))

    assert shared(hidden=(64,)).needs == ""
    assert "19 units" in shared(hidden=(4,)).needs
    assert "38 units" in str(shared(hidden=(4,), activation="relu"))


@pytest.mark.parametrize(
    ("curve", "grows"),
    [
        (lambda a: a, True),
        (lambda a: 5 * np.log(a), True),
        (lambda a: -200 / a, False),
        (lambda a: 0.05 * np.log2(a), False),
    ],
)
def test_a_curve_grows_whose_gains_last(curve, grows):
    a = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    none = np.array([])
    assert Witness("pair", "path", "", a, curve(a), none, none, math.inf, "", curve(a)).grows == grows


def test_a_bound_that_is_kept_is_no_growth_however_slowly_it_is_reached():
    a = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    curve, none = -200 / np.sqrt(a), np.array([])
    assert Witness("pair", "path", "", a, curve, none, none, math.inf, "", curve).grows
    assert not Witness("pair", "path", "", a, curve, none, none, 0.0, "0", curve).grows
    assert Witness("pair", "path", "", a, curve, none, none, -30.0, "wrong", curve).grows


class Coupled(Emission):
    """A normal whose two outputs a, b give its mean (a + b) / 2 and its scale e^(b - a)."""

    outputs = 2

    def forward(self, parameters):
        a, b = parameters.unbind(-2)
        return dist.Normal((a + b) / 2, (b - a).exp())


class SharedStudent(Emission):
    """A joint Student-t, of whose columns some have no density that torch knows, with a scale that all data share."""

    outputs = 1

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, parameters):
        eye = torch.eye(parameters.shape[-1]).to(parameters)
        return dist.MultivariateStudentT(torch.tensor(5.0), parameters[..., 0, :], self.log_scale.exp() * eye)


def own(emission, data, bounded=False):
    @zoo.register(
        "own", title="t", summary="s.", formula="p", support="real", bounded=bounded, bound="b", reference="r"
    )
    def build(data: zoo.Data, options: VAEOptions):
        return VAE(decoder(data, options, emission.outputs), options.latent_dim, emission), guide(data, options)

    return zoo.create("own", data)


def test_a_path_never_falls_and_is_no_proof_where_it_does_not_grow(table, catalogue):
    found = witness(own(Coupled(), table), TABLE)
    assert (np.diff(found.steered) > -1e-6 * np.abs(found.steered[1:])).all()
    assert found.grows or "no proof of a bound" in str(found)


class Deaf(Emission):
    """A normal that no output of the decoder moves."""

    outputs = 1

    def forward(self, parameters):
        return dist.Normal(torch.zeros(parameters.shape[-1]).to(parameters), 1.0)


def test_a_likelihood_that_no_output_moves_does_not_grow(table, catalogue):
    assert not witness(own(Deaf(), table), TABLE).grows


def test_a_path_that_is_not_known_does_not_hide_one_that_is(catalogue):
    """The first path of what all data share is along one column that has repeats."""
    x = np.random.default_rng(0).normal(size=(30, 3))
    x[:, 0] = x[:, 0].round()
    data = zoo.Data.from_array(np.vstack([x] * 2), scaling="none")
    assert witness(own(SharedStudent(), data), x[:12]).grows


def test_the_weights_of_the_pair_are_left_alone(table):
    pair = zoo.create("gaussian-learned", table)
    before = {name: tensor.clone() for name, tensor in pair.model.state_dict().items()}
    witness(pair, TABLE)
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.model.state_dict().items())
    assert all(p.dtype == torch.float32 for p in pair.model.parameters())


def test_quadrature_agrees_with_sampling(table):
    model = zoo.create("gaussian-learned", table, latent_dim=2).model.double()
    x = torch.as_tensor(TABLE)
    with torch.no_grad():
        model, positions = next(next(paths(model, x)).along([3.0]))
        z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)).double()
        sampled = model.likelihood(z).log_prob(x[:3, None]).T
        exact = log_likelihood(model, x[:3], positions)
    estimate = log_mean_exp(sampled)
    error = (sampled - estimate).exp().std(0) / len(z) ** 0.5
    assert ((estimate - exact).abs() < 4 * error).all()


def test_units_as_loaded(table):
    """A column in other units adds the log of their ratio for every row."""
    metres = zoo.Data.from_array(np.vstack([TABLE] * 3), scaling="column")
    millimetres = zoo.Data.from_array(1000 * np.vstack([TABLE] * 3), scaling="column")
    one, other = (
        witness(zoo.create("gaussian-learned", data), factor * TABLE, sharpness=(2, 5, 10))
        for data, factor in ((metres, 1), (millimetres, 1000))
    )
    np.testing.assert_allclose(one.log_likelihood - other.log_likelihood, 20 * 5 * math.log(1000), rtol=1e-9)


def test_a_stepping_decoder_is_at_its_levels_exactly_and_is_a_perceptron():
    levels = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)).double()
    stepping = Stepping(levels, torch.tensor([-1.0, 0.0, 2.0]), 50.0, latent_dim=3)
    z = torch.zeros(4, 3).double()
    z[:, 0] = torch.tensor([-1.5, -0.5, 1.0, 2.5])
    assert torch.equal(stepping(z), levels)
    inner, inner_bias, outer, outer_bias = stepping.of_perceptron
    z[:, 0] = torch.linspace(-1.1, 2.1, 4)
    by_units = (z @ inner.T + inner_bias).tanh() @ outer + outer_bias
    torch.testing.assert_close(stepping(z).flatten(1), by_units)


def test_a_network_of_another_form_is_asked_for_its_outputs(digits):
    found = witness(zoo.create("gaussian-learned", digits, network="conv"), digits.train.values[:5])
    assert found.grows and "can produce these outputs" in found.needs


@pytest.mark.parametrize("floor", [0.05, 0.3, 2.0])
def test_a_ceiling_is_above_whatever_a_mixture_reaches(floor, table):
    pair = zoo.create("gmm-constrained", table, components=6, covariance="full", floor=floor)
    found = ceiling(pair, TABLE)
    assert found.reached <= found.certified <= found.naive
    assert found.certified - found.reached < 0.02  # nats, of the whole data set
    assert found.naive == pytest.approx(-20 * 5 / 2 * math.log(2 * math.pi * floor))
    with seeded(0):
        pair.model.double().initialise(torch.as_tensor(TABLE))
    adam = torch.optim.Adam(pair.model.parameters(), 0.03)
    for _ in range(600):
        components = torch.arange(6)
        joint = pair.model.likelihood(components).log_prob(torch.as_tensor(TABLE)[:, None])
        loss = -(joint + pair.model.logits.log_softmax(0)).logsumexp(1).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert -loss.item() < found.certified


def test_a_certificate_holds_before_the_best_mixture_is_found(table):
    pair = zoo.create("gmm-constrained", table, floor=0.3)
    early, late = (ceiling(pair, TABLE, iterations=iterations) for iterations in (1, 500))
    assert early.reached < late.reached - 0.5 and early.certified >= late.reached


def test_far_apart_every_datum_is_an_atom(table):
    found = ceiling(zoo.create("gaussian-constrained", table, floor=1e-3), TABLE)
    assert found.atoms == 20
    assert found.reached == pytest.approx(found.naive - 20 * math.log(20), abs=1e-6)  # each has 1/n of the mass
    together = ceiling(zoo.create("gaussian-identity", table, scale=10.0), TABLE)
    assert together.atoms == 1
    expected = -20 * 5 / 2 * math.log(2 * math.pi * 100) - np.square(TABLE - TABLE.mean(0)).sum() / 200
    assert together.certified == pytest.approx(expected, abs=1e-6)


def test_a_ceiling_needs_a_floor(table):
    for name in ("gaussian-learned", "gmm", "gaussian-shared"):
        with pytest.raises(zoo.errors.OptionError, match=r"no ceiling is computed|no smallest variance"):
            ceiling(zoo.create(name, table), TABLE)


def test_the_ceiling_of_a_log_normal_is_that_of_the_logs(table):
    x = np.exp(TABLE)
    positive = zoo.Data.from_array(np.exp(np.vstack([TABLE] * 3)), support="positive", scaling="none", resolution=None)
    found = ceiling(zoo.create("log-normal", positive, floor=0.1), x)
    of_logs = ceiling(zoo.create("gaussian-constrained", table, floor=0.1), TABLE)
    assert found.certified == pytest.approx(of_logs.certified - TABLE.sum())
    assert (found.atoms, found.naive) == (of_logs.atoms, pytest.approx(of_logs.naive - TABLE.sum()))


def test_the_ceiling_of_poisson_counts_is_that_of_a_mixture_on_a_fine_grid_of_rates():
    """Of one column, where EM over the weights of a grid is a concave problem, and its end certified on the grid."""
    counts = np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(1.0, 3.0, size=(40, 1)))
    data = zoo.Data.from_array(np.vstack([counts] * 3).astype(float), support="count")
    found = ceiling(zoo.create("poisson", data), counts, iterations=5000, tolerance=0.0)
    assert found.naive == pytest.approx(stats.poisson.logpmf(counts, counts).sum())
    rates = np.linspace(0.01, counts.max(), 1500)
    mass = stats.poisson.pmf(counts, rates)
    weights = np.full(len(rates), 1 / len(rates))
    for _ in range(3000):
        joint = mass * weights
        height = joint.sum(1)
        weights = (joint / height[:, None]).mean(0)
    reached = np.log(height).sum()
    above = reached + (mass / height[:, None]).sum(0).max() - len(counts)
    assert above - reached < 0.05
    assert found.reached == pytest.approx(reached, abs=0.05)
    assert reached - 1e-3 <= found.certified <= above + 0.05


def test_the_ceiling_of_a_mass_that_can_be_all_on_one_row_is_that_of_the_datas_frequencies():
    x = np.array([[0.0, 1.0]] * 3 + [[1.0, 1.0]] + [[0.0, 0.0]] * 2)
    data = zoo.Data.from_array(np.vstack([x] * 10), support="binary")
    found = ceiling(zoo.create("bernoulli", data), x)
    assert (
        found.certified == found.reached == pytest.approx(3 * math.log(3 / 6) + math.log(1 / 6) + 2 * math.log(2 / 6))
    )
    assert (found.naive, found.atoms) == (0, 3)
    run = zoo.fit(zoo.create("bernoulli", data, latent_dim=2), data, seeds=1, steps=400, progress=False)
    assert run.log_evidence(x, samples=500).sum() < found.certified


def test_a_trained_run_stays_below_its_ceiling(iris):
    pair = zoo.create("gaussian-constrained", iris, floor=0.05)
    run = zoo.fit(pair, iris, seeds=2, steps=500, progress=False)
    evidence = run.log_evidence(iris.train.values, samples=500).sum(1)
    assert (evidence < ceiling(pair, iris.train).certified).all()


@pytest.mark.parametrize("name", LINEAR)
def test_linear_models_run_away_on_a_subspace_alone(name, table):
    assert not witness(zoo.create(name, table, latent_dim=2), TABLE).grows
    plane = TABLE[:, :2] @ np.random.default_rng(1).normal(size=(2, 5))
    data = zoo.Data.from_array(np.vstack([plane] * 3), scaling="none")
    assert witness(zoo.create(name, data, latent_dim=2), plane).grows
    assert not witness(zoo.create(name, data, latent_dim=1), plane).grows


# -- the group that an evaluation writes -------------------------------------------------------------------------------


def trained(name, data, **options):
    return zoo.fit(zoo.create(name, data, **options), data, seeds=[1, 4], steps=30, progress=False)


def test_the_group_of_an_unbounded_pair(iris):
    group = wellposedness(trained("gaussian-map", iris), iris)
    assert group.attrs["grows"] == 1
    assert np.isnan(group.attrs["bound"])
    assert {"log_likelihood", "elbo", "penalized"} <= set(group)
    assert "ceiling" not in group.attrs
    np.testing.assert_allclose(
        group["log_likelihood"], witness(zoo.create("gaussian-map", iris), iris.train.values[:50]).log_likelihood
    )


def test_the_group_of_a_pair_with_a_floor(iris):
    run = trained("gaussian-constrained", iris, floor=0.05)
    group = wellposedness(run, iris)
    assert group.attrs["grows"] == 0
    assert (group["log_likelihood"] < group.attrs["bound"]).all()
    assert list(group["chain"]) == [1, 4]
    rows = group.attrs["ceiling_rows"]
    assert rows == len(iris.train)
    np.testing.assert_allclose(group["parsimony_gap"], (group.attrs["ceiling"] - group["train_evidence"]) / rows)
    assert (group["parsimony_gap"] > 0).all()
    np.testing.assert_allclose(group["train_evidence"], run.log_evidence(iris.train.values, 1000).sum(1))


def test_masses_have_a_group_and_pairs_of_ones_own_say_why_they_have_none(iris, catalogue):
    binary = zoo.load_data("digits", binarize="threshold")
    assert wellposedness(trained("bernoulli", binary), binary).attrs["bound"] == 0

    @zoo.register("mine", title="m", summary="m", formula="m", support="real", bounded=False, reference="none")
    def mine(data: zoo.Data, options: VAEOptions):
        class Mine(torch.nn.Module):
            def forward(self, x):
                with pyro.plate("data", len(x), dim=-1):
                    z = pyro.sample("z", dist.Normal(x.new_zeros(options.latent_dim), 1.0).to_event(1))
                    pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), x.new_ones(4)).to_event(1), obs=x)

        return Mine(), guide(data, options)

    with pytest.raises(Unknown, match="no path is known for Mine, which has no module `decoder`"):
        wellposedness(trained("mine", iris), iris)


def test_a_path_may_have_a_single_datum():
    data = zoo.Data.from_array(np.random.default_rng(0).normal(size=(3, 4)))
    assert len(data.train) == 1
    found = zoo.witness(zoo.create("gaussian-constrained", data), data.train)
    assert np.isfinite(found.elbo).all()
    assert not found.grows
