"""How each data set is opened that is read from files: by its name and a root, or by its path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deixis.data.annotation_fields import shorten
from deixis.structures import Sample

REFER = {
    "refcoco": ("refcoco", "unc"),
    "refcoco+": ("refcoco+", "unc"),
    "refcocog-umd": ("refcocog", "umd"),
    "refcocog-google": ("refcocog", "google"),
    "refcoco-google": ("refcoco", "google"),
    "referit": ("refclef", "berkeley"),
    "referit-unc": ("refclef", "unc"),
}
"""Data sets of the `refer` release: the folder below the root, and who made the splits."""
Opener = Callable[[str, str | None, str | Path | None, int | None], Sequence[Sample]]
"""(name or path, split, root, limit) -> samples."""


def open_refer_release(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    """A data set of the `refer` release, by its name."""
    from deixis.data.formats.refer import open_refer

    dataset, split_by = REFER[name]
    if root is None:
        raise ValueError(
            f"expected a root, the folder that holds {dataset!r} and the images, got none for {name!r}; "
            "name it with root or --root"
        )
    return open_refer(root, dataset, split_by, split or "val", limit=limit)


def open_public(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    """A public release or a form of files, by its name, from a root."""
    if root is None:
        raise ValueError(f"expected a root, the files' folder, got none for {name!r}; name it with root or --root")
    root = Path(root)
    if name == "mixed":
        from deixis.data.mixed import open_mixed

        return open_mixed(root, split, limit=limit)
    if name in ("flickr30k", "vg", "grefcoco", "hf"):
        folder = root / "grefcoco" if name == "grefcoco" and not (root / "grefs(unc).json").is_file() else root
        return open_form(name, folder, split, root, limit, need_images=True)
    suffix = {"transvg": ".pth", "mcn": ".txt"}.get(name, ".json")
    from deixis.data.formats.detect import find_file

    by_key = root / "instances.json"  # a SeqTR file holds all splits
    path = by_key if name == "seqtr" and by_key.is_file() else find_file(root, suffix, split or "val", f"{name} file")
    return open_form(name, path, split, root, limit, need_images=True)


def open_json(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    """A JSON file, whose form its head tells."""
    from deixis.data.formats.detect import json_form

    form = json_form(name)
    if form == "coco":
        from deixis.data.captions.written import WrittenPhrases

        return WrittenPhrases(name, root, split=split or "test", limit=limit)
    return open_form(form, Path(name), split, root, limit)


def default_json_split(name: str) -> str | None:
    """The split of a JSON file that is opened where none is named."""
    from deixis.data.formats.detect import json_form

    try:
        form = json_form(name)
    except ValueError:  # the reader will tell
        return None
    return {"coco": "test", "seqtr": "val", "grefcoco": "val", "vg": "all"}.get(form)


def open_torch(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    """A .pth file of TransVG."""
    return open_form("transvg", Path(name), split, root, limit)


def open_text(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    """A text file of MCN."""
    return open_form("mcn", Path(name), split, root, limit)


def open_folder(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    """A folder, whose form its files tell."""
    from deixis.data.formats.detect import folder_form
    from deixis.data.packed.reading import is_pack, open_pack

    folder = Path(name)
    if is_pack(folder):
        return open_pack(folder, split, root, limit)
    form = folder_form(folder)
    if form is None:
        raise ValueError(
            f"expected a folder with refs(*).p, grefs(unc).json, Sentences and Annotations, region_descriptions.json, "
            f".arrow or .parquet files, got {name!r} with {shorten(sorted(one.name for one in folder.iterdir())[:8])}; "
            "name the file to read"
        )
    if form == "refer":
        return _open_release_folder(folder, split or "val", root, limit)
    return open_form(form, folder, split, root, limit)


def open_form(
    form: str,
    path: Path,
    split: str | None,
    root: str | Path | None,
    limit: int | None,
    *,
    need_images: bool = False,
) -> Sequence[Sample]:
    """A file or folder of a known form."""
    if form == "transvg":
        from deixis.data.formats.transvg import read_transvg

        return _of_split(read_transvg(path, root, limit=limit, need_images=need_images), split)
    if form == "mcn":
        from deixis.data.formats.mcn_lines import read_mcn_lines

        return _of_split(read_mcn_lines(path, root, limit=limit, need_images=need_images), split)
    if form == "mdetr":
        from deixis.data.formats.mdetr import read_mdetr

        return _of_split(read_mdetr(path, root, limit=limit, need_images=need_images), split)
    if form == "seqtr":
        from deixis.data.formats.seqtr import read_seqtr

        return read_seqtr(path, root, split or "val", limit=limit, need_images=need_images)
    if form == "grefcoco":
        from deixis.data.formats.grefcoco import read_grefcoco

        return read_grefcoco(path, split or "val", root, limit=limit, need_images=need_images)
    if form == "flickr30k":
        from deixis.data.formats.flickr30k import read_flickr30k

        return read_flickr30k(path, split or "val", root, limit=limit, need_images=need_images)
    if form == "vg":
        from deixis.data.formats.visual_genome import read_visual_genome

        return read_visual_genome(path, split or "all", root, limit=limit, need_images=need_images)
    from deixis.data.formats.hf_datasets import read_hf_dataset

    return read_hf_dataset(path, split, root, limit=limit)


def _open_release_folder(folder: Path, split: str, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    from deixis.data.formats.refer import SPLITS, open_refer

    files = sorted(folder.glob("refs(*).p"))
    dataset = folder.resolve().name
    makers = [one.name[len("refs(") : -len(").p")] for one in files]
    known = [maker for maker in makers if split in SPLITS.get((dataset, maker), ())]
    if len(known) != 1:
        raise ValueError(
            f"expected a folder named after one of {sorted({name for name, _ in SPLITS})!r} with one refs(*).p of the "
            f"split {split!r}, got {str(folder)!r} with {[one.name for one in files]!r}; name the data set and its root"
        )
    return open_refer(root if root is not None else folder, dataset, known[0], split, limit=limit)


def _of_split(samples: Sequence[Sample], split: str | None) -> Sequence[Sample]:
    """A file of one split, unless another is asked for: then those of its samples that name it."""
    if split is None:
        return samples
    splits = {one.split for one in samples}
    if splits <= {split, ""}:
        return samples
    if split not in splits:
        raise ValueError(f"expected the split {split!r}, got a file of {sorted(splits)!r}; choose one of these")
    from deixis.data.formats.jsonl import ReadSamples

    return ReadSamples([one for one in samples if one.split == split], getattr(samples, "problems", ()))
