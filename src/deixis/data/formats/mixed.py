"""The mix that ``deixis data make mixed`` writes (`deixis.tools.mix`): ``train.jsonl`` beside ``mix.json``.

The lines are those of `deixis.data.formats.jsonl`; an image's id names its collection, as ids of several count alike.
"""

from __future__ import annotations

from pathlib import Path

from deixis.data.annotation_masks import pack_mask
from deixis.data.formats import Format
from deixis.data.formats.jsonl import sample_of_line
from deixis.data.table import SampleTable, TableWriter


def open_mixed(root: str | Path, split: str | None = None) -> SampleTable:
    """Open a mix.

    Args:
        root: its folder, or the one above where that is called ``mixed``.
        split: ``train``, by default; another, if a file of that name was put there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: nothing in it can be read.
    """
    name = f"{split or 'train'}.jsonl"
    path = next((one for one in (Path(root) / "mixed" / name, Path(root) / name) if one.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"expected {name!r} in {str(Path(root) / 'mixed')!r}, got none; write it with: deixis data make mixed "
            "--root ROOT"
        )
    table = TableWriter(path)
    last, count = "", 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            with table.telling(f"line {number}"):
                sample = sample_of_line(line, number, path.parent)
                assert isinstance(sample.image, Path)
                if str(sample.image) != last:  # the samples of an image stand together
                    last, count = str(sample.image), count + 1
                table.add(
                    table.image(sample.image_id, str(sample.image)),
                    sample.phrase,
                    sample.box_xyxy_px,
                    name=sample.id,
                    mask=table.mask(sample.mask if isinstance(sample.mask, Path) else pack_mask(sample.mask)),
                    split=sample.split,
                    category=sample.category,
                    kind=sample.kind,
                    referent=(count, sample.box_xyxy_px),
                )
    return table.finish([path.parent], what=f"samples of {name!r}")


FORMAT = Format(read=lambda request: open_mixed(request.path, request.split), names=("mixed",), default_split="train")
