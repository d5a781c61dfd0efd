"""Pages that are written from the code: one for each pair of the catalogue, their table, and the command line."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import zoo
from zoo.catalogue import options_of

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ADVICE: dict[str, str] = tomllib.loads((DOCS / "catalogue" / "advice.toml").read_text(encoding="utf-8"))
KINDS = {
    "real": "Real numbers",
    "positive": "Positive amounts",
    "unit": "Shares and grey values",
    "count": "Counts",
    "ordinal": "Levels in an order",
    "binary": "Zeros and ones",
    "mixed": "Columns of several kinds",
}
EXAMPLES = {
    "real": "wine", "positive": "amounts.csv", "unit": "shares.csv", "count": "counts.csv", "ordinal": "digits",
    "binary": "digits --binarize threshold", "mixed": "penguins",
}  # fmt: skip

LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ⱼₖ", "0123456789jk", strict=True))
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ᵀ", "0123456789-T", strict=True))
SIGNS = {
    ",  ": r",\quad ", "∣": r"\mid", "~": r"\sim ", "∏": r"\prod", "∫": r"\int ", "≤": r"\le ",
    " dz": r"\,dz", "\\, +": " +",
}  # fmt: skip


def tex(formula: str) -> str:
    r"""A card's formula, a line of text, as TeX.

    >>> tex("p(x|z) = ∏ⱼ N(xⱼ; μⱼ(z), σⱼ²(z)),  σ(z) = exp v(z)")
    'p(x\\mid z) = ∏_{j} \\mathcal{N}(x_{j}; μ_{j}(z), σ_{j}^{2}(z)),\\quad σ(z) = \\mathrm{exp}\\, v(z)'
    """
    text = re.sub(r"(?<![A-Za-z])(?!d[zuλ]\b|Wz)([A-Za-z]{2,})( ?)", _word, formula.replace("|z)", "∣ z)"))
    text = re.sub(f"[{''.join(RAISED)}]+", lambda found: "^{" + "".join(RAISED[c] for c in found[0]) + "}", text)
    text = re.sub(f"[{''.join(LOWERED)}]+", lambda found: "_{" + "".join(LOWERED[c] for c in found[0]) + "}", text)
    text = re.sub(r"\^\(((?:[^()]|\([^()]*\))*)\)", r"^{\1}", text)
    text = re.sub(r"\^(\\mathrm\{\w+\}\\, v\(z\)|\w_\{\w+\})", r"^{\1}", text)
    text = re.sub(r"_k_\{j\}", "_{kj}", text)  # an index beside another, not of it
    text = re.sub(r"_(\\mathrm\{\w+\}\(j\)|\w_\{\w+\})", r"_{\1}", text)
    text = re.sub(r"(?<=[=}] )Σ_", r"\\sum_", text)
    text = re.sub(r"√\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\bN\(", r"\\mathcal{N}(", text)
    for sign, command in SIGNS.items():
        text = text.replace(sign, command)
    return text


def _word(found: re.Match[str]) -> str:
    if found[1] in ("or", "over", "all"):
        return rf"\ \mathrm{{{found[1]}}}\ "
    return rf"\mathrm{{{found[1]}}}" + r"\, " * bool(found[2])


def table() -> str:
    """All pairs, grouped by kind of data."""
    lines = []
    for kind, title in KINDS.items():
        names = [name for name in zoo.list_pairs() if zoo.card(name).support == kind]
        lines += [f"## {title}", "", "| pair | bounded above? | likelihood |", "|---|---|---|"]
        for name in names:
            card = zoo.card(name)
            formula = f"${tex(card.formula)}$".replace("|", r"\vert ")
            lines.append(f"| [`{name}`]({name}.md) | {_short(card)} | {formula} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def _short(card: zoo.Card) -> str:
    return "yes" if card.bounded else "on a condition" if card.bounded_if else "**no**"


def _bounded(card: zoo.Card) -> str:
    if card.bounded:
        return f"yes: ${tex(card.bound)}$" if card.bound != "0" else "yes: it is a probability"
    return card.boundedness if card.bounded_if else "**no**"


def page(name: str) -> str:
    """The page of one pair."""
    card = zoo.card(name)
    facts = {
        "Data": f"{KINDS[card.support].lower()}; the formula is a {card.base_measure}",
        "Bounded above, per row": _bounded(card),
        "Trained by": f"`{card.objective}` with the guide `{card.guide}` and learning rate {card.learning_rate:g}",
        "In scaled units": card.claims["in scaled units"],
        "Cannot be answered": card.claims["not known"],
        "Instead": ", ".join(f"`{pair}`" for pair in card.remedies),
        "Source": f"[{card.reference}]({card.link})" if card.link else card.reference,
    }
    kind = options_of(name)
    hints = get_type_hints(kind)
    options = [f"| `{f.name}` | {_type(hints[f.name])} | `{_value(f.default)}` |" for f in fields(kind)]
    presets = [f"- `{name}[preset={preset.name}]`: {preset.clamp}." for preset in card.presets]
    return "\n".join(
        [
            f"# `{name}`",
            "",
            f"**{card.title}.** {card.summary}",
            "",
            f"$$\n{tex(card.formula)}\n$$",
            "",
            *(f":{fact}: {text}" for fact, text in facts.items() if text),
            "",
            "## When to use it",
            "",
            ADVICE[name],
            "",
            "```sh",
            f"zoo compare {name} --data {EXAMPLES[card.support]} --out comparison",
            "```",
            "",
            "## Does it run away?",
            "",
            f"```{{picture}} path {name}",
            f":alt: The log likelihood of {name} on 20 rows along the path that raises it most.",
            "The exact log likelihood of 20 simulated rows while the decoder is steered to gain the most"
            " ({func}`zoo.witness`). [What this shows](../concepts/well-posed.md).",
            "```",
            "",
            "## Options",
            "",
            "| option | values | default |",
            "|---|---|---|",
            *options,
            "",
            *(["Presets reproduce the floor of a published code:", "", *presets, ""] if presets else []),
        ]
    )


def _type(hint: object) -> str:
    from zoo.command_line import _type_text

    return _type_text(hint).replace("|", "or")


def _value(default: object) -> str:
    return "none" if default is None else str(default)


def command_line() -> str:
    """What ``zoo --help`` and ``zoo COMMAND --help`` say."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from zoo.command_line import app

    command = get_command(app)
    with command.make_context("zoo", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="zoo", title="Command line")
    return re.sub(r"(?m)^# `zoo`$", "# Command line", text)


def write(_: Sphinx | None = None) -> None:
    """Write all pages, each only if it has changed, so that Sphinx reads no page twice."""
    pages = {f"catalogue/{name}.md": page(name) for name in zoo.list_pairs()}
    pages |= {"catalogue/_table.md": table(), "api/command-line.md": command_line()}
    for place, text in pages.items():
        file = DOCS / place
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
