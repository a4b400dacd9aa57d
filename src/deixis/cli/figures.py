"""The figures of ``deixis reproduce``: pictures of runs and of what models look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deixis import DEFAULT_MODEL
from deixis.cli.running import check_writable, tell, tell_problems

if TYPE_CHECKING:
    from PIL import Image

    from deixis.cli.tables import Wishes
    from deixis.grounder import Scene
    from deixis.papers.figures import RunLog

OF_RUNS = {
    "mcn-fig-5": "MCN Fig. 5 (b): losses of runs over their steps (--runs A,B); accuracy with --data DATASET",
    "smcim-fig-7": "SMCIM Fig. 7: difficulty over training (--run RUN)",
}
OF_MODELS = {
    "mcn-fig-6": "MCN Fig. 6: box, mask and attention of several models (--model A,B IMAGE PHRASE)",
    "smcim-fig-9": "SMCIM Fig. 9: attention of [CLS] beside the box (--model M IMAGE PHRASE)",
}


def draw_runs(wishes: Wishes) -> None:
    """Write that figure of one or, parted by commas, several run folders."""
    figure, runs = wishes.table, wishes.runs
    if wishes.arguments:
        told = " ".join(wishes.arguments)
        raise typer.BadParameter(f"{figure} needs nothing but --run RUN and --out F.png, got {told!r}")
    wishes.refuse("model", "plan", "seeds", "everywhere", *(("data", "limit") if figure == "smcim-fig-7" else ()))
    folders = [Path(one.strip()) for one in (runs or "").split(",") if one.strip()]
    if not folders or (figure == "smcim-fig-7" and len(folders) > 1):
        wanted = "--run RUN, one folder" if figure == "smcim-fig-7" else "--runs A,B, folders of runs"
        raise typer.BadParameter(f"{figure} needs {wanted}, got {runs!r}")
    out = wishes.out or Path(f"{figure}.png")
    check_writable(out, suffixes=(".png",))
    if wishes.data is not None:
        _draw_learning(folders, wishes, wishes.data, out)
        return
    from deixis.papers.figures import mcn_fig_5, read_run, smcim_fig_7

    logs: list[RunLog] = [read_run(folder) for folder in folders]
    tell_problems([f"{log.name}: {problem}" for log in logs for problem in log.problems])
    write_picture(smcim_fig_7(logs[0]) if figure == "smcim-fig-7" else mcn_fig_5(logs), out)


def _draw_learning(folders: Sequence[Path], wishes: Wishes, data: str, out: Path) -> None:
    """Accuracy of the states that the runs have kept."""
    from deixis.data import default_split, open_dataset, parse_dataset_spec
    from deixis.papers.learning import mcn_fig_5_accuracy, measure_learning

    name, split = parse_dataset_spec(data)
    split = split or default_split(name)
    samples = open_dataset(name, split=split, root=wishes.root, limit=wishes.limit)
    where = name + (f":{split}" if split else "")
    learnt = [measure_learning(folder, samples, where, precision=wishes.precision) for folder in folders]
    write_picture(mcn_fig_5_accuracy(learnt, where), out)


def draw_models(wishes: Wishes) -> None:
    """Write that figure of one or, parted by commas, several models: an image and a phrase."""
    figure, models, arguments = wishes.table, wishes.model or DEFAULT_MODEL, wishes.arguments
    if len(arguments) != 2:
        raise typer.BadParameter(f"{figure} needs IMAGE PHRASE, got {' '.join(arguments)!r}")
    wishes.refuse("data", "limit", "root", "plan", "seeds", "everywhere")
    names = [one.strip() for one in models.split(",") if one.strip()]
    if not names or (figure == "smcim-fig-9" and len(names) > 1):
        wanted = "--model M, one model" if figure == "smcim-fig-9" else "--model A,B, one or several models"
        raise typer.BadParameter(f"{figure} needs {wanted}, got {models!r}")
    image, phrase = arguments
    out = wishes.out or Path(f"{figure}.png")
    check_writable(out, suffixes=(".png",))
    from deixis.geometry.images import read_image
    from deixis.grounder import check_phrase, load

    pixels, phrase = read_image(image), check_phrase(phrase)
    scenes = (load(name, precision=wishes.precision).look(pixels) for name in names)
    pictures = [
        _fig_9(scene, phrase) if figure == "smcim-fig-9" else _fig_6(scene, phrase, name)
        for name, scene in zip(names, scenes, strict=True)
    ]
    write_picture(pictures[0] if len(pictures) == 1 else _stacked(pictures), out)


def write_picture(picture: Image.Image, out: Path) -> None:
    """Write it whole or not at all, and say so."""
    from deixis.files import atomic_write

    with atomic_write(out) as file:
        picture.save(file, format="PNG")
    tell(f"wrote {out}")


def _fig_9(scene: Scene, phrase: str) -> Image.Image:
    from deixis.attention_drawing import draw_attention
    from deixis.evaluate.word_attention import words_reaching_cls

    words = words_reaching_cls(scene, phrase)
    if not words:
        raise ValueError(
            f"expected a model of the smcim family, whose [CLS] looks at pixels, got {scene.grounder.name!r}; "
            "for others: deixis ground --attention"
        )
    box = scene.ground(phrase).box
    return draw_attention(scene.image, scene.attention(phrase), phrase, words=words, box=box)


def _fig_6(scene: Scene, phrase: str, name: str) -> Image.Image:
    """Box and mask, and where both branches look, of a model that has such maps; ``name`` is how it was asked for."""
    from deixis.attention_drawing import draw_attention
    from deixis.drawing import draw_grounding

    found = scene.ground(phrase)
    drawn = draw_grounding(scene.image, found)
    maps = scene.attention(phrase)
    if not maps:
        return drawn
    looks = draw_attention(scene.image, maps, f"{phrase} ({name})")
    from PIL import Image

    row = Image.new("RGB", (drawn.width + looks.width, looks.height), "white")
    row.paste(drawn, (0, looks.height - drawn.height))
    row.paste(looks, (drawn.width, 0))
    return row


def _stacked(rows: Sequence[Image.Image]) -> Image.Image:
    from PIL import Image

    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet
