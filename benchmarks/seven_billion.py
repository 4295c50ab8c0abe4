"""`wwopt analyze --quick` of seven billion parameters.

    python benchmarks/seven_billion.py --folder DIR     # five minutes to write, four to analyse

Writes a checkpoint of LLaMA-7B's shapes in bfloat16 into DIR (13.5 GB in 33 files, kept there, and
taken again the next time), random but for a planted structure in every other layer: a power law in
a sixteenth of the directions, or columns of unequal scale. Then reads it as `cat` does, and
analyses it in a process of its own with torch's default number of threads. Prints time, memory, and
whether the planted layers are told from the random ones.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

WIDTH, HIDDEN, DEPTH, SYMBOLS = 4096, 11008, 32, 32000
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SIZE = 13.5e9  # bytes
LIMIT = 240.0  # seconds, or twice what `cat` takes where that is longer
MEMORY = 2000.0  # MB

ANALYZE = """
import json, sys, wwopt
from wwopt.metrics.verdicts import judge_layer
metrics = wwopt.analyze(sys.argv[1], quick=True, progress=True)
verdicts = {layer.name: judge_layer(layer).verdict for layer in metrics.layers}
traps = sum(layer.num_traps > 0 for layer in metrics.layers)
methods = sorted({layer.method for layer in metrics.layers})
print(json.dumps({"verdicts": verdicts, "traps": traps, "methods": methods}))
"""


def list_shapes(block: int) -> dict[str, tuple[int, int]]:
    """Names and shapes of a block's tensors; after the last one, those of the ends."""
    if block == DEPTH:
        ends = ("model.embed_tokens.weight", "lm_head.weight")
        return dict.fromkeys(ends, (SYMBOLS, WIDTH))
    stem = f"model.layers.{block}"
    shapes = {f"{stem}.self_attn.{name}.weight": (WIDTH, WIDTH) for name in ATTENTION}
    shapes |= {f"{stem}.mlp.{name}.weight": (HIDDEN, WIDTH) for name in ("gate_proj", "up_proj")}
    return shapes | {f"{stem}.mlp.down_proj.weight": (WIDTH, HIDDEN)}


def plant(weights: torch.Tensor, kind: int, generator: torch.Generator) -> torch.Tensor:
    """The same entries, with what training might have left."""
    rows, columns = weights.shape
    if kind == 0:
        return weights * torch.rand(columns, generator=generator) ** -0.25
    rank = min(rows, columns) // 16
    left = torch.randn(rows, rank, generator=generator) / rows**0.5
    right = torch.randn(rank, columns, generator=generator)
    scale = ((torch.arange(rank) + 1.0) / rank) ** -0.4
    return weights.addmm_(left * scale, right, alpha=2.0)


def write(folder: Path) -> dict[str, bool]:
    """Write what is not there yet; name of each layer → whether a structure is planted in it."""
    folder.mkdir(parents=True, exist_ok=True)
    planted: dict[str, bool] = {}
    files: dict[str, str] = {}
    number = 0
    for block in tqdm(range(DEPTH + 1), desc="writing"):
        file = f"model-{block + 1:05}-of-{DEPTH + 1:05}.safetensors"
        tensors = {}
        for name, shape in list_shapes(block).items():
            planted[name.removesuffix(".weight")] = number % 2 == 1
            files[name] = file
            if not (folder / file).exists():
                generator = torch.Generator().manual_seed(number)
                weights = torch.randn(shape, generator=generator)
                if number % 2 == 1:
                    weights = plant(weights, number // 2 % 2, generator)
                tensors[name] = (0.02 * weights).bfloat16()
            number += 1
        if tensors:
            save_file(tensors, folder / "part")
            (folder / "part").rename(folder / file)
    index = {"metadata": {"total_size": int(SIZE)}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where 14 GB are free")
    given = parser.parse_args()
    folder = given.folder / "llama-7b"
    if not folder.exists() and shutil.disk_usage(given.folder).free < 1.1 * SIZE:
        sys.exit(f"{given.folder} has less than {1.1 * SIZE / 1e9:.0f} GB free")
    planted = write(folder)
    begun = time.monotonic()
    subprocess.run(f"cat {folder}/*.safetensors > /dev/null", shell=True, check=True)
    cat = time.monotonic() - begun
    begun = time.monotonic()
    command = [sys.executable, "-c", ANALYZE, str(folder)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    wall = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(output)
    wrong = [
        f"{name} ({verdict})"
        for name, verdict in found["verdicts"].items()
        if (verdict == "looks untrained") == planted[name]
    ]
    limit = max(LIMIT, 2.0 * cat)
    print(f"cat {cat:.0f} s; analyze --quick {wall:.0f} s of at most {limit:.0f}", end="; ")
    print(
        f"{used.ru_utime + used.ru_stime:.0f} CPU s; {used.ru_maxrss / 1e3:.0f} of {MEMORY:.0f} MB"
    )
    print(f"methods: {', '.join(found['methods'])}; layers with traps: {found['traps']}")
    print(f"{len(found['verdicts'])} layers, planted or random told wrongly: {wrong or 'none'}")
    sys.exit(0 if not wrong and wall < limit and used.ru_maxrss / 1e3 < MEMORY else 1)


if __name__ == "__main__":
    main()
