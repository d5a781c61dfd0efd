"""The result of a fit: the weights of every seed and a DataTree of what happened, in memory and on disk."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
import safetensors.torch
import torch
import xarray
from torch import Tensor

from zoo import inference
from zoo.catalogue import Pair, create, origins
from zoo.checkpoint import FIT, SO_FAR
from zoo.context import Stream, pyro_context, random_stream, seeded
from zoo.data import Data, real_array
from zoo.dataframes import as_pandas, is_frame, row_names, same_kind
from zoo.engine import Replica
from zoo.errors import DataError, OptionError, RunError, UnknownPair
from zoo.frames import filled
from zoo.imputation import SWEEPS, center, impute
from zoo.lenses import observed
from zoo.options import MAX_SEED, ImputationMethod, count, location
from zoo.plugins import how_to_get
from zoo.scoring import Reference, has_gaps, score_rows
from zoo.settings import Settings
from zoo.storage import RECIPE, digest, locked, netcdf, read_checked_tree, regular, runs_within, write_directory
from zoo.tree import finish

if TYPE_CHECKING:
    import pandas

__all__ = ["RECIPE", "Run", "load_run"]

T = TypeVar("T")

FORMAT = 3
MOST_DRAWN = 2**24  # most numbers drawn at a time
WEIGHTS, TREE = "weights.safetensors", "run.nc"


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A pair trained for several seeds.

    Attributes:
        pair: the trained pair.
        seeds: the seeds, in the order of the leading axis of every array.
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
        """The record and its pair, for a notebook."""
        return f"<p>{escape(repr(self))}</p>{self.tree._repr_html_()}{self.pair._repr_html_()}"

    def encode(self, x: Any) -> np.ndarray[Any, Any]:
        """Posterior means of the latents, shape (S, N, L), or component probabilities (S, N, C).

        Args:
            x: data in the units as loaded, shape (N, D), NaN where an entry was not observed.
        """
        x = self.inward(self.loaded(x))
        means = self.each_seed(lambda _, guide: inference.encode(guide, x), Stream.POSTERIOR, gaps=has_gaps(x))
        return torch.stack(means).numpy()

    def reconstruct(self, x: Any, samples: int = 32) -> np.ndarray[Any, Any]:
        """Mean of p(x | z) over posterior draws, in the units as loaded, shape (S, N, D)."""
        x, samples = self.inward(self.loaded(x)), count("samples", samples)
        means = self.each_seed(
            lambda model, guide: inference.reconstruct(model, guide, x, samples).mean,
            Stream.POSTERIOR,
            gaps=has_gaps(x),
        )
        return self.pair.view.outward(torch.stack(means).numpy())

    def sample(self, n: int, seed: int = 0) -> np.ndarray[Any, Any]:
        """New data from each seed's model, in the units as loaded, shape (S, n, D)."""
        blank = torch.zeros(count("n", n), self.pair.data.features, dtype=torch.float32)
        seed = count("seed", seed, least=0, most=MAX_SEED)
        draws = self.each_seed(lambda model, _: inference.predictive_draws(model, blank, 1)[0], Stream.PREDICTIVE, seed)
        return self.pair.view.outward(torch.stack(draws).numpy())

    def sample_frame(self, n: int, seed: int = 0) -> pandas.DataFrame:
        r"""Synthetic rows, n of them, as a table like the training table.

        .. math:: x \sim \tfrac{1}{S} \sum_s p_s(x)

        Each row comes from a seed chosen at random, so the table also shows how much seeds differ. Categories are
        words; numbers are values their column can take, with as many decimals as in the data. Synthetic rows are not
        anonymous: a pair that fits its training rows closely may draw one of them again.

        Args:
            n: how many rows.
            seed: seed of the draws.

        >>> import zoo
        >>> data = zoo.load_data("penguins")
        >>> run = zoo.fit(zoo.create("mixed", data), data, seeds=2, steps=20, progress=False)
        >>> run.sample_frame(3)["sex"].isin(["female", "male"]).all()
        np.True_
        """
        n, seed = count("n", n), count("seed", seed, least=0, most=MAX_SEED)
        row = np.random.default_rng(seed).integers(len(self.seeds), size=n)
        share = iter([np.flatnonzero(row == each) for each in range(len(self.seeds))])
        rows = np.empty((n, self.pair.data.features))

        def draw(model: Any, _: Any) -> None:
            if len(at := next(share)):
                blank = torch.zeros(len(at), rows.shape[1], dtype=torch.float32)
                blocks = inference.row_blocks(blank, inference.width(model, blank))
                drawn = torch.cat([inference.predictive_draws(model, some, 1)[0] for some in blocks])
                rows[at] = self.pair.view.outward(drawn.numpy())

        self.each_seed(draw, Stream.PREDICTIVE, seed)
        frame = self.pair.data.as_frame(self.pair.data.nearest(rows))
        places = {c.name: c.places for c in self.pair.data.columns if c.decimal and not c.categories}
        # 383 times 0.1 is not 38.3, and a whole number is written without a point
        return frame.round(places).astype({name: int for name, number in places.items() if number == 0})

    @property
    def best_seed(self) -> int:
        """The seed with the highest best validation ELBO."""
        elbo = np.asarray(self.tree["validation"]["elbo"])
        return self.seeds[int(np.where(np.isnan(elbo), -np.inf, elbo).max(axis=1).argmax())]

    def embed(self, x: Any, seed: int | None = None) -> Any:
        """Posterior means of the latents as a data frame, (N, L), one column per latent: z0, z1, and so on.

        They come from one seed, since the latents of different seeds are rotated and permuted against each other. A
        mixture gives the probabilities of its components: component0, component1, and so on.

        Args:
            x: data in the units as loaded: an array (N, D), or a data frame, whose index is kept.
            seed: one of ``seeds``; None is :attr:`best_seed`.

        Raises:
            OptionError: the run has no such seed.

        >>> import zoo
        >>> data = zoo.load_data("iris")
        >>> run = zoo.fit(zoo.create("gaussian-constrained", data, latent_dim=2), data, steps=20, progress=False)
        >>> list(run.embed(data.frame("test")).columns)
        ['z0', 'z1']
        """
        import pandas as pd

        rows = torch.as_tensor(self.pair.view.inward(self.loaded(x)))
        program, row = self._of_seed(seed, has_gaps(rows))
        with seeded(random_stream(self.seeds[row], Stream.POSTERIOR)), torch.no_grad(), pyro_context():
            means, site = inference.encode(program.guide, rows).numpy(), inference.encoded_site(program.guide, rows)
        frame = pd.DataFrame(means, row_names(x), [f"{site}{number}" for number in range(means.shape[1])])
        return same_kind(frame, x)

    def decode(self, z: Any, seed: int | None = None) -> np.ndarray[Any, Any]:
        """Means of p(x | z) in the units as loaded, (N, D), for latents (N, L) as :meth:`embed` gives them.

        For a mixture, z holds probabilities of its components, which weight the means. Categories have no mean: their
        columns are NaN.

        Raises:
            DataError: z does not have one column per latent.
            OptionError: the run has no such seed.
        """
        latents = torch.tensor(real_array("z", as_pandas(z)))
        program, row = self._of_seed(seed, gaps=False)
        with seeded(random_stream(self.seeds[row], Stream.PREDICTIVE)), torch.no_grad(), pyro_context():
            blank = torch.zeros(1, self.pair.data.features, dtype=latents.dtype)
            wanted = inference.encode(program.guide, blank).shape[1]
            if latents.dim() != 2 or latents.shape[1] != wanted or not len(latents):
                raise DataError(f"z has shape {tuple(latents.shape)}; {self.pair.name} takes (N, {wanted}) here.")
            site = inference.encoded_site(program.guide, blank)
            return self.pair.view.outward(inference.decode(program.model, site, latents, blank).numpy())

    def score(self, x: Any, *, columns: int = 3, samples: int = 1000, training: Any = None) -> Any:
        r"""How typical each row is: its log evidence, its rank among the training rows, the columns that cost it most.

        .. math:: \log p(x) = \log \tfrac{1}{S} \sum_s p_s(x), \qquad
                  \mathrm{rank} = \frac{1 + \#\{i : \log p(x_i) \le \log p(x)\}}{M + 1}, \qquad
                  \mathrm{cost}_j = \mathrm{median}_i \log p(x_{ij} \mid x_{i,-j}) - \log p(x_j \mid x_{-j})

        with i over M training rows, at most a thousand. The evidence is :meth:`log_evidence` under the mixture of all
        seeds, from which :meth:`sample_frame` draws: a single seed that finds a row impossible does not decide. It is
        of the pair's own measure, so it compares rows and not pairs. The rank is an empirical p-value: 0.01 means that
        one training row in a hundred is as odd. It is a little too small for new rows, since a pair fits its training
        rows better.

        A cost is how many nats less a column's value scores, given the rest of its row, than in the median training
        row. It does not depend on units, so columns can be compared. It is exact for mixtures. Otherwise it uses the
        same draws as the evidence (:class:`zoo.scoring.RowWeights`), which have seen the value, so the cost is too
        small for a value that moves the latents. A row that is odd only in how its values combine may have no costly
        column.

        A row with gaps, NaN, is scored by its observed entries and ranked among the training rows that have those
        columns, scored by the same columns: each pattern of gaps takes the time of a thousand rows.

        Args:
            x: data in the units as loaded: an array (N, D), or a data frame.
            columns: how many columns are named.
            samples: K, importance draws per row.
            training: the training rows, needed if the run was loaded and its data came from memory or have moved.

        Returns:
            A data frame of x's library, with a row per row of x and the same index: ``log_evidence`` in nats,
            ``seed_sd``, its standard deviation over seeds, ``rank`` in (0, 1], and ``column_1``, ``cost_1`` in nats and
            so on, most costly first.

        Raises:
            DataError: a wrong number of columns, or values without probability.
            RunError: the training rows cannot be loaded.

        >>> import zoo
        >>> data = zoo.load_data("wine")
        >>> run = zoo.fit(zoo.create("gmm-constrained", data), data, seeds=2, steps=20, progress=False)
        >>> run.score(data.frame("test"), columns=1).columns.tolist()
        ['log_evidence', 'seed_sd', 'rank', 'column_1', 'cost_1']
        """
        return score_rows(self, x, columns, samples, training)

    @cached_property
    def references(self) -> dict[tuple[bytes, int, bool], Reference]:
        """The scores of training rows, by pattern of gaps, draws, and whether by column: computed once."""
        return {}

    def log_evidence(self, x: Any, samples: int = 5000) -> np.ndarray[Any, Any]:
        """Log p(x) per datum in nats, in the units as loaded, shape (S, N); NaN entries of x are left out.

        The measure is that of the pair's formula: for real numbers a density, even where ``zoo.evaluate`` also scores
        the mass of the cells that rounded values stand for.

        Exact for mixtures and linear models, otherwise a lower bound in expectation; ``zoo.evaluate`` also gives its
        standard error, diagnostics of its importance weights, and a better estimate where those are bad.
        """
        loaded, samples = self.loaded(x), count("samples", samples)
        x = self.inward(loaded)

        of_draws = inference.LogWeights(samples)

        def score(model: Any, guide: Any) -> Tensor:
            blocks = inference.row_blocks(x, samples)
            found = torch.cat([inference.log_mean_exp(of_draws.known(model, guide, rows)) for rows in blocks])
            return torch.where(x.isnan().all(dim=1), 0.0, found)  # a row without entries scores exactly 0

        evidence = self.each_seed(score, Stream.EVIDENCE, gaps=has_gaps(x))
        return torch.stack(evidence).numpy() - self.pair.view.log_volumes(loaded)

    def impute(
        self, x: Any, draws: int = 20, *, method: ImputationMethod = "gibbs", sweeps: int = SWEEPS, seed: int = 0
    ) -> np.ndarray[Any, Any]:
        r"""Draws of the missing entries, NaN in x, given the observed ones: :math:`x_m \sim p(x_m \mid x_o)`.

        Each is a value its column can take: a category, a level, a number with as many decimals as in the data.

        Args:
            x: data in the units as loaded, shape (N, D), or a data frame.
            draws: K.
            method: "importance", "gibbs" or "pseudo-gibbs" (:func:`zoo.imputation.states` has their formulas). Gibbs
                starts from importance sampling, which is poor if the guide has not seen gaps in training;
                "pseudo-gibbs" is biased and serves for comparison.
            sweeps: sweeps of the Gibbs samplers; a sweep costs as much as one of the 1000 draws of importance sampling.
            seed: seed of the draws.

        Returns:
            Shape (S, K, N, D), in the units as loaded; observed entries are unchanged.

        Raises:
            DataError: a wrong number of columns, or values without probability.
            OptionError: an unknown method, or an invalid number of draws or sweeps.
            Unknown: the likelihood does not give the distribution of an entry given the others.

        >>> import zoo
        >>> data = zoo.load_data("iris")
        >>> run = zoo.fit(zoo.create("gmm-constrained", data, components=3), data, seeds=2, steps=20, progress=False)
        >>> run.impute([[5.1, 3.5, np.nan, np.nan]], draws=9).shape
        (2, 9, 1, 4)
        """
        return self._imputed(self.loaded(x), draws, method, sweeps, seed)

    def _imputed(
        self, loaded: np.ndarray[Any, Any], draws: int, method: ImputationMethod, sweeps: int, seed: int
    ) -> np.ndarray[Any, Any]:
        if method not in (known := get_args(ImputationMethod)):
            raise OptionError(f"impute: method={method!r}; choose from {', '.join(known)}.")
        draws, sweeps = count("draws", draws), count("sweeps", sweeps)
        seed, rows = count("seed", seed, least=0, most=MAX_SEED), self.inward(loaded)
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
        """A table with its gaps filled: numbers with the mean of draws over all seeds, names with the most frequent.

        Each is rounded to a value its column can take. A single value does not show how sure the pair is:
        :meth:`impute` gives the draws. Raises the errors of :meth:`impute`.

        Args:
            x: data in the units as loaded: an array (N, D), or a data frame, whose columns the pair was not trained on
                stay as they are.
            draws: draws per seed.
            method: see :meth:`impute`.
            sweeps: see :meth:`impute`.
            seed: seed of the draws.

        Returns:
            An array, or a data frame of x's library, with text as text.

        >>> import pandas as pd, zoo
        >>> data = zoo.load_data("penguins")
        >>> run = zoo.fit(zoo.create("mixed", data), data, seeds=1, steps=20, progress=False)
        >>> run.fill_gaps(data.frame("test")).isna().sum().sum()
        np.int64(0)
        """
        loaded = self.loaded(x)
        gaps = np.isnan(loaded)
        whole, nominal = loaded.copy(), np.array([column.kind.nominal for column in self.pair.data.columns])
        rows = np.flatnonzero(gaps.any(axis=1))
        together = max(1, MOST_DRAWN // (len(self.seeds) * count("draws", draws) * loaded.shape[1]))
        for at in range(0, len(rows), together):
            some = rows[at : at + together]
            drawn = self._imputed(loaded[some], draws, method, sweeps, seed + at)
            whole[some] = self.pair.data.nearest(center(drawn.reshape(-1, *loaded[some].shape), nominal))
        return same_kind(filled(self.pair.data.columns, as_pandas(x), whole, gaps), x) if is_frame(x) else whole

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of :func:`zoo.fit` except the seeds, which repeat the training on the same data."""
        names = [field.name for field in fields(Settings)]
        attrs = {name: self.tree.attrs[name] for name in names if name in self.tree.attrs}
        # netCDF has no booleans and no None, which are stored as JSON text; numbers come back as NumPy's
        text = {name: json.loads(v) for name, v in attrs.items() if v in ("null", "true", "false")}
        return {name: v.item() if isinstance(v, np.generic) else v for name, v in (attrs | text).items()}

    def differences(self, other: Run) -> list[str]:
        """Names of the weights and groups of traces that are not the same to the last bit."""
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
        """``function(model, guide)`` for every seed, each with its own random state.

        With ``gaps``, the programs are restricted to observed entries, whether or not training had missing entries.
        """
        results = []
        for row, seed in enumerate(self.seeds):
            program = self._program(row, gaps=gaps)
            with seeded(random_stream(seed, stream, step)), torch.no_grad(), pyro_context():
                results.append(function(program.model, program.guide))
        return results

    def _of_seed(self, seed: int | None, gaps: bool) -> tuple[Replica, int]:
        """The programs of a seed, by default the best, in double precision, and the seed's row."""
        seed = self.best_seed if seed is None else seed
        if seed not in self.seeds:
            of = "seed is" if len(self.seeds) == 1 else "seeds are"
            raise OptionError(f"seed={seed!r}: this run's {of} {', '.join(map(str, self.seeds))}.")
        row = self.seeds.index(seed)
        return self._program(row, gaps=gaps).double(), row

    def _program(self, row: int, *, gaps: bool) -> Replica:
        replica = self.pair.replica(self.seeds[row])
        program = Replica(replica.model, replica.guide)
        with torch.no_grad():
            for name, tensor in [*program.named_parameters(), *program.named_buffers()]:
                tensor.copy_(self.weights[name][row])
        program = program.requires_grad_(False).eval()
        if not gaps:
            return program
        filler = torch.as_tensor(self.pair.view.filler, dtype=torch.float32)
        return Replica(*observed(program.model, program.guide, filler))

    def loaded(self, x: Any) -> np.ndarray[Any, Any]:
        """Values (N, D) in the units as loaded, from an array or a data frame."""
        return self.pair.view.checked(self.pair.data.coded(x))

    def inward(self, loaded: np.ndarray[Any, Any]) -> Tensor:
        """Values (N, D) for the programs: from the units as loaded to scaled units in single precision."""
        return torch.as_tensor(self.pair.view.inward(loaded), dtype=torch.float32)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run into a directory: the tree as netCDF, weights as safetensors, options as JSON.

        The directory is complete or absent, since it is written under another name and renamed. An earlier run there is
        replaced.

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

    def __reduce__(self) -> tuple[Callable[[dict[str, bytes]], Run], tuple[dict[str, bytes]]]:
        """A pickled run is a saved run, without the training rows."""
        return _unpickled, (self.files(),)

    def files(self) -> dict[str, bytes]:
        """What :meth:`save` writes, by name, with checksums that reveal damage."""
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
    """Read a run written by :meth:`Run.save`; nothing in the files is executed.

    If the run's pair is not one of the zoo's, register it first.

    Raises:
        RunError: no run there, files missing or damaged, or another version of the format.
        UnknownPair: the run's pair is not in the catalogue; the message names the file that registered it.
    """
    path = location("path", path)
    if not (path / RECIPE).is_file():
        begun = "; it was begun but not finished; the same zoo.fit(..., checkpoint=) finishes it"
        begun += f", and {SO_FAR} there is the run as it stood" if (path / SO_FAR).is_dir() else ""
        instead = begun if (path / FIT).is_file() else runs_within(path)
        raise RunError(f"no run at {path}: there is no {RECIPE}{instead}.")
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
        tree = read_checked_tree(path / TREE)
        name, options, seeds = recipe["pair"], recipe["options"], tuple(recipe["seeds"])
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"the run at {path} is damaged: {str(error).splitlines()[0]}.") from error
    try:
        pair = create(name, data, **options)
    except (UnknownPair, OptionError) as error:
        remedy = how_to_get(recipe.get("registered_by") or []) or "if your own code registers it, run that first"
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


def _unpickled(files: dict[str, bytes]) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        write_directory(place := Path(folder) / "run", files)
        return load_run(place)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)
