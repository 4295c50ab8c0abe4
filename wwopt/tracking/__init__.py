"""Studies and trials in MLflow: study → parent run, trial → child run. The only user of mlflow.

Everything goes through `MlflowClient` with explicit run ids: the fluent API keeps its active run in
thread-local state and marks a pruned trial as failed. What is written here is read back by
`wwopt.tracked_studies`.
"""

from wwopt.tracking.keys import (
    STUDY_TAG,
    TRIAL_TAG,
    hide_password,
    hide_passwords,
    safe_key,
)
from wwopt.tracking.models import log_model, register_model
from wwopt.tracking.probes import log_probe, read_probes
from wwopt.tracking.rankings import LoggedCandidate, log_ranking
from wwopt.tracking.runs import StudyRun, TrialRun
from wwopt.tracking.store import TrackingError, connect, explained, reach
from wwopt.tracking.studies import finish_study, mirror_best, open_study
from wwopt.tracking.trials import close_orphan, open_trial
from wwopt.tracking.views import link_to, save_view

__all__ = [
    "STUDY_TAG",
    "TRIAL_TAG",
    "LoggedCandidate",
    "StudyRun",
    "TrackingError",
    "TrialRun",
    "close_orphan",
    "connect",
    "explained",
    "finish_study",
    "hide_password",
    "hide_passwords",
    "link_to",
    "log_model",
    "log_probe",
    "log_ranking",
    "mirror_best",
    "open_study",
    "open_trial",
    "reach",
    "read_probes",
    "register_model",
    "safe_key",
    "save_view",
]
