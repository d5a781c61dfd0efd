"""Which pair explains held-out data best: the paired comparison of runs, from their DataTrees alone."""

from zoo.comparison.cautions import cautions
from zoo.comparison.choices import Family, families
from zoo.comparison.outcome import COLLAPSED, HasTree, Outcome, Source, outcomes, with_ensembles
from zoo.comparison.table import across_splits, compare
from zoo.comparison.weights import elpd

__all__ = [
    "COLLAPSED",
    "Family",
    "HasTree",
    "Outcome",
    "Source",
    "across_splits",
    "cautions",
    "compare",
    "elpd",
    "families",
    "outcomes",
    "with_ensembles",
]
