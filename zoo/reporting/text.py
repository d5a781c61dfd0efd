"""Numbers, ranges and remarks as the report prints them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from zoo.reporting.ink import DASH, MINUS, TIMES

__all__ = ["decade", "distinct", "number", "percent", "power_of_ten", "sentence", "short", "span"]


def number(value: float | None, more: int = 0) -> str:
    """A number for people: three or four digits, a power of ten beyond a million, a typographic minus, a dash for NaN.

    ``more`` adds decimals that tell it from others.
    """
    if value is None or np.isnan(value):
        return DASH
    if np.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if 0 < size < 1e-3 or size >= 1e6:
        exponent = math.floor(math.log10(size))
        return f"{number(value / 10.0**exponent, more)}{TIMES}{power_of_ten(exponent)}"
    places = next((places for limit, places in ((1000, 0), (10, 1), (0.1, 2), (1e-3, 3)) if size >= limit), 0)
    return f"{value + 0.0:,.{places + more}f}".replace("-", MINUS)


def distinct(values: Iterable[float]) -> list[str]:
    """Numbers for people, with up to two more decimals than usual if needed to tell them apart.

    >>> distinct([-18.12, -18.07, -21.0])
    ['−18.12', '−18.07', '−21.00']
    """
    values = [*values]
    for more in range(3):
        texts = [number(value, more) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def percent(value: float) -> str:
    """A share for people: 76.3 %."""
    return DASH if np.isnan(value) else f"{100 * value:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def span(values: Sequence[int]) -> str:
    """The numbers of several seeds as one number, or as a range."""
    low, high = (min(values), max(values)) if len(values) else (DASH, DASH)
    return str(low) if low == high else f"{low} to {high}"


def sentence(parts: Sequence[str]) -> str:
    """Remarks as one sentence."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def short(text: str, length: int) -> str:
    """A text shortened in the middle, since many differ only at the end or in the brackets there.

    >>> short("Gaussian, variance ≥ floor (floor=0.01)", 36)
    'Gaussian, variance ≥ f… (floor=0.01)'
    """
    if len(text) <= length:
        return text
    bracket = text.rfind(" (") if text.endswith(")") else -1
    end = bracket if len(text) - 2 * length / 3 < bracket else len(text) - length // 2
    return f"{text[: length - 1 - (len(text) - end)].rstrip()}…{text[end:]}"


def decade(value: float) -> str:
    """A tick of a logarithmic axis: 0.02, 10⁻⁶, 2 × 10⁻⁶."""
    if 1e-3 <= value <= 1e4:
        return f"{value:.6g}"
    digits, _, exponent = f"{value:.5e}".partition("e")
    factor = f"{float(digits):g}"
    return (f"{factor}{TIMES}" if factor != "1" else "") + power_of_ten(int(exponent))


def power_of_ten(exponent: int) -> str:
    """10⁻⁶."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
