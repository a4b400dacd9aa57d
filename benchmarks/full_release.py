"""Write a release of RefCOCO's full size in its exact layout, made up, and measure how it is opened.

    python benchmarks/full_release.py write FOLDER
    python benchmarks/full_release.py open FOLDER [SPLIT]

``write`` makes FOLDER/refcoco/refs(unc).p, a pickle of Python-2 strings, and instances.json with the counts of the
real one: 142,210 expressions of 50,000 referents in 19,994 images with 196,771 things. There are no images. ``open``
prints seconds and memory of one start: run it twice to see what the cache saves.
"""

import json
import pickletools
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np

IMAGES, THINGS = 19_994, 196_771
SPLITS = {  # referents, expressions
    "train": (42_404, 120_624), "val": (3_811, 10_834), "testA": (1_975, 5_657), "testB": (1_810, 5_095),
}  # fmt: skip
WORDS = ["man", "woman", "left", "right", "red", "shirt", "dog", "cat", "chair", "the", "on", "in", "front", "with"]


def python2_pickle(value) -> bytes:
    """A value in protocol 2 as Python 2 wrote it: strings as BINSTRING, no memo."""
    out = bytearray(b"\x80\x02")

    def put(one):
        if isinstance(one, str):
            raw = one.encode()
            out.extend(b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw)
        elif isinstance(one, int):
            out.extend(b"J" + struct.pack("<i", one))
        elif isinstance(one, list):
            out.extend(b"](")
            for item in one:
                put(item)
            out.extend(b"e")
        else:
            out.extend(b"}(")
            for key, item in one.items():
                put(key)
                put(item)
            out.extend(b"u")

    put(value)
    return bytes(out + b".")


def instances(rng):
    sizes = [(int(h), int(w)) for h, w in rng.integers(300, 641, (IMAGES, 2))]
    images = [
        {"license": 1, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": h, "width": w, "id": i,
         "coco_url": f"http://mscoco.org/images/{i}", "date_captured": "2013-11-14 11:18:45"}
        for i, (h, w) in enumerate(sizes, start=1)
    ]  # fmt: skip
    annotations = []
    for number in range(THINGS):
        image = number % IMAGES
        h, w = sizes[image]
        x, y = float(rng.uniform(0, w - 60)), float(rng.uniform(0, h - 60))
        bw, bh = float(rng.uniform(20, w - x)), float(rng.uniform(20, h - y))
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(12, 60))))
        points = np.stack([x + bw * (0.5 + np.cos(angle) / 2), y + bh * (0.5 + np.sin(angle) / 2)], 1).round(2)
        annotations.append(
            {"segmentation": [points.ravel().tolist()], "area": round(bw * bh * 0.7, 4), "iscrowd": 0,
             "image_id": image + 1, "bbox": [round(x, 2), round(y, 2), round(bw, 2), round(bh, 2)],
             "category_id": int(rng.integers(1, 81)), "id": number + 1}
        )  # fmt: skip
    categories = [{"supercategory": "thing", "id": i, "name": f"kind {i}"} for i in range(1, 81)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def references(rng):
    refs, sent = [], 0
    things = rng.permutation(THINGS)
    for split, (count, expressions) in SPLITS.items():
        per = np.full(count, expressions // count)
        per[: expressions - per.sum()] += 1
        for sentences in per.tolist():
            ref, thing = len(refs), int(things[len(refs)])
            texts = [" ".join(rng.choice(WORDS, int(rng.integers(1, 8))).tolist()) for _ in range(sentences)]
            refs.append(
                {"sent_ids": list(range(sent, sent + sentences)), "ref_id": ref, "ann_id": thing + 1,
                 "file_name": f"COCO_train2014_{thing % IMAGES + 1:012d}_{ref}.jpg", "image_id": thing % IMAGES + 1,
                 "split": split, "category_id": 1,
                 "sentences": [{"tokens": one.split(), "raw": one.capitalize(), "sent_id": sent + i, "sent": one}
                               for i, one in enumerate(texts)]}
            )  # fmt: skip
            sent += sentences
    return refs


def write(folder: Path) -> None:
    rng = np.random.default_rng(0)
    release = folder / "refcoco"
    release.mkdir(parents=True, exist_ok=True)
    (release / "instances.json").write_text(json.dumps(instances(rng)))
    data = python2_pickle(references(rng))
    assert next(pickletools.genops(data))[0].name == "PROTO"
    (release / "refs(unc).p").write_bytes(data)
    for path in sorted(release.iterdir()):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def open_and_measure(folder: Path, split: str) -> None:
    start = time.perf_counter(), time.process_time()
    from deixis.data.formats.refer import open_refer

    data = open_refer(folder, split=split, need_images=False)
    first = data[0]
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{split}: {len(data)} expressions, {data.left_out} left out, first {first.phrase!r}")
    print(f"first sample after {wall:.2f} s ({cpu:.2f} s of CPU), at most {memory:.2f} GiB")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        open_and_measure(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "train")
