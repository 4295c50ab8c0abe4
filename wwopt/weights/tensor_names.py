"""Names of tensors: without what wrappers put into them, paired between two sources, in order."""

import re
from collections import Counter
from collections.abc import Sequence

# Put in front by Lightning and Hugging Face heads, DataParallel and DDP, torch.compile, PEFT.
_PREFIX = re.compile(r"^(?:(?:base_model|model|module|_orig_mod)\.)+")
# Wrappers of a submodule put theirs in the middle: torch.compile, FSDP, activation checkpoints.
_WRAPPER = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def bare_name(name: str) -> str:
    """A tensor's name without what wrappers put into it."""
    return _PREFIX.sub("", _WRAPPER.sub("", name))


def match_names(names: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Pair names that are equal, or equal and unique without their wrappers' prefixes."""
    ours, theirs = set(names), set(others)
    pairs = {name: name for name in ours & theirs}
    counts = Counter(map(bare_name, names))
    other_counts = Counter(map(bare_name, others))
    # What has an exact partner is not free: "model.fc" must not take the "fc" of an "fc".
    by_bare_name = {bare_name(other): other for other in others if other not in ours}
    for name in names:
        bare = bare_name(name)
        unique = counts[bare] == 1 and other_counts[bare] == 1
        if name not in pairs and unique and bare in by_bare_name:
            pairs[name] = by_bare_name[bare]
    taken = set(pairs.values())
    for name, other in _match_wrapped(names, theirs) | _match_wrapped(others, ours, back=True):
        if name not in pairs and other not in taken:
            pairs[name] = other
    return pairs


def _match_wrapped(
    names: Sequence[str], others: set[str], *, back: bool = False
) -> set[tuple[str, str]]:
    """Pairs where one side wraps the other: a language model's "transformer." or "bert."."""
    inner: dict[str, set[tuple[str, str]]] = {}
    for name in names:
        wrapper, _, rest = name.partition(".")
        if rest in others:
            inner.setdefault(wrapper, set()).add((rest, name) if back else (name, rest))
    # Most of the other side has to be in there; a single name would be a coincidence.
    return next((pairs for pairs in inner.values() if 2 * len(pairs) > len(others)), set())


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorting key under which numbers in names count as numbers."""
    pieces = re.split(r"([0-9]+)", name)
    # Digits by length, then value: int() refuses more than 4,300 of them.
    return [
        (len(piece.lstrip("0")), piece.lstrip("0")) if position % 2 else (0, piece)
        for position, piece in enumerate(pieces)
    ]
