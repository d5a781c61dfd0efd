"""Recorded steps, adapted to the device: products, factorisations, CUDA graphs; and layers in bfloat16."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = [
    "BrainFloatLayers",
    "arrange_products",
    "compiling_pays",
    "measured_onednn_from",
    "on_cuda",
    "record",
    "share_results",
]

ONEDNN_FROM, ONEDNN_FROM_IF_TWICE_AS_FAST = 2**24, 2**22  # operations of a product from which oneDNN is faster than MKL
CALLED, FUSED = 4e-6, 3e-10  # seconds that compiling saves per operation, and per number of an elementwise one
STARTED, COMPILED = 5.0, 0.02  # seconds that it takes, and more per operation
WORTH = 2  # how many times what it takes compiling has to save, as machines differ and training may end early
WIDE = 16  # columns of a product that MKL processes together
WHOLE: dict[str, Any] = {"memory_format": torch.contiguous_format}


def arrange_products(graph: torch.fx.Graph, onednn_from: float | None = None) -> float | None:
    """Do every product on the CPU in the fastest way.

    Large products in single precision go to oneDNN. Narrow ones are transposed, AB = (BᵀAᵀ)ᵀ, since MKL is up to four
    times slower on few columns than on few rows.

    Args:
        graph: changed in place.
        onednn_from: operations of a product from which it goes to oneDNN; None measures it if it matters.

    Returns:
        The threshold, None if it did not matter; passed again, it gives the same arrangement.
    """
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default):
        left, right = (argument.meta["val"] for argument in node.args)
        _, rows, inner = left.shape
        columns = right.shape[2]
        if left.device.type != "cpu":
            continue
        operations = 2 * rows * inner * columns if left.dtype == torch.float32 else 0  # only float32 can go to oneDNN
        if onednn_from is None and operations >= ONEDNN_FROM_IF_TWICE_AS_FAST:
            onednn_from = measured_onednn_from()
        if onednn_from is not None and operations >= onednn_from:
            node.target = torch.ops.zoo.bmm.default
            if left.stride(-1) != 1:  # oneDNN would copy it into this layout, more slowly than a compiler does
                with graph.inserting_before(node):
                    laid_out = graph.call_function(torch.ops.aten.clone.default, node.args[:1], WHOLE)
                node.args = (laid_out, *node.args[1:])
        elif left.dtype != torch.bfloat16 and columns % WIDE and columns < rows:
            with graph.inserting_before(node):
                a, b = (graph.call_function(torch.ops.aten.transpose.int, (side, 1, 2)) for side in node.args)
                turned = graph.call_function(torch.ops.aten.bmm.default, (b, a))
                back = graph.call_function(torch.ops.aten.transpose.int, (turned, 1, 2))
                # the layout that later operations were recorded with
                whole_again = graph.call_function(torch.ops.aten.clone.default, (back,), WHOLE)
                node.replace_all_uses_with(whole_again, propagate_meta=True)
            graph.erase_node(node)
    return onednn_from


def compiling_pays(graph: torch.fx.Graph, times: float) -> bool:
    """Whether a graph that runs so many times is done sooner if it is compiled first.

    Compiling fuses elementwise operations, each of which otherwise passes through memory by itself. The costs are those
    of one machine, so that the choice depends on the graph alone and is the same when a run is repeated.
    """
    values = [node.meta.get("val") for node in graph.nodes if torch.Tag.pointwise in getattr(node.target, "tags", ())]
    numbers = sum(value.numel() for value in values if isinstance(value, Tensor))
    operations = len(graph.nodes)
    return times * (CALLED * operations + FUSED * numbers) > WORTH * (STARTED + COMPILED * operations)


@functools.cache
def measured_onednn_from() -> float:
    """Operations of a product from which oneDNN is faster than MKL on this processor.

    Its calls cost more. On processors where its products are twice as fast (AMD family 26, whose widest vectors MKL
    does not use) small products already make up for that. One product, where they differ most, tells the two kinds
    apart.
    """
    if not torch.backends.mkldnn.is_available():
        return math.inf
    square = torch.full((512, 512), 0.5)
    taken: dict[Callable[..., Tensor], list[float]] = {torch.bmm: [], torch.ops.zoo.bmm: []}
    for _ in range(5):
        for product, times in taken.items():
            started = time.perf_counter()
            product(square[None], square[None])
            times.append(time.perf_counter() - started)
    mkl, onednn = map(min, taken.values())
    return ONEDNN_FROM_IF_TWICE_AS_FAST if mkl > 1.5 * onednn else ONEDNN_FROM


# inductor assumes that weights of oneDNN's product never change, so hide it in an opaque operator
_OPERATORS = torch.library.Library("zoo", "DEF")
_OPERATORS.define("bmm(Tensor a, Tensor b) -> Tensor")


@torch.library.impl(_OPERATORS, "bmm", "CPU")
def _bmm(a: Tensor, b: Tensor) -> Tensor:
    product = torch.ops.mkldnn._linear_pointwise.default
    products = [product(x, y, None, "none", [], "") for x, y in zip(a, b.mT, strict=True)]
    return products[0].unsqueeze(0) if len(products) == 1 else torch.stack(products)


@torch.library.register_fake("zoo::bmm", lib=_OPERATORS)  # type: ignore[untyped-decorator]
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], a.shape[1], b.shape[2])


def _fail_alone(graph: torch.fx.Graph) -> None:
    """Turn a failing factorisation into NaN for its seed; graphs drop the checks that would raise for all."""
    for check in graph.find_nodes(op="call_function", target=torch.ops.aten._linalg_check_errors.default):
        info = check.args[0]
        factor = next(node for node in info.args[0].users if node.args[1] == 0)
        with graph.inserting_before(check):
            failed = graph.call_function(torch.ops.aten.ne.Scalar, (info, 0))
            for _ in range(factor.meta["val"].dim() - info.meta["val"].dim()):
                failed = graph.call_function(torch.ops.aten.unsqueeze.default, (failed, -1))
            masked = graph.call_function(torch.ops.aten.masked_fill.Scalar, (factor, failed, torch.nan))
        masked.meta["val"] = factor.meta["val"]
        factor.replace_all_uses_with(masked, delete_user_cb=lambda user, masked=masked: user is not masked)
        graph.erase_node(check)


def record(function: Callable[..., Any], *inputs: Any) -> torch.fx.GraphModule:
    """A function recorded as a graph on these inputs, which may be trees of tensors."""
    # one fake mode for all nodes; torch would make one for each, which takes longer than everything else
    shapes = FakeTensorMode(allow_fallback_kernels=True)
    with tracing(TracingContext(shapes)):
        graph: torch.fx.GraphModule = make_fx(lambda *given: function(*given))(*inputs)
    _fail_alone(graph.graph)
    return graph


def share_results(graph: torch.fx.GraphModule) -> None:
    """Compute repeated expressions once, and hyperbolic tangents in a third of the time."""
    constants: dict[int, torch.fx.Node] = {}
    for node in graph.graph.find_nodes(op="get_attr"):  # a tensor gets a new name at every use
        first = constants.setdefault(id(getattr(graph, str(node.target))), node)
        if first is not node:
            node.replace_all_uses_with(first)
    # 2 sigmoid(2x) - 1 is off by 2e-7 in single precision, torch's tanh by 3e-8
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.tanh.default):
        with graph.graph.inserting_before(node):
            twice = graph.graph.call_function(torch.ops.aten.mul.Tensor, (node.args[0], 2))
            share = graph.graph.call_function(torch.ops.aten.sigmoid.default, (twice,))
            scaled = graph.graph.call_function(torch.ops.aten.mul.Tensor, (share, 2))
            result = graph.graph.call_function(torch.ops.aten.sub.Tensor, (scaled, 1))
        node.replace_all_uses_with(result, propagate_meta=True)
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.log.default):
        _undo_exponential(graph.graph, node)
    graph.graph.eliminate_dead_code()
    _merge_equal_nodes(graph.graph)


def _merge_equal_nodes(graph: torch.fx.Graph) -> None:
    """Of nodes that do the same with the same, keep the first; torch's own way to do it loads a compiler."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    if any(_writes(node.target) for node in calls):  # then equal nodes need not be equal tensors
        return
    first: dict[Any, torch.fx.Node] = {}
    apart = {*graph.output_node().all_input_nodes}  # what is returned twice is not one tensor
    for node in calls:
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if random or node in apart:
            continue
        same = first.setdefault((node.target, _key(node.args), _key(node.kwargs)), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)


def _writes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _key(argument: Any) -> Any:
    """Equal for equal arguments alone: 1, 1.0 and True are not, nor are 0.0 and -0.0."""
    if isinstance(argument, torch.fx.Node):
        return argument
    if isinstance(argument, Mapping):
        return tuple((name, _key(value)) for name, value in argument.items())
    if isinstance(argument, list | tuple):
        return tuple(map(_key, argument))
    return type(argument), repr(argument)


def _undo_exponential(graph: torch.fx.Graph, log: torch.fx.Node) -> None:
    """Replace log(exp(a)) by a, as for a scale whose logarithm a network gives."""
    shaped: list[Any] = []
    inner: Any = log.args[0]
    while inner.target in (torch.ops.aten.expand.default, torch.ops.aten.view.default):
        shaped.append(inner)
        inner = inner.args[0]
    if inner.target is not torch.ops.aten.exp.default:
        return
    (result,) = inner.args
    with graph.inserting_before(log):
        for node in reversed(shaped):  # with other strides than the exponential
            view = node.target is torch.ops.aten.view.default
            result = graph.call_function(
                torch.ops.aten.reshape.default if view else node.target, (result, node.args[1])
            )
    result.meta.setdefault("val", log.meta["val"])
    log.replace_all_uses_with(result)


class BrainFloatLayers(TorchFunctionMode):
    """Layers multiply in bfloat16, which has 8 bits of precision, on tensor cores; everything else is unchanged.

    ``torch.autocast`` would also round what follows a layer, and a log density is a sum of thousands of terms.
    """

    LAYERS = (functional.linear, functional.conv2d, functional.conv_transpose2d)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.LAYERS or (args[0] if args else kwargs["input"]).dtype != torch.float32:
            return func(*args, **kwargs)
        halved = [a.bfloat16() if isinstance(a, Tensor) else a for a in args]
        named = {name: a.bfloat16() if isinstance(a, Tensor) else a for name, a in kwargs.items()}
        return func(*halved, **named).float()


def on_cuda(
    advance: Callable[..., Tensor], held: Sequence[Tensor], inputs: Sequence[Tensor], others: Sequence[Tensor]
) -> Callable[..., Tensor]:
    """A step as one CUDA graph, whose kernels are launched together.

    Args:
        advance: the step, a function of the state it changes in place and of its inputs.
        held: the state it changes in place, the same tensors at every call.
        inputs: the inputs of a step, whose shapes all steps share; copied to where the graph reads them.
        others: the inputs of another step, on which the graph is compared with the step.

    Returns:
        The step; the next call overwrites its result.

    Raises:
        RuntimeError: the step cannot be recorded, or the graph does not repeat it.
    """
    # with the same strides too: the step may have been compiled for them
    looked_at = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t) for t in inputs]
    before = [tensor.clone() for tensor in held]

    def put_back() -> None:
        for tensor, old in zip(held, before, strict=True):
            tensor.copy_(old)

    with torch.cuda.device(held[0].device):
        now, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            for _ in range(3):  # libraries initialise in the first calls, which must not be recorded
                advance(*held, *looked_at)
            put_back()
        now.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = advance(*held, *looked_at)
        finally:
            torch.cuda.set_stream(now)  # a failed recording leaves its own stream set
    recorded = graph, advance  # the step owns the constants that the graph reads

    def replay(*given: Tensor) -> Tensor:
        for place, tensor in zip(looked_at, given[len(held) :], strict=True):
            place.copy_(tensor, non_blocking=True)
        recorded[0].replay()
        return result

    expected = [tensor.clone() for tensor in (advance(*held, *others), *held)]
    put_back()
    found = [tensor.clone() for tensor in (replay(*held, *others), *held)]
    put_back()
    if not all(
        torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-3, equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    ):
        raise RuntimeError("the CUDA graph does not repeat the step")
    return replay
