"""What a finished study leaves in MLflow for its readers: its report, pictures of its best trial.

The report takes half a second of a core, pictures a third of a second a layer. It tells what
to do next as `wwopt report` does: of the 40 s of `wwopt tune studies/digits.py` that takes .02 s,
and .6 s where the 36 probes of `wwopt recommend --probe` are there to be read (CPU and wall time of
`explain_study` with and without).
"""

import tempfile
from pathlib import Path

import wwopt.metrics  # its door is lazy: drawing takes matplotlib, analysing takes torch
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.report.next_step import explain_next_step
from wwopt.report.page import render_report
from wwopt.tracking import StudyRun, TrialRun, save_view
from wwopt.tracking.artifacts import attach_page, read_layer_spectra
from wwopt.tracking.keys import SEED_TAG
from wwopt.tracking.models import download_weights
from wwopt.tracking.tracked_studies import read_study
from wwopt.tracking.tracked_trials import TrackedTrial

PICTURES = "spectra"  # artifact: folder with a picture of every layer, and one of all
PICTURES_TAG = "wwopt.pictures"  # on a trial's run: how many there are
MAX_PICTURES = 24  # layers that are drawn without being asked for


def explain_study(run: StudyRun) -> None:
    """Attach the report to a study's run, and pictures of the best trial's spectra to its run.

    A view of the study is saved for MLflow's screens, with the columns and charts that matter.

    A trial that has pictures keeps them, so that resuming draws only what is new.

    Raises:
        TrackingError: if the store cannot be read or written.
    """
    study = read_study(run.uri, run_id=run.run_id)
    metrics = dict.fromkeys(key for trial in study.trials for key in trial.metrics)
    params = dict.fromkeys(key for trial in study.trials for key in trial.params)
    save_view(run, metrics=list(metrics), params=list(params))
    attach_page(study, render_report(study, recommendation=explain_next_step(study)).encode())
    if study.best is not None and PICTURES_TAG not in study.best.tags:
        attach_pictures(study.best, most=MAX_PICTURES)


def attach_pictures(trial: TrackedTrial, *, most: int | None = None) -> int:
    """Draw a trial's spectra and attach them to its run, in the folder `spectra`.

    Args:
        trial: whose spectra are drawn.
        most: layers to draw; None for all.

    Returns:
        Pictures that were attached; 0 where the trial logged neither spectra nor weights.

    Raises:
        TrackingError: if the store cannot be read or written.
    """
    metrics = _read_metrics(trial, most)
    if metrics is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / PICTURES
        written = wwopt.metrics.write_plots(metrics, pictures)
        run = TrialRun(trial.uri, trial.run_id)
        run.log_file(pictures, PICTURES)
        run.tag({PICTURES_TAG: str(len(written))})
    return len(written)


def _read_metrics(trial: TrackedTrial, most: int | None) -> ModelMetrics | None:
    records = read_layer_spectra(trial)
    if records is not None:
        return wwopt.metrics.metrics_from_records(records[:most])
    # wwopt 0.1.0 kept too little of the spectra: they are computed again.
    with tempfile.TemporaryDirectory() as folder:
        weights = download_weights(trial, folder)
        if weights is None:
            return None
        metrics = wwopt.metrics.analyze(weights, seed=int(trial.tags.get(SEED_TAG, 0)))
        return ModelMetrics(metrics.layers[:most], skipped=metrics.skipped)
