"""The names that runs go by in MLflow, names that it accepts, and URLs that may be shown."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

STUDY_TAG = "wwopt.study"  # UUID of the study, on its parent run and on every trial's
TRIAL_TAG = "wwopt.trial"  # Optuna's trial number
# "study", "trial", "probe", "candidate", "check", "watch", "checkpoint", "compression"; or
# "compressed", of the run that stands for what was compressed
KIND_TAG = "wwopt.kind"
COMPRESSION_KIND = "compression"  # a compressed variant, under the run of what was compressed
COMPRESSED_TAG = "wwopt.compressed"  # what was compressed, on the run that stands for it
PROBE_KIND = "probe"  # trainings beside the trials: see wwopt.recommendation.probes
STATE_TAG = "optuna.state"  # RUNNING, COMPLETE, PRUNED or FAIL
ENDING_TAG = "wwopt.ending"  # how a trial ended, as wwopt.study.outcomes.Ending
STATUS_TAG = "wwopt.status"  # "ok", or why it ended otherwise, in words
GUIDE_TAG = "wwopt.guide"  # preset of the score that guides the study, on its trials and its parent
CODE_TAG = "wwopt.code"  # hash of the file that the trial's training was read from
SEED_TAG = "wwopt.seed"  # of the trial's shuffles
ORPHAN_TAG = "wwopt.orphan"  # "true": its process died, and another one closed the run
INTERRUPTED_TAG = (
    "wwopt.interrupted"  # "stopped" or "lost": the trial is tried again in another run
)
BEST_TAG = "wwopt.best_trial"  # number of the best trial so far, on the parent run
BEST_RUN_TAG = "wwopt.best_run"  # its run
# Number of the textbook configuration's trial where it is kept though others score lower, else "".
KEPT_TAG = "wwopt.kept_trial"
PASSED_TAG = "wwopt.passed"  # "true" or "false": what the gate said; people may correct it
OBSERVED_TAG = "wwopt.observed"  # "true": the study has an objective of its own, on its parent run
ALARM_TAG = "wwopt.alarm"  # of an observed trial: what went wrong, in words, a line each
WATCHED_TAG = "wwopt.watched"  # what a watch looks at, on its run
CHECKPOINT_TAG = "wwopt.checkpoint"  # what tells a watched checkpoint from another, on its run
STEP_TAG = "wwopt.step"  # of a watched checkpoint in the charts of its watch
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"  # Markdown that MLflow shows as a run's description

VALUE = "objective/value"  # metric: of the objective, lower is better
GUARDS = "guards"  # group of the constraints, in Optuna and MLflow; positive where violated
ALARMS = "alarms"  # group of the same numbers of an observed trial, which nothing refuses
OWN = "own_objective"  # the value that an observed study's own objective returned, as a metric
SCORES = "scores"  # group of what every score says of a trial's network, lower is better
LAYER_ALPHA = "layer_alpha"  # group of the metrics that hold every layer's alpha at the end
SUGGESTED = "tuned"  # group of the parameters that hold what Optuna suggested, as knots of a tie

SECRETS = "password|passwd|pwd|token|secret|sslpassword|passfile"  # keys of a URL's query

MAX_TAG = 8000  # characters; MLflow cuts longer values
MAX_PARAM = 6000  # characters of a parameter; MLflow refuses longer ones
MAX_KEY = 250  # characters of a metric's or parameter's name that MLflow accepts


def safe_key(name: str) -> str:
    """A name that MLflow accepts as a key, the same for the same name.

    Letters of any script stay; what MLflow refuses becomes "_". One "/" separates the group that
    its charts are ordered by. Names that lose something in the layer part to the length limit get
    a hash, so that two long layers do not become one.
    """
    group, _, rest = unicodedata.normalize("NFC", name).partition("/")
    cleaned = "/".join(
        re.sub(r"[^\w.\- ]", "_", part.replace("/", ".")).strip(" .") or "_"
        for part in ((group, rest) if rest else (group,))
    )
    cleaned = re.sub(r"\.{2,}", ".", cleaned)
    if len(cleaned) > MAX_KEY:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        cleaned = f"{cleaned[: MAX_KEY - 13]}-{digest}"
    return cleaned


def unique_keys(names: Iterable[str]) -> list[str]:
    """Keys of names, in their order; a second name that becomes the same key gets a number."""
    seen: dict[str, int] = {}
    unique = []
    for key in map(safe_key, names):
        seen[key] = seen.get(key, 0) + 1
        unique.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return unique


def hide_password(url: str) -> str:
    """The URL with its password and the values of its query masked, for messages and logs."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return url
    masked = parsed.render_as_string(hide_password=True)
    return re.sub(r"([?&][^=&]+=)[^&]*", r"\1***", masked)


def hide_passwords(text: str) -> str:
    """A text with the passwords of all URLs in it masked, as an error's message may hold them."""
    masked = re.sub(r"(\w+://[^\s:/@]*:)[^\s@]+@", r"\1***@", text)
    return re.sub(rf"([?&]({SECRETS})=)[^&\s'\"]+", r"\1***", masked, flags=re.IGNORECASE)
