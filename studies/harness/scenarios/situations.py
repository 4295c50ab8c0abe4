"""Situations in which someone asks "more data, or more tuning?", from real data.

They spread over what decides the answer: few or many examples, a start from one configuration or
from a search, clean or noisy labels, models too small or too large, training too short or ample.
The rules were designed on the 58 of `DESIGN`; those of `JUDGED` are of other kinds too: batch
norms, Adam, rates that fall along a cosine, regression, more data.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One situation."""

    name: str
    task: (
        str  # "mlp" and "cnn" on MNIST images, "digits", "text"; "halves": the lower from the upper
    )
    examples: int  # of training data that there are today; characters of text
    width: int  # of the hidden layers, or channels of the first convolution
    epochs: int
    trials: int  # that were run before the question is asked; 1 for one configuration
    lr: float = 0.03  # of that configuration
    noise: float = 0.0  # share of training labels drawn at random
    judged: bool = False  # whether it was kept aside until the rules were frozen
    norm: bool = False  # batch norms after the hidden layers
    adam: bool = False  # AdamW in place of SGD; text has it always
    cosine: bool = False  # learning rates fall to zero along a cosine

    @property
    def metric(self) -> str:
        """What the validation data measure; the test data measure the same."""
        return "loss" if self.task in ("text", "halves") else "error"


# task, examples, width, epochs, trials, lr of the only trial, noise
Row = tuple[str, int, int, int, int, float, float]
DESIGN: tuple[Row, ...] = (
    # task, examples, width, epochs, trials, lr of the only trial, noise
    ("mlp", 150, 64, 20, 1, 0.03, 0.0),
    ("mlp", 150, 64, 20, 6, 0.0, 0.0),
    ("mlp", 150, 64, 20, 16, 0.0, 0.0),
    ("mlp", 600, 64, 12, 1, 0.003, 0.0),
    ("mlp", 600, 128, 12, 6, 0.0, 0.3),
    ("mlp", 600, 128, 12, 16, 0.0, 0.3),
    ("mlp", 2500, 128, 8, 1, 0.1, 0.0),
    ("mlp", 2500, 128, 8, 1, 0.003, 0.0),
    ("mlp", 2500, 128, 8, 6, 0.0, 0.0),
    ("mlp", 2500, 128, 8, 16, 0.0, 0.0),
    ("mlp", 2500, 6, 8, 6, 0.0, 0.0),
    ("mlp", 2500, 6, 8, 16, 0.0, 0.0),
    ("mlp", 2500, 10, 8, 1, 0.03, 0.0),
    ("mlp", 600, 64, 2, 6, 0.0, 0.0),
    ("mlp", 2500, 64, 1, 16, 0.0, 0.0),
    ("mlp", 2500, 64, 1, 6, 0.0, 0.0),
    ("mlp", 2500, 256, 15, 16, 0.0, 0.3),
    ("mlp", 300, 512, 20, 6, 0.0, 0.0),
    ("cnn", 200, 8, 10, 1, 0.01, 0.0),
    ("cnn", 200, 8, 10, 6, 0.0, 0.0),
    ("cnn", 800, 8, 5, 16, 0.0, 0.0),
    ("cnn", 800, 2, 5, 6, 0.0, 0.0),
    ("cnn", 2000, 8, 1, 6, 0.0, 0.0),
    ("cnn", 2000, 6, 3, 1, 0.03, 0.0),
    ("digits", 60, 64, 40, 6, 0.0, 0.0),
    ("digits", 60, 64, 40, 16, 0.0, 0.0),
    ("digits", 220, 64, 20, 1, 0.01, 0.0),
    ("digits", 440, 64, 15, 16, 0.0, 0.0),
    ("digits", 440, 5, 15, 6, 0.0, 0.0),
    ("digits", 440, 5, 15, 16, 0.0, 0.0),
    ("text", 6_000, 64, 6, 6, 0.0, 0.0),
    ("text", 6_000, 64, 6, 16, 0.0, 0.0),
    ("text", 15_000, 64, 2, 1, 0.001, 0.0),
    ("text", 15_000, 8, 3, 6, 0.0, 0.0),
    ("text", 20_000, 64, 1, 16, 0.0, 0.0),
    ("text", 20_000, 64, 3, 6, 0.0, 0.0),
    ("mlp", 100, 96, 25, 6, 0.0, 0.0),
    ("mlp", 300, 32, 15, 1, 0.01, 0.0),
    ("mlp", 300, 200, 10, 12, 0.0, 0.2),
    ("mlp", 1000, 96, 4, 4, 0.0, 0.0),
    ("mlp", 1000, 8, 10, 12, 0.0, 0.0),
    ("mlp", 1000, 200, 20, 8, 0.0, 0.0),
    ("mlp", 2000, 48, 3, 1, 0.3, 0.0),
    ("mlp", 2000, 96, 6, 20, 0.0, 0.0),
    ("mlp", 2000, 96, 10, 8, 0.0, 0.4),
    ("mlp", 2000, 4, 5, 4, 0.0, 0.0),
    ("cnn", 120, 6, 15, 8, 0.0, 0.0),
    ("cnn", 400, 6, 6, 1, 0.1, 0.0),
    ("cnn", 400, 12, 8, 12, 0.0, 0.0),
    ("cnn", 1500, 3, 2, 8, 0.0, 0.0),
    ("cnn", 1500, 8, 4, 12, 0.0, 0.2),
    ("digits", 120, 48, 30, 8, 0.0, 0.0),
    ("digits", 120, 96, 10, 1, 0.05, 0.0),
    ("digits", 300, 8, 20, 12, 0.0, 0.0),
    ("digits", 300, 96, 25, 4, 0.0, 0.3),
    ("text", 9_000, 64, 3, 8, 0.0, 0.0),
    ("text", 9_000, 16, 4, 1, 0.003, 0.0),
    ("text", 15_000, 64, 2, 12, 0.0, 0.0),
)
JUDGED: tuple[tuple[Row, str], ...] = (
    (("mlp", 200, 64, 20, 8, 0.0, 0.0), "norm"),
    (("mlp", 800, 64, 8, 5, 0.0, 0.0), "norm"),
    (("mlp", 2000, 32, 5, 1, 0.03, 0.0), "norm"),
    (("mlp", 1500, 8, 6, 8, 0.0, 0.0), "norm"),
    (("cnn", 300, 6, 8, 6, 0.0, 0.0), "norm"),
    (("cnn", 1200, 4, 4, 10, 0.0, 0.0), "norm"),
    (("cnn", 600, 6, 5, 1, 0.005, 0.0), "norm"),
    (("digits", 150, 32, 20, 6, 0.0, 0.0), "norm"),
    (("mlp", 400, 64, 12, 6, 0.0, 0.0), "adam"),
    (("mlp", 1800, 64, 5, 1, 0.0003, 0.0), "adam"),
    (("mlp", 1800, 5, 6, 6, 0.0, 0.0), "adam"),
    (("cnn", 500, 6, 6, 8, 0.0, 0.0), "adam"),
    (("digits", 250, 32, 15, 6, 0.0, 0.2), "adam"),
    (("mlp", 500, 64, 10, 6, 0.0, 0.0), "cosine"),
    (("mlp", 2000, 64, 4, 8, 0.0, 0.0), "cosine"),
    (("mlp", 1200, 48, 6, 1, 0.05, 0.0), "cosine"),
    (("cnn", 900, 6, 4, 6, 0.0, 0.0), "cosine"),
    (("digits", 350, 48, 12, 10, 0.0, 0.0), "cosine"),
    (("mlp", 1000, 64, 10, 6, 0.0, 0.25), "norm"),
    (("mlp", 1500, 96, 8, 8, 0.0, 0.3), ""),
    (("cnn", 600, 6, 6, 5, 0.0, 0.3), ""),
    (("digits", 400, 48, 20, 8, 0.0, 0.4), ""),
    (("halves", 300, 48, 20, 6, 0.0, 0.0), "adam"),
    (("halves", 1500, 64, 6, 6, 0.0, 0.0), "adam"),
    (("halves", 2000, 12, 6, 5, 0.0, 0.0), "adam"),
    (("halves", 800, 64, 10, 1, 0.001, 0.0), "adam"),
    (("halves", 1000, 48, 3, 8, 0.0, 0.0), "adam"),
    (("mlp", 2700, 96, 8, 5, 0.0, 0.0), ""),
    (("mlp", 2700, 24, 10, 10, 0.0, 0.0), ""),
    (("cnn", 2600, 5, 2, 6, 0.0, 0.0), ""),
    (("digits", 100, 16, 30, 5, 0.0, 0.0), ""),
    (("text", 30_000, 32, 2, 5, 0.0, 0.0), ""),
    (("text", 12_000, 24, 3, 8, 0.0, 0.0), "cosine"),
)


def _situations() -> tuple[Scenario, ...]:
    found = []
    for row, kind in [*((row, "") for row in DESIGN), *JUDGED]:
        task, examples, width, epochs, trials, lr, noise = row
        name = f"{task}-{examples}-w{width}-e{epochs}-t{trials}"
        name += f"-lr{lr:g}" * (trials == 1) + f"-noise{noise:g}" * (noise > 0.0)
        name += f"-{kind}" * bool(kind)
        kinds = {kind: True} if kind else {}
        judged = (row, kind) in JUDGED
        found.append(Scenario(*(name, *row), judged=judged, **kinds))
    return tuple(found)


SCENARIOS = {scenario.name: scenario for scenario in _situations()}
# At most; images, or characters of text.
VALIDATION = {"mlp": 1000, "cnn": 1000, "halves": 1000, "digits": 200, "text": 16_000}


def count_validation(scenario: Scenario) -> int:
    """Validation examples, characters of text: who has few to train on has few to validate on."""
    few, share = (2_000, 4) if scenario.task == "text" else (100, 2)
    return min(VALIDATION[scenario.task], max(few, scenario.examples // share))
