"""What MLflow keeps of a compression: sizes and spectral change; the rest as artifacts."""

from dataclasses import fields
from typing import Any

from wwopt.compression.compression import Compression
from wwopt.compression.recipes import Recipe
from wwopt.compression.text import describe_recipe, format_compression
from wwopt.tracking.compressions import LoggedCompression

LONGEST_NOTE = 7500  # characters of a description; MLflow's tags hold 8,000
_WIDE = 200  # characters of a line of the note's table


def describe_compression(found: Compression, *, file: str = "") -> LoggedCompression:
    """Gather what is logged of a compression.

    Args:
        found: the compression.
        file: that it was written to, by name.
    """
    text = format_compression(found, width=_WIDE)
    params: dict[str, Any] = {"file": file} if file else {}
    if found.recipe is not None:
        asked = {f.name: getattr(found.recipe, f.name) for f in fields(Recipe)}
        params |= {name: value for name, value in asked.items() if value is not None}
        params["keep"] = ", ".join(found.recipe.keep) or "none"
    if found.rounds:
        params["rounds"] = found.rounds
    metrics = {
        "bytes": float(found.bytes),
        "bytes_before": float(found.bytes_before),
        "ratio": found.ratio,
        "seconds": found.seconds,
        "broken": float(len(found.broken)),
        "zeros": found.zeros,
        **found.spectral_change,
    }
    return LoggedCompression(
        name=describe_recipe(found),
        passed=found.passed,
        note=f"```\n{text[:LONGEST_NOTE]}\n```\n",
        params=params,
        metrics=metrics,
        quality=found.quality,
        layers=found.to_frame().astype({"bits": float, "rank": float}),
        document=found.to_dict(),
    )
