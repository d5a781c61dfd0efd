"""Is the optimization of the Gaussian VAE well-posed? Seven claims of one question, each put to a computed test.

python scripts/claims.py claims

The question and its answers: https://stats.stackexchange.com/questions/373858. Every number on the page is computed in
the run that writes it, in about twenty minutes on one core.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib as mpl
import numpy as np
import pyro
import pyro.distributions as dist
import torch
import typer
from annotated_types import Gt
from jinja2 import Environment
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import Tensor, nn

import zoo
from zoo.comparison import shrinkage as fallen

ROWS = np.random.default_rng(0).normal(size=(20, 5))  # the 20 x 5 table of the witnesses
REAL = [name for name in zoo.list_pairs() if zoo.card(name).support == "real"]  # before the toy is one of them
TOY_PRECISIONS = (0.1, 0.5, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Finding:
    """What came out of one claim."""

    claim: str
    experiment: str
    verdict: Literal["holds", "fails", "holds only if"]
    because: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]
    figures: tuple[Figure, ...] = ()


# -- 1 -----------------------------------------------------------------------------------------------------------------


def one_point() -> Finding:
    """A decoder with a variance of its own, and a mixture, on one datum."""
    data = zoo.Data.from_array(np.vstack([ROWS] * 3), name="20 rows of 5 normal columns", scaling="none")
    names = [
        "gaussian-learned",
        "gaussian-constrained",
        "gaussian-shared",
        "gaussian-ratio",
        "gaussian-map",
        *zoo.list_pairs("gmm*"),
    ]
    witnesses = {name: zoo.witness(zoo.create(name, data), ROWS) for name in names}
    figure, (left, right) = _canvas(2)
    for name, found in witnesses.items():
        axes = right if name.startswith("gmm") else left
        axes.plot(found.sharpness, found.log_likelihood, label=name, marker=".")
    for axes, title in ((left, "a decoder"), (right, "a mixture, one component on one datum")):
        axes.set(title=title, xlabel="sharpness a", ylabel="log p(X), nats", yscale="symlog")
        axes.legend()
    rows = [
        (
            name,
            found.path,
            f"{found.log_likelihood[-1]:,.1f}",
            "no" if found.grows else "yes",
            f"{found.penalized[-1]:.4g}" if found.penalized.size else "",
        )
        for name, found in witnesses.items()
    ]
    learned, mixture = witnesses["gaussian-learned"], witnesses["gmm"]
    slope = np.diff(learned.log_likelihood)[-1] / np.diff(learned.sharpness)[-1]
    return Finding(
        "A decoder with a learned variance can send the likelihood to infinity on one training point, as a component "
        "of a Gaussian mixture can.",
        "The outputs of the pair's decoder are steered along an explicit path; its exact log likelihood is an integral "
        "over one latent, taken by quadrature (a mixture's is a sum).",
        "holds" if learned.grows and mixture.grows else "fails",
        f"along the path the likelihood of all 20 rows gains {slope:.2f} nats per unit of sharpness (5 columns), and "
        "the mixture's as well. A floor, and for mixtures a ratio of eigenvalues, end it. One shared variance and the "
        "ratio for decoders do not: a mean that passes through every datum still takes all variances to zero together.",
        ("pair", "path", "log p(X) at a = 64", "saturates", "with its penalty"),
        rows,
        (figure,),
    )


# -- 2 -----------------------------------------------------------------------------------------------------------------


def squared_error() -> Finding:
    """Squared error and a covariance fixed to the identity."""
    data = zoo.load_data("digits")
    model: Any = zoo.create("gaussian-identity", data).model.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.as_tensor(data.scaled("test"))
    with torch.no_grad():
        fn = model.likelihood(torch.randn(len(x), 8, generator=generator).double())
        squared = (x - fn.mean).square().sum(1) / 2
        dropped = -(fn.log_prob(x) + squared)
    expected = data.features / 2 * math.log(2 * math.pi)
    error = float((dropped - expected).abs().max())
    figure, (axes,) = _canvas(1)
    axes.plot(squared, squared + dropped, ".", label="a digit at a random latent")
    axes.axline((float(squared.mean()), float(squared.mean()) + expected), slope=1, color="0.5", lw=1,
                label=f"squared error / 2 + {expected:.2f}")  # fmt: skip
    axes.set(xlabel="squared error / 2", ylabel="-log N(x; mu, I), nats")
    axes.legend()
    return Finding(
        "The decoder of means alone, with squared error, is the same model with its covariance fixed to the identity.",
        "log N(x; mu(z), I) of 360 digits at random latents, against minus half the squared error.",
        "holds" if error < 1e-9 else "fails",
        f"up to the constant (D/2) log 2 pi = {expected:.2f} nats for these {data.features} pixels, which many "
        f"programs drop (largest deviation from it: {error:.0e}); without it no other likelihood can be compared.",
        ("quantity", "nats per datum"),
        [("squared error / 2, mean", f"{float(squared.mean()):.3f}"), ("the constant", f"{expected:.3f}")],
        (figure,),
    )


# -- 3 -----------------------------------------------------------------------------------------------------------------


def floor() -> Finding:
    """A floor under the eigenvalues of the covariance."""
    data = zoo.load_data("iris")
    rows, below = [], True
    figure, (axes,) = _canvas(1)
    for xi in (0.3, 0.1, 0.03, 0.01):
        pair = zoo.create("gaussian-constrained", data, floor=xi, latent_dim=2)
        ceiling = zoo.ceiling(pair, data.train)
        run = zoo.fit(pair, data, seeds=2, steps=1500, progress=False)
        evidence = run.log_evidence(data.train.values, samples=1000).sum(1)
        below &= bool((evidence < ceiling.certified).all() and ceiling.certified <= ceiling.naive)
        gap = (ceiling.certified - evidence.max()) / len(data.train)
        numbers = (ceiling.naive, ceiling.certified, ceiling.reached, evidence.max())
        rows.append((xi, *(f"{value:,.1f}" for value in numbers), ceiling.atoms, f"{gap:.2f}"))
        found = zoo.witness(pair, data.train.values[:40], sharpness=(2, 4, 8, 16, 32, 64, 128))
        axes.plot(found.sharpness, found.log_likelihood / 40, marker=".", label=f"floor {xi:g}")
        below &= not found.grows
    axes.set(xlabel="sharpness a", ylabel="log p(X), nats per datum", title="the same path, with a floor")
    axes.legend()
    return Finding(
        "Constraining the eigenvalues of the covariance above a threshold makes the problem well-posed.",
        "gaussian-constrained on iris: the naive bound, the certified nonparametric ceiling, and what training reached "
        "(importance-weighted evidence of the whole training part, the better of two seeds; nats).",
        "holds" if below else "fails",
        "as far as boundedness goes: no run is above its ceiling, and the path of claim 1 comes to rest. The supremum "
        "need not be attained by a finite network, and it is the floor that now decides how high it is.",
        ("floor", "naive bound", "certified ceiling", "best mixture found", "trained", "atoms", "gap per datum"),
        rows,
        (figure,),
    )


# -- 4 -----------------------------------------------------------------------------------------------------------------


def discrete() -> Finding:
    """Probability masses."""
    digits, binary = zoo.load_data("digits"), zoo.load_data("digits", binarize="threshold")
    rows, bounded = [], True
    figure, (left, right) = _canvas(2)
    for name, data in (("gaussian-binned", digits), ("categorical", digits), ("bernoulli", binary)):
        pair = zoo.create(name, data)
        found = zoo.witness(pair, data.train.values[:50])
        run = zoo.fit(pair, data, seeds=2, steps=600, progress=False)
        highest = float(run.tree["optimization"]["elbo"].max())
        bounded &= bool((found.log_likelihood <= 0).all()) and highest <= 0 and not found.grows
        left.plot(found.sharpness, found.log_likelihood / 50, marker=".", label=name)
        right.plot(run.tree["optimization"]["elbo"].mean("chain"), lw=1, label=name)
        rows.append((name, data.name, f"{found.log_likelihood[-1] / 50:,.1f}", f"{highest:.2f}"))
    left.set(title="one datum becomes certain", xlabel="sharpness a", ylabel="log P(x), nats per datum")
    right.set(title="training", xlabel="step", ylabel="ELBO, nats per datum", ylim=(-200, 10))
    for axes in (left, right):
        axes.axhline(0, color="0.5", lw=1)
        axes.legend()
    return Finding(
        "For discrete data the problem is well-posed.",
        "Pairs that give every level a probability: the path that certainty about one datum takes, and the highest "
        "ELBO of a training step.",
        "holds" if bounded else "fails",
        "a probability is at most 1, so the log likelihood is at most 0, whatever the variance does.",
        ("pair", "data", "end of the path, nats per datum", "highest training ELBO, nats per datum"),
        rows,
        (figure,),
    )


# -- 5 -----------------------------------------------------------------------------------------------------------------


def elbo_too() -> Finding:
    """The ELBO, and one shared variance on a subspace."""
    data = zoo.Data.from_array(np.vstack([ROWS] * 3), scaling="none")
    found = zoo.witness(zoo.create("gaussian-learned", data), ROWS, sharpness=(4, 10, 20, 40, 80, 160, 320))
    figure, (left, right) = _canvas(2)
    left.plot(found.sharpness, found.log_likelihood, marker=".", label="log p(X)")
    left.plot(found.sharpness, found.elbo, marker=".", label="ELBO, Gaussian encoder")
    left.set(xlabel="sharpness a", ylabel="nats", title="20 rows, 5 columns")
    left.legend()
    slopes = _subspace(right)
    rows: list[tuple[object, ...]] = [
        (f"a = {a:g}", f"{exact:.2f}", f"{bound:.2f}")
        for a, exact, bound in zip(found.sharpness, found.log_likelihood, found.elbo, strict=True)
    ]
    rows += [(f"subspace, {latents} latents: slope in log of the variance", f"{s:.3f}", "") for latents, s in slopes]
    growing = found.elbo[-1] > found.elbo[-2] > found.elbo[-3]
    return Finding(
        "The ELBO itself is unbounded; the KL term does not save it.",
        "Left: the path of claim 1 with a Gaussian encoder, by quadrature. Right: probabilistic PCA on data in a "
        "subspace of r = 2 of d = 6 dimensions; twice the negative evidence per datum against the log of the one "
        "shared variance, with 2, 3 and 4 latents.",
        "holds" if growing and all(abs(s - 4) < 0.05 for _, s in slopes) else "fails",
        "the KL term costs every other datum log 2a, and the one datum gains 5a/2. One shared variance does not "
        "help where the data lie on a surface that the mean covers: the slope is d - r = 4 with any number of latents.",
        ("point of the path", "log p(X)", "ELBO"),
        rows,
        (figure,),
    )


def _subspace(axes: mpl.axes.Axes) -> list[tuple[int, float]]:
    """The slope of twice the negative evidence in log variance, d - r, for as many latents as r, r + 1 and r + 2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6))
    data = zoo.Data.from_array(x, scaling="none")
    rows = torch.as_tensor(x)
    centred = rows - rows.mean(0)
    _, deviations, directions = torch.linalg.svd(centred / len(x) ** 0.5, full_matrices=False)
    slopes = []
    for latents in (2, 3, 4):
        model: Any = zoo.create("linear-shared", data, latent_dim=latents).model.double()
        variances = np.geomspace(1e-2, 1e-8, 7)
        heights = []
        with torch.no_grad():
            for variance in variances:
                loadings = torch.zeros(6, latents).double()
                loadings[:, :2] = directions[:2].T * (deviations[:2] ** 2 - variance).clamp(min=0).sqrt()
                model.decoder.weight.copy_(loadings)
                model.decoder.bias.copy_(rows.mean(0))
                model.log_scale.fill_(math.log(variance) / 2)
                heights.append(-2 * float(model.log_evidence(rows).mean()))
        axes.plot(variances, heights, marker=".", label=f"{latents} latents")
        slopes.append((latents, np.polyfit(np.log(variances[2:]), heights[2:], 1)[0]))
    axes.set(xscale="log", xlabel="shared variance", ylabel="-2 log p(x), nats per datum", title="data on a plane")
    axes.legend()
    return slopes


# -- 6 -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyOptions:
    """``precision`` is lambda; ``learned`` learns it, starting there; ``free`` lets the mean be w z instead of z."""

    precision: Annotated[float, Gt(0)] = 1.0
    learned: bool = False
    free: bool = False


class Toy(nn.Module):
    """z ~ N(0, 1), x ~ N(w z, 1 / 2 lambda)."""

    def __init__(self, options: ToyOptions) -> None:
        super().__init__()
        start = torch.tensor(math.log(options.precision))
        self.log_precision = nn.Parameter(start, requires_grad=options.learned)
        self.slope = nn.Parameter(torch.ones(()), requires_grad=options.free)

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """N(w z, 1 / 2 lambda)."""
        return dist.Normal(self.slope * z, (2 * self.log_precision.exp()).rsqrt()).to_event(1)

    def forward(self, x: Tensor) -> None:
        """Declare p(x, z)."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), x.new_ones(1)).to_event(1))
            pyro.sample("x", self.likelihood(z), obs=x)


class ToyGuide(nn.Module):
    """q(z) = N(0, s^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x)."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.new_zeros(1), self.log_scale.exp()).to_event(1))


@zoo.register(
    "one-point",
    title="One point at zero",
    summary="The toy of the answer: one point x = 0, mean z, precision 2 lambda, q = N(0, s^2).",
    formula="p(x|z) = N(x; z, 1/(2λ))",
    support="real",
    bounded=False,
    bounded_if="if the mean is z",
    remedies=("gaussian-constrained",),
    reference="https://stats.stackexchange.com/questions/373858",
)
def one_point_toy(data: zoo.Data, options: ToyOptions) -> tuple[nn.Module, nn.Module]:  # noqa: ARG001
    """The toy."""
    return Toy(options), ToyGuide()


def toy() -> Finding:
    """The KL term and one point."""
    data = zoo.Data.from_array(np.zeros((8192, 1)), name="one point at zero", support="real", scaling="none")

    def fitted(**options: Any) -> zoo.Run:
        pair = zoo.create("one-point", data, **options)
        return zoo.fit(pair, data, seeds=1, batch_size=4096, steps=4000, learning_rate=0.03, keep="last",
                       progress=False, on_divergence="warn")  # fmt: skip

    rows: list[tuple[object, ...]] = []
    worst = 0.0
    figure, (left, middle) = _canvas(2)
    for precision in TOY_PRECISIONS:
        run = fitted(precision=precision)
        found = float(run.weights["guide.log_scale"].exp() ** 2)
        expected = 1 / (2 * precision + 1)
        worst = max(worst, abs(found / expected - 1))
        left.plot(precision, found, "ko", label="SVI" if precision == TOY_PRECISIONS[0] else None)
        answer = f"{1 / (2 * precision - 1):.5f}" if precision > 0.5 else "none"
        rows.append((f"lambda = {precision:g}", f"{found:.5f}", f"{expected:.5f}", answer))
    limit = -math.log(2 * math.pi) / 2
    held, free = (
        fitted(learned=True, free=free).tree["optimization"].to_dataset()["elbo"].values for free in (False, True)
    )
    at_rest, above = held[0, -200:].mean(), free.max()
    rows.append(("lambda learned, mean z: ELBO", f"{at_rest:.4f}", f"{limit:.4f} at most", ""))
    rows.append(("lambda learned, mean w z: ELBO", f"{above:.4f}", "no limit", ""))
    grid = np.geomspace(0.08, 120, 200)
    left.plot(grid, 1 / (2 * grid + 1), label="1 / (2 lambda + 1)")
    left.plot(grid[grid > 0.51], 1 / (2 * grid[grid > 0.51] - 1), "--", label="1 / (2 lambda - 1)")
    left.set(xscale="log", yscale="log", ylim=(3e-3, 20), xlabel="lambda", ylabel="best s^2")
    left.legend()
    for trace, label in ((held, "mean z"), (free, "mean w z")):
        middle.plot(trace[0], lw=1, label=label)
    middle.axhline(limit, color="0.5", lw=1)
    middle.set(title="lambda learned", xlabel="step", ylabel="ELBO, nats", ylim=(-4, None))
    middle.legend()
    right = worst < 1e-3 and at_rest <= limit + 0.01 and above > limit + 0.5
    return Finding(
        "The KL term keeps it well-defined: with one point x = 0, decoder mean z and precision 2 lambda, the best "
        "q = N(0, s^2) has s^2 = 1 / (2 lambda - 1), for lambda above 1/2.",
        "The toy as a pair of its own, trained by SVI.",
        "holds only if" if right else "fails",
        f"the mean is z. The sign is off: s^2 = 1 / (2 lambda + 1), for every lambda (SVI agrees to {worst:.0e}). With "
        "lambda learned too the ELBO rises to -(1/2) log 2 pi and no further, because the mean is tied to z; let the "
        "mean be free, as a decoder's is, and the same toy has no limit.",
        ("setting", "found by SVI", "derived", "1 / (2 lambda - 1)"),
        rows,
        (figure,),
    )


# -- 7 -----------------------------------------------------------------------------------------------------------------


def shrinkage() -> Finding:
    """Variance shrinkage and quantile regression: on data enough for the network, and on few for a wide one."""
    rows: list[tuple[object, ...]] = []
    coverage: dict[tuple[int, str, str], float] = {}
    figure, (axes,) = _canvas(1)
    names = "gaussian-learned", "gaussian-quantile", "gaussian-constrained", "gaussian-identity"
    for count, hidden, steps in ((350, 50, 3000), (40, 256, 4000)):
        data = _two_moons(count)
        for name in names:
            pair = zoo.create(name, data, latent_dim=2, hidden=(hidden,), activation="relu")
            for keep, weights in (("last", "of the last step"), ("best", "of the best validation ELBO")):
                run = zoo.fit(pair, data, seeds=4, steps=steps, keep=keep, progress=False, on_divergence="warn")
                tree = zoo.evaluate(run, data, samples=1000, temperatures=0)
                left_out = tree["calibration"].to_dataset()["coverage"].sel(kind="leave-one-out")
                coverage[count, name, keep] = left_out.sel(level=0.9).mean().item()
                if keep == "last" and name in names[:2]:
                    label = f"{name}, {count} rows"
                    axes.plot(left_out["level"], left_out.mean(["chain", "feature"]), marker=".", label=label)
                covered = (f"{100 * left_out.sel(level=level).mean().item():.1f} %" for level in (0.5, 0.9))
                evidence = tree["heldout"].to_dataset()["log_evidence"].mean().item()
                rows.append((count, hidden, name, weights, *covered, f"{evidence:,.2f}"))
    many, few = ((coverage[count, "gaussian-learned", "last"], coverage[count, "gaussian-quantile", "last"])
                 for count in (350, 40))  # fmt: skip
    stopped = coverage[40, "gaussian-learned", "best"]
    holds = [learned < 0.8 and abs(quantile - 0.9) < abs(learned - 0.9) for learned, quantile in (many, few)]
    axes.axline((0.5, 0.5), slope=1, color="0.5", lw=1)
    axes.set(title="above the line: too wide, below: too sure", xlabel="nominal coverage",
             ylabel="held-out coverage")  # fmt: skip
    axes.legend()
    return Finding(
        "The learned variance shrinks below that of the data, and quantile regression cures it.",
        "Two moons in four dimensions, one six times as noisy as the other: 350 training rows for 50 hidden units, and "
        "40 for 256; held-out coverage of each column given the others, which the encoder's own draw has not seen.",
        "holds" if all(holds) else "holds only if" if any(holds) else "fails",
        "the rows are few for the network and the training long: at nominal 90 %, of 350 rows the learned Gaussian "
        f"covers {100 * many[0]:.1f} % and the quantile decoder {100 * many[1]:.1f} %; of 40 rows {100 * few[0]:.1f} % "
        f"and {100 * few[1]:.1f} %, and stopped where validation was best the learned Gaussian {100 * stopped:.1f} %. "
        "scripts/shrinkage_map.py draws the map.",
        ("rows", "hidden", "pair", "weights", "covered, nominal 50 %", "covered, nominal 90 %", "held-out nats"),
        rows,
        (figure,),
    )


def _two_moons(count: int) -> zoo.Data:
    """So many training rows, a quarter as many for validation, and 400 held out."""
    rng = np.random.default_rng(0)
    parts: Any = ["test"] * 400 + ["train"] * count + ["validation"] * (count // 4)
    points, side = (part[: len(parts)] for part in make_moons(2 * len(parts), noise=0.05, random_state=0))
    spread = np.where(side[:, None] == 1, 0.3, 0.05)
    x = points @ rng.normal(size=(2, 4)) + spread * rng.normal(size=(len(parts), 4))
    return zoo.Data.from_array(x, name="two moons in four dimensions", split=parts, resolution=None)


# -- the digits, along training ----------------------------------------------------------------------------------------


def along_training() -> tuple[Figure, list[tuple[object, ...]]]:
    """Train and held-out ELBO of the same real digits under different likelihoods."""
    digits, binary = zoo.load_data("digits"), zoo.load_data("digits", binarize="threshold")
    names = [f"gaussian-{kind}" for kind in ("learned", "constrained", "shared", "identity", "binned")]
    names += ["gmm", "bernoulli"]
    figure, axes = _canvas(len(names), columns=3)
    rows: list[tuple[object, ...]] = []
    for name, ax in zip(names, axes, strict=True):
        data = binary if name == "bernoulli" else digits
        run = zoo.fit(zoo.create(name, data), data, seeds=2, steps=1500, progress=False, on_divergence="warn")
        trace, checks = run.tree["optimization"], run.tree["validation"]
        smooth = trace["elbo"].rolling(step=20, min_periods=1).mean()
        train, *_ = ax.plot(trace["step"], smooth.T, color="C0", lw=1)
        validation, *_ = ax.plot(checks["step"], checks["elbo"].T, color="C1", lw=1)
        low, high = np.nanquantile(smooth, 0.1), max(float(smooth.max()), float(checks["elbo"].max()))
        ax.set(title=name, xlabel="step", ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low)))
        evidence = run.log_evidence(data.test.values, samples=500)
        ran = bool((trace["ran_away_at"] >= 0).any())
        unit = f"{zoo.card(name).base_measure}{', of binarized digits' if data is binary else ''}"
        rows.append((name, unit, f"{evidence.mean():.1f}", f"{evidence.min():,.0f}", "yes" if ran else "no"))
    axes[0].set(ylabel="ELBO, nats per datum")
    figure.legend([train, validation], ["train", "validation"], loc="outside upper right", ncols=2)
    return figure, rows


# -- the watch ---------------------------------------------------------------------------------------------------------


def the_watch() -> tuple[str, list[tuple[object, ...]]]:
    """How often a collapse is seen where there is one, and where there is none: 4 seeds each."""
    rng = np.random.default_rng(0)
    digits, wine = zoo.load_data("digits"), zoo.load_data("wine")
    every = np.concatenate([wine.train, wine.validation, wine.test])
    mostly_zero = np.where(rng.random(len(every)) < 0.9, 0.0, rng.normal(size=len(every)))
    constant = zoo.Data.from_array(np.column_stack([every, np.ones(len(every))]), name="wine and a constant column")
    zeros = zoo.Data.from_array(np.column_stack([every, mostly_zero]), name="wine and a column of 90 % zeros")
    planted = [(name, data) for data in (digits, constant) for name in ("gaussian-learned", "gmm", "linear-diagonal")]
    planted += [(name, zeros) for name in ("gaussian-learned", "gmm")]  # for factor analysis it is no collapse
    planted += [*_degenerate()]
    benign = zoo.Data.from_array(rng.normal(size=(600, 3)) @ rng.normal(size=(3, 8)) + rng.normal(size=(600, 8)),
                                 name="simulated: 3 factors, 8 columns")  # fmt: skip
    healthy = [(name, data) for data in (benign, wine, zoo.load_data("breast-cancer")) for name in REAL]
    healthy += [(name, _skewed()) for name in ("gaussian-learned", "gmm")]
    rows: list[tuple[object, ...]] = []
    counts = {True: np.zeros(4, int), False: np.zeros(4, int)}
    for should, cases in ((True, planted), (False, healthy)):
        for name, data in cases:
            run = zoo.fit(zoo.create(name, data), data, seeds=4, progress=False)
            rang = np.asarray(run.tree["optimization/ran_away_at"]) >= 0
            falling = (fallen.rates(run.tree) >= fallen.SETTLED).any(1)
            found = np.array([which.sum() for which in (rang, falling, rang | falling, rang | True)])
            counts[should] += found
            if should or found[2]:
                shown = ("yes" if should else "no", *(f"{count} of 4" for count in found[:3]))
                rows.append((name, data.name, *shown))
    (rings, fell, hits, seeds), (alarms, falls, either, others) = counts[True], counts[False]
    told = (
        f"In {seeds} seeds with a collapse planted or known the alarm rang in {rings}, a scale was still falling in "
        f"{fell}, and one of the two was so in {hits} (sensitivity {hits / seeds:.0%}). In {others} without one it "
        f"rang in {alarms}, a scale was still falling in {falls}, and one of the two was so in {either} (specificity "
        f"{1 - either / others:.1%}). Shown: the cases with a collapse, and those others in which one was seen."
    )
    return told, rows


def _degenerate() -> Iterator[tuple[str, zoo.Data]]:
    """Data on which held-out density has no end, each with a pair that finds it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(600, 5))
    celsius, parts = 15 + 8 * rng.normal(size=600), np.exp(rng.normal(size=(600, 4)) / 2)
    tables = {
        "five columns, Celsius and Fahrenheit": np.column_stack([x, celsius, 32 + 1.8 * celsius]),
        "shares that sum to 100": 100 * parts / parts.sum(1, keepdims=True),
        "four parts and their total": np.column_stack([parts, parts.sum(1)]),
        "five columns and a copy of one": np.column_stack([x, x[:, 0]]),
    }
    for name, table in tables.items():
        yield "gaussian-learned", zoo.Data.from_array(table, name=name)
    plane = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 6))
    yield "gaussian-shared", zoo.Data.from_array(plane, name="six columns in a plane")
    copies = np.vstack([x, np.tile(x[:1], (50, 1))])
    yield "gmm", zoo.Data.from_array(copies, name="600 rows and 50 copies of one")


def _skewed() -> zoo.Data:
    """Lognormal data: for most rows the true deviation given z is below 1/200 of the column's."""
    rng = np.random.default_rng(0)
    z, weights = rng.normal(size=(1500, 1)), np.array([1, 0.8, -1, 1.2])
    return zoo.Data.from_array(np.exp(2.5 * z * weights + 0.3 * rng.normal(size=(1500, 4))), name="lognormal")


# -- the page ----------------------------------------------------------------------------------------------------------

CLAIMS: tuple[Callable[[], Finding], ...] = (one_point, squared_error, floor, discrete, elbo_too, toy, shrinkage)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Is the optimization of the Gaussian VAE well-posed?</title>
<style>
body { font: 16px/1.55 system-ui, sans-serif; color: #1c2028; background: #f6f6f3; max-width: 1000px; margin: 0 auto;
  padding: 40px 20px 80px; }
h1, h2 { font-family: Palatino, Georgia, serif; font-weight: 500; line-height: 1.15; text-wrap: balance; }
h1 { font-size: 42px; } h2 { font-size: 24px; margin: 0 0 8px; }
article { background: #fff; border: 1px solid #dddfe3; border-radius: 8px; padding: 24px; margin: 24px 0; }
.verdict { font-weight: 600; } .holds { color: #00805d; } .fails { color: #a3303f; } .holds-only-if { color: #80690a; }
.soft { color: #626978; } img { width: 100%; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid #dddfe3; vertical-align: top;
  white-space: nowrap; }
</style></head><body>
<h1>Is the optimization of the Gaussian VAE well-posed?</h1>
<p class="soft">Seven claims, made in <a href="https://stats.stackexchange.com/questions/373858">a question and its
answers</a>, each put to a computed test. Every number below comes from the run that wrote this page.</p>
<ol>{% for f in findings %}<li><a href="#claim-{{ loop.index }}">{{ f.claim }}</a>
  <span class="verdict {{ f.verdict|replace(' ', '-') }}">{{ f.verdict }}{{ ' ...' if 'if' in f.verdict }}</span></li>
{% endfor %}</ol>
{% for f in findings %}
<article id="claim-{{ loop.index }}"><h2>{{ loop.index }}. {{ f.claim }}</h2>
<p class="soft">{{ f.experiment }}</p>
<p><span class="verdict {{ f.verdict|replace(' ', '-') }}">{{ f.verdict|capitalize }}</span>{{ ' ' if f.verdict ==
  'holds only if' else ': ' }}{{ f.because }}</p>
{% for figure in f.figures %}<img src="{{ figure|picture }}" alt="{{ f.experiment }}">{% endfor %}
<div class="scroll"><table><tr>{% for c in f.columns %}<th>{{ c }}</th>{% endfor %}</tr>
{% for row in f.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table></div>
</article>{% endfor %}
<article><h2>The same digits, along training</h2>
<p class="soft">ELBO of training batches and of validation data, two seeds. A curve that still climbs in training while
the other falls is a likelihood running away.</p>
<img src="{{ training|picture }}" alt="Training and validation ELBO of six pairs on digits">
<div class="scroll"><table><tr><th>pair</th><th>score is a</th><th>held-out, nats per datum</th><th>worst datum</th>
<th>ran away</th></tr>
{% for row in lengths %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table></div></article>
<article><h2>The alarm</h2>
<p class="soft">While it trains, a pair without a bound is watched: the alarm rings when a decoder scale is below 1/200
of its column's spread, fell at three checks in a row, and validation did not follow, its best being older than two
thirds of training. Where held-out density follows a collapse without end (a column constant in training, a linear
function of others, with values that repeat, or collapsed at half of all rows) validation is not asked. And where the
data are degenerate, a score does not count as settled while the scale still falls by the square root of what was
trained, or faster. Every pair of the catalogue for real data was trained on benign data, and some where a variance is
known to vanish; four seeds each, 2,000 steps.</p>
<p>{{ told }}</p>
<div class="scroll"><table><tr><th>pair</th><th>data</th><th>a collapse there</th><th>rang in</th>
<th>still falling in</th><th>either</th></tr>
{% for row in alarms %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table></div></article></body></html>
"""


def main(out: Path) -> None:
    """Compute the seven findings, print their verdicts, and write OUT/index.html."""
    warnings.simplefilter("ignore", zoo.errors.DivergenceWarning)  # running away is what is being shown
    findings = []
    for number, claim in enumerate(CLAIMS, 1):
        findings.append(claim())
        print(f"{number}. {findings[-1].claim}\n   {findings[-1].verdict.upper()}: {findings[-1].because}")
    training, lengths = along_training()
    told, alarms = the_watch()
    print(f"The alarm. {told}")
    environment = Environment(autoescape=True)
    environment.filters["picture"] = _picture
    page = environment.from_string(PAGE).render(
        findings=findings, training=training, lengths=lengths, told=told, alarms=alarms
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(page, encoding="utf-8")
    print(out / "index.html")


def _canvas(count: int, columns: int = 2) -> tuple[Figure, list[mpl.axes.Axes]]:
    """A figure of ``count`` plots."""
    rows = -(-count // columns)
    figure = Figure(figsize=(10, 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, min(count, columns), squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _picture(figure: Figure) -> str:
    """A figure as a data address."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


if __name__ == "__main__":
    typer.run(main)
