"""One SVI step for many seeds at once, as a pure function of parameters, batch and noise.

The parameters of seed s are row s of one matrix, so Adam, clipping and freezing are arithmetic on rows. Random numbers
are lifted out of the Pyro programs and enter as inputs, drawn from (seed, step) alone. So a step is the same function
in every mode, a seed's numbers do not depend on the other seeds, and there is no random state to keep. The step runs
directly through Pyro (``off``), is recorded once as a graph over all seeds and replayed (``capture``), or that graph is
compiled (``inductor``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import pyro
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from zoo.batches import STEPS_AHEAD, Order, Resident, Training
from zoo.context import Stream, pyro_context, quiet_compiler, random_stream, seeded
from zoo.errors import OptionError
from zoo.graphs import BrainFloatLayers, arrange_products, compiling_pays, on_cuda, record
from zoo.noise import Tape
from zoo.objectives import Loss, refuse_coupled_rows, refuse_other_data, refuse_other_sites, traces
from zoo.ranks import Ranks

if TYPE_CHECKING:
    from zoo.catalogue import Pair

__all__ = [
    "Engine",
    "Inputs",
    "LinAlgError",
    "Mode",
    "Objective",
    "Precision",
    "Replica",
    "Schedule",
    "State",
    "close",
]

Mode = Literal["off", "capture", "inductor"]
Precision = Literal["float32", "bfloat16"]
Objective = Callable[..., Loss]  # of model, guide, batch and the weight of the KL term
Schedule = Callable[[int], tuple[float, float]]  # learning rate and KL weight of a step, numbered from 0

LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
NUMBERS_AHEAD = 2**18  # noise numbers per seed that are made together
LARGE = 2**17  # a parameter of this size over all seeds is a piece of its own: joining it to a row would copy it
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as in Kingma & Ba (2015) and torch.optim.Adam


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, as vectors."""
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return bool((a - b).norm() <= 1e-4 * b.norm())


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.random.get_rng_state()


def _pieces(sizes: Sequence[int], seeds: int) -> list[list[int]]:
    """Sizes of the pieces of a row of parameters: a large parameter is its own piece, small neighbours share one."""
    pieces: list[list[int]] = []
    for large, group in groupby(sizes, lambda size: seeds * size >= LARGE):
        neighbours = list(group)
        pieces += [[size] for size in neighbours] if large else [neighbours]
    return pieces


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


@contextmanager
def _evaluating(program: nn.Module) -> Iterator[None]:
    """Without dropout."""
    before = {module: module.training for module in program.modules()}
    try:
        program.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _identity(batch: Tensor) -> Tensor:
    return batch


class Replica(nn.Module):
    """A model and a guide as one module, whose parameters ``functional_call`` can replace."""

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.guide = guide

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(model, guide, *args)``."""
        return function(self.model, self.guide, *args)


@dataclass(frozen=True)
class State:
    """What a step changes in place: parameters and Adam's moments, (S, P) each, and which seeds are alive, (S,)."""

    theta: Tensor
    first: Tensor
    second: Tensor
    alive: Tensor


class Inputs(NamedTuple):
    """The inputs of a step, besides its state.

    The batches, (S, B, D), or their row numbers in data on the device, (S, B); standard noise, (S, .); Adam's step
    size, epsilon and the KL weight, (3,).
    """

    rows: Tensor
    normal: Tensor
    uniform: Tensor
    rates: Tensor


class Engine:
    """Stacked replicas of a pair and the step that trains them.

    Args:
        pair: the model and guide.
        seeds: one replica for each, with its own initial weights, noise and order of the data.
        x: training data, shape (N, D), on the device or read on demand.
        objective: (model, guide, batch, weight of the KL term) -> Loss.
        schedule: learning rate and KL weight of each step.
        batch_size: B.
        prepare: applied to each batch inside the step; may draw fresh noise.
        clip: the largest gradient norm of a seed, or None.
        same_batches: whether all seeds see the data in the order of seed 0.
        mode: how the step is run; on CUDA a recorded step is replayed as a CUDA graph. A step that cannot be captured
            runs with "off", and ``note`` says why. "auto" captures it, and compiles it if that pays.
        steps: how many steps compiling has to pay in.
        precision: precision of layer products in training; everything else has the precision of the data.
        onednn_from: the size from which products go to oneDNN, found by an earlier engine; None measures it if needed.
        ranks: which seeds are trained in this process; None for all.

    Raises:
        OptionError: the pair or the objective cannot be trained.

    ``lifts_noise`` says whether every random number of the programs is an input of the step; ``recorded`` names what a
    step returns.
    """

    def __init__(
        self,
        pair: Pair,
        seeds: Sequence[int],
        x: Tensor | Training,
        *,
        objective: Objective,
        schedule: Schedule,
        batch_size: int,
        prepare: Callable[[Tensor], Tensor] | None = None,
        clip: float | None = None,
        same_batches: bool = False,
        mode: Mode | Literal["auto"] = "capture",
        steps: int = 0,
        precision: Precision = "float32",
        onednn_from: float | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.data = Resident(x) if isinstance(x, Tensor) else x
        self.x = self.data.some
        self.ranks = ranks or Ranks(self.x.device)
        self.seeds = list(seeds)[self.ranks.part]
        self.objective = objective
        self.schedule = schedule
        self.batch_size = min(batch_size, len(self.data))
        self.prepare = prepare or _identity
        self.clip = clip
        self.onednn_from = onednn_from
        self.arithmetic = BrainFloatLayers if precision == "bfloat16" else nullcontext

        orders = [0] * len(self.seeds) if same_batches else self.seeds
        self.data.follow(Order(len(self.data), self.batch_size, orders, self.x.device))
        replicas = [_started(pair.replica(seed), seed, self.data, self.prepare) for seed in self.seeds]
        self.program = replicas[0]
        trained = {name: p.shape for name, p in self.program.named_parameters() if p.requires_grad}
        if not trained:
            raise OptionError(
                "the pair has no parameter to train: neither its model nor its guide has an nn.Parameter."
            )
        self.names, self.shapes = list(trained), list(trained.values())
        self.pieces = _pieces([prod(shape) for shape in self.shapes], len(seeds))
        tensors = [dict([*replica.named_parameters(), *replica.named_buffers()]) for replica in replicas]
        theta = torch.stack([torch.cat([of[name].detach().flatten() for name in trained]) for of in tensors])
        fixed = [name for name in tensors[0] if name not in trained]
        self.buffers = {name: torch.stack([of[name].detach() for of in tensors]) for name in fixed}
        alive = torch.ones(len(self.seeds), dtype=torch.bool, device=theta.device)
        self.state = State(theta, torch.zeros_like(theta), torch.zeros_like(theta), alive)
        self._held = self._in_pieces(self.state)
        self._generator = torch.Generator(self.x.device)
        self._block = -1
        self._step_number = 0

        started = time.perf_counter()
        self.note = ""
        self.mode: Mode = "off"
        self.lifts_noise = self._rehearse(pair.card.base_measure)
        self._advance = self._as_it_is()
        if not self.lifts_noise and mode != "off":
            self.note = "it draws random numbers that cannot be lifted out of the step"
        elif mode != "off":
            self.mode = "capture" if mode == "auto" else mode
            self._times = steps * len(seeds) / len(self.seeds) if mode == "auto" else 0.0
            try:
                self._advance = self._recorded()
            except Exception as error:  # whatever cannot be recorded, Pyro can still run
                self.mode, self.note, self._advance = "off", _first_line(error), self._as_it_is()
        self.compile_seconds = time.perf_counter() - started

    # -- one step ------------------------------------------------------------------------------------------------

    def step(self, step: int) -> Tensor:
        """Take step number ``step`` (from 0), for every seed alive.

        Returns:
            The diagnostics of the objective and the gradient norm, (R, S), as named by ``recorded``; NaN for frozen
            seeds. A seed whose loss or gradient is not finite is frozen at its last parameters.
        """
        self._step_number = step
        return self._advance(*self._held, *self.inputs(step))

    def freeze(self, which: Any) -> None:
        """Stop training these seeds, a boolean array of shape (S,)."""
        self.state.alive.logical_and_(~torch.as_tensor(which, dtype=torch.bool, device=self.x.device))

    def inputs(self, step: int) -> Inputs:
        """The inputs of step number ``step``; batches are consecutive pieces of endless permutations.

        The noise of a few steps is made together, like their rows; how many does not depend on the number of seeds.
        """
        block, at = divmod(step, self._steps_ahead)
        if block != self._block:
            self._noise_ahead, self._block = self._noise_of(block), block
        return Inputs(self.data.given(step), *self._noise_ahead[at])

    def _noise_of(self, block: int) -> list[tuple[Tensor, ...]]:
        """Noise and rates of several steps."""
        ahead = self._steps_ahead
        normal, uniform = (self.x.new_empty(len(self.seeds), ahead, size) for size in self._noise_size.values())
        for row, seed in enumerate(self.seeds):
            self._generator.manual_seed(random_stream(seed, Stream.NOISE, block))
            normal[row].normal_(generator=self._generator)
            uniform[row].uniform_(generator=self._generator)
        rates = self.x.new_tensor([self._rates(block * ahead + at) for at in range(ahead)])
        return list(zip(normal.unbind(1), uniform.unbind(1), rates.unbind(), strict=True))

    def _rates(self, step: int) -> list[float]:
        """Adam's bias corrections, m / (1 - β₁ᵗ) and v / (1 - β₂ᵗ), in one factor: one division fewer per parameter."""
        rate, kl_weight = self.schedule(step)
        of_first, of_second = (1 - beta ** (step + 1) for beta in BETAS)
        return [rate * math.sqrt(of_second) / of_first, EPSILON * math.sqrt(of_second), kl_weight]

    def _in_pieces(self, state: State) -> tuple[Tensor, ...]:
        """Views of what a step changes: the pieces of each matrix, and which seeds are alive."""
        matrices = (state.theta, state.first, state.second)
        return *(piece for matrix in matrices for piece in self._split(matrix)), state.alive

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, [sum(piece) for piece in self.pieces], dim=-1)

    def _step(self, *tensors: Tensor) -> Tensor:
        """A step of every seed, from its state, in pieces, and its inputs."""
        *held, rows, normal, uniform, rates = tensors
        return self._update(*held, rates, *self._gradients(*held[: len(self.pieces)], rows, normal, uniform, rates))

    def _gradients(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """From parameters and inputs: gradients in pieces, and the loss and its recorded values, (T, S)."""
        *theta, rows, normal, uniform, rates = tensors
        _, _, kl_weight = rates.unbind()
        per_seed = self._vmapped if self.mode != "off" else self._one_by_one
        with self.arithmetic():
            gradients, loss = per_seed(theta, self.data.batch(rows), normal, uniform, kl_weight)
        told = [loss.value, *(loss.diagnostics[name].to(loss.value) for name in self.recorded[:-1])]
        return *gradients, torch.stack(told)

    def _update(self, *tensors: Tensor) -> Tensor:
        """Adam on every row, in place, where the loss and its gradient are finite.

        Takes the state, the rates, and the result of :meth:`_gradients`.
        """
        count = len(self.pieces)
        held, still_alive, rates = tensors[: 3 * count], tensors[3 * count], tensors[3 * count + 1]
        theta, first, second = (held[i : i + count] for i in range(0, len(held), count))
        *gradients, told = tensors[3 * count + 2 :]
        rate, epsilon, _ = rates.unbind()
        norm = torch.stack([gradient.norm(dim=1) for gradient in gradients]).norm(dim=0)
        alive = still_alive & told[0].isfinite() & norm.isfinite()
        statistics = torch.where(alive, torch.cat([told[1:], norm[None]]), torch.nan)
        share = alive[:, None].to(rates.dtype)  # a frozen seed is not changed
        if self.clip is not None:
            shrunk = (self.clip / norm).clamp(max=1.0)[:, None]
            gradients = [gradient * shrunk for gradient in gradients]
        for of, m, v, gradient in zip(theta, first, second, gradients, strict=True):
            gradient = torch.where(alive[:, None], gradient, 0.0)
            next_m = m + share * (1 - BETAS[0]) * (gradient - m)
            next_v = v + share * (1 - BETAS[1]) * (gradient.square() - v)
            next_of = of - share * rate * next_m / (next_v.sqrt() + epsilon)
            for old, new in ((of, next_of), (m, next_m), (v, next_v)):
                old.copy_(new)  # in place: fresh memory for every step would cost as much as the arithmetic
        still_alive.copy_(alive)
        return statistics

    def _loss(
        self,
        theta: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        batch: Tensor,
        normal: Tensor,
        uniform: Tensor,
        kl_weight: Tensor,
    ) -> tuple[Tensor, Loss]:
        """The loss of one seed, for its row of parameters (P,) in pieces and its noise."""
        with Tape(normal=normal, uniform=uniform):
            loss = self._of_batch({**self._from_pieces(theta), **buffers}, batch, kl_weight)
        return loss.value, loss

    def _of_batch(self, weights: dict[str, Tensor], batch: Tensor, kl_weight: Tensor) -> Loss:
        call = (self.objective, self.prepare(batch), kl_weight)
        return functional_call(self.program, weights, call)  # type: ignore[no-any-return]

    def _vmapped(
        self, theta: Sequence[Tensor], batches: Tensor, normal: Tensor, uniform: Tensor, kl_weight: Tensor
    ) -> tuple[Sequence[Tensor], Loss]:
        one = grad_and_value(self._loss, has_aux=True)
        gradients, (_, loss) = vmap(one, in_dims=(0, 0, 0, 0, 0, None))(
            tuple(theta), self.buffers, batches, normal, uniform, kl_weight
        )
        return gradients, loss

    def _one_by_one(
        self, theta: Sequence[Tensor], batches: Tensor, normal: Tensor, uniform: Tensor, kl_weight: Tensor
    ) -> tuple[Sequence[Tensor], Loss]:
        """The same directly through Pyro and autograd, one seed at a time."""
        gradients, losses = [], []
        lost = kl_weight.new_tensor(torch.nan)
        for s in range(len(self.seeds)):
            row = [piece[s].detach().requires_grad_() for piece in theta]
            buffers = {name: b[s] for name, b in self.buffers.items()}
            try:
                with pyro_context(), self._draws(s, self._step_number, normal, uniform):
                    loss = self._of_batch({**self._from_pieces(row), **buffers}, batches[s], kl_weight)
                gradients.append(torch.autograd.grad(loss.value, row, materialize_grads=True))
                losses.append(Loss(loss.value.detach(), {n: of.detach() for n, of in loss.diagnostics.items()}))
            except LinAlgError:  # this seed is frozen, the others go on
                gradients.append(tuple(torch.full_like(piece, torch.nan, requires_grad=False) for piece in row))
                losses.append(Loss(lost, dict.fromkeys(self.recorded[:-1], lost)))
        stacked = [torch.stack(column) for column in zip(*gradients, strict=True)]
        diagnostics = {name: torch.stack([of.diagnostics[name] for of in losses]) for name in self.recorded[:-1]}
        return stacked, Loss(torch.stack([of.value for of in losses]), diagnostics)

    def _draws(self, row: int, step: int, normal: Tensor, uniform: Tensor) -> AbstractContextManager[Any]:
        """The source of a seed's random numbers in a step: its noise, or its own generator."""
        if self.lifts_noise:
            return Tape(normal=normal[row], uniform=uniform[row])
        return seeded(random_stream(self.seeds[row], Stream.NOISE, step))

    def fault(self, row: int, step: int) -> str:
        """What was not finite in the step that froze a seed: a site's value or density, or a parameter's gradient.

        A step is a function of parameters, batch and noise, and a frozen seed still has the parameters from before it,
        so the step is repeated through Pyro.
        """
        theta = self.state.theta[row].detach().clone().requires_grad_()
        weights = {**self.parameters(theta), **{name: b[row] for name, b in self.buffers.items()}}
        rows, *noise, _ = self.inputs(step)
        batch = self.data.batch(rows)[row]
        try:
            with pyro_context(), self.arithmetic(), self._draws(row, step, *noise):
                call = (traces, self.prepare(batch))
                model, guide = functional_call(self.program, weights, call)
            for owner, trace in (("guide", guide), ("model", model)):
                for site, node in trace.nodes.items():
                    if node["type"] != "sample" or site_is_subsample(node):
                        continue
                    # a value that is summed out may have probability 0
                    summed = "_enumerate_dim" in node["infer"]
                    for name in ("value", "log_prob"):
                        numbers = node[name]
                        if (numbers.isnan() if summed else ~numbers.isfinite()).any():
                            return f"the {name} of the {owner}'s site {site!r} was not finite"
            with pyro_context(), self.arithmetic(), self._draws(row, step, *noise):
                loss = self._of_batch(weights, batch, theta.new_tensor(1.0)).value
            gradient = self.parameters(torch.autograd.grad(loss, theta)[0])
        except LinAlgError as error:
            return _first_line(error)
        broken = [name for name, part in gradient.items() if not part.isfinite().all()]
        if not broken:
            return "the objective was not finite" if not loss.isfinite() else "when repeated, the step was finite"
        more = f" and of {len(broken) - 1} more" if broken[1:] else ""
        return f"the gradient of {broken[0]}{more} was not finite"

    # -- before the first step -----------------------------------------------------------------------------------

    def _rehearse(self, base_measure: str) -> bool:
        """Run the objective once with validation on; find how much noise it takes and whether all of it was lifted."""
        buffers = {name: b[0].clone() for name, b in self.buffers.items()}
        weights = {**self.parameters(self.state.theta[0]), **buffers}
        batch = self.data.batch(self.data.given(0))[0]
        with seeded(0), torch.no_grad(), pyro_context(), pyro.get_param_store().scope():
            model, guide = functional_call(self.program, weights, (traces, self.prepare(batch)))
            refuse_other_sites(model, guide, len(batch))
            refuse_other_data(model.nodes["x"]["fn"], self.prepare(batch), base_measure)
        with seeded(0), torch.no_grad(), pyro_context(), _evaluating(self.program):
            functional_call(self.program, weights, (refuse_coupled_rows, self.prepare(batch)))
        with seeded(0), torch.no_grad(), pyro_context(validate=True):
            as_it_is = self._of_batch(weights, batch, batch.new_tensor(1.0))
        with seeded(0), torch.no_grad(), pyro_context():
            before = _random_state(self.x.device)
            with Tape() as tape:
                lifted = self._of_batch(weights, batch, batch.new_tensor(1.0)).value
            untouched = torch.equal(before, _random_state(self.x.device))
        changed = [name for name, b in buffers.items() if not torch.equal(b, self.buffers[name][0])]
        if changed:
            raise OptionError(
                f"the pair changes {changed[0]} while it runs (batch normalisation?), so a datum's density "
                "depends on its batch: use layer normalisation, or a constant buffer."
            )
        if unnamed := {"elbo", "log_likelihood", "kl", "min_scale", "objective"} - as_it_is.diagnostics.keys():
            raise OptionError(
                f"the objective's diagnostics lack {', '.join(sorted(unnamed))}: return zoo.objectives.terms(...)"
                ".loss_of(reward, kl_weight), or .loss(value, objective) if no KL term is taken off by itself."
            )
        self.recorded = (*as_it_is.diagnostics, "grad_norm")
        liftable = untouched and not (lifted.isnan() and as_it_is.value.isfinite())
        self._noise_size = tape.used if liftable else {"normal": 0, "uniform": 0}
        most = max(self.batch_size, sum(self._noise_size.values()))
        self._steps_ahead = max(1, min(STEPS_AHEAD, NUMBERS_AHEAD // most))
        return liftable

    def _as_it_is(self) -> Callable[..., Tensor]:
        """The step through Pyro: a function of its state, in pieces, and its inputs."""
        return self._step

    def _recorded(self) -> Callable[..., Tensor]:
        """The same as a graph."""
        return self._compiled(self._step, self._in_pieces, self.inputs)

    def _compiled(
        self,
        function: Callable[..., Tensor],
        held: Callable[[State], tuple[Tensor, ...]],
        inputs: Callable[[int], tuple[Tensor, ...]],
        results: Callable[[Tensor], tuple[Tensor, ...]] = lambda result: (result,),
    ) -> Callable[..., Tensor]:
        """A function of state and inputs recorded as a graph, which is refused if it does not repeat the function."""
        s = self.state

        def given(step: int) -> tuple[Tensor, ...]:
            copy = State(s.theta.clone(), s.first.clone(), s.second.clone(), s.alive.clone())
            return *held(copy), *inputs(step)

        with pyro_context():
            graph = record(function, *given(0))
            graph.graph.eliminate_dead_code()
            self.onednn_from = arrange_products(graph.graph, self.onednn_from)
            if self._times and self._pays(graph.graph):
                self.mode = "inductor"
            self._times = 0.0  # what is recorded next is compiled if this is
            graph.recompile()
            by_graph, by_pyro = given(1), given(1)
            found, expected = results(graph(*by_graph)), results(function(*by_pyro))
        # compare first moments, not parameters: for a gradient near zero, Adam's step is only its sign
        first = slice(len(self.pieces), min(2 * len(self.pieces), len(held(s))))
        if not all(map(close, (*by_graph[first], *found), (*by_pyro[first], *expected))):
            raise RuntimeError("its forward depends on more than parameters, data and Pyro's draws")
        advance: Callable[..., Tensor] = graph
        if self.mode == "inductor":
            from torch._inductor import compile as inductor  # loads a compiler, so import it only when needed

            for placeholder in graph.graph.find_nodes(op="placeholder"):
                del placeholder.meta["val"]  # recorded values; the compiler takes the inputs themselves
            try:
                with quiet_compiler():  # a GPU's calls are recorded anyway: compile wrappers only on the CPU
                    advance = inductor(graph, list(given(0)), options={"cpp_wrapper": self.x.device.type == "cpu"})
            except Exception as error:  # for example no C++ compiler: the recorded graph still runs
                self.mode, self.note = "capture", f"the compiler failed ({_first_line(error)})"
        if self.x.device.type == "cuda":
            try:
                return on_cuda(advance, held(s), inputs(0), inputs(1))
            except RuntimeError as error:  # it still runs kernel by kernel, unless the card failed
                self.note = f"no CUDA graph: {_first_line(error)}"
                try:
                    torch.rand(1, device=self.x.device)
                except RuntimeError:
                    raise OptionError(f'{self.note}; start again with compile="off".') from None
        return advance

    def _pays(self, graph: torch.fx.Graph) -> bool:
        """Whether all processes compile their graphs, which the first decides."""
        decided = self.ranks.first(lambda: {"pays": torch.tensor(compiling_pays(graph, self._times))})
        return decided is not None and bool(decided["pays"])

    # -- parameters ----------------------------------------------------------------------------------------------

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """The named parameters in rows of shape (..., P), as views of shape (..., *shape)."""
        return self._from_pieces(self._split(theta))

    def _from_pieces(self, theta: Sequence[Tensor]) -> dict[str, Tensor]:
        flat = [part for piece, sizes in zip(theta, self.pieces, strict=True) for part in piece.split(sizes, dim=-1)]
        return {
            name: part.unflatten(-1, shape) if len(shape) else part[..., 0]
            for name, part, shape in zip(self.names, flat, self.shapes, strict=True)
        }

    def call(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(model, guide, *args)`` for every seed's current weights, with the same noise at every call."""
        results = []
        self.program.eval()
        for row, seed in enumerate(self.seeds):
            state = self.parameters(self.state.theta[row]) | {name: b[row] for name, b in self.buffers.items()}
            with seeded(random_stream(seed, Stream.VALIDATION)), torch.no_grad(), pyro_context():
                results.append(functional_call(self.program, state, (function, *args)))
        self.program.train()
        return results


def _started(replica: Pair, seed: int, data: Training, prepare: Callable[[Tensor], Tensor]) -> Replica:
    """A replica on the data's device in their precision, initialised from the data if its model asks for it."""
    x, model = data.some, cast(Any, replica.model)
    program = Replica(model, replica.guide).to(x.device, x.dtype)
    if hasattr(model, "initialise"):
        with seeded(random_stream(seed, Stream.START)):
            model.initialise(prepare(x))
    if len(x) < len(data) and hasattr(model, "count"):
        model.count(len(data))
    return program
