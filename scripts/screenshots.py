"""Pictures of the first screen of a report, at three widths and in both themes, by headless Chromium.

python scripts/screenshots.py demo/digits docs/screenshots
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

WIDTHS = {"desktop": (1280, 900), "tablet": (768, 1024), "phone": (390, 844)}  # CSS pixels
THEMES = {"light": 1, "dark": 0}  # Blink's numbers for prefers-color-scheme
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser() -> str:
    """The first Chromium on the path."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        sys.exit(f"no browser found among {', '.join(NAMES)}; on Debian: apt-get install chromium")
    return found


def take(page: Path, picture: Path, size: tuple[int, int], theme: int) -> None:
    """Write one picture. A window is at least 500 wide, so narrow ones show the page in a frame of that width."""
    width, height = size
    with tempfile.TemporaryDirectory() as profile:
        frame = Path(profile) / "frame.html"
        frame.write_text(
            f"<style>body{{margin:0}}iframe{{border:0;width:{width}px;height:{height}px}}</style>"
            f'<iframe src="{page.resolve().as_uri()}"></iframe>',
            encoding="utf-8",
        )
        whole = Path(profile) / "whole.png"
        subprocess.run(
            [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={theme}",
             f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=2000",
             f"--screenshot={whole}", frame.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        from PIL import Image  # matplotlib brings it

        with Image.open(whole) as image:
            image.convert("RGB").crop((0, 0, width, height)).save(picture, optimize=True)


def main(report: Path, out: Annotated[Path, typer.Argument()] = Path("docs/screenshots")) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, size in WIDTHS.items():
        for theme, number in THEMES.items():
            picture = out / f"{name}-{theme}.png"
            take(report / "index.html", picture, size, number)
            print(f"{picture}: {picture.stat().st_size // 1024} kB")


if __name__ == "__main__":
    typer.run(main)
