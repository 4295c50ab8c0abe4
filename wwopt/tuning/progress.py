"""Tell of a study's trials as they end, whoever runs them: a bar, and a line for each failure."""

import sys
from types import TracebackType

import optuna
from optuna.trial import TrialState
from tqdm import tqdm

from wwopt.study.constraints import memorises
from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.workers.trial_runs import describe_finished

MEMORISED = (
    "training loss fell, slowed, and then fell as fast as before: labels are memorised, as wrong "
    "ones are. Look at the labels, or train for less long. (Where no example is seen twice it "
    "means nothing: guards=Guards(memorising=math.inf).)"
)


class Progress:
    """A bar of the trials that a study has of those that it shall have."""

    def __init__(self, study: optuna.Study, *, target: int, shown: bool, one_order: bool) -> None:
        """Begin with the trials that there are.

        Args:
            study: Optuna's.
            target: trials that it shall have.
            shown: whether there is a bar; failures are told in any case.
            one_order: whether all trials compare, so that one is the best.
        """
        self._study, self._word = study, "best" if one_order else "lowest"
        finished = list_finished(study)
        self._known = {trial.number for trial in finished}
        self._memorised = any(memorises(trial) for trial in finished)
        self._best: float | None = None
        self._bar = tqdm(
            total=target,
            initial=min(len(finished), target),
            desc=study.study_name,
            unit="trial",
            disable=not shown,
        )
        self._note(finished)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stderr)

    def look(self) -> None:
        """Tell of the trials that ended since the last look."""
        new = [t for t in list_finished(self._study) if t.number not in self._known]
        for trial in sorted(new, key=lambda t: t.number):
            self._known.add(trial.number)
            told = describe_finished(trial)
            if told.state == "FAIL":
                self.say(f"trial {told.number} failed: {told.error or 'no reason was left'}")
            if memorises(trial) and not self._memorised:
                self._memorised = True  # once: the end says how many
                self.say(f"trial {told.number} is refused: its {MEMORISED}")
        self._note(new)
        self._bar.update(len(new))

    def _note(self, trials: list[optuna.trial.FrozenTrial]) -> None:
        told = [describe_finished(t) for t in trials if t.state == TrialState.COMPLETE]
        values = [t.value for t in told if t.value is not None and t.feasible]
        if values:
            self._best = min(values if self._best is None else [*values, self._best])
            self._bar.set_postfix_str(f"{self._word} {self._best:.4f}")
