"""Situations in which someone asks "more data, or more tuning?", from real data.

They spread over what decides the answer: few or many examples, a start from one configuration or
from a search, clean or noisy labels, models too small or too large, training too short or ample.
They came in five waves, four of kinds that those before them lack, each judged by rules that
were fixed before anything of it was looked at: the 58 of the first are what the rules were designed
on; the second has batch norms, AdamW, rates that fall along a cosine, a regression and more data;
the third recurrent networks, photographs, tables, another text, deep networks, large batches,
classes of uneven size, and classes judged by their loss; the fourth sums of two digits, tiles of
photographs, program text, layer norms, weight decay and small batches. The fifth was drawn at
random from all of these.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Task = Literal[
    "mlp", "cnn", "rows", "halves",  # on MNIST's images; "rows" reads them row by row, by a GRU;
    # "halves" tells the lower half of an image from the upper one
    "digits",  # scikit-learn's, 8×8
    "photos",  # scikit-learn's two: 8×8 pixels from the means of 2×2
    "tiles",  # the same 8×8 pixels: which of ten parts of the photographs are they from?
    "sums",  # of the digits on two of MNIST's images, the last figure of it
    "cancer", "diabetes",  # scikit-learn's tables
    "text", "manual", "code",  # characters: Shakespeare, Python's manual, modules of its library
]  # fmt: skip
Kind = Literal[
    "norm",  # batch norms after the hidden layers
    "adam",  # AdamW in place of SGD; text has it always
    "cosine",  # learning rates fall to zero along a cosine
    "deep",  # twice the hidden layers
    "batch",  # four times the batch
    "uneven",  # classes from the whole of theirs to an eighth of it in the training data
    "layernorm",  # layer norms after the hidden layers
    "decay",  # AdamW with a weight decay of .3
    "tiny",  # a quarter of the batch
    "loss",  # classes judged by the cross-entropy, not by the error
]
Wave = Literal[1, 2, 3, 4, 5]
TEXTS: tuple[Task, ...] = ("text", "manual", "code")
REGRESSIONS: tuple[Task, ...] = ("halves", "photos", "diabetes")


@dataclass(frozen=True)
class Scenario:
    """One situation."""

    name: str
    task: Task
    examples: int  # of training data that there are today; characters of text
    width: int  # of the hidden layers, or channels of the first convolution
    epochs: int
    trials: int  # that were run before the question is asked; 1 for one configuration
    lr: float = 0.03  # of that configuration
    noise: float = 0.0  # share of training labels drawn at random
    kinds: tuple[Kind, ...] = ()
    wave: Wave = 1

    @property
    def metric(self) -> str:
        """What the validation data measure; the test data measure the same."""
        lossy = self.task in (*TEXTS, *REGRESSIONS) or "loss" in self.kinds
        return "loss" if lossy else "error"

    @property
    def adam(self) -> bool:
        """Whether it is trained by AdamW."""
        return self.task in TEXTS or bool({"adam", "decay"} & {*self.kinds})


# task, examples, width, epochs, trials, lr of the only trial, noise
Row = tuple[Task, int, int, int, int, float, float]
FIRST: tuple[Row, ...] = (
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
SECOND: tuple[tuple[Row, Kind | None], ...] = (
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
    (("mlp", 1500, 96, 8, 8, 0.0, 0.3), None),
    (("cnn", 600, 6, 6, 5, 0.0, 0.3), None),
    (("digits", 400, 48, 20, 8, 0.0, 0.4), None),
    (("halves", 300, 48, 20, 6, 0.0, 0.0), "adam"),
    (("halves", 1500, 64, 6, 6, 0.0, 0.0), "adam"),
    (("halves", 2000, 12, 6, 5, 0.0, 0.0), "adam"),
    (("halves", 800, 64, 10, 1, 0.001, 0.0), "adam"),
    (("halves", 1000, 48, 3, 8, 0.0, 0.0), "adam"),
    (("mlp", 2700, 96, 8, 5, 0.0, 0.0), None),
    (("mlp", 2700, 24, 10, 10, 0.0, 0.0), None),
    (("cnn", 2600, 5, 2, 6, 0.0, 0.0), None),
    (("digits", 100, 16, 30, 5, 0.0, 0.0), None),
    (("text", 30_000, 32, 2, 5, 0.0, 0.0), None),
    (("text", 12_000, 24, 3, 8, 0.0, 0.0), "cosine"),
)
THIRD: tuple[tuple[Row, Kind | None], ...] = (
    (("text", 10_000, 48, 4, 6, 0.0, 0.0), None),
    (("text", 25_000, 32, 2, 1, 0.01, 0.0), None),
    (("text", 8_000, 32, 5, 10, 0.0, 0.0), "cosine"),
    (("text", 40_000, 16, 1, 5, 0.0, 0.0), None),
    (("manual", 8_000, 48, 5, 6, 0.0, 0.0), None),
    (("manual", 20_000, 32, 2, 8, 0.0, 0.0), None),
    (("manual", 12_000, 12, 4, 5, 0.0, 0.0), None),
    (("manual", 15_000, 48, 2, 1, 0.002, 0.0), None),
    (("manual", 30_000, 24, 2, 6, 0.0, 0.0), "cosine"),
    (("rows", 300, 24, 10, 6, 0.0, 0.0), "adam"),
    (("rows", 1000, 32, 5, 8, 0.0, 0.0), "adam"),
    (("rows", 2000, 12, 4, 5, 0.0, 0.0), "adam"),
    (("rows", 700, 48, 6, 1, 0.001, 0.0), "adam"),
    (("rows", 1500, 24, 2, 6, 0.0, 0.0), "adam"),
    (("rows", 400, 24, 12, 5, 0.0, 0.0), None),
    (("photos", 300, 48, 15, 6, 0.0, 0.0), "adam"),
    (("photos", 1500, 64, 6, 8, 0.0, 0.0), "adam"),
    (("photos", 2000, 8, 6, 5, 0.0, 0.0), "adam"),
    (("photos", 800, 48, 8, 1, 0.0005, 0.0), "adam"),
    (("photos", 1000, 96, 3, 6, 0.0, 0.0), "adam"),
    (("mlp", 300, 64, 15, 6, 0.0, 0.0), "loss"),
    (("mlp", 1500, 96, 8, 8, 0.0, 0.0), "loss"),
    (("mlp", 2000, 8, 6, 6, 0.0, 0.0), "loss"),
    (("mlp", 800, 64, 8, 1, 0.02, 0.0), "loss"),
    (("mlp", 1000, 128, 12, 6, 0.0, 0.3), "loss"),
    (("cnn", 500, 6, 6, 6, 0.0, 0.0), "loss"),
    (("cnn", 1500, 5, 3, 10, 0.0, 0.0), "loss"),
    (("digits", 300, 48, 20, 8, 0.0, 0.0), "loss"),
    (("mlp", 400, 48, 12, 6, 0.0, 0.0), "deep"),
    (("mlp", 1600, 32, 8, 8, 0.0, 0.0), "deep"),
    (("mlp", 1200, 96, 4, 5, 0.0, 0.0), "deep"),
    (("digits", 350, 24, 20, 1, 0.05, 0.0), "deep"),
    (("mlp", 500, 64, 10, 6, 0.0, 0.0), "uneven"),
    (("mlp", 1000, 48, 5, 10, 0.0, 0.0), "uneven"),
    (("cnn", 800, 6, 6, 6, 0.0, 0.0), "uneven"),
    (("digits", 180, 32, 20, 8, 0.0, 0.0), "uneven"),
    (("mlp", 1500, 64, 8, 6, 0.0, 0.0), "batch"),
    (("mlp", 600, 96, 10, 1, 0.1, 0.0), "batch"),
    (("cnn", 1000, 6, 6, 8, 0.0, 0.0), "batch"),
    (("mlp", 2700, 64, 6, 12, 0.0, 0.15), None),
    (("cnn", 2700, 8, 3, 6, 0.0, 0.0), None),
    (("digits", 490, 64, 20, 6, 0.0, 0.0), None),
    (("cancer", 100, 16, 30, 6, 0.0, 0.0), "loss"),
    (("cancer", 60, 32, 20, 8, 0.0, 0.1), "adam"),
    (("diabetes", 100, 24, 30, 6, 0.0, 0.0), "adam"),
    (("diabetes", 50, 8, 40, 1, 0.003, 0.0), "adam"),
)
FOURTH: tuple[tuple[Row, Kind | None], ...] = (
    (("code", 10_000, 32, 4, 6, 0.0, 0.0), None),
    (("code", 25_000, 32, 2, 8, 0.0, 0.0), None),
    (("code", 15_000, 12, 4, 5, 0.0, 0.0), None),
    (("code", 12_000, 48, 3, 1, 0.002, 0.0), None),
    (("text", 18_000, 24, 3, 12, 0.0, 0.0), None),
    (("manual", 10_000, 64, 4, 10, 0.0, 0.0), None),
    (("tiles", 300, 32, 12, 6, 0.0, 0.0), None),
    (("tiles", 1000, 48, 8, 8, 0.0, 0.0), "adam"),
    (("tiles", 2000, 8, 6, 6, 0.0, 0.0), None),
    (("tiles", 1500, 64, 4, 1, 0.02, 0.0), None),
    (("tiles", 600, 64, 10, 6, 0.0, 0.0), "loss"),
    (("tiles", 2000, 48, 3, 10, 0.0, 0.0), "norm"),
    (("sums", 1500, 64, 8, 6, 0.0, 0.0), "adam"),
    (("sums", 4000, 64, 6, 8, 0.0, 0.0), "adam"),
    (("sums", 4000, 16, 6, 5, 0.0, 0.0), "adam"),
    (("sums", 2500, 96, 5, 1, 0.0005, 0.0), "adam"),
    (("sums", 6_000, 48, 3, 6, 0.0, 0.0), "adam"),
    (("sums", 3000, 64, 8, 6, 0.0, 0.0), None),
    (("mlp", 300, 64, 12, 8, 0.0, 0.0), "layernorm"),
    (("mlp", 1800, 48, 6, 6, 0.0, 0.0), "layernorm"),
    (("digits", 200, 32, 20, 5, 0.0, 0.0), "layernorm"),
    (("mlp", 900, 64, 5, 1, 0.01, 0.0), "layernorm"),
    (("mlp", 2000, 8, 5, 8, 0.0, 0.0), "layernorm"),
    (("mlp", 500, 96, 12, 6, 0.0, 0.0), "decay"),
    (("cnn", 700, 6, 6, 8, 0.0, 0.0), "decay"),
    (("digits", 300, 48, 20, 6, 0.0, 0.0), "decay"),
    (("mlp", 2000, 64, 4, 5, 0.0, 0.0), "decay"),
    (("mlp", 300, 48, 8, 6, 0.0, 0.0), "tiny"),
    (("cnn", 400, 6, 4, 6, 0.0, 0.0), "tiny"),
    (("digits", 250, 48, 10, 8, 0.0, 0.0), "tiny"),
    (("mlp", 1200, 32, 3, 1, 0.01, 0.0), "tiny"),
    (("photos", 700, 24, 8, 10, 0.0, 0.0), "adam"),
    (("photos", 1500, 48, 5, 5, 0.0, 0.0), None),
    (("rows", 600, 32, 8, 8, 0.0, 0.0), "adam"),
    (("halves", 900, 32, 8, 8, 0.0, 0.0), "adam"),
    (("halves", 2000, 64, 3, 1, 0.003, 0.0), "adam"),
    (("mlp", 700, 64, 10, 6, 0.0, 0.2), "adam"),
    (("cnn", 2000, 5, 3, 12, 0.0, 0.1), None),
)
# Drawn at random from the tasks, kinds and sizes of before.
FIFTH: tuple[tuple[Row, Kind | None], ...] = (
    (("mlp", 1500, 75, 7, 1, 0.02, 0.0), "layernorm"),
    (("mlp", 170, 9, 15, 13, 0.0, 0.0), "deep"),
    (("mlp", 2500, 96, 12, 12, 0.0, 0.0), "cosine"),
    (("mlp", 170, 37, 5, 6, 0.0, 0.0), "uneven"),
    (("mlp", 1800, 15, 13, 7, 0.0, 0.0), "norm"),
    (("mlp", 150, 32, 6, 10, 0.0, 0.0), "norm"),
    (("mlp", 370, 12, 9, 6, 0.0, 0.0), "deep"),
    (("cnn", 440, 7, 4, 16, 0.0, 0.1), None),
    (("cnn", 2100, 3, 6, 8, 0.0, 0.0), "loss"),
    (("cnn", 2100, 5, 3, 13, 0.0, 0.0), "cosine"),
    (("cnn", 640, 4, 5, 5, 0.0, 0.0), "decay"),
    (("cnn", 510, 7, 3, 9, 0.0, 0.0), "adam"),
    (("digits", 280, 37, 28, 16, 0.0, 0.0), "layernorm"),
    (("digits", 100, 47, 25, 9, 0.0, 0.0), None),
    (("digits", 440, 18, 16, 4, 0.0, 0.0), "adam"),
    (("digits", 420, 79, 14, 1, 0.1, 0.3), "deep"),
    (("rows", 570, 13, 8, 1, 0.04, 0.0), None),
    (("rows", 450, 22, 6, 1, 0.2, 0.0), None),
    (("rows", 470, 21, 3, 1, 0.02, 0.0), "loss"),
    (("halves", 1700, 53, 7, 4, 0.0, 0.0), "adam"),
    (("halves", 1500, 21, 11, 15, 0.0, 0.0), "decay"),
    (("halves", 1200, 28, 9, 9, 0.0, 0.0), "decay"),
    (("photos", 320, 16, 4, 7, 0.0, 0.0), "adam"),
    (("photos", 470, 42, 10, 9, 0.0, 0.0), "adam"),
    (("photos", 720, 49, 9, 7, 0.0, 0.0), "decay"),
    (("sums", 3900, 39, 8, 13, 0.0, 0.0), "loss"),
    (("sums", 3000, 66, 6, 11, 0.0, 0.0), "norm"),
    (("sums", 1600, 25, 6, 4, 0.0, 0.0), "loss"),
    (("tiles", 310, 30, 6, 10, 0.0, 0.0), None),
    (("tiles", 910, 31, 6, 15, 0.0, 0.0), "loss"),
    (("tiles", 960, 37, 4, 10, 0.0, 0.0), "cosine"),
    (("cancer", 90, 14, 18, 4, 0.0, 0.0), None),
    (("cancer", 50, 12, 33, 1, 0.004, 0.0), "adam"),
    (("diabetes", 50, 9, 13, 12, 0.0, 0.0), "cosine"),
    (("text", 14_000, 24, 2, 10, 0.0, 0.0), None),
    (("text", 8_000, 36, 1, 6, 0.0, 0.0), None),
    (("manual", 6_000, 48, 2, 1, 0.0006, 0.0), None),
    (("manual", 8_000, 20, 3, 10, 0.0, 0.0), "cosine"),
    (("code", 8_000, 28, 4, 1, 0.006, 0.0), None),
    (("code", 11_000, 40, 2, 12, 0.0, 0.0), None),
)


def _situations() -> tuple[Scenario, ...]:
    waves: tuple[tuple[tuple[Row, Kind | None], ...], ...] = (
        tuple((row, None) for row in FIRST),
        SECOND,
        THIRD,
        FOURTH,
        FIFTH,
    )
    found = []
    for wave, rows in zip(get_args(Wave), waves, strict=True):
        for row, kind in rows:
            task, examples, width, epochs, trials, lr, noise = row
            name = f"{task}-{examples}-w{width}-e{epochs}-t{trials}"
            name += f"-lr{lr:g}" * (trials == 1) + f"-noise{noise:g}" * (noise > 0.0)
            name += "" if kind is None else f"-{kind}"
            found.append(Scenario(name, *row, kinds=(kind,) if kind else (), wave=wave))
    return tuple(found)


SCENARIOS = {scenario.name: scenario for scenario in _situations()}
FEW = 100  # validation examples at least, where there are so many
VALIDATION = {"digits": 200, "cancer": 100, "diabetes": 100} | dict.fromkeys(
    TEXTS, 16_000
)  # at most
IMAGES = 1000  # the same of all other tasks


def count_validation(scenario: Scenario) -> int:
    """Validation examples, characters of text: who has few to train on has few to validate on."""
    few, share = (2_000, 4) if scenario.task in TEXTS else (FEW, 2)
    return min(most_validation(scenario.task), max(few, scenario.examples // share))


def most_validation(task: Task) -> int:
    """Validation examples, characters of text, that are kept for it."""
    return VALIDATION.get(task, IMAGES)
