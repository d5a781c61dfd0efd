"""Install a wheel into a fresh environment and use it there, with a user's own script and `models.py`.

Usage: python scripts/fresh_install.py dist/vae_zoo-0.2.0-py3-none-any.whl
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / f"constraints-{sys.version_info[0]}.{sys.version_info[1]}.txt"
MODELS = 'raise SystemExit("a models.py of the user was imported by the zoo")\n'
SCRIPT = """\
import zoo

data = zoo.load_data("iris")
run = zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=2, steps=50, progress=False)
zoo.evaluate(run, data, samples=50, temperatures=0)
print(zoo.compare(run)[["rank", "log_evidence", "verdict"]])
"""


def main(wheel: Path) -> None:
    """Install, then list pairs, run a script, and compare two pairs from the command line."""
    with tempfile.TemporaryDirectory() as folder:
        there, beside = Path(folder, "environment"), Path(folder, "beside")
        venv.create(there, with_pip=True)
        programs = there / ("Scripts" if sys.platform == "win32" else "bin")
        beside.mkdir()
        (beside / "models.py").write_text(MODELS, encoding="utf-8")
        (beside / "script.py").write_text(SCRIPT, encoding="utf-8")
        for command in (
            [programs / "python", "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, wheel.resolve()],
            [programs / "zoo", "list", "gmm*"],
            [programs / "python", "script.py"],
            [programs / "zoo", "compare", "gmm-constrained", "gaussian-constrained", "--data", "iris", "--steps", "50",
             "--samples", "50", "--temperatures", "0", "--quiet", "--out", "comparison"],
        ):  # fmt: skip
            subprocess.run([str(word) for word in command], cwd=beside, check=True)
        assert (beside / "comparison" / "index.html").is_file()
        print(f"{wheel.name} works in an environment of its own.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    main(parser.parse_args().wheel)
