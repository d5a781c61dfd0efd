"""The zoo's results against known answers: closed forms and scikit-learn, on data for which both exist.

python scripts/ground_truth.py      # about three minutes on two cores

Evidence is in nats per datum and in scaled units, on the rows that scikit-learn is given too. What is compared is the
maximum of the likelihood of the training part, so the fits keep their last weights: those of the best validation ELBO
are often short of it (on wine, 18 rows may choose step 40 of 2000).
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
import typer
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

import zoo
from zoo.context import Stream
from zoo.data import Part
from zoo.guides import ClosedFormNormal
from zoo.inference import LogWeights, log_mean_exp, row_blocks

RANK, SEEDS, DRAWS = 5, 4, 5000


class Displaced(nn.Module):
    """A guide that is wrong by a known amount: 1.2 times the posterior's scale, its mean 0.2 of a deviation off."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> None:
        """Declare q(z | x) for x of shape (B, D)."""
        mean, scale_tril = self.model.posterior(x)
        off = 0.2 * scale_tril.square().sum(1).sqrt()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(mean + off, scale_tril=1.2 * scale_tril))


def varying(data: zoo.Data) -> zoo.Data:
    """The same rows without the columns that are constant in training."""
    columns = data.train_std > 0
    parts: dict[Part, Any] = {"train": data.train, "validation": data.validation, "test": data.test}
    return zoo.Data.from_array(
        np.concatenate([rows.values[:, columns] for rows in parts.values()]),
        name=f"{data.name}, columns that vary",
        support=data.support,
        levels=data.levels,
        scaling=data.scaling.kind,
        split=[part for part, rows in parts.items() for _ in rows],
    )


def evidence(run: zoo.Run, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean closed-form evidence of rows in scaled units, (S,)."""
    rows = torch.as_tensor(x)
    return np.array([float(e.mean()) for e in run.each_seed(lambda p, _: p.log_evidence(rows), Stream.EVIDENCE)])


def variances(run: zoo.Run) -> np.ndarray[Any, Any]:
    """The learned variances, (S, 1 or D)."""
    return (2 * run.weights["model.log_scale"].double()).exp().numpy()


def furthest(values: np.ndarray[Any, Any], from_: float) -> float:
    """The seed that is furthest from the known answer."""
    return float(values[np.abs(values - from_).argmax()])


def linear(name: str, data: zoo.Data, **settings: Any) -> zoo.Run:
    pair = zoo.create(name, data, latent_dim=RANK)
    return zoo.fit(pair, data, seeds=SEEDS, keep="last", progress=False, **settings)


def principal_components(names: list[str], guides: list[str]) -> pd.DataFrame:
    """linear-shared against the closed form and PCA.score.

    The variance is compared with the mean of the discarded eigenvalues of the 1/n covariance, the maximum of the
    likelihood; that of scikit-learn, in PCA.score too, is n/(n-1) times as large.
    """
    rows = []
    for name in names:
        data = zoo.load_data(name)
        train, test = data.scaled("train"), data.scaled("test")
        reference = PCA(RANK, svd_solver="full").fit(train)
        eigenvalues = np.linalg.eigvalsh(np.cov(train.T, bias=True))[::-1]
        discarded = eigenvalues[RANK:].mean()
        spectrum = np.log(eigenvalues[:RANK]).sum() + (data.features - RANK) * np.log(discarded)
        maximum = -(data.features * (np.log(2 * np.pi) + 1) + spectrum) / 2
        for guide in guides:
            run = linear(f"linear-shared:{guide}", data)
            rows.append(
                {
                    "data": data.name,
                    "guide": guide,
                    "maximum": maximum,
                    "PCA train": reference.score(train),
                    "zoo train": furthest(evidence(run, train), maximum),
                    "PCA held out": reference.score(test),
                    "zoo held out": furthest(evidence(run, test), reference.score(test)),
                    "variance": discarded,
                    "zoo variance": furthest(variances(run)[:, 0], discarded),
                }
            )
    return pd.DataFrame(rows)


def factors(data: list[zoo.Data], guides: list[str]) -> pd.DataFrame:
    """linear-diagonal against FactorAnalysis.score."""
    rows = []
    for of in data:
        train, test = of.scaled("train"), of.scaled("test")
        reference = FactorAnalysis(RANK, svd_method="lapack", tol=1e-4, max_iter=20_000).fit(train)
        for guide in guides:
            run = linear(f"linear-diagonal:{guide}", of, on_divergence="warn")
            alarms = int((run.tree["optimization"]["ran_away_at"] >= 0).sum())
            rows.append(
                {
                    "data": of.name,
                    "guide": guide,
                    "FA train": reference.score(train),
                    "zoo train": furthest(evidence(run, train), reference.score(train)),
                    "FA held out": reference.score(test),
                    "zoo held out": furthest(evidence(run, test), reference.score(test)),
                    "least variance": reference.noise_variance_.min(),
                    "zoo's": variances(run).min(),
                    "ran away": f"{alarms} of {SEEDS}",
                }
            )
    return pd.DataFrame(rows)


def weights(names: list[str]) -> pd.DataFrame:
    """Importance estimates against the exact evidence at the same parameters."""
    guides: dict[str, Callable[[Any], nn.Module]] = {"exact": ClosedFormNormal, "displaced": Displaced}
    rows = []
    for name in names:
        data = zoo.load_data(name)
        x = torch.as_tensor(data.scaled("test"), dtype=torch.float32)
        run = linear("linear-shared", data)
        for label, guide in guides.items():
            score = partial(importance_error, guide, x)
            gap, error = (torch.cat(of) for of in zip(*run.each_seed(score, Stream.EVIDENCE), strict=True))
            rows.append(
                {
                    "data": data.name,
                    "guide": label,
                    "data x seeds": len(gap),
                    "largest gap": float(gap.max()),
                    "mean standard error": float(error.mean()),
                    "within 3 of them + 1e-4": f"{float((gap <= 3 * error + 1e-4).double().mean()):.2%}",
                }
            )
    return pd.DataFrame(rows)


def importance_error(guide_of: Callable[[Any], nn.Module], x: Tensor, model: Any, _: Any) -> tuple[Tensor, Tensor]:
    """How far the importance estimate of each row is from the closed form, and its own standard error, (N,) each."""
    guide = guide_of(model)
    log_weights = torch.cat([LogWeights(DRAWS)(model, guide, rows) for rows in row_blocks(x, DRAWS)], dim=1)
    estimate = log_mean_exp(log_weights)
    error = (log_weights - estimate).exp().std(0) / DRAWS**0.5
    return (estimate - model.log_evidence(x)).abs(), error


def mixtures(covariances: list[str]) -> pd.DataFrame:
    """The pair gmm against GaussianMixture, best of ten starts each, on clusters that are well apart.

    There both find the same maximum, and scikit-learn's reg_covar, 1e-6 on each variance, moves it by less than 1e-6.
    """
    rng = np.random.default_rng(0)
    centres = 12 * np.eye(4)
    x = np.concatenate([c + rng.normal(size=(150, 4)) * rng.uniform(0.5, 1.5, 4) for c in centres])
    data = zoo.Data.from_array(rng.permutation(x), name="four clusters")
    train = data.scaled("train")
    rows = []
    for ours in covariances:
        theirs = ours.replace("diagonal", "diag")
        reference = GaussianMixture(4, covariance_type=theirs, n_init=10, tol=1e-9, max_iter=1000, random_state=0)
        pair = zoo.create("gmm", data, components=4, covariance=ours)
        run = zoo.fit(pair, data, seeds=10, batch_size=len(train), keep="last", progress=False)
        score = run.log_evidence(data.train.values).mean(1) + pair.view.log_volume
        best = reference.fit(train).score(train)
        rows.append({"covariance": ours, "scikit-learn": best, "zoo": score.max(), "gap": score.max() - best})
    return pd.DataFrame(rows)


def known_pair() -> pd.DataFrame:
    """Data drawn from a pair with known parameters come back from zoo.evaluate with the evidence that they have."""
    rng = np.random.default_rng(0)
    features, rows = 12, []
    weight, bias = rng.normal(size=(features, RANK)), rng.normal(size=features)
    for name, log_scale in {
        "linear-shared": np.full(1, -0.5),
        "linear-diagonal": rng.normal(size=features) / 2,
    }.items():
        covariance = weight @ weight.T + np.exp(2 * log_scale) * np.eye(features)
        truth = multivariate_normal(bias, covariance)
        data = zoo.Data.from_array(truth.rvs(3000, random_state=1), name="simulated", scaling="none")
        run = zoo.fit(zoo.create(name, data, latent_dim=RANK), data, seeds=1, steps=1, progress=False)
        known = {"decoder.weight": weight, "decoder.bias": bias, "log_scale": log_scale}
        tensors = {f"model.{key}": torch.as_tensor(value, dtype=torch.float32)[None] for key, value in known.items()}
        tree = zoo.evaluate(replace(run, weights={**run.weights, **tensors}), data)
        exact, found = truth.logpdf(data.test.values), tree["heldout"].to_dataset()["log_evidence"].values[0]
        row = {"pair": name, "known": exact.mean(), "zoo": found.mean(), "largest gap": np.abs(found - exact).max()}
        if "calibration" in tree.children:
            coverage = tree["calibration"].to_dataset()["coverage"].sel(kind="leave-one-out")
            shares = coverage.mean(["chain", "feature"]).to_series()
            row |= {f"{level:.0%} covers": share for level, share in shares.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def show(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}\n{table.to_string(index=False, float_format=decimals)}", flush=True)


def decimals(number: float) -> str:
    return f"{number:.4f}" if abs(number) >= 1e-3 else f"{number:.1e}"


def main() -> None:
    started = time.perf_counter()
    warnings.simplefilter("ignore", zoo.errors.DivergenceWarning)  # the tables say who ran away
    print(f"Rank {RANK}, {SEEDS} seeds (shown: the one furthest off), zoo.fit's defaults.")

    show(
        "Probabilistic PCA: linear-shared",
        principal_components(["digits", "wine", "breast-cancer"], ["exact", "linear"]),
    )
    well_posed = [zoo.load_data("wine"), varying(zoo.load_data("digits"))]
    show("Factor analysis: linear-diagonal", factors(well_posed, ["exact", "linear"]))
    ill_posed = [zoo.load_data(name) for name in ("digits", "breast-cancer")]
    show("The same where it is ill-posed, or nearly so (Heywood cases)", factors(ill_posed, ["exact"]))
    show(f"Importance weights, K = {DRAWS}, against the closed form", weights(["digits", "wine", "breast-cancer"]))
    show("Gaussian mixtures, best of ten starts", mixtures(["diagonal", "full", "spherical", "tied"]))
    show("Data drawn from a known pair, as zoo.evaluate scores them", known_pair())
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
