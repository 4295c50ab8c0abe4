"""The identity of a study: one UUID, which Optuna's study and MLflow's runs share."""

import threading
import uuid

import optuna

STUDY_ATTR = "wwopt.study"  # UUID in the Optuna study's user attributes
_naming = threading.Lock()  # two threads of one study must not name it twice


def study_uuid(study: optuna.Study) -> str:
    """The study's UUID, given to it where it has none."""
    with _naming:
        known = study.user_attrs.get(STUDY_ATTR)
        if known is None:
            known = str(uuid.uuid4())
            study.set_user_attr(STUDY_ATTR, known)
        return str(known)
