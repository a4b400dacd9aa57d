"""Memory and time of training steps of SMCIM as the trainer takes them, on made-up pictures and words.

python benchmarks/smcim_step.py [--preset smcim-r50] [--batch 8] [--size 512] [--words 40] [--steps 1] [--accumulate 1]
[--checkpointing] [--float32] [--padded]: one picture and one phrase a sample, all weights random and all of them
learning but those that a pretrained encoder keeps fixed; ``--padded`` gives every other picture the shape of a photo.
Peak memory is that of the whole process, its start included.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from deixis.config import preset
from deixis.hub import save_checkpoint
from deixis.language.tokenizers import WordPieceTokenizer
from deixis.models.registry import build_model
from deixis.structures import TrainingBatch
from deixis.train.recipes import recipe
from deixis.train.trainer import Trainer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "left", "red", "dog"]


def start(folder, options):
    """A checkpoint of random weights to start from."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = preset(options.preset, image_size=options.size, max_tokens=options.words)
    words = WordPieceTokenizer(folder / "tokenizer.json", max_tokens=options.words)
    save_checkpoint(folder / "start", build_model(config), words)
    return str(folder / "start")


def batch(options, model):
    rng = np.random.default_rng(0)
    count, side = options.batch, options.size // model.mask_stride
    content = np.tile(np.float32([0, 0, 1, 1]), (count, 1))
    if options.padded:
        content[::2, 1::2] = 0.125, 0.875
    low = rng.uniform(0.1, 0.4, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, (count, 2))], 1).astype(np.float32)
    return TrainingBatch(
        pixels=rng.integers(0, 256, (count, options.size, options.size, 3), np.uint8),
        content=content,
        phrases=[" ".join(["red"] * (options.words - 2))] * count,
        image_index=np.arange(count),
        boxes=boxes,
        masks=np.zeros((count, side, side), np.float32),
        has_mask=np.zeros(count, bool),
        present=np.ones(count, bool),
        thing_index=np.zeros(0, np.int64),
        thing_cells=np.zeros((0, side * side), np.float32),
        thing_labels=np.zeros((0, 3), np.int64),
        boxed_index=np.zeros(0, np.int64),
        boxed_boxes=np.zeros((0, 4), np.float32),
        boxed_labels=np.zeros((0, 3), np.int64),
        complete=np.zeros(count, np.bool_),
    )


def gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="smcim-r50")
    for name, value in (("batch", 8), ("size", 512), ("words", 40), ("steps", 1), ("accumulate", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name in ("checkpointing", "float32", "padded"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = recipe("smcim", images=options.batch).replaced(
            start=start(Path(folder), options),
            image_sizes=(options.size,),
            accumulate=options.accumulate,
            checkpointing=options.checkpointing,
            precision="float32" if options.float32 else "bfloat16",
        )
        trainer = Trainer(made)
    given = batch(options, trainer.model)
    print(
        f"{options.preset}, {options.batch} pictures of {options.size} x {options.size}, {options.words} tokens, "
        f"{'float32' if options.float32 else 'bfloat16'}, accumulate {options.accumulate}, "
        f"checkpointing {options.checkpointing}, {torch.get_num_threads()} threads"
    )
    print(f"before the first step: {gigabytes():.2f} GiB", flush=True)
    for _ in range(options.steps):
        begun = time.perf_counter()
        losses = trainer.train_step(given)
        seconds = time.perf_counter() - begun
        print(f"step: {seconds:.1f} s, peak {gigabytes():.2f} GiB, loss {losses['loss']:.3f}", flush=True)


if __name__ == "__main__":
    main()
