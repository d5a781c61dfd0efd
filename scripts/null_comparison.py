"""How often a pair is called better or worse than itself, seeds against other seeds: nominal is one in twenty.

python scripts/null_comparison.py

Four pairs are trained on data from three known truths, 32 seeds each; then groups of 2, 4 and 8 of their seeds are
drawn, without overlap, and compared as two runs are.
"""

from collections.abc import Iterator

import numpy as np
import typer
from numpy.typing import NDArray

import zoo
from zoo.comparison.difference import Difference, Score

PAIRS = ("gaussian-shared", "gaussian-constrained", "gaussian-identity", "gmm-constrained")
ROWS, SEEDS, GROUPS = 400, 32, (2, 4, 8)


def truths() -> Iterator[zoo.Data]:
    """A mixture of four normals, factor analysis, and a noisy ring with a lognormal column."""
    rng = np.random.default_rng(0)
    of = rng.integers(4, size=ROWS)
    means, scales = 3 * rng.normal(size=(4, 4)), rng.uniform(0.4, 1.2, (4, 4))
    mixture = means[of] + scales[of] * rng.normal(size=(ROWS, 4))
    factors = rng.normal(size=(ROWS, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(ROWS, 6))
    angle, radius = rng.uniform(0, 2 * np.pi, ROWS), 2 + 0.15 * rng.normal(size=ROWS)
    ring = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.lognormal(0, 0.5, ROWS)])
    for name, x in (("mixture", mixture), ("factors", factors), ("ring", ring)):
        yield zoo.Data.from_array(x, name=name, split=(0.6, 0.1, 0.3))


def share_called_different(evidence: NDArray[np.float64], group: int, draws: int) -> float:
    """Of random pairs of groups of the seeds of one run, evidence (S, N), how many are called different."""
    rng = np.random.default_rng(group)
    called = 0
    for _ in range(draws):
        seeds = rng.permutation(len(evidence))[: 2 * group]
        one, other = (Score.of_seeds(evidence[half]) for half in (seeds[:group], seeds[group:]))
        called += Difference.between(one, other).beyond_noise or Difference.between(other, one).beyond_noise
    return called / draws


def main(steps: int = 500, draws: int = 1000) -> None:
    print("truth     pair                   " + "".join(f"{group} seeds  " for group in GROUPS) + "sd over seeds, nats")
    shares = []
    for data in truths():
        for name in PAIRS:
            options = {"components": 4} if name.startswith("gmm") else {"hidden": (32,), "latent_dim": 2}
            pair = zoo.create(name, data, **options)
            run = zoo.fit(
                pair, data, seeds=SEEDS, steps=steps, learning_rate=0.01, progress=False, on_divergence="warn"
            )
            evidence = run.log_evidence(data.test.values, samples=500)
            shares.append([share_called_different(evidence, group, draws) for group in GROUPS])
            told = "".join(f"{share:7.1%}  " for share in shares[-1])
            print(f"{data.name:9} {name:22} {told}{evidence.mean(1).std():.3f}")
    print(f"{'mean':32} " + "".join(f"{share:7.1%}  " for share in np.mean(shares, axis=0)))


if __name__ == "__main__":
    typer.run(main)
