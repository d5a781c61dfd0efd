"""What a fit leaves behind: weights of every seed and a DataTree of what happened, in memory and on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import safetensors.torch
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.catalogue import Pair, create, origins
from zoo.checkpoint import FIT, SO_FAR
from zoo.context import Stream, pyro_context, random_stream, seeded
from zoo.data import Data
from zoo.engine import Replica
from zoo.errors import OptionError, RunError, UnknownPair
from zoo.frames import filled
from zoo.imputation import SWEEPS, center, impute
from zoo.lenses import observed
from zoo.options import MAX_SEED, ImputationMethod, count, location
from zoo.plugins import how_to_get
from zoo.storage import RECIPE, digest, locked, netcdf, read_tree, regular, write_directory
from zoo.tree import finish

__all__ = ["RECIPE", "Run", "load_run"]

T = TypeVar("T")

FORMAT = 3
MOST_DRAWN = 2**24  # numbers that are drawn before they are put together
WEIGHTS, TREE = "weights.safetensors", "run.nc"


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A pair trained for several seeds.

    Attributes:
        pair: what was trained.
        seeds: the seeds, in the order of the leading axis of everything else.
        weights: parameters and buffers by name, each with a leading seed axis.
        tree: what was recorded, as an ``xarray.DataTree``; :func:`zoo.evaluate` adds to it.

    >>> import zoo
    >>> data = zoo.load_data("iris")
    >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
    >>> run.log_evidence(data.test.values).shape
    (2, 30)
    """

    pair: Pair
    seeds: tuple[int, ...]
    weights: dict[str, Tensor]
    tree: xarray.DataTree

    def __repr__(self) -> str:
        steps = self.tree.attrs.get("steps", "?")
        scored = "evaluated" if "heldout" in self.tree.children else "not evaluated"
        return (
            f"<Run of {self.pair.name!r} on {self.pair.data.name!r}: {len(self.seeds)} seeds, {steps} steps, {scored}>"
        )

    def _repr_html_(self) -> str:
        """What was recorded, and of which pair, for a notebook."""
        return f"<p>{escape(repr(self))}</p>{self.tree._repr_html_()}{self.pair._repr_html_()}"

    def encode(self, x: Any) -> np.ndarray[Any, Any]:
        """Posterior means of the latents, shape (S, N, L), or component probabilities (S, N, C).

        Args:
            x: data in the units as loaded, shape (N, D), NaN where an entry was not observed.
        """
        x = self.inward(self._loaded(x))
        means = self.each_seed(lambda _, guide: inference.encode(guide, x), Stream.POSTERIOR, gaps=has_gaps(x))
        return torch.stack(means).numpy()

    def reconstruct(self, x: Any, samples: int = 32) -> np.ndarray[Any, Any]:
        """Mean of p(x | z) over posterior draws, in the units as loaded, shape (S, N, D)."""
        x, samples = self.inward(self._loaded(x)), count("samples", samples)
        means = self.each_seed(
            lambda model, guide: inference.reconstruct(model, guide, x, samples).mean,
            Stream.POSTERIOR,
            gaps=has_gaps(x),
        )
        return self.pair.view.outward(torch.stack(means).numpy())

    def sample(self, n: int, seed: int = 0) -> np.ndarray[Any, Any]:
        """New data from each seed's model, in the units as loaded, shape (S, n, D)."""
        blank = torch.zeros(count("n", n), self.pair.data.features)
        seed = count("seed", seed, least=0, most=MAX_SEED)
        draws = self.each_seed(lambda model, _: inference.predictive_draws(model, blank, 1)[0], Stream.PREDICTIVE, seed)
        return self.pair.view.outward(torch.stack(draws).numpy())

    def log_evidence(self, x: Any, samples: int = 5000) -> np.ndarray[Any, Any]:
        """Log p(x) per datum in nats, in the units as loaded, shape (S, N); of what was observed, where x has NaN.

        Exact for mixtures and linear models, else a lower bound in expectation; ``zoo.evaluate`` also gives its
        standard error, the diagnostics of its importance weights, and a better estimate where they are bad.
        """
        loaded, samples = self._loaded(x), count("samples", samples)
        x = self.inward(loaded)

        of_draws = inference.LogWeights(samples)

        def score(model: Any, guide: Any) -> Tensor:
            blocks = inference.row_blocks(x, samples)
            return torch.cat([inference.log_mean_exp(of_draws.known(model, guide, rows)) for rows in blocks])

        evidence = self.each_seed(score, Stream.EVIDENCE, gaps=has_gaps(x))
        return torch.stack(evidence).numpy() - self.pair.view.log_volumes(loaded)

    def impute(
        self, x: Any, draws: int = 20, *, method: ImputationMethod = "gibbs", sweeps: int = SWEEPS, seed: int = 0
    ) -> np.ndarray[Any, Any]:
        r"""Draws of what was not observed, NaN in x, given what was: :math:`x_m \sim p(x_m \mid x_o)`.

        Each is a value that its column can have: a category, a level, a number recorded to as many decimals as the
        data are.

        Args:
            x: data in the units as loaded, shape (N, D), or a data frame.
            draws: K.
            method: "importance", "gibbs" or "pseudo-gibbs" (:func:`zoo.imputation.states` has their formulas). Gibbs
                goes on from importance sampling, which is poor where the guide has not seen gaps in training; the third
                is biased, and there for comparison.
            sweeps: of the two Gibbs samplers, each of which costs as much as 1 draw of importance sampling's 1000.
            seed: draws others.

        Returns:
            Shape (S, K, N, D), in the units as loaded; what was observed as it is.

        Raises:
            DataError: no table of so many columns, or values that have no probability.
            OptionError: no such method, or a number of draws or sweeps that is none.
            Unknown: what an entry is given others is not known of the likelihood.

        >>> import zoo
        >>> data = zoo.load_data("iris")
        >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
        >>> run.impute([[5.1, 3.5, np.nan, np.nan]], draws=9).shape
        (2, 9, 1, 4)
        """
        if method not in (known := get_args(ImputationMethod)):
            raise OptionError(f"impute: method={method!r}; choose from {', '.join(known)}.")
        draws, sweeps = count("draws", draws), count("sweeps", sweeps)
        loaded, seed = self._loaded(x), count("seed", seed, least=0, most=MAX_SEED)
        rows = self.inward(loaded)
        found = self.each_seed(
            lambda model, guide: impute(model, guide, rows, draws, method, sweeps),
            Stream.IMPUTATION,
            seed,
            gaps=True,
        )
        drawn = self.pair.data.nearest(self.pair.view.outward(torch.stack(found).numpy()))
        return np.where(np.isnan(loaded), drawn, loaded)

    def fill_gaps(
        self, x: Any, draws: int = 20, *, method: ImputationMethod = "gibbs", sweeps: int = SWEEPS, seed: int = 0
    ) -> Any:
        """A table with its gaps filled: numbers by the mean of draws over all seeds, names by the most frequent.

        Each is rounded to a value that its column can have. What is lost is how sure the pair is: :meth:`impute` gives
        the draws. Errors are those of :meth:`impute`.

        Args:
            x: data in the units as loaded: an array (N, D), or a data frame, in which columns that the pair was not
                trained on stay as they are.
            draws: of each seed.
            method: as for :meth:`impute`.
            sweeps: as for :meth:`impute`.
            seed: draws others.

        Returns:
            An array, or a data frame with text as text, as x is.

        >>> import pandas as pd, zoo
        >>> data = zoo.load_data("penguins")
        >>> run = zoo.fit(zoo.create("mixed", data), data, seeds=1, steps=20, progress=False)
        >>> run.fill_gaps(data.frame("test")).isna().sum().sum()
        np.int64(0)
        """
        loaded = self._loaded(x)
        gaps = np.isnan(loaded)
        whole, nominal = loaded.copy(), np.array([column.kind.nominal for column in self.pair.data.columns])
        rows = np.flatnonzero(gaps.any(axis=1))
        together = max(1, MOST_DRAWN // (len(self.seeds) * count("draws", draws) * loaded.shape[1]))
        for at in range(0, len(rows), together):
            some = rows[at : at + together]
            drawn = self.impute(loaded[some], draws, method=method, sweeps=sweeps, seed=seed + at)
            whole[some] = self.pair.data.nearest(center(drawn.reshape(-1, *loaded[some].shape), nominal))
        return filled(self.pair.data.columns, x, whole, gaps) if hasattr(x, "select_dtypes") else whole

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of :func:`zoo.fit` but the seeds: what repeats the training on data as they were loaded."""
        from zoo.fitting import Settings

        names = [field.name for field in fields(Settings)]
        attrs = {name: self.tree.attrs[name] for name in names if name in self.tree.attrs}
        # netCDF has no booleans and no nothing: they are JSON text there; numbers come back as NumPy's
        text = {name: json.loads(v) for name, v in attrs.items() if v in ("null", "true", "false")}
        return {name: v.item() if isinstance(v, np.generic) else v for name, v in (attrs | text).items()}

    def differences(self, other: Run) -> list[str]:
        """Names of the weights, and of the groups of traces, that are not the same to the last bit."""
        names = [*self.weights, *(set(other.weights) - set(self.weights))]
        differing = [n for n in names if not _equal(self.weights.get(n), other.weights.get(n))]
        trees = [
            group
            for group in ("optimization", "validation")
            if not self.tree[group].to_dataset().equals(other.tree[group].to_dataset())
        ]
        return differing + trees

    def each_seed(
        self, function: Callable[[Any, Any], T], stream: Stream, step: int = 0, *, gaps: bool = False
    ) -> list[T]:
        """``function(model, guide)`` of every seed, each drawing from a random state of its own.

        With ``gaps``, the programs are of what was observed, whether or not entries were missing in training.
        """
        results = []
        for row, seed in enumerate(self.seeds):
            program = self._program(row)
            if gaps:
                filler = torch.as_tensor(self.pair.view.filler, dtype=torch.float32)
                program = Replica(*observed(program.model, program.guide, filler))
            with seeded(random_stream(seed, stream, step)), torch.no_grad(), pyro_context():
                results.append(function(program.model, program.guide))
        return results

    def _program(self, row: int) -> Replica:
        replica = self.pair.replica(self.seeds[row])
        program = Replica(replica.model, replica.guide)
        with torch.no_grad():
            for name, tensor in [*program.named_parameters(), *program.named_buffers()]:
                tensor.copy_(self.weights[name][row])
        return program.requires_grad_(False).eval()

    def _loaded(self, x: Any) -> np.ndarray[Any, Any]:
        """Values (N, D) in the units as loaded, of an array or a data frame."""
        return self.pair.view.checked(self.pair.data.coded(x))

    def inward(self, loaded: np.ndarray[Any, Any]) -> Tensor:
        """Values (N, D) in the units as loaded as the programs take them: in scaled units and single precision."""
        return torch.as_tensor(self.pair.view.inward(loaded), dtype=torch.float32)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run into a directory: the tree as netCDF, weights as safetensors, options as JSON.

        The directory is complete or absent: it is written beside and renamed. A run that was there is replaced.

        Raises:
            RunError: the place exists and is not a run, cannot be written, or another process is writing there.
        """
        path = location("path", path)
        empty = path.is_dir() and not any(path.iterdir())
        if path.exists() and not empty and not any((path / name).is_file() for name in (RECIPE, FIT)):
            raise RunError(f"{path} exists and is not a run; choose another place.")
        with locked(path):
            write_directory(path, self.files())
        return path

    def files(self) -> dict[str, bytes]:
        """What :meth:`save` writes, by name; each with its checksum, so that damage is seen."""
        recipe: dict[str, Any] = {
            "format": FORMAT,
            "pair": self.pair.name,
            "options": self.pair.choices,
            "registered_by": origins(self.pair),
            "seeds": self.seeds,
            "data": self.pair.data.outline(),
        }
        files = {WEIGHTS: safetensors.torch.save(self.weights), TREE: netcdf(finish(self.tree))}
        recipe["sha256"] = {name: digest(content) for name, content in files.items()}
        recipe["sha256"][RECIPE] = digest(json.dumps(recipe).encode())
        return files | {RECIPE: json.dumps(recipe, indent=1).encode()}


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a run that :meth:`Run.save` wrote; nothing in the files is executed.

    A run of a pair that is not the zoo's own needs that pair registered first.

    Raises:
        RunError: no run there, files missing or damaged, or another version of the format.
        UnknownPair: the run's pair is not in the catalogue; the message names the file that registered it.
    """
    path = location("path", path)
    if not (path / RECIPE).is_file():
        begun = "; it was begun and not finished, which zoo.fit(..., checkpoint=) of the same fit would do"
        begun += f", and {SO_FAR} there is the run as it stood" if (path / SO_FAR).is_dir() else ""
        raise RunError(f"no run at {path}: there is no {RECIPE}{begun if (path / FIT).is_file() else ''}.")
    try:
        recipe = json.loads((path / RECIPE).read_text(encoding="utf-8"))
        if recipe["format"] != FORMAT:
            raise RunError(f"{path} is of format {recipe['format']}; this version reads {FORMAT}.")
        digests = recipe["sha256"]
        written = {RECIPE: digests.pop(RECIPE), **digests}
        found = {name: digest(regular(path / name).read_bytes()) for name in (WEIGHTS, TREE)}
        found[RECIPE] = digest(json.dumps(recipe).encode())
        if changed := [name for name in written if found.get(name) != written[name]]:
            raise RunError(f"the run at {path} is damaged: {changed[0]} is not what was written.")
        data = Data.from_outline(recipe["data"])
        weights = safetensors.torch.load_file(path / WEIGHTS)
        tree = read_tree(path / TREE)
        name, options, seeds = recipe["pair"], recipe["options"], tuple(recipe["seeds"])
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"the run at {path} is damaged: {str(error).splitlines()[0]}.") from error
    try:
        pair = create(name, data, **options)
    except (UnknownPair, OptionError) as error:
        by = recipe.get("registered_by") or [*filter(None, [recipe.get("registered_in") or _registered_in(tree)])]
        remedy = how_to_get(by) or "if code of yours registers it, run that first"
        raise type(error)(
            f"the run at {path} is of {name!r}: {str(error).rstrip('.')}. To load it, {remedy}."
        ) from error
    program = Replica(pair.model, pair.guide)
    expected = {n: (len(seeds), *t.shape) for n, t in [*program.named_parameters(), *program.named_buffers()]}
    shapes = {n: tuple(t.shape) for n, t in weights.items()}
    if shapes != expected:
        wrong = next(n for n in {**expected, **shapes} if shapes.get(n) != expected.get(n))
        raise RunError(
            f"the run at {path} is damaged: {wrong} has shape {shapes.get(wrong)}, not {expected.get(wrong)}."
        )
    return Run(pair, seeds, weights, tree)


def has_gaps(x: Tensor) -> bool:
    """Whether there are entries that were not observed."""
    return bool(x.isnan().any())


def _registered_in(tree: xarray.DataTree) -> str:
    """The file that registered a run's pair, from the snippet that repeats it: all that older runs say of it."""
    found = re.match(r"# first run (.+), which registers ", str(tree.attrs.get("repeat", "")))
    return found[1] if found else ""


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)
