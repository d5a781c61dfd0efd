"""Write the report on runs that were saved before: needs neither their data nor their weights.

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
