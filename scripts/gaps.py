"""What gaps in a table cost, and how well they are filled, on data whose gaps are known.

python scripts/gaps.py              # about fifteen minutes on two cores
python scripts/gaps.py --quick      # the same on less data, in a minute, with no verdict

1. Three tables are simulated and 30 % of their entries left out, completely at random. A pair fitted to the rest has
   the evidence of the one fitted to all, on the same complete test rows, within two standard errors.
2. Half of the pixels of the test digits are hidden. The log score of the hidden ones by Metropolis within Gibbs is at
   least that of importance sampling, and both are above pseudo-Gibbs (Mattei & Frellsen 2018,
   https://arxiv.org/abs/1802.04826, section 5).
3. A tenth of the entries of real tables is hidden: error beside column means, nearest neighbours and scikit-learn's
   iterative imputer. A pair is better than column means everywhere.

The exit status is 1 if one of these does not hold.
"""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pandas as pd
import typer

import zoo
from zoo.comparison.difference import Difference, Score
from zoo.data import Part
from zoo.evaluation.imputation import imputation
from zoo.options import ImputationMethod

GAPS, HIDDEN_PIXELS, HIDDEN = 0.3, 0.5, 0.1
SIMULATED = [
    ("factors", "linear-diagonal[latent_dim=2]", "elbo"),
    ("mixture", "gmm-constrained[components=3, covariance=full]", "elbo"),
    ("ring", "gaussian-constrained[latent_dim=2]", "elbo"),
    ("ring", "gaussian-constrained[latent_dim=2]", "miwae[samples=20]"),
]
TABLES = [
    ("iris", ["gmm-constrained[components=3, covariance=full]", "gaussian-constrained"]),
    ("wine", ["gmm-constrained[components=3, covariance=full]", "gaussian-constrained"]),
    ("penguins", ["mixed[real=constrained]"]),
    ("digits", ["gaussian-constrained", "gaussian-binned"]),
]


def simulated(rows: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Factor analysis, a mixture of three normals, and a noisy ring in five columns."""
    rng = np.random.default_rng(0)
    yield "factors", rng.normal(size=(rows, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(rows, 6))
    means, roots = 3 * rng.normal(size=(3, 4)), rng.normal(size=(3, 4, 4)) / 2 + np.eye(4)
    of = rng.integers(3, size=rows)
    yield "mixture", means[of] + np.einsum("nij,nj->ni", roots[of], rng.normal(size=(rows, 4)))
    angle = rng.uniform(0, 2 * np.pi, rows)
    circle = 2 * np.column_stack([np.cos(angle), np.sin(angle)])
    yield "ring", circle @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(rows, 5))


def fitted(name: str, data: zoo.Data, seeds: int, **settings: Any) -> zoo.Run:
    pair = zoo.create(name, data)
    return zoo.fit(pair, data, seeds=seeds, progress=False, on_divergence="warn", **settings)


def learned_with_gaps(rows: int, seeds: int, steps: int) -> pd.DataFrame:
    """Evidence of complete test rows, of a pair fitted to all entries of the others and to 70 % of them."""
    tables = dict(simulated(rows))
    rng = np.random.default_rng(1)
    found = []
    for kind, name, objective in SIMULATED:
        x = tables[kind]
        complete, gapped = (
            zoo.Data.from_array(values, name=kind, split=(0.6, 0.1, 0.3), resolution=None)
            for values in (x, np.where(rng.random(x.shape) < GAPS, np.nan, x))
        )
        with_gaps, without = (
            Score.of_seeds(
                fitted(name, data, seeds, steps=steps, objective=objective).log_evidence(complete.test.values, 500)
            )
            for data in (gapped, complete)
        )
        difference = Difference.between(with_gaps, without)
        found.append(
            {
                "data": f"{kind}, {rows} rows",
                "pair": name,
                "objective": objective,
                "all entries": without.values.mean(),
                f"{1 - GAPS:.0%} of them": with_gaps.values.mean(),
                "difference": difference.mean,
                "standard error": difference.error,
                "within two": abs(difference.mean) <= 2 * difference.error,
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
        for name in ("gaussian-constrained", "gaussian-binned"):
            run = fitted(name, data, seeds, steps=steps)
            row: dict[str, Any] = {"trained on": told, "pair": name}
            scores = []
            for method in get_args(ImputationMethod):
                group = imputation(run, data, HIDDEN_PIXELS, method)
                scores.append(group["log_score_mean"].values)
                row[method] = scores[-1].mean()
                row[f"{method} RMSE"] = float(group["rmse"].mean())
            importance, gibbs, pseudo = scores
            row["in order"] = gibbs.mean() >= importance.mean() and min(importance.mean(), gibbs.mean()) > pseudo.mean()
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
                    found.append(row | {"better than means": better})
    return pd.DataFrame(found)


def main(quick: bool = False) -> None:
    seeds, steps, rows = 2, 200 if quick else 2000, 2_000 if quick else 30_000
    tables = {
        "Evidence in nats per datum, learned with gaps": learned_with_gaps(rows, seeds, steps),
        "Half of the pixels of the test digits hidden: log score in nats per pixel": half_of_the_pixels(seeds, steps),
        "A tenth of the test entries hidden: error": beside_imputers(seeds, steps),
    }
    for title, table in tables.items():
        print(f"\n{title}\n{table.to_string(index=False, float_format='{:.4g}'.format)}")
    if not quick and not all(table.iloc[:, -1].all() for table in tables.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
