"""Random draws as functions of standard noise, which is lifted out of a program to become an input of the step.

:class:`Tape` intercepts the draws that ``torch.distributions`` makes; one line of ``_LIFTS`` says how each follows from
standard normal and uniform numbers. A gamma draw takes several: see :func:`standard_gamma`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from math import prod
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Dirichlet
from torch.overrides import TorchFunctionMode

from zoo.errors import Unknown
from zoo.models.operators import elementwise

__all__ = ["Tape", "dirichlet", "of_rows", "standard_gamma"]

PROPOSALS = 7  # for a gamma draw: the probability that all are rejected is at most 6e-10


def _of_size(*size: Any, dtype: Any = None, device: Any = None, **_: Any) -> tuple[torch.Size, Tensor]:
    """The shape and type requested from ``torch.randn`` and ``torch.rand``."""
    shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return torch.Size(shape), torch.empty(0, dtype=dtype, device=device)


def _normal(noise: Any, mean: Any, std: Any = 1.0, size: Any = None, **kind: Any) -> Tensor:
    """What ``torch.normal`` draws: of the size asked for, or else of that of its tensors together."""
    if size is not None:
        drawn: Tensor = noise.normal(*_of_size(size, **kind))
    else:
        like = mean if isinstance(mean, Tensor) else std
        shapes = [of.shape for of in (mean, std) if isinstance(of, Tensor)]
        drawn = noise.normal(torch.broadcast_shapes(*shapes), like)
    return drawn * std + mean  # type: ignore[no-any-return]


# How each draw follows from standard noise: a function of the noise and the draw's arguments except the generator.
# Plain noise is copied, since a program may change its draws in place.
_LIFTS: dict[Any, Callable[..., Tensor]] = {
    torch.Tensor.normal_: lambda noise, to, mean=0.0, std=1.0: noise.normal(to.shape, to) * std + mean,
    torch.Tensor.uniform_: lambda noise, to, low=0.0, high=1.0: noise.uniform(to.shape, to) * (high - low) + low,
    torch.Tensor.exponential_: lambda noise, to, rate=1.0: -torch.log1p(-noise.uniform(to.shape, to)) / rate,
    torch.Tensor.cauchy_: lambda noise, to, median=0.0, scale=1.0: (
        median + scale * torch.tan(math.pi * (noise.uniform(to.shape, to) - 0.5))
    ),
    torch.normal: _normal,
    torch.randn_like: lambda noise, like, **_: noise.normal(like.shape, like).clone(),
    torch.rand_like: lambda noise, like, **_: noise.uniform(like.shape, like).clone(),
    torch.randn: lambda noise, *args, size=(), **kw: noise.normal(*_of_size(*(args or size), **kw)).clone(),
    torch.rand: lambda noise, *args, size=(), **kw: noise.uniform(*_of_size(*(args or size), **kw)).clone(),
    torch.bernoulli: lambda noise, probs: (noise.uniform(probs.shape, probs) < probs).to(probs),
    torch.multinomial: lambda noise, weights, num_samples, replacement=False: _categories(
        weights, num_samples, replacement or num_samples == 1, noise
    ),
    torch._standard_gamma: lambda noise, concentration: standard_gamma(concentration, noise),
}


def _categories(weights: Tensor, count: int, replacement: bool, noise: Any) -> Tensor:
    """Categories (..., n) drawn with weights (..., V): by the inverse of their distribution, or by a race of waits."""
    uniform: Tensor = noise.uniform((*weights.shape[:-1], count) if replacement else weights.shape, weights)
    if not replacement:
        return (-uniform.log() / weights).topk(count, largest=False).indices
    upto = weights.cumsum(-1)
    return (upto[..., None, :-1] <= uniform[..., None] * upto[..., None, -1:]).sum(-1)


# In-place operations of torch.distributions on a draw, which torch.func.vmap does only one seed at a time.
_IN_PLACE: dict[Any, Callable[..., Tensor]] = {torch.Tensor.clamp_: torch.clamp}
# Questions of Pyro about a draw that torch.func.vmap refuses to answer.
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class Tape(TorchFunctionMode):
    """Feeds the draws of ``torch.distributions`` from flat tensors of standard noise, in the order of the requests.

    Without tensors it counts: ``used`` holds how many numbers of each kind a run takes, and ``drawn`` the kind and
    shape of each draw. An in-place draw whose tensor is used later cannot be lifted; counting leaves NaN in that
    tensor. Neither can torch's own draws that ``_LIFTS`` does not name, such as ``torch.poisson``.

    A site of a Pyro program that draws a Beta or a Dirichlet, also as the base of another distribution, draws gammas
    instead: torch's own Dirichlet is a kind of autograd Function that torch.func refuses.
    """

    def __init__(self, **noise: Tensor) -> None:
        super().__init__()
        self.noise = noise
        self.used = {"normal": 0, "uniform": 0}
        self.drawn: list[tuple[str, tuple[int, ...]]] = []
        self._sites = _DirichletsByGammas(self)

    def __enter__(self) -> Tape:
        self._sites.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._sites.__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _IN_PLACE:
            return args[0].copy_(_IN_PLACE[func](args[0].clone(), *args[1:], **kwargs))
        if func == _DATA:
            return args[0].detach()
        lift = _LIFTS.get(func)
        if lift is None:
            return func(*args, **kwargs)
        if not self.noise and func.__name__.endswith("_"):
            # out of place only if the caller uses the result; otherwise it sees this NaN
            args[0].fill_(torch.nan)
        return lift(self, *args, **{name: value for name, value in kwargs.items() if name != "generator"})

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next standard normal numbers."""
        return self._next("normal", shape, like)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next numbers uniform on [0, 1)."""
        return self._next("uniform", shape, like)

    def _next(self, kind: str, shape: Sequence[int], like: Tensor) -> Tensor:
        start, self.used[kind] = self.used[kind], self.used[kind] + prod(shape)
        self.drawn.append((kind, tuple(shape)))
        if self.noise:
            return self.noise[kind][start : self.used[kind]].reshape(shape)
        return torch.full(shape, 0.5, dtype=like.dtype, device=like.device)


def of_rows(whole: Tape, part: Tape, rows: slice) -> dict[str, Tensor]:
    """Which numbers of a batch's noise belong to some of its rows, by kind, from counting on both.

    A dimension that grows with the batch is the rows'; a draw without one belongs to all rows together.

    Args:
        whole: a tape that counted on the batch.
        part: a tape that counted on as many data as there are rows.
        rows: consecutive rows of the batch.

    Raises:
        Unknown: the counts do not tell.

    >>> tapes = Tape(), Tape()
    >>> for tape, size in zip(tapes, (3, 2)):
    ...     _ = tape.normal((2, size), torch.zeros(0))
    >>> of_rows(*tapes, slice(1, 3))["normal"]
    tensor([1, 2, 4, 5])
    """
    unknown = Unknown("it is not known which random numbers belong to which row")
    if [(kind, len(shape)) for kind, shape in whole.drawn] != [(kind, len(shape)) for kind, shape in part.drawn]:
        raise unknown
    taken: dict[str, list[Tensor]] = {kind: [torch.empty(0, dtype=torch.long)] for kind in whole.used}
    start = dict.fromkeys(whole.used, 0)
    for (kind, shape), (_, smaller) in zip(whole.drawn, part.drawn, strict=True):
        numbers = torch.arange(start[kind], start[kind] + prod(shape)).reshape(shape)
        start[kind] += prod(shape)
        for dim in [dim for dim, size in enumerate(shape) if size != smaller[dim]]:
            each = smaller[dim] // (rows.stop - rows.start)
            if numbers.shape != shape or each * (rows.stop - rows.start) != smaller[dim]:
                raise unknown
            numbers = numbers.narrow(dim, rows.start * each, smaller[dim])
        taken[kind].append(numbers.flatten())
    return {kind: torch.cat(parts) for kind, parts in taken.items()}


# -- gamma draws -------------------------------------------------------------------------------------------------------


def standard_gamma(concentration: Tensor, noise: Tape) -> Tensor:
    r"""Draws of Gamma(alpha, 1), one for each alpha, from a fixed number of standard draws.

    .. math:: g = d (1 + t)^3, \qquad d = \alpha - \tfrac13, \qquad t = \frac{x}{\sqrt{9 d}}, \qquad x \sim N(0, 1)

    is accepted where :math:`\log u < 3 d (\log(1 + t) - t + t^2 / 2 - t^3 / 3)` for a uniform u. ``PROPOSALS`` are made
    at once, and the first accepted one is taken. The acceptance probability is :math:`e^d \Gamma(\alpha) d^{1/2 -
    \alpha} / \sqrt{2 \pi}`, at least 0.9516, reached at alpha = 1, so all are rejected with probability at most
    6.2e-10; the draw is then d. For alpha below 1 it is a draw for alpha + 1, times :math:`U^{1 / \alpha}` with another
    uniform U.

    Marsaglia & Tsang (2000), "A simple method for generating gamma variables", https://doi.org/10.1145/358407.358414.
    Their bound, :math:`x^2 / 2 + d (1 - v + \log v)` with :math:`v = (1 + t)^3`, is the same before terms cancel.

    The gradient is torch's own, of a draw that stays at its quantile, :math:`\partial g / \partial \alpha = -(\partial
    F / \partial \alpha) / (\partial F / \partial g)`: Figurnov, Mohamed & Mnih (2018), "Implicit reparameterization
    gradients", https://arxiv.org/abs/1805.08498. It is a first derivative only: second derivatives are lost.

    Args:
        concentration: alpha, above 0.
        noise: gives ``PROPOSALS`` normal numbers per draw, and one more uniform number.

    Returns:
        The shape of ``concentration``. A draw that underflows is the smallest normal number, as in torch.

    >>> standard_gamma(torch.ones(2), Tape(normal=torch.zeros(14), uniform=torch.full((16,), 0.5)))
    tensor([0.6667, 0.6667])
    """
    draw, log_boost = _marsaglia_tsang(concentration, noise)
    draw = (draw * log_boost.exp()).clamp(min=torch.finfo(draw.dtype).tiny)
    return draw + _gamma_grad(concentration.detach(), draw) * _moved(concentration)


def dirichlet(concentration: Tensor, noise: Tape) -> Tensor:
    r"""Draws of Dirichlet(alpha), alpha in the last dimension, by gammas.

    .. math:: y_k = g_k \Big/ \sum_j g_j, \qquad g_j \sim \mathrm{Gamma}(\alpha_j, 1)

    The gammas come from :func:`standard_gamma` and are divided as logs, so none underflows. The gradient is torch's
    own, which varies less than the gradient of the gammas: Jankowiak & Obermeyer (2018), "Pathwise derivatives beyond
    the reparameterization trick", https://arxiv.org/abs/1806.01851.

    Returns:
        The shape of ``concentration``. As in torch, each number is at least the smallest normal one and below 1.
    """
    draw, log_boost = _marsaglia_tsang(concentration, noise)
    info, alpha = torch.finfo(draw.dtype), concentration.detach()
    y = (draw.log() + log_boost).softmax(-1).clamp(info.tiny, 1 - info.eps / 2)
    part = _dirichlet_grad(y, alpha, alpha.sum(-1, keepdim=True).expand_as(alpha)) * _moved(concentration)
    return y + (part - y * part.sum(-1, keepdim=True))


def _marsaglia_tsang(concentration: Tensor, noise: Tape) -> tuple[Tensor, Tensor]:
    """Draws for alpha, or for alpha + 1 where alpha is below 1, and the logs of the factors to multiply them by."""
    alpha, shape = concentration.detach(), concentration.shape
    x = noise.normal((PROPOSALS, *shape), alpha).to(alpha.dtype)
    # log of 1 - u, which is never 0
    log_u = torch.log1p(-noise.uniform((PROPOSALS + 1, *shape), alpha).to(alpha.dtype))
    d = torch.where(alpha < 1, alpha + 1, alpha) - 1 / 3
    t = x / (9 * d).sqrt()
    accepted = log_u[:-1] < 3 * d * (torch.log1p(t) - t + t**2 / 2 - t**3 / 3)  # never if t < -1, which has no log
    first = torch.zeros_like(d)
    for is_accepted, proposal in zip(reversed(accepted.unbind()), reversed(t.unbind()), strict=True):
        first = torch.where(is_accepted, proposal, first)
    return d * (1 + first) ** 3, torch.where(alpha < 1, log_u[-1] / alpha, 0.0)


def _moved(parameter: Tensor) -> Tensor:
    """A zero with a parameter's gradient, which carries a known derivative in operations torch.func can see."""
    return parameter - parameter.detach()


_gamma_grad = elementwise("standard_gamma_grad", torch._standard_gamma_grad, 2)
_dirichlet_grad = elementwise("dirichlet_grad", torch._dirichlet_grad, 3)


# -- sites that draw a Dirichlet ---------------------------------------------------------------------------------------


class _DirichletsByGammas(Messenger):  # type: ignore[misc]
    """Draws the Dirichlet in a site, if any, by gammas from this noise."""

    def __init__(self, noise: Tape) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, message: Any) -> None:
        if message["done"] or message["is_observed"] or message["value"] is not None:
            return
        drawn = _by_gammas(message["fn"], self.noise)
        if drawn is not message["fn"]:
            message["value"], message["done"] = drawn(*message["args"], **message["kwargs"]), True


def _by_gammas(fn: Any, noise: Tape) -> Any:
    """The distribution, or an equal one whose Dirichlet is drawn by gammas: a Beta contains one."""
    if getattr(type(fn), "rsample", None) is Dirichlet.rsample:

        def rsample(sample_shape: Any = ()) -> Tensor:
            return dirichlet(fn.concentration.expand(fn._extended_shape(sample_shape)), noise)

        changed = {"rsample": rsample}
    else:
        parts = {name: vars(fn)[name] for name in ("base_dist", "_dirichlet") if name in getattr(fn, "__dict__", {})}
        drawn = {name: _by_gammas(part, noise) for name, part in parts.items()}
        changed = {name: part for name, part in drawn.items() if part is not parts[name]}
    if not changed:
        return fn
    other = copy(fn)
    vars(other).update(changed)
    return other
