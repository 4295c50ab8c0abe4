"""How LoRA adapters act on their layers: scaling, rank-stabilised or not, idle, or not LoRA at all.

The scaling is lora_alpha/r, or lora_alpha/sqrt(r) with rank-stabilised LoRA (Hu et al. 2021,
arXiv:2106.09685, section 4.1; Kalajdzievski 2023, arXiv:2312.03732); it stands in
adapter_config.json or in the PEFT module, never in the tensors.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn


@dataclass(frozen=True)
class AdapterSettings:
    """How one adapter acts on one layer."""

    scaling: float | None = None  # factor of B A; None: not known
    transposed: bool = False  # the base weight is stored in x out
    problem: str = ""  # why what the layer does is not base + scaling B A
    idle: str = ""  # why the factors do nothing and the base acts as it is


FindSettings = Callable[[str, str, int], AdapterSettings]  # (layer, adapter, rank)


def settings_from_config(config: Mapping[str, Any] | None) -> FindSettings:
    """Settings from the contents of adapter_config.json; without it, all scalings are unknown."""
    return partial(_configured, config or {})


def _configured(config: Mapping[str, Any], layer: str, adapter: str, rank: int) -> AdapterSettings:
    if config.get("use_dora"):
        return AdapterSettings(problem="DoRA: rescales the columns; merge it into the base first")
    alpha = _by_pattern(config.get("alpha_pattern"), layer, config.get("lora_alpha"))
    # PEFT keeps the rank per layer in a pattern; the factors have it, too, and cannot disagree.
    if not isinstance(alpha, int | float) or rank == 0:
        return AdapterSettings()
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return AdapterSettings(scaling, bool(config.get("fan_in_fan_out")))


def _by_pattern(patterns: object, layer: str, default: object) -> object:
    if isinstance(patterns, Mapping):
        for pattern, value in patterns.items():
            try:
                if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", layer):
                    return value
            except re.error:  # PEFT compares names first, and a name may be no pattern
                continue
    return default


def settings_from_module(model: nn.Module) -> FindSettings:
    """Settings from the PEFT layers of a module, as they act at this moment."""
    found: dict[tuple[str, str], AdapterSettings] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        scaling = getattr(module, "scaling", None)
        if not hasattr(module, "base_layer") or not isinstance(scaling, Mapping):
            continue
        for adapter, value in scaling.items():
            found[path, str(adapter)] = _acting(module, str(adapter), value)
    return partial(_looked_up, found)


def _acting(module: nn.Module, adapter: str, scaling: Any) -> AdapterSettings:
    use_dora = getattr(module, "use_dora", None)
    if isinstance(use_dora, Mapping) and use_dora.get(adapter):
        return AdapterSettings(problem="DoRA: rescales the columns; call merge_and_unload() first")
    if adapter in getattr(module, "merged_adapters", ()):
        return AdapterSettings(idle="LoRA factor, already merged into its base layer")
    active = getattr(module, "active_adapters", (adapter,))
    if getattr(module, "disable_adapters", False) or adapter not in active:
        return AdapterSettings(idle="LoRA factor of an adapter that is not active")
    return AdapterSettings(float(scaling), bool(getattr(module, "fan_in_fan_out", False)))


def _looked_up(
    found: Mapping[tuple[str, str], AdapterSettings], layer: str, adapter: str, rank: int
) -> AdapterSettings:
    return found.get((layer, adapter), AdapterSettings())
