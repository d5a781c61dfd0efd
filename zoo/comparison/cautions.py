"""ArviZ's warnings about a comparison, in words: few data, rows that score alike, and the best of many."""

import numpy as np
import pandas as pd

from zoo.words import listing, nats

__all__ = ["cautions"]

FEW_DATA = 100  # below it arviz_stats.compare (1.3) says "N < 100"
ALIKE = 4.0  # nats over all data: below it arviz_stats.compare (1.3) says "|elpd_diff| < 4"
MANY = 11  # with more rows arviz_stats.compare (0.8 and 1.3) looks for selection bias
NAMED = 3
UNCERTAINTY = "Sivula et al., 2025, https://doi.org/10.48550/arXiv.2008.10296"
SELECTION = "McLatchie & Vehtari, 2024, https://doi.org/10.1007/s11222-024-10442-4"


def cautions(table: pd.DataFrame) -> dict[str, list[str]]:
    """What to be careful about in a comparison, and what to do: at most one text of each kind per table.

    The limits are those ArviZ uses for cross-validation. With fewer than 100 test data, or a difference below 4 nats
    over all of them, the error is skewed or has thick tails, so a normal approximation does not describe it
    (Sivula et al., 2025, https://doi.org/10.48550/arXiv.2008.10296). Among more than 11 ranked rows the score of the
    best is optimistic, and its lead over the middle one may be chance
    (McLatchie & Vehtari, 2024, https://doi.org/10.1007/s11222-024-10442-4).

    ``table`` is what :func:`compare` returned. Tables without a caution, or with a single ranked row, are left out.

    >>> rows = {"table": "density, wine", "rank": [1, 2], "rows": 36, "difference": [0, -1], "log_evidence": [-14, -15]}
    >>> cautions(pd.DataFrame(rows, index=["gmm", "linear-shared"]))["density, wine"][0].partition(":")[0]
    '36 test data'
    """
    ranked = table[table["rank"].notna()]
    said = {
        str(label): [text for caution in (_few_data, _alike, _many) if (text := caution(rows))]
        for label, rows in ranked.groupby("table", sort=False)
        if len(rows) > 1
    }
    return {label: texts for label, texts in said.items() if texts}


def _few_data(ranked: pd.DataFrame) -> str:
    count = int(ranked["rows"].iloc[0])
    if count >= FEW_DATA:
        return ""
    return (
        f"{count} test data: with fewer than {FEW_DATA}, intervals by standard errors are not well calibrated "
        f"({UNCERTAINTY}). Repeat the comparison on several splits of the data."
    )


def _alike(ranked: pd.DataFrame) -> str:
    count = int(ranked["rows"].iloc[0])
    total = (ranked["difference"] * count).abs()
    alike = [str(name) for name in ranked.index[(total > 0) & (total < ALIKE)]]
    if count < FEW_DATA or not alike:
        return ""
    return (
        f"{listing(alike, most=NAMED)}: less than {ALIKE:.0f} nats from the first over all {count:,} test data. For "
        f"rows this close, intervals by standard errors are not well calibrated ({UNCERTAINTY}). Take the simplest."
    )


def _many(ranked: pd.DataFrame) -> str:
    scores = ranked["log_evidence"].to_numpy(float)
    scores = np.sort(scores[np.isfinite(scores)])[::-1]
    if len(scores) <= MANY:
        return ""
    lead, by_chance = _selection(scores)
    return (
        f"{len(scores)} rows: the best of so many is optimistic. It leads the middle one by {nats(lead, 2)} nats, "
        f"{'more' if lead > by_chance else 'no more'} than the {nats(by_chance, 2)} expected if all differences "
        f"between rows were noise ({SELECTION}). Score the best again on other data, or mix "
        "the rows by their weights."
    )


def _selection(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """How far the best score leads the middle one, and how far it would by chance alone; scores come best first."""
    from scipy.stats import norm

    ahead = scores - scores[len(scores) // 2]
    upper = ahead[ahead >= np.median(ahead)]
    return float(ahead[0]), float(norm.ppf(1 - 1 / (2 * (len(scores) - 1))) * np.sqrt(np.mean(upper**2)))
