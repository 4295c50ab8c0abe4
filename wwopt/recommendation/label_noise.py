"""Do labels look noisy? Told from how well training fits them, against the validation error."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A network that fits its labels worse than its validation error would allow has been given labels
# that cannot be fitted. On 93 networks with 18 to 27 % wrong labels and 293 with clean ones (MLPs,
# CNNs on MNIST, more than half right; studies/noisy_labels.py): shown by 96 % and 14 % where
# the loss is measured without dropout, by 99 % and 27 % where it is the running one. The clean ones
# that show it were held back by dropout or too low a rate. Of each pair the less favourable share:
LOSS_SLOPE, LOSS_OFFSET = 1.5, 0.2
NOISY_SHOW, CLEAN_SHOW = 0.96, 0.27


@dataclass(frozen=True)
class LabelNoise:
    """Whether labels look noisy, in words, and how sure that is."""

    words: str
    confidence: float  # in [0, 1]


def judge_labels(train_loss: float, error: float) -> LabelNoise | None:
    """Whether labels look noisy: training fit against validation error; spectra add little to it.

    The cutoff of the first layer's tail, the spectral sign of memorised labels, tells noisy zoos
    from clean ones with an area under the curve of .55 to .67, the training loss with .95 to .98.
    A network that learned nothing, or less than half, is not judged.

    Args:
        train_loss: cross-entropy in nats at the end of training.
        error: share of validation examples that it gets wrong; their labels are taken as right.
    """
    if not (math.isfinite(train_loss) and 0.0 <= error < 0.5):
        return None
    limit = float(allow_loss(error))
    noisy = train_loss > limit
    shown = (NOISY_SHOW, CLEAN_SHOW) if noisy else (1.0 - NOISY_SHOW, 1.0 - CLEAN_SHOW)
    chance = shown[0] / sum(shown)  # at even odds
    if noisy:
        words = (
            f"labels may be noisy: the training loss, {train_loss:.3g}, is above the "
            f"{limit:.2g} that a validation error of {error:.3g} would allow; strong dropout or "
            f"too short a training look the same"
        )
        return LabelNoise(words, chance)
    words = f"labels look clean: the training loss, {train_loss:.3g}, is below {limit:.2g}"
    return LabelNoise(words, 1.0 - chance)


def allow_loss(error: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Training loss up to which a network of that validation error has fitted clean labels."""
    return np.asarray(LOSS_OFFSET - LOSS_SLOPE * np.log1p(-np.asarray(error, dtype=np.float64)))
