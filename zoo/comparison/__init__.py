"""Which pair explains held-out data best: the paired comparison of runs, from their DataTrees alone."""

from zoo.comparison.outcome import COLLAPSED, HasTree, Outcome, Source, outcomes, with_ensembles
from zoo.comparison.table import across_splits, compare
from zoo.comparison.weights import elpd

__all__ = [
    "COLLAPSED",
    "HasTree",
    "Outcome",
    "Source",
    "across_splits",
    "compare",
    "elpd",
    "outcomes",
    "with_ensembles",
]
