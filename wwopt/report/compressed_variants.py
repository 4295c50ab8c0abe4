"""The compressed variants of a study's networks: quality or spectral change against bytes.

A variant is on the front where none is both smaller and better. By a validation metric the networks
of all trials are compared; without one, by the noise that compressing added, which says something
only among the variants of one network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from wwopt.metrics.colours import BLUE, GREY
from wwopt.report.figure_style import Picture, new_figure, plain_text
from wwopt.tracking.artifacts import read_settings
from wwopt.tracking.compressions import GROUP, TrackedVariant, read_variants
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.validation_metrics import Metric, find_validation_metrics, read_metric
from wwopt.wording import number

AS_TRAINED = "as trained"
NOISE = "noise"


@dataclass(frozen=True)
class Variant:
    """A network of a trial, compressed or as it was trained."""

    trial: int
    name: str
    bytes: float
    times_smaller: float
    quality: float  # the validation metric's value; NaN where it is not known
    noise: float  # that compressing added, relative to the weights
    broken: float  # layers, by the gate; NaN of the network as it was trained
    as_trained: bool = False
    on_front: bool = False


@dataclass(frozen=True)
class Front:
    """All variants of a study, and by what they were compared."""

    variants: tuple[Variant, ...]
    metric: Metric | None  # None: by noise, each trial's variants among themselves

    def to_frame(self) -> pd.DataFrame:
        """One row a variant, in the order of trials and bytes."""
        named = "quality" if self.metric is None else self.metric.name
        rows = [
            {
                "trial": variant.trial,
                "variant": variant.name,
                "bytes": variant.bytes,
                "times smaller": variant.times_smaller,
                named: variant.quality,
                NOISE: variant.noise,
                "broken layers": variant.broken,
                "front": variant.on_front,
            }
            for variant in self.variants
        ]
        frame = pd.DataFrame(rows)
        return frame if self.metric is not None else frame.drop(columns="quality")


def read_front(study: TrackedStudy) -> Front | None:
    """The variants of a study with its front; None where nothing was compressed.

    Raises:
        TrackingError: if the store cannot be read.
    """
    found = read_variants(study)
    if not found:
        return None
    stated = read_metric(read_settings(study))
    known = find_validation_metrics(study.judged, stated=stated)
    # A metric that is stated comes first; of others the one that most variants have.
    wanted = [m for m in known if isinstance(stated, Metric) and m.key == stated.key]
    wanted += [m for m in known if isinstance(stated, str) and m.name == stated]
    wanted += sorted(known, key=lambda m: -sum(m.key in v.metrics for v in found))
    metric = next((m for m in wanted if any(m.key in v.metrics for v in found)), None)
    variants = [
        _as_trained(study, found, trial, metric) for trial in sorted({v.trial for v in found})
    ]
    variants += [_variant(variant, metric) for variant in found]
    variants.sort(key=lambda variant: (variant.trial, -variant.bytes, variant.name))
    return Front(tuple(_mark(variants, metric)), metric)


def draw_front(front: Front) -> Picture:
    """Quality, or the noise, against bytes."""
    figure = new_figure()
    metric = front.metric
    shown = [v for v in front.variants if math.isfinite(_height(v, metric))]
    groups = {
        "as trained": ("star", [v for v in shown if v.as_trained]),
        "compressed": ("circle", [v for v in shown if not v.as_trained and not v.broken > 0]),
        "with a broken layer": ("circle-open-dot", [v for v in shown if v.broken > 0]),
    }
    for name, (symbol, own) in groups.items():
        figure.add_scatter(
            x=[variant.bytes for variant in own],
            y=[_height(variant, metric) for variant in own],
            text=[_hover(variant, metric) for variant in own],
            hoverinfo="text",
            mode="markers",
            marker={
                "color": [BLUE if variant.on_front else GREY for variant in own],
                "symbol": symbol,
                "size": 11,
                "line": {"width": 2 if symbol.endswith("dot") else 0},
            },
            name=f"{name} ({len(own)})",
        )
    axis = "noise that compressing added" if metric is None else metric.name
    better = "lower" if metric is None else metric.better
    figure.update_layout(
        xaxis_title="bytes of the file", yaxis_title=f"{axis} ({better} is better)"
    )
    figure.update_xaxes(type="log", tickformat="~s", dtick="D2")
    return Picture(
        "front",
        "Compressed networks",
        "Each point is a network, as it was trained or compressed. Of those in blue none other "
        "is both smaller and better. A ring: the gate calls a layer of it broken, which says that "
        "its spectrum changed, not that accuracy was lost.",
        f"{axis} against bytes for {len(shown)} networks, {sum(v.on_front for v in shown)} of them "
        "on the front.",
        figure,
        420,
    )


def _height(variant: Variant, metric: Metric | None) -> float:
    return variant.noise if metric is None else variant.quality


def _hover(variant: Variant, metric: Metric | None) -> str:
    quality = "" if metric is None else f"<br>{metric.name} {number(variant.quality, '.4g')}"
    size = f"{variant.bytes:,.0f} bytes, noise {number(variant.noise, '.3f')}"
    return f"trial {variant.trial}: {plain_text(variant.name, 60)}<br>{size}{quality}"


def _variant(found: TrackedVariant, metric: Metric | None) -> Variant:
    numbers = found.metrics
    return Variant(
        trial=found.trial,
        name=found.name,
        bytes=found.bytes,
        times_smaller=numbers.get(f"{GROUP}ratio", math.nan),
        quality=math.nan if metric is None else numbers.get(metric.key, math.nan),
        noise=numbers.get(f"{GROUP}noise", math.nan),
        broken=numbers.get(f"{GROUP}broken", math.nan),
    )


def _as_trained(
    study: TrackedStudy, found: Sequence[TrackedVariant], number: int, metric: Metric | None
) -> Variant:
    sizes = [v.metrics.get(f"{GROUP}bytes_before", math.nan) for v in found if v.trial == number]
    logged = study[number].metrics
    quality = math.nan if metric is None else logged.get(metric.key, math.nan)
    return Variant(number, AS_TRAINED, sizes[0], 1.0, quality, 0.0, math.nan, as_trained=True)


def _mark(variants: Sequence[Variant], metric: Metric | None) -> list[Variant]:
    def loss(variant: Variant) -> float:
        return variant.noise if metric is None else float(metric.to_loss(variant.quality))

    def beats(other: Variant, one: Variant) -> bool:
        if metric is None and other.trial != one.trial:
            return False
        pairs = ((other.bytes, one.bytes), (loss(other), loss(one)))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    marked = []
    for variant in variants:
        known = math.isfinite(loss(variant)) and math.isfinite(variant.bytes)
        beaten = any(beats(other, variant) for other in variants)
        marked.append(replace(variant, on_front=known and not beaten))
    return marked
