"""Write the report on saved runs, without their data or weights.

python scripts/report.py report comparison/gaussian-learned comparison/gmm-constrained
"""

from pathlib import Path

import typer

import zoo


def main(out: Path, runs: list[Path]) -> None:
    print(zoo.compare(runs)["verdict"].to_string())
    print(zoo.report(runs, out))


if __name__ == "__main__":
    typer.run(main)
