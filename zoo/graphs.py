"""Recorded steps, changed for where they run: products, factorisations, CUDA graphs; and layers in half the bits."""

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
    "measured_onednn_from",
    "on_cuda",
    "record",
    "share_results",
]

ONEDNN_FROM, ONEDNN_FROM_IF_TWICE_AS_FAST = 2**24, 2**22  # operations of a product from which it overtakes MKL
WIDE = 16  # columns of a product that MKL takes at a time
WHOLE: dict[str, Any] = {"memory_format": torch.contiguous_format}


def arrange_products(graph: torch.fx.Graph, onednn_from: float | None = None) -> float | None:
    """Have every product on the CPU done the way it is fastest there.

    Large ones in single precision go to oneDNN. Narrow ones are turned around, AB = (BᵀAᵀ)ᵀ, since MKL is up to four
    times slower on few columns than on few rows.

    Args:
        graph: changed in place.
        onednn_from: operations of a product from which oneDNN has it; None measures it if it matters.

    Returns:
        The threshold, None if it did not matter; given again, it arranges the products in the same way.
    """
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default):
        left, right = (argument.meta["val"] for argument in node.args)
        _, rows, inner = left.shape
        columns = right.shape[2]
        if left.device.type != "cpu":
            continue
        operations = 2 * rows * inner * columns if left.dtype == torch.float32 else 0  # that oneDNN could have
        if onednn_from is None and operations >= ONEDNN_FROM_IF_TWICE_AS_FAST:
            onednn_from = measured_onednn_from()
        if onednn_from is not None and operations >= onednn_from:
            node.target = torch.ops.zoo.bmm.default
            if left.stride(-1) != 1:  # oneDNN would lay it out anew itself, and slower than a compiler does
                with graph.inserting_before(node):
                    laid_out = graph.call_function(torch.ops.aten.clone.default, node.args[:1], WHOLE)
                node.args = (laid_out, *node.args[1:])
        elif left.dtype != torch.bfloat16 and columns % WIDE and columns < rows:
            with graph.inserting_before(node):
                a, b = (graph.call_function(torch.ops.aten.transpose.int, (side, 1, 2)) for side in node.args)
                turned = graph.call_function(torch.ops.aten.bmm.default, (b, a))
                back = graph.call_function(torch.ops.aten.transpose.int, (turned, 1, 2))
                # as what follows was recorded for
                whole_again = graph.call_function(torch.ops.aten.clone.default, (back,), WHOLE)
                node.replace_all_uses_with(whole_again, propagate_meta=True)
            graph.erase_node(node)
    return onednn_from


@functools.cache
def measured_onednn_from() -> float:
    """Operations of a product from which oneDNN is faster than MKL on this processor.

    Its calls cost more. On processors on which its products are twice as fast (AMD's of family 26, whose widest
    vectors MKL does not use) that is soon made up for. The two are told apart by one product in which they are far.
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


# inductor takes oneDNN's product for weights that never change, so it meets it as an operator it does not look into
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
    """Make a factorisation that fails not a number in its own seed: what would raise for all is dropped from graphs."""
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
    """A function as a graph of what it does with these inputs, which may be trees of tensors."""
    # one mode for the shapes of all nodes; torch would make one for each, which takes longer than all else
    shapes = FakeTensorMode(allow_fallback_kernels=True)
    with tracing(TracingContext(shapes)):
        graph: torch.fx.GraphModule = make_fx(lambda *given: function(*given))(*inputs)
    _fail_alone(graph.graph)
    return graph


def share_results(graph: torch.fx.GraphModule) -> None:
    """Work out once what a program works out again and again, and hyperbolic tangents in a third of the time."""
    constants: dict[int, torch.fx.Node] = {}
    for node in graph.graph.find_nodes(op="get_attr"):  # a tensor has a name of its own wherever it was met
        first = constants.setdefault(id(getattr(graph, str(node.target))), node)
        if first is not node:
            node.replace_all_uses_with(first)
    # 2 sigmoid(2x) - 1 is off by 2e-7 in single precision, and torch's tanh by 3e-8
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
    """Take what the exponential was of for its logarithm, as of a scale whose logarithm a network gives."""
    shaped: list[Any] = []
    inner: Any = log.args[0]
    while inner.target in (torch.ops.aten.expand.default, torch.ops.aten.view.default):
        shaped.append(inner)
        inner = inner.args[0]
    if inner.target is not torch.ops.aten.exp.default:
        return
    (result,) = inner.args
    with graph.inserting_before(log):
        for node in reversed(shaped):  # of other strides than the exponential's
            view = node.target is torch.ops.aten.view.default
            result = graph.call_function(
                torch.ops.aten.reshape.default if view else node.target, (result, node.args[1])
            )
    result.meta.setdefault("val", log.meta["val"])
    log.replace_all_uses_with(result)


class BrainFloatLayers(TorchFunctionMode):
    """Layers multiply in bfloat16, whose 8 bits of precision tensor cores take; all else stays as it is.

    Unlike ``torch.autocast``, which would also round what follows a layer: a log density is a sum of thousands.
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
        advance: the step, a function of what it changes in place and of its inputs.
        held: what it changes in place, from call to call the same tensors.
        inputs: of a step, of the shapes of every step; copied to where the graph looks for them.
        others: of another step, on which the graph is compared with the step.

    Returns:
        The step, whose result is overwritten by the next one.

    Raises:
        RuntimeError: the step cannot be recorded, or the graph does not do what the step does.
    """
    # of the same strides too: the step may have been compiled for them
    looked_at = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t) for t in inputs]
    before = [tensor.clone() for tensor in held]

    def put_back() -> None:
        for tensor, old in zip(held, before, strict=True):
            tensor.copy_(old)

    with torch.cuda.device(held[0].device):
        now, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            for _ in range(3):  # libraries set themselves up at the first calls, which may not be recorded
                advance(*held, *looked_at)
            put_back()
        now.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = advance(*held, *looked_at)
        finally:
            torch.cuda.set_stream(now)  # a recording that fails leaves its own behind
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
