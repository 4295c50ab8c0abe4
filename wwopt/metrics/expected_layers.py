"""Whether a checkpoint is one of the network that was asked for: its layers, by name and size.

Frameworks put prefixes in front of a network's names (`module.` of DDP, `model.` of Lightning and
Hugging Face, `_orig_mod.` of torch.compile): they are taken off. Any other difference is refused,
since the score of another network would stand in the study as that of this one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.owners import owner_of
from wwopt.weights.stored_tensors import WeightsError
from wwopt.weights.tensor_names import bare_name
from wwopt.wording import write_names

PLAIN = ("linear", "hf_conv1d", "embedding")  # one matrix each, counted in one way everywhere


def match_layers(
    metrics: ModelMetrics, expected: Mapping[str, int], *, source: str
) -> ModelMetrics:
    """The metrics of a checkpoint under the names of the network that it should be of.

    Args:
        metrics: of the checkpoint.
        expected: layer → number of eigenvalues that its largest matrix has.
        source: what the checkpoint is called in the error.

    Raises:
        WeightsError: if a layer is missing, or has another size; it names all that there are.
    """
    renames: tuple[Callable[[str], str], ...] = (str, bare_name, _without_first)
    rename = min(renames, key=lambda way: len(_find_missing(metrics, expected, way)))
    missing = _find_missing(metrics, expected, rename)
    if missing:
        raise WeightsError(
            f"{source} is no checkpoint of this study's network: it lacks {write_names(missing)}, "
            f"and has {write_names([layer.name for layer in metrics.layers])}"
        )
    for layer in metrics.layers:
        wanted = expected.get(rename(layer.name), layer.num_evals)
        if layer.kind in PLAIN and layer.num_evals != wanted:
            raise WeightsError(
                f"{source} is no checkpoint of this study's network: its layer {layer.name} has "
                f"{layer.num_evals} eigenvalues, where {wanted} were asked for"
            )
    layers = tuple(replace(layer, name=rename(layer.name)) for layer in metrics.layers)
    first = None if metrics.first is None else rename(metrics.first)
    return replace(metrics, layers=layers, first=first)


def _find_missing(
    metrics: ModelMetrics, expected: Mapping[str, int], rename: Callable[[str], str]
) -> list[str]:
    # A tied matrix is listed once, under its first name.
    names = (name for layer in metrics.layers for name in (layer.name, *layer.tied))
    found = {owner_of(rename(name), expected) for name in names}
    return [name for name in expected if name not in found]


def _without_first(name: str) -> str:
    """Without the first part, as a Lightning module's attribute `net.` is one."""
    return name.partition(".")[2] or name
