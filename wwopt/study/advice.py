"""What the spectra say at a step of training: which layers converge, which want another rate."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.study.convergence import Convergence, judge_convergence
from wwopt.study.temp_balance import compute_lr_factors


@dataclass(frozen=True)
class Advice:
    """What `Recorder.step` returns; ignoring it is legal. Empty where a step was not analysed."""

    value: float | None = None  # of the objective
    metrics: ModelMetrics | None = None  # of all layers
    convergence: Mapping[str, Convergence] = field(default_factory=dict)  # wwopt.study.convergence
    lr_factors: Mapping[str, float] = field(default_factory=dict)  # wwopt.study.temp_balance

    @property
    def converged(self) -> tuple[str, ...]:
        """Layers that have learned and stopped moving."""
        return tuple(n for n, state in self.convergence.items() if state == "stopped moving")


def advise(
    value: float | None,
    now: ModelMetrics,
    *,
    before: ModelMetrics | None,
    step: int,
    step_before: int,
    epochs: int | None,
) -> Advice:
    """Advice after an analysis.

    Args:
        value: of the objective; None where it is not known yet.
        now: this analysis.
        before: the one before; None at the first.
        step: of this analysis.
        step_before: of the one before.
        epochs: steps of the whole training; None if unknown: then as many as were done may follow.
    """
    steps = max(step - step_before, 1)
    remaining = step if epochs is None else epochs - step
    # At the end too a layer is judged by some steps to come.
    convergence = judge_convergence(before, now, steps=steps, remaining=max(remaining, steps))
    return Advice(value, now, convergence, compute_lr_factors(now))
