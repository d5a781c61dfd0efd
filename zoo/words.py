"""How plain text writes nats, scales, lists of names and hints at a near one, and how a notebook shows facts."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

__all__ = ["did_you_mean", "few", "html_facts", "listing", "nats", "places", "plus_minus", "scale"]

FINEST = 3  # decimals: a thousandth of a nat is rounding
HUGE = 1e6  # from here on a number is written as a power of ten


def few(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def did_you_mean(wrong: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a sentence about an unknown name: the closest known name, if one is close.

    >>> did_you_mean("stepz", ["steps", "seeds"]), did_you_mean("x", ["steps"], ".")
    ("; did you mean 'steps'?", '.')
    """
    near = difflib.get_close_matches(wrong, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else otherwise


def nats(value: float, decimals: int = 1) -> str:
    """A number of nats, never minus zero, and from a million on as a power of ten.

    >>> nats(-0.04), nats(-12345.67), nats(-2.74e21)
    ('0.0', '-12,345.7', '-2.7e21')
    """
    if HUGE <= abs(value) < math.inf:
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{round(float(value), decimals) + 0.0:,.{decimals}f}"


def places(error: float) -> int:
    """How many decimals show two significant digits of an error."""
    if not 0 < error < math.inf:
        return FINEST
    return min(max(1 - int(f"{error:.1e}".partition("e")[2]), 0), FINEST)


def plus_minus(value: float, *errors: float) -> str:
    """A number with its errors, to two significant digits of the largest; an unknown error is left out.

    An exact zero without error is 0.

    >>> plus_minus(-0.319198, 0.000033, 0.021), plus_minus(-1.5, 0.0), plus_minus(0.0, 0.0, 0.0)
    ('-0.319 ± 0.000 ± 0.021', '-1.500 ± 0.000', '0')
    """
    known = [error for error in errors if not np.isnan(error)]
    if not any((value, *known)):
        return "0"
    decimals = places(max(known, default=0.01))
    return " ± ".join(nats(number, decimals) for number in (value, *known))


def scale(value: float) -> str:
    """A scale, such as 3e-7."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")


def listing(names: Sequence[str], joint: str = "and", most: int | None = None) -> str:
    """Names joined as in a sentence: all, or the first and how many more there are.

    >>> listing(["a", "b", "c"]), listing(["a", "b"], "or"), listing(["a"]), listing(["a", "b", "c"], most=1)
    ('a, b and c', 'a or b', 'a', 'a and 2 more')
    """
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return f" {joint} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def html_facts(facts: Mapping[str, str]) -> str:
    """Named facts as a table for a notebook; empty ones are left out.

    >>> html_facts({"likelihood": "p(x|z) < 1", "bound": ""})
    '<table><tr><th>likelihood</th><td>p(x|z) &lt; 1</td></tr></table>'
    """
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items() if text)
    return f"<table>{''.join(rows)}</table>"
