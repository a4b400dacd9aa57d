"""Ground phrases in photographs and in a drawn scene, print a table, and write a picture for each.

Run it with ``make demo``, or ``python examples/demo.py --out DIR``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

import deixis
from deixis.grounder import Grounding

PHOTOS = Path(__file__).parent / "photos"

PHRASES = {
    "riders.jpg": ["left horse", "right horse", "the rider on the left", "person on right"],
    "skater.jpg": ["guy on the skateboard", "red car"],
    "surfer.jpg": ["man in the water", "the blue surfboard"],
}


def main() -> int:
    """Ground everything; status 1 with one sentence where the checkpoint or a photo is missing."""
    parser = argparse.ArgumentParser(description="Ground phrases in photos and a drawn scene.")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for the pictures")
    parser.add_argument("--model", default=deixis.DEFAULT_MODEL, help="a bundled name or a checkpoint folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        grounder = deixis.load(options.model)
        results = {name: grounder.look(PHOTOS / name).ground_all(phrases) for name, phrases in PHRASES.items()}
        results |= _ground_drawn_scenes(grounder)
    except (OSError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    _print_table(results)
    for name, found in results.items():
        for number, one in enumerate(found, start=1):
            one.draw().save(options.out / f"{Path(name).stem}-{number}.png")
    _side_by_side([deixis.draw(results[name][:2]) for name in PHRASES]).save(options.out / "demo.png")
    print(f"Pictures with box, mask and phrase are in {options.out.resolve()}")
    return 0


def _ground_drawn_scenes(grounder: deixis.Grounder) -> dict[str, list[Grounding]]:
    """One drawn scene of each flavour with the phrase written for it: by place, by looks, by relations."""
    samples = {name: deixis.open_dataset(name, split="val", limit=1)[0] for name in ("scenes", "scenes+", "scenesg")}
    return {f"drawn-{name}": [grounder.ground(one.image, one.phrase)] for name, one in samples.items()}


def _print_table(results: dict[str, list[Grounding]]) -> None:
    table = Table("image", "phrase", "box x1 y1 x2 y2", "score", "agreement", "verdict", "ms")
    table.title = "What the phrases point at"
    for name, found in results.items():
        for one in found:
            box = " ".join(f"{edge:.0f}" for edge in one.box or ())
            figures = f"{one.score:.2f}", f"{one.agreement:.2f}", one.verdict, f"{one.ms:.0f}"
            table.add_row(name, Text(one.phrase), box, *figures)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def _side_by_side(pictures: list[Image.Image], height_px: int = 360) -> Image.Image:
    """The pictures in one row, for the README."""
    scaled = [one.resize((round(one.width * height_px / one.height), height_px)) for one in pictures]
    row = Image.new("RGB", (sum(one.width for one in scaled) + 8 * (len(scaled) - 1), height_px), "white")
    left = 0
    for one in scaled:
        row.paste(one, (left, 0))
        left += one.width + 8
    return row


if __name__ == "__main__":
    sys.exit(main())
