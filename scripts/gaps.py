"""What gaps in a table cost, and how well they are filled, on data whose gaps are known.

python scripts/gaps.py              # about twenty minutes
python scripts/gaps.py --quick      # the same on less data, in a few minutes, with no verdict

1. Three tables are simulated and 30 % of their entries left out, completely at random. A pair fitted to the rest comes
   within two standard errors of the evidence of the one fitted to all, on the same complete test rows: mixtures and
   linear pairs, and a VAE trained by the importance-weighted bound. By the ELBO it loses more, since a posterior given
   half of a row is further from normal; that row is shown and promises nothing. The paired error is printed too. It
   shrinks as fast as the loss that fewer numbers cause, so that no size of table takes the one below the other.
2. Half of the pixels of the test digits are hidden. The log score of the hidden ones by Metropolis within Gibbs is at
   least that of importance sampling, and both are above pseudo-Gibbs (Mattei & Frellsen 2018,
   https://arxiv.org/abs/1802.04826, section 5). Importance sampling needs a guide that has seen gaps: where training
   was on whole digits, only Metropolis within Gibbs is asked to be the best.
3. A tenth of the entries of real tables is hidden: error beside column means, nearest neighbours and scikit-learn's
   iterative imputer. A pair is better than column means everywhere.

The exit status is 1 if one of these does not hold.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, get_args

import numpy as np
import pandas as pd
import typer
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import zoo
from zoo.comparison.difference import Difference, Score, standard_error
from zoo.data import Part
from zoo.evaluation.imputation import imputation
from zoo.options import ImputationMethod

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

GAPS, HIDDEN_PIXELS, HIDDEN = 0.3, 0.5, 0.1
NOISE = 0.3  # around the curve
EVIDENCE_DRAWS = 500
SIMULATED = [  # and whether the pair fitted to gaps is to come as close as the pair fitted to all
    ("factors", "linear-diagonal[latent_dim=2]", "elbo", True),
    ("mixture", "gmm-constrained[components=3, covariance=full, floor=1e-4]", "elbo", True),
    ("curve", "gaussian-constrained[latent_dim=1]", "miwae[samples=20]", True),
    ("curve", "gaussian-constrained[latent_dim=1]", "elbo", False),
]
OF_PIXELS = ("gaussian-constrained", "gaussian-binned")
TABLES = [
    ("iris", ["gmm-constrained[components=3, covariance=full]", "gaussian-constrained"]),
    ("wine", ["gmm-constrained[components=3, covariance=full]", "gaussian-constrained"]),
    ("penguins", ["mixed[real=constrained]"]),
    ("digits", [*OF_PIXELS]),
]


Density = Callable[[Array], Array]


def simulated(rows: int) -> Iterator[tuple[str, Array, Density]]:
    """Factor analysis, three normals and a curve in five columns, each with its true log density."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(2, 6))
    factors = multivariate_normal(np.zeros(6), loadings.T @ loadings + 0.25 * np.eye(6))
    yield "factors", factors.rvs(rows, random_state=rng), factors.logpdf

    means, roots = 4 * rng.normal(size=(3, 4)), np.eye(4) + 0.3 * rng.normal(size=(3, 4, 4))
    of = rng.integers(3, size=rows)
    each = [multivariate_normal(mean, root @ root.T) for mean, root in zip(means, roots, strict=True)]
    x = means[of] + np.einsum("nij,nj->ni", roots[of], rng.normal(size=(rows, 4)))
    yield "mixture", x, lambda x: logsumexp([one.logpdf(x) for one in each], axis=0) - np.log(3)

    def curve(z: Array) -> Array:
        return np.column_stack([z, z**2 / 2, np.sin(z), np.cos(z), np.tanh(2 * z)])

    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    on_nodes, log_weights = curve(nodes), np.log(weights / weights.sum() + np.finfo(float).tiny)

    def on_curve(x: Array) -> Array:
        squares = np.square(x[:, None] - on_nodes).sum(-1) / (2 * NOISE**2)
        return np.asarray(logsumexp(log_weights - squares, axis=1) - 5 / 2 * np.log(2 * np.pi * NOISE**2))

    yield "curve", curve(rng.normal(size=rows)) + NOISE * rng.normal(size=(rows, 5)), on_curve


def fitted(name: str, data: zoo.Data, seeds: int, **settings: Any) -> zoo.Run:
    pair = zoo.create(name, data)
    return zoo.fit(pair, data, seeds=seeds, progress=False, on_divergence="warn", **settings)


def learned_with_gaps(rows: int, seeds: int, steps: int) -> pd.DataFrame:
    """Evidence of complete test rows, of a pair fitted to all entries of the others and to 70 % of them."""
    tables = {name: (x, density) for name, x, density in simulated(rows)}
    found = []
    for table, name, objective, promised in SIMULATED:
        x, density = tables[table]
        gone = np.random.default_rng(1).random(x.shape) < GAPS
        complete, gapped = (
            zoo.Data.from_array(values, name=table, split=(0.6, 0.1, 0.3), resolution=None)
            for values in (x, np.where(gone, np.nan, x))
        )
        runs = (fitted(name, data, seeds, steps=steps, objective=objective) for data in (complete, gapped))
        without, with_gaps = (
            Score.of_seeds(run.log_evidence(complete.test.values, samples=EVIDENCE_DRAWS)) for run in runs
        )
        difference = Difference.between(with_gaps, without)
        found.append(
            {
                "data": f"{table}, {rows} rows",
                "pair": name,
                "objective": objective,
                "truth": density(complete.test.values).mean(),
                "all entries": without.values.mean(),
                f"{1 - GAPS:.0%} of them": with_gaps.values.mean(),
                "difference": difference.mean,
                "its paired error": difference.error,
                "error of the evidence": standard_error(without.values),
                "as promised": not promised or abs(difference.mean) <= 2 * standard_error(without.values),
            }
        )
    return pd.DataFrame(found)


def half_of_the_pixels(seeds: int, steps: int) -> pd.DataFrame:
    """Log score of hidden pixels, nats per pixel, and their error, of the three ways to draw latents."""
    digits = zoo.load_data("digits")
    parts: dict[Part, Any] = {
        "train": digits.train.values,
        "validation": digits.validation.values,
        "test": digits.test.values,
    }
    whole, of_part = np.concatenate([*parts.values()]), [name for name, part in parts.items() for _ in part]
    seen = np.random.default_rng(2).random(whole.shape) >= HIDDEN_PIXELS
    gapped = np.where(seen | (np.array(of_part) == "test")[:, None], whole, np.nan)
    found = []
    for told, x in (("all pixels", whole), ("half of them", gapped)):
        data = zoo.Data.from_array(x, name="digits", split=of_part, support="ordinal", levels=digits.levels)
        for name in OF_PIXELS:
            run = fitted(name, data, seeds, steps=steps)
            row: dict[str, Any] = {"trained on": told, "pair": name}
            scores = []
            for method in get_args(ImputationMethod):
                group = imputation(run, data, HIDDEN_PIXELS, method)
                scores.append(group["log_score_mean"].values)
                row[method] = scores[-1].mean()
                row[f"{method} RMSE"] = float(group["rmse"].mean())
            importance, gibbs, pseudo = (score.mean() for score in scores)
            row["as promised"] = gibbs >= importance and (importance if gapped is x else gibbs) > pseudo
            found.append(row)
    return pd.DataFrame(found)


def beside_imputers(seeds: int, steps: int) -> pd.DataFrame:
    """Error of hidden entries of real tables, numbers in standard deviations, names as a share that is wrong."""
    found = []
    for of, names in TABLES:
        data = zoo.load_data(of)
        for name in names:
            group = imputation(fitted(name, data, seeds, steps=steps), data, HIDDEN)
            for kind, own, others in (
                ("RMSE of numbers", "rmse", "baseline_rmse"),
                ("names wrong", "error_rate", "baseline_error_rate"),
            ):
                baseline = group[others].to_series()
                if baseline.notna().any():
                    mean = float(group[own].mean())
                    better = mean < baseline["column mean or mode"]
                    row = {"data": of, "pair": name, "error": kind, "pair's": mean, **baseline}
                    found.append(row | {"as promised": better})
    return pd.DataFrame(found)


def tables(rows: int, seeds: int, steps: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """The three tables, the last column of each saying whether a row is as promised above."""
    yield "Evidence in nats per datum, learned with gaps", learned_with_gaps(rows, 2 * seeds, 2 * steps)
    yield "Half of the pixels of the test digits hidden: log score, nats per pixel", half_of_the_pixels(seeds, steps)
    yield "A tenth of the test entries hidden: error", beside_imputers(seeds, steps)


def main(quick: bool = False) -> None:
    held = []
    for title, table in tables(2_000, 2, 200) if quick else tables(30_000, 2, 2000):
        print(f"\n{title}\n{table.to_string(index=False, float_format='{:.4g}'.format)}", flush=True)
        held.append(table.iloc[:, -1].all())
    if not quick and not all(held):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
