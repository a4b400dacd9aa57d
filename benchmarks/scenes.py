"""Print how many drawn samples a second one core makes: ``python benchmarks/scenes.py [--size 256] [--num 300]``."""

import argparse
import time

from deixis.data.scenes import open_scenes
from deixis.data.scenes.vocabulary import FLAVOURS, SPLITS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--num", type=int, default=300)
    arguments = parser.parse_args()
    print(f"{'flavour':10}{'split':8}{'samples/s':>10}{'s per 1000':>12}{'CPU s per 1000':>16}")
    for flavour in FLAVOURS:
        for split in SPLITS:
            scenes = open_scenes(flavour, split, arguments.num, arguments.size)
            wall, cpu = time.perf_counter(), time.process_time()
            for index in range(len(scenes)):
                scenes[index]
            wall, cpu = (time.perf_counter() - wall) / len(scenes), (time.process_time() - cpu) / len(scenes)
            print(f"{flavour:10}{split:8}{1 / wall:10.0f}{1000 * wall:12.1f}{1000 * cpu:16.1f}")


if __name__ == "__main__":
    main()
