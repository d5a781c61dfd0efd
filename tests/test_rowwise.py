"""Functions of one datum, mapped and recorded: the same whatever the size of a block, however they are run."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import zoo
from zoo import inference, rowwise
from zoo.context import Stream, seeded
from zoo.evaluation.annealing import Annealer
from zoo.evaluation.evidence import weigh
from zoo.evaluation.weighing import Asked, Weigher
from zoo.graphs import record, share_results
from zoo.noise import Tape
from zoo.rowwise import Rowwise
from zoo.testing import make_subject

MODEL, GUIDE = nn.Identity(), nn.Identity()
X = torch.linspace(-2, 2, 21, dtype=torch.float64).reshape(7, 3)


def normal(_, __, x):
    return (x + torch.randn_like(x), torch.rand(4).to(x))


def asks_for_a_number(_, __, x):
    return (x + torch.randn_like(x) * (2.0 if float(x.sum()) > 0 else 1.0),)


def not_lifted(_, __, x):
    return (torch.poisson(x.exp()),)


@pytest.mark.parametrize("function", [normal, asks_for_a_number, not_lifted])
def test_a_row_is_the_same_in_blocks_of_any_size(function):
    found = []
    for numbers in (1, rowwise.CACHE // 2, rowwise.CACHE):  # in blocks of all rows, of 2 and of 1
        with seeded(5):
            found.append(torch.stack([Rowwise(function, numbers)(MODEL, GUIDE, X)[0] for _ in range(2)]))
    assert not torch.equal(found[0][0], found[0][1]), "two calls draw for themselves"
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("patience", [1, 3, 100])
def test_recorded_blocks_are_those_of_pyro(patience, monkeypatch, iris):
    """With parameters of two seeds, of which the second meets the graph of the first."""
    monkeypatch.setattr(rowwise, "PATIENCE", patience)
    pair = zoo.create("gaussian-constrained", iris)
    x = torch.as_tensor(iris.scaled("test"))
    kernel = Rowwise(lambda model, guide, row: (inference.log_weights(model, guide, row, 8),), rowwise.CACHE // 4)
    for seed in (1, 2):
        replica = pair.replica(seed)
        model, guide = replica.model.double(), replica.guide.double()
        with seeded(seed):
            (found,) = kernel(model, guide, x)
        with seeded(seed):
            keys = rowwise.row_keys(rowwise.base_key(), len(x))
        for row, key in enumerate(keys[:9]):
            noise = {
                kind: of[0] for kind, of in rowwise.standard_noise([key], {"normal": 64, "uniform": 0}, x[:1]).items()
            }
            with torch.no_grad(), Tape(**noise):
                expected = inference.log_weights(model, guide, x[row : row + 1], 8)
            torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-10)
    assert bool(kernel._graphs) == (patience < 100)


@pytest.mark.parametrize("name", ["gaussian-constrained", "gaussian-full", "gmm-constrained", "gmvae"])
def test_weights_do_not_depend_on_blocks(name, iris, monkeypatch):
    replica = zoo.create(name, iris).replica(3)
    model, guide = replica.model.double().requires_grad_(False), replica.guide.double().requires_grad_(False)
    x = torch.as_tensor(iris.scaled("test"))
    found = []
    for cache in (2**19, 2**10):
        monkeypatch.setattr(rowwise, "CACHE", cache)
        weigher = Weigher(Asked(30, features=len(x)), model, guide, x)
        with seeded(1):
            weights, predicted = zip(*weigher(model, guide, x, x), strict=True)
        found.append([torch.cat([w.density for w in weights], dim=1), torch.cat([p.of.crps for p in predicted])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_seed_scores_the_same_beside_others(iris):
    pair = zoo.create("gaussian-constrained", iris)
    both = zoo.fit(pair, iris, seeds=[4, 9], steps=20, progress=False)
    alone = zoo.fit(pair, iris, seeds=[9], steps=20, progress=False)
    of_both, of_one = (weigh(run, iris, 50) for run in (both, alone))
    torch.testing.assert_close(of_both.density[1].evidence, of_one.density[0].evidence, rtol=0, atol=1e-4)
    torch.testing.assert_close(of_both.predicted[1].of.pit, of_one.predicted[0].of.pit, rtol=0, atol=1e-4)


def test_results_are_shared_and_hyperbolic_tangents_stay_what_they_are():
    constant = torch.arange(3.0)

    def twice(x):
        return (x + constant).tanh() * (x + constant).tanh().exp()

    x = torch.linspace(-4, 4, 3)
    graph = record(twice, x)
    before = len(graph.graph.nodes)
    share_results(graph)
    graph.recompile()
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("aten.sigmoid.default") == 1 and "aten.tanh.default" not in targets and len(targets) <= before
    torch.testing.assert_close(graph(x), twice(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(record(twice, x.double())(x.double()), twice(x.double()))


def shared(function, *inputs):
    """A function's graph with results shared, its results checked, and what it calls."""
    graph = record(function, *inputs)
    share_results(graph)
    graph.recompile()
    torch.testing.assert_close(graph(*inputs), function(*inputs), rtol=0, atol=0)
    return [node.target.overloadpacket for node in graph.graph.nodes if node.op == "call_function"]


def test_equal_calls_alone_are_shared_and_none_where_something_is_written():
    aten, x = torch.ops.aten, torch.tensor([4.0, 9.0])
    assert shared(lambda x: (x.sqrt() + x.sqrt()).sum(), x).count(aten.sqrt) == 1
    assert shared(lambda x: ((x.sqrt() + 1).exp() / (x.sqrt() + 1).exp()).sum(), x).count(aten.exp) == 1
    assert shared(lambda x: (x * 0.0).reciprocal() - (x * -0.0).reciprocal(), x).count(aten.mul) == 2
    assert shared(lambda x: x.sum(0, keepdim=True) + x.sum(0), x).count(aten.sum) == 2
    assert shared(lambda x: (x.sqrt(), x.sqrt()), x).count(aten.sqrt) == 2, "they are not one tensor"
    with seeded(0):
        drawn = record(lambda x: torch.rand_like(x) - torch.rand_like(x), x)
    share_results(drawn)
    assert len(drawn.graph.find_nodes(op="call_function", target=aten.rand_like.default)) == 2
    written = shared(lambda x: torch.zeros_like(x).add_(x) + torch.zeros_like(x), x)
    assert written.count(aten.zeros_like) == 2


def test_the_logarithm_of_an_exponential_is_what_it_was_of():
    def scaled(v):
        return (v / 2).exp().view(3, 2).expand(4, 3, 2).log()

    v = torch.tensor([[-400.0, 0.0, 3.0], [1.0, 2.0, 4.0]]).T[:, None]  # whose exponentials are 0, ..., in strides
    graph = record(scaled, v)
    share_results(graph)
    graph.recompile()
    torch.testing.assert_close(graph(v), (v / 2).view(3, 2).expand(4, 3, 2))


@pytest.mark.parametrize("fn", [dist.Bernoulli(0.3), dist.Categorical(torch.tensor([0.2, 0.0, 0.5, 0.3]))])
def test_lifted_draws_of_masses_have_their_frequencies(fn):
    count = 40_000
    uniform = (torch.arange(count) + 0.5) / count  # stratified: frequencies are right to one in 40,000
    with Tape(normal=torch.zeros(0), uniform=uniform):
        drawn = fn.expand([count]).sample()
    frequency = torch.bincount(drawn.long(), minlength=2).double() / count
    expected = fn.enumerate_support().to(drawn)
    np.testing.assert_allclose(frequency, fn.log_prob(expected).exp(), atol=2e-4)


def test_a_program_that_draws_a_category_is_mapped():
    def function(_, __, x):
        with pyro.plate("samples", 5, dim=-2):
            return (pyro.sample("c", dist.Categorical(torch.ones(len(x), 3))).to(x),)

    kernel = Rowwise(function, 1)
    with seeded(0):
        (found,) = kernel(MODEL, GUIDE, X)
    assert kernel._lifts and kernel._maps and found.shape == (7, 5, 1)
    assert set(found.unique().tolist()) == {0.0, 1.0, 2.0}


def test_evidence_of_a_run_is_that_of_its_weights(iris):
    """The same estimate, with other noise, by the function that has no blocks."""
    run = zoo.fit(zoo.create("gaussian-constrained", iris), iris, seeds=1, steps=50, progress=False)
    found = weigh(run, iris, 3000).density[0]
    x = torch.as_tensor(iris.scaled("test"), dtype=torch.float32)
    (weights,) = run.each_seed(lambda m, g: inference.LogWeights(3000)(m, g, x), Stream.POSTERIOR)
    off = (inference.log_mean_exp(weights) - found.evidence[0]).abs()
    assert (off < 6 * found.error + 1e-3).all()


def test_programs_of_another_kind_are_refused():
    kernel = Rowwise(lambda model, guide, x: (model(x) + guide(x),), 3)
    with seeded(0), torch.no_grad():
        kernel(nn.Linear(3, 3).double(), nn.Identity(), X)
        with pytest.raises(ValueError, match="in more than parameters"):
            kernel(nn.Linear(3, 3).double(), nn.Linear(3, 3).double(), X)


COUNTS = ("beta-binomial", "mixed", "negative-binomial", "poisson", "zero-inflated-negative-binomial")
QUICK = ("gaussian-constrained", "gaussian-binned", "gmvae", "poisson")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in zoo.list_pairs()]
)
def test_the_scores_of_every_pair_are_recorded(name, monkeypatch):
    monkeypatch.setattr(rowwise, "PATIENCE", 1)
    subject = make_subject(name)
    model, guide = subject.pair.model.requires_grad_(False), subject.pair.guide.requires_grad_(False)
    x = subject.x[:6]
    weigher = Weigher(Asked(40, features=len(x)), model, guide, x)
    with seeded(0):
        list(weigher(model, guide, x, x))
    kernels = [kernel for kernel in weigher.kernels.values() if kernel._program]
    if not weigher.exact:
        annealer = Annealer(3, 16, 8)
        with seeded(0):
            annealer(model, guide, x)
        kernels += [annealer.start, annealer.move]
    # torch's draws of counts are not lifted out of a program
    assert all(kernel._lifts or name in COUNTS for kernel in kernels)
    assert all(kernel._maps and kernel._records for kernel in kernels)
