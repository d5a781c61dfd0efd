"""What a pair claims about itself: plain data, readable without torch."""

import math
import re
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, Literal, NamedTuple, cast, get_args

from zoo.errors import OptionError
from zoo.supports import SUPPORTS, Column, ColumnSupport, Support, models
from zoo.words import html_facts

__all__ = ["ANOTHER_MODEL", "BaseMeasure", "Card", "Preset", "kept_weights"]

BaseMeasure = Literal["density", "mass", "mixed"]

# said of a pair that is not the same model under every scaling
ANOTHER_MODEL = 'scaling="column" and scaling="scalar" give different models of the data as loaded'

Bounds = Literal["likelihood", "penalized likelihood", "objective"]
_CHOICES = {
    "support": get_args(Support),
    "base_measure": get_args(BaseMeasure),
    "bounds": get_args(Bounds),
}


class Preset(NamedTuple):
    """Options that give a pair the floor, or the clamp, of a published code.

    Attributes:
        name: the published system, chosen as ``PAIR[preset=NAME]``.
        options: the options it sets.
        clamp: what that code does.
        link: where the code does it.
    """

    name: str
    options: dict[str, Any]
    clamp: str
    link: str = ""

    def __str__(self) -> str:
        sets = ", ".join(f"{option}={value:.4g}" for option, value in self.options.items())
        return f"{self.name} ({sets}): {self.clamp}"


@dataclass(frozen=True)
class Card:
    """The claims of one pair.

    Attributes:
        name: its name in the catalogue.
        title: its name in tables and pictures.
        summary: one line to help choose.
        formula: the likelihood, as a line of text.
        reference: authors, year and title of the source.
        link: where to read it.
        support: the data the likelihood is a probability model of; "real" takes any numbers, "mixed" any columns.
        base_measure: what the evidence is a logarithm of: a "density" with respect to Lebesgue measure, which
            may exceed 0, a "mass", which may not, or "mixed", a mass of the discrete columns and a density of the
            others. What is ranked is under the data's measure, whatever this is.
        bounded: whether the likelihood of every data set has a finite upper bound over the parameters.
        bound: that bound per datum, as a formula; D is the number of features.
        bounded_if: for a pair that is not bounded throughout, the condition under which something is.
        bounds: what ``bound`` or ``bounded_if`` refers to: the "likelihood", the "penalized likelihood" or the
            training "objective".
        guide: the default guide, by a registered name or one of its own.
        objective: the default objective; the weights kept have the best validation ELBO, whatever the objective.
        learning_rate: Adam's default step size.
        remedies: for an unbounded pair, the names of pairs that cure it.
        in_scaled_units: a variance that all columns share, in words: scaling each column by itself gives a different
            model than scaling all alike. Empty if each column has its own variance; a floor or a range of variances
            is an option, which reports give in both units.
        presets: options of published systems, by name.
        unknown: questions the pair, or one of its options, cannot answer, by their names in
            :func:`zoo.testing.check_pair`.
    """

    name: str
    _: KW_ONLY
    title: str
    summary: str
    formula: str
    reference: str
    support: Support
    bounded: bool
    bound: str = ""
    bounded_if: str = ""
    bounds: Bounds = "likelihood"
    base_measure: BaseMeasure = "density"
    link: str = ""
    guide: str = "mean-field"
    objective: str = "elbo"
    learning_rate: float = 3e-3
    remedies: tuple[str, ...] = ()
    in_scaled_units: str = ""
    presets: tuple[Preset, ...] = ()
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise OptionError(f"pair name {self.name!r}: use lower-case words and numbers joined by hyphens.")
        for claim, known in _CHOICES.items():
            if (told := getattr(self, claim)) not in known:
                raise OptionError(f"{self.name}: {claim}={told!r}; choose from {', '.join(known)}.")
        if not isinstance(self.remedies, tuple) or not all(isinstance(name, str) and name for name in self.remedies):
            raise OptionError(f"{self.name}: remedies={self.remedies!r}; give a tuple of names.")
        if not (isinstance(self.guide, str) and self.guide):
            raise OptionError(f"{self.name}: guide={self.guide!r}; give the name of its default guide.")
        if not (isinstance(self.title, str) and self.title.strip()):
            raise OptionError(f"{self.name}: title={self.title!r}; tables and pictures need a name for it.")
        if not (isinstance(self.learning_rate, Real) and 0 < self.learning_rate < math.inf):
            raise OptionError(f"{self.name}: learning_rate={self.learning_rate!r}; give a positive number.")
        if self.bounded and not self.bound:
            raise OptionError(f"{self.name}: bounded=True without a bound; write its formula, as bound='0' of a mass.")
        if self.bounded and self.bounded_if:
            raise OptionError(
                f"{self.name}: bounded=True has no condition; leave bounded_if out, or set bounded=False."
            )
        if self.base_measure == "mass" and not self.bounded:
            raise OptionError(f"{self.name}: a mass is at most 1, so bounded=True.")

    @property
    def claims(self) -> dict[str, str]:
        """All claims in words; empty where there is nothing to say."""
        return {
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "likelihood": self.formula,
            "data": f"{self.support}; its formula is a {_MEASURES[self.base_measure]}",
            "bounded": self.boundedness + " nats per datum" * self.bounded,
            "instead": ", ".join(self.remedies),
            "guide": f"{self.guide}, or another that serves its latents (`zoo parts {self.name}` lists them)",
            "objective": f"{self.objective}, learning rate {self.learning_rate:g}",
            "weights kept": kept_weights(self.objective, "best"),
            "in scaled units": self.in_scaled_units and f"{self.in_scaled_units}: {ANOTHER_MODEL}",
            "presets": "; ".join(map(str, self.presets)),
            "not known": "; ".join(_UNKNOWN.get(answer, answer) for answer in self.unknown),
            "reference": self.reference,
            "link": self.link,
        }

    def _repr_html_(self) -> str:
        """The claims, for a notebook."""
        return html_facts(self.claims)

    @property
    def boundedness(self) -> str:
        """Whether, or under which condition, the likelihood per datum is bounded above, in words.

        >>> import zoo
        >>> zoo.card("linear-shared").boundedness
        'only if the training data lie in no proper affine subspace of at most latent_dim dimensions'
        """
        if self.bounded:
            return f"yes, by {self.bound}"
        if not self.bounded_if:
            return "no"
        if self.bounds == "likelihood":
            return f"only {self.bounded_if}"
        return f"no; the {self.bounds} is, {self.bounded_if}"

    def preset(self, name: str) -> dict[str, Any]:
        """The options that a preset stands for.

        Raises:
            OptionError: the pair has no preset of that name.

        >>> import zoo
        >>> zoo.card("student-t").preset("miwae")
        {'smallest': 0.001, 'least_df': 3.0}
        """
        known = {preset.name: preset.options for preset in self.presets}
        if not isinstance(name, str) or name not in known:
            listed = f"choose from {', '.join(known)}" if known else "this pair has none"
            raise OptionError(f"{self.name}: preset={name!r}; {listed}.")
        return known[name]

    def takes(self, columns: Iterable[Column]) -> bool:
        """Whether the likelihood is a probability model of all these columns.

        >>> import zoo
        >>> zoo.card("bernoulli").takes([Column(name="share", support="unit")])
        False
        """
        return all(models(self.support, column) for column in columns)

    def takes_support(self, support: str) -> bool:
        """Whether it models data of this support, provided the levels fit."""
        return self.support == support or (
            support in SUPPORTS and models(self.support, Column(name="", support=cast(ColumnSupport, support)))
        )


_UNKNOWN = {"cells": "the mass of a cell: data with a resolution are dequantised, which gives a looser bound"}
_MEASURES = {
    "density": "density",
    "mass": "mass",
    "mixed": "mass of columns with cells, a density of the others",
}


def kept_weights(objective: str, keep: str) -> str:
    """Which weights of a run are scored, in words.

    >>> kept_weights("penalized", "best")
    'those of the best validation ELBO, which is not what was maximised: that is the penalized objective'
    """
    if keep == "last":
        return "those after the last step"
    plain = objective.partition("[")[0] == "elbo"
    other = "" if plain else f", which is not what was maximised: that is the {objective} objective"
    return f"those of the best validation ELBO{other}"
