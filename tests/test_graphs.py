"""What is done to a recorded step leaves its numbers alone."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo import graphs
from zoo.engine import Engine
from zoo.graphs import arrange_products, on_cuda
from zoo.objectives import ELBO

bmm = torch.ops.aten.bmm.default


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(128, 100, 8), (40, 9, 20), (8, 100, 20), (64, 64, 16), (1, 1, 1)]
)
def test_products_are_arranged_and_stay_what_they_are(rows, inner, columns, dtype):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, rows, inner, dtype=dtype, generator=generator)
    b = torch.randn(3, columns, inner, dtype=dtype, generator=generator)
    graph = make_fx(lambda a, b: torch.bmm(a, b.mT).view(3, -1))(a, b)
    expected = graph(a, b)
    (before,) = graph.graph.find_nodes(op="call_function", target=bmm)
    arrange_products(graph.graph)
    graph.recompile()
    (after,) = graph.graph.find_nodes(op="call_function", target=bmm)
    assert (after is before) == (columns % 16 == 0 or columns >= rows)
    torch.testing.assert_close(graph(a, b), expected)


def test_compiling_pays_for_many_numbers_or_many_calls():
    few, many = (graphs.record(lambda x: x.exp() + 1, torch.zeros(size)).graph for size in (1, 10**6))
    assert [graphs.compiling_pays(graph, times) for graph in (few, many) for times in (0, 10**5, 10**6)] == [
        *(False, False, True),
        *(False, True, True),
    ]


def test_a_turned_product_may_be_multiplied_again():
    shapes = (3, 128, 100), (3, 100, 8), (3, 8, 4)
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]
    graph = make_fx(lambda a, b, c: torch.bmm(torch.bmm(a, b), c))(*factors)
    expected = graph(*factors)
    arrange_products(graph.graph)
    graph.recompile()
    torch.testing.assert_close(graph(*factors), expected)


def test_the_arrangement_can_be_given_again(monkeypatch):
    a, b = torch.ones(1, 128, 128), torch.ones(1, 128, 256)
    found = []
    for twice_as_fast in (True, False):
        monkeypatch.setattr(graphs, "measured_onednn_from", lambda fast=twice_as_fast: 2**22 if fast else 2**24)
        for given in (None, *found):
            graph = make_fx(torch.bmm)(a, b)
            threshold = arrange_products(graph.graph, given)
            by_onednn = graph.graph.find_nodes(op="call_function", target=torch.ops.zoo.bmm.default)
            assert bool(by_onednn) == (threshold == 2**22)
            assert given in (None, threshold)
        found.append(arrange_products(make_fx(torch.bmm)(a, b).graph))
    assert found == [2**22, 2**24]
    assert arrange_products(make_fx(torch.bmm)(a[:, :8], b).graph) is None


@pytest.mark.parametrize("name", ["gaussian-constrained", "gaussian-learned:full-rank"])
def test_layers_in_half_the_bits_round_and_no_more(name, digits):
    x = torch.as_tensor(digits.scaled("train"), dtype=torch.float32)
    pair = zoo.create(name, digits, latent_dim=2, hidden=(32,))
    how = {"objective": ELBO(), "schedule": lambda _: (1e-3, 1.0), "batch_size": 64}
    whole, plain, graph = (
        Engine(pair, [0, 1], x, mode=mode, precision=precision, **how)
        for mode, precision in (("capture", "float32"), ("off", "bfloat16"), ("capture", "bfloat16"))
    )
    assert graph.mode == "capture", graph.note
    products = graph._advance.graph.find_nodes(op="call_function", target=bmm)
    factors = [argument.meta["val"].dtype for node in products for argument in node.args if "val" in argument.meta]
    assert torch.bfloat16 in factors
    if name == "gaussian-constrained":  # a full covariance multiplies its factor too, which no layer does
        assert set(factors) == {torch.bfloat16}
    of_whole, of_plain, of_graph = (e.step(0) for e in (whole, plain, graph))
    for rounded in (of_plain, of_graph):
        assert rounded.dtype == torch.float32
        assert not torch.equal(rounded, of_whole)
        torch.testing.assert_close(rounded[:3], of_whole[:3], rtol=5e-3, atol=5e-2)
    for rounded in (plain, graph):
        gap = (rounded.state.first - whole.state.first).norm(dim=1) / whole.state.first.norm(dim=1)
        assert (gap < 0.02).all()


class Recorder(TorchDispatchMode):
    """What a CUDA graph does, by the CPU: the same operations on the memory that they were recorded on."""

    def __init__(self):
        super().__init__()
        self.calls, self.changed = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        changes = function._schema.is_mutable
        if changes:
            self.changed.append((args[0], args[0].clone()))
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, None if changes else result))
        return result

    def replay(self):
        for function, args, kwargs, kept in self.calls:
            result = function(*args, **kwargs)
            if isinstance(kept, torch.Tensor) and not function.is_view:
                kept.copy_(result)


@contextmanager
def recording(recorder):
    with recorder:
        yield
    for tensor, before in reversed(recorder.changed):  # a recording runs nothing
        tensor.copy_(before)


@pytest.fixture
def cuda(monkeypatch):
    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **_: recording(graph))
    for name, stand_in in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "CUDAGraph": Recorder,
        "set_stream": lambda _: None,
        "device": lambda _: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


def square(held, by):
    held.mul_(by)
    return (held * held).sum() + 1


@pytest.mark.usefixtures("cuda")
def test_a_replayed_step_takes_its_inputs_and_changes_what_it_holds():
    held = torch.arange(1.0, 4.0)
    step = on_cuda(square, [held], [torch.tensor(5.0)], [torch.tensor(3.0)])
    assert held.tolist() == [1, 2, 3]
    assert step(held, torch.tensor(2.0)) == 57
    assert held.tolist() == [2, 4, 6]
    assert step(held, torch.tensor(0.5)) == 15
    assert held.tolist() == [1, 2, 3]


@pytest.mark.usefixtures("cuda")
def test_a_step_that_depends_on_more_is_not_replayed():
    calls = []

    def erratic(held, by):
        calls.append(by)
        return held * len(calls)

    with pytest.raises(RuntimeError, match="does not repeat"):
        on_cuda(erratic, [torch.ones(2)], [torch.tensor(5.0)], [torch.tensor(3.0)])


@pytest.mark.usefixtures("cuda")
def test_a_graph_that_does_nothing_is_not_taken_for_the_step(monkeypatch):
    monkeypatch.setattr(Recorder, "replay", lambda _: None)
    with pytest.raises(RuntimeError, match="does not repeat"):
        on_cuda(square, [torch.arange(1.0, 4.0)], [torch.tensor(5.0)], [torch.tensor(3.0)])
