"""Which pair explains held-out data best: the paired comparison of runs, from their DataTrees alone."""

from zoo.comparison.cautions import cautions
from zoo.comparison.choices import Family, families
from zoo.comparison.contenders import Contender, contenders
from zoo.comparison.outcome import COLLAPSED, HasTree, Outcome, Source, outcomes, with_ensembles
from zoo.comparison.recommendation import Answer, Reason, Recommendation, answer, answer_over
from zoo.comparison.table import across_splits, compare
from zoo.comparison.weights import elpd

__all__ = [
    "COLLAPSED",
    "Answer",
    "Contender",
    "Family",
    "HasTree",
    "Outcome",
    "Reason",
    "Recommendation",
    "Source",
    "across_splits",
    "answer",
    "answer_over",
    "cautions",
    "compare",
    "contenders",
    "elpd",
    "families",
    "outcomes",
    "with_ensembles",
]
