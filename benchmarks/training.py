"""Training samples a second of `smcim-r50` at 512 and `mcn-darknet53` at 416 pixels, Deixis beside plain PyTorch.

python benchmarks/training.py [PRESET ...] [--batch 8] [--steps 6] [--size SIDE] [--FIELD VALUE ...]

Deixis trains as `deixis train` does with a recipe's defaults (those of the papers' own recipes are float32 and average
nothing): bfloat16, channels last, a fused optimiser, packed pictures from a process beside it, averaged weights, checks
of every step. Plain is the same model as one writes it: float32 eager, tensors laid out as torch makes them, torch's
own attention and optimiser, JPEGs decoded between the steps, nothing else. Each has a process of its own; they take
turns step by step in one run, and whoever waits is stopped, so that no loading goes on in the other's time. Figures are
medians of wall time over the steps after the first; memory is the largest of a process (on a GPU, of its tensors);
waiting is the share of a step that passes until its batch is there.

Weights are random, and so are the sizes of what they compute: speed does not depend on them. FIELDs are those of a
recipe, such as --compile true, and hold for Deixis alone.
"""

import argparse
import json
import multiprocessing
import os
import resource
import signal
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from deixis.cli.train import parse_fields
from deixis.config import preset
from deixis.data import open_dataset
from deixis.data.augment.pipelines import PIPELINES
from deixis.data.batches import Epochs
from deixis.data.formats.jsonl import write_jsonl
from deixis.data.packed import write_pack
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer, WordTokenizer
from deixis.models import attention
from deixis.models.registry import build_model
from deixis.structures import Sample
from deixis.train.batch_loader import batches
from deixis.train.distributed import process_group
from deixis.train.recipes import recipe
from deixis.train.trainer import Trainer, canvas_rules

PHOTO = Path(__file__).parent.parent / "examples/photos/riders.jpg"
PHRASE = "the man in the red shirt on the left behind the other riders"
RECIPES = {"smcim-r50": "smcim", "mcn-darknet53": "mcn"}
FILES = 64
VALUES = ("samples", "waited", "took", "peak_gb")


def write_data(folder, size):
    """Photos of 640 x 480 with one phrase each, as JPEGs and packed at the model's size."""
    photo = Image.open(PHOTO).convert("RGB").resize((640, 480))
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    samples = []
    for number in range(FILES):
        path = folder / f"{number}.jpg"
        photo.transform(photo.size, Image.Transform.AFFINE, (1, 0, number, 0, 1, number)).save(path, quality=92)
        x, y = 250 + number + 120 * np.cos(turns), 240 + 120 * np.sin(turns)
        box = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
        polygon = np.column_stack([x, y]).ravel().tolist()
        samples.append(
            Sample(id=str(number), image=path, image_id=path.name, phrase=PHRASE, box_xyxy_px=box, mask=[polygon])
        )
    write_jsonl(folder / "samples.jsonl", samples)
    write_pack(open_dataset(folder / "samples.jsonl"), folder / "pack", size)


def write_model(folder, name, size):
    """A checkpoint of the preset with random weights, for both to start from."""
    config = preset(name, image_size=size)
    if config.has_word_pieces:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(PHRASE.split()))]
        pieces = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
        pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
        pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        pieces.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        pieces.save(str(folder / "tokenizer.json"))
        tokenizer = WordPieceTokenizer(folder / "tokenizer.json", max_tokens=config.max_tokens)
    else:
        tokenizer = WordTokenizer(PHRASE.split(), max_tokens=config.max_tokens)
    save_checkpoint(folder / "start", build_model(replace(config, vocab_size=tokenizer.vocab_size)), tokenizer)


class Deixis:
    """A step as `deixis train` takes it."""

    files = "pack"

    def __init__(self, made, source, group):
        self.trainer = Trainer(made, source.samples, group)
        self.batches = batches(source, made, 0, canvas_rules(self.trainer.model, made))

    def step(self, batch):
        self.trainer.train_step(batch)


class Plain:
    """The same model in a loop of five lines."""

    files = "samples.jsonl"

    def __init__(self, made, source, group):
        made = made.replaced(precision="float32", channels_last=False, compile=False, checkpointing=False, workers=0)
        held = Trainer(made.replaced(accumulate=1), source.samples, group)
        self.model, self.criterion = held.model, held.criterion
        self.batches = batches(source, made, 0, canvas_rules(self.model, made))
        self.model.encoder.register_forward_pre_hook(lambda _, given: tuple(one.contiguous() for one in given))
        attention._attend = F.scaled_dot_product_attention
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        kind = torch.optim.AdamW if made.optimiser.kind == "adamw" else torch.optim.Adam
        self.optimiser = kind([*trained, *self.criterion.helper.parameters()], lr=made.optimiser.lr)
        self.model.train()

    def step(self, batch):
        self.optimiser.zero_grad()
        loss = self.criterion.total(self.criterion(batch))
        loss.backward()
        self.optimiser.step()
        loss.item()


def serve(kind, made, folder, threads, pipe):
    """Take a step whenever asked to, and tell `VALUES` of it."""
    os.setpgrp()  # so that its loader is stopped together with it
    torch.set_num_threads(threads)
    samples = open_dataset(folder / kind.files)
    source = Epochs(
        samples, [[one] for one in range(len(samples))], PIPELINES[made.data.augment] if made.data.augment else None
    )
    with process_group() as group:
        on_gpu = group.device.type == "cuda"
        side = kind(made, source, group)
        pipe.send(None)
        while pipe.recv():
            begun = time.perf_counter()
            batch = next(side.batches)
            loaded = time.perf_counter()
            side.step(batch)
            if on_gpu:
                torch.cuda.synchronize()
            took = time.perf_counter() - begun
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            peak = torch.cuda.max_memory_allocated() if on_gpu else resident
            pipe.send((len(batch.phrases), loaded - begun, took, peak / 1e9))


class Side:
    """The process of one of both, which runs only while it is asked."""

    def __init__(self, kind, made, folder, threads):
        spawn = multiprocessing.get_context("spawn")
        self.pipe, other = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(kind, made, folder, threads, other))
        self.process.start()
        self.pipe.recv()
        self.rows = []
        self.halt()

    def halt(self):
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def step(self):
        self.pipe.send(True)
        self.resume()
        self.rows.append(dict(zip(VALUES, self.pipe.recv(), strict=True)))
        self.halt()

    def end(self):
        self.pipe.send(False)
        self.resume()
        self.process.join()

    def measured(self):
        """Samples a second, GB, and the share of waiting, of all steps but the first."""
        rows = self.rows[1:] or self.rows
        rate = statistics.median(row["samples"] / row["took"] for row in rows)
        waiting = sum(row["waited"] for row in rows) / sum(row["took"] for row in rows)
        return rate, rows[-1]["peak_gb"], waiting


def compare(name, options, words):
    base = recipe(RECIPES[name], images=options.batch)
    made = recipe(
        RECIPES[name],
        **{"images": options.batch, "precision": "bfloat16", "workers": 1, "ema": 0.998, **parse_fields(words, base)},
    )
    size = options.size or made.data.image_sizes[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder, size)
        write_model(folder, name, size)
        # the data is opened by hand, so the recipe counts no epochs
        made = made.replaced(start=str(folder / "start"), model=name, image_sizes=(size,), epochs=0, milestones=())
        made = made.replaced(steps=10 * options.steps)
        sides = [Side(kind, made, folder, options.threads) for kind in (Deixis, Plain)]
        for _ in range(options.steps):
            for side in sides:
                side.step()
        for side in sides:
            side.end()
    (fast, lean, waiting), (slow, fat, _) = (side.measured() for side in sides)
    print(
        f"{name:15}{size:5}{made.data.images:7}{fast:10.3f}{slow:10.3f}{fast / slow:8.2f}{lean:10.2f}{fat:10.2f}"
        f"{lean / fat:8.2f}{100 * waiting:10.1f} %",
        flush=True,
    )
    return {"preset": name, "size": size, "batch": made.data.images, "deixis": sides[0].rows, "plain": sides[1].rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", choices=[*RECIPES, []], default=list(RECIPES), metavar="PRESET")
    parser.add_argument("--batch", type=int, default=8, help="pictures a step")
    parser.add_argument("--steps", type=int, default=6, help="of each; the first is not counted")
    parser.add_argument("--size", type=int, default=0, help="side of the canvas in place of the recipe's")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="a file for the figures of every step")
    options, words = parser.parse_known_args()
    print(f"torch {torch.__version__}, {options.threads} threads, {'GPU' if torch.cuda.is_available() else 'CPU'}")
    print(f"{'':27}{'samples a second':>20}{'':8}{'peak memory, GB':>20}")
    print(
        f"{'preset':15}{'side':>5}{'batch':>7}{'Deixis':>10}{'plain':>10}{'ratio':>8}{'Deixis':>10}{'plain':>10}"
        f"{'ratio':>8}{'waiting':>12}"
    )
    rows = [compare(name, options, words) for name in options.presets]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
