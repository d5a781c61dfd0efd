"""The caps of published "learned variances": the most that one value can gain under the floor of each code.

python scripts/caps.py
"""

from typing import Any

import typer

import zoo


def caps() -> list[tuple[str, str, float]]:
    """For every preset: its name, what its code does, and the cap in nats per value, in the units it scales to."""
    found = []
    for name in zoo.list_pairs():
        data = zoo.testing.example_data(zoo.card(name).support, features=1)
        for preset in zoo.card(name).presets:
            chosen = f"{name}[preset={preset.name}]"
            model: Any = zoo.create(chosen, data).model
            found.append((chosen, preset.clamp, model.log_density_bound(1)))
    return sorted(found, key=lambda row: row[-1])


def main() -> None:
    print("| preset | what the code does | most nats per value |\n|---|---|---|")
    for name, clamp, cap in caps():
        print(f"| `{name}` | {clamp} | {cap:.2f} |")


if __name__ == "__main__":
    typer.run(main)
