"""What jobs tell is taken as `tune` would have found it, once, and nothing else is."""

import dataclasses
import math
import time
from pathlib import Path

import optuna
import pytest
import torch
from fixtures.studies.jobs import Job, make_network, make_study
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.score_version import ScoreError
from wwopt.tuning.ask_and_tell.asking import NothingToAskError, ask
from wwopt.tuning.ask_and_tell.telling import Told, tell
from wwopt.tuning.tuning import tune
from wwopt.weights.stored_tensors import WeightsError


def study_in(out: Path) -> optuna.Study:
    return optuna.load_study(study_name="away", storage=f"sqlite:///{out / 'optuna.db'}")


def uri_of(out: Path) -> str:
    return f"sqlite:///{out / 'mlflow.db'}"


def do_trial(out: Path, *, first: bool = True, **options: object) -> tuple[wwopt.AskedTrial, Told]:
    """Ask, train, tell the first loss and the end."""
    asked = ask(make_study(), out / "hp.json", trials=3, out=out, **options)  # type: ignore[arg-type]
    job = Job(asked, out / f"{asked.trial}.pt")
    if first:
        assert tell(make_study(), asked, step=1, train_loss=job.losses[0], out=out).goes_on
    return asked, tell(make_study(), asked, job.path, train_loss=job.losses[-1], out=out)


@pytest.mark.slow
def test_a_study_of_jobs_is_the_one_that_tune_would_have_run(tmp_path: Path) -> None:
    """Same parameters, values and constraints, and the same report at the end."""
    asked = [do_trial(tmp_path)[1] for _ in range(3)]
    assert [t.completes for t in asked] == [False, False, True]
    with pytest.raises(NothingToAskError, match="has all of its 3 trials"):
        ask(make_study(), tmp_path / "hp.json", out=tmp_path)
    result = tune(make_study(elsewhere=False), trials=3, out=tmp_path / "tuned", progress=False)
    for told, run in zip(study_in(tmp_path).trials, result.study.trials, strict=True):
        assert (told.state, told.params) == (run.state, run.params)
        assert told.values == pytest.approx(run.values, rel=1e-6)  # the file's float32 is exact
        assert told.constraints == pytest.approx(run.constraints)
        assert told.user_attrs["scores"] == pytest.approx(run.user_attrs["scores"])
    ours, theirs = (wwopt.read_study(uri_of(o), "away") for o in (tmp_path, tmp_path / "tuned"))
    assert ours.tags["wwopt.best_trial"] == theirs.tags["wwopt.best_trial"]
    assert [t.state for t in ours.trials] == ["COMPLETE"] * 3
    client = MlflowClient(uri_of(tmp_path))
    assert ours.run_id is not None
    assert "report.html" in {a.path for a in client.list_artifacts(ours.run_id)}
    assert client.get_run(ours.run_id).info.status == "FINISHED"
    losses = client.get_metric_history(ours[0].run_id, "train/loss")
    assert [m.step for m in losses] == [1, 4]  # nothing twice
    assert not list(tmp_path.glob("checkpoints/**/*"))


@pytest.fixture(scope="module")
def told_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with one complete trial, and a second one that is out."""
    out = tmp_path_factory.mktemp("told")
    do_trial(out)
    (out / "hp.json").rename(out / "first.json")
    ask(make_study(), out / "hp.json", out=out)
    return out


def test_wrong_input_is_refused_and_changes_nothing(told_once: Path, tmp_path: Path) -> None:
    out = told_once
    before = study_in(out).trials
    wrong = tmp_path / "wrong.pt"
    torch.save(nn.Sequential(nn.Linear(64, 90), nn.Linear(90, 10)).state_dict(), wrong)
    broken = tmp_path / "broken.pt"
    broken.write_bytes((out / "0.pt").read_bytes()[:2000])
    good = out / "0.pt"
    other = dataclasses.replace(wwopt.read_asked(out / "hp.json"), study="other")
    absent = dataclasses.replace(wwopt.read_asked(out / "hp.json"), trial=7)
    cases = [
        ((out / "hp.json",), {}, StudyError, "name the checkpoint, or --step, or --failed"),
        ((out / "hp.json", good), {"failed": "x"}, StudyError, "that failed has no checkpoint"),
        ((out / "hp.json", good), {"step": -1}, StudyError, "steps count from 0, got -1"),
        ((out / "hp.json", tmp_path / "no.pt"), {}, WeightsError, "no.pt does not exist"),
        ((out / "hp.json", broken), {}, WeightsError, "is no file of tensors"),
        ((out / "hp.json", wrong), {}, WeightsError, "it lacks 3, and has 0, 1"),
        ((out / "hp.json", good), {}, ScoreError, "log it in all trials"),
        ((other, good), {}, StudyError, "was asked of study 'away' .other., and this is"),
        ((absent, good), {}, StudyError, "has no trial 7"),
        ((out / "first.json", good), {}, StudyError, "told already: it is COMPLETE"),
        ((out / "first.json",), {"failed": "x"}, StudyError, "told already: it is COMPLETE"),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=message):
            tell(make_study(), *arguments, out=out, **options)  # type: ignore[arg-type]
    assert study_in(out).trials == before


@pytest.mark.slow
def test_steps_go_up_and_report_what_the_checkpoint_is_worth(tmp_path: Path) -> None:
    asked = ask(make_study(), tmp_path / "hp.json", trials=1, out=tmp_path, lease=3600.0)
    job = Job(asked, tmp_path / "0.pt")
    for step in (1, 2, 3):
        told = tell(
            make_study(), asked, job.path, step=step, train_loss=job.losses[step - 1], out=tmp_path,
            metrics={"accuracy": 0.1 * step},
        )  # fmt: skip
        assert told.goes_on and told.value is not None
    with pytest.raises(StudyError, match="step 2 of trial 0 was told already, the last was 3"):
        tell(make_study(), asked, job.path, step=2, train_loss=1.0, out=tmp_path)
    (trial,) = study_in(tmp_path).trials
    assert sorted(trial.intermediate_values) == [2, 3]  # from half of 4 on
    lease = trial.user_attrs["wwopt.lease"]
    assert lease["beat"] == 3 and lease["until"] > asked.until
    (run,) = wwopt.read_study(uri_of(tmp_path), "away").trials
    client = MlflowClient(uri_of(tmp_path))
    steps = [m.step for m in client.get_metric_history(run.run_id, "metrics/accuracy")]
    assert steps == [1, 2, 3]


@pytest.mark.slow
def test_a_step_says_when_to_stop(tmp_path: Path) -> None:
    spec = dataclasses.replace(
        make_study(), pruner=optuna.pruners.ThresholdPruner(upper=-1e9, n_warmup_steps=0)
    )
    asked = ask(spec, tmp_path / "hp.json", trials=2, out=tmp_path)
    job = Job(asked, tmp_path / "0.pt")
    told = tell(spec, asked, job.path, step=1, train_loss=1.0, out=tmp_path)
    assert told.goes_on  # before half of it nothing is asked
    told = tell(spec, asked, job.path, step=2, train_loss=0.9, out=tmp_path)
    assert not told.goes_on and told.state == "PRUNED"
    assert told.status.startswith("pruned at step 2 with value")
    broken = ask(spec, tmp_path / "hp.json", out=tmp_path)
    model = make_network()
    with torch.no_grad():
        model[0].weight.zero_()
    torch.save(model.state_dict(), tmp_path / "1.pt")
    told = tell(spec, broken, tmp_path / "1.pt", step=1, train_loss=0.9, out=tmp_path)
    assert (told.state, told.status, told.completes) == ("PRUNED", "broken: 0 zero", True)
    runs = wwopt.read_study(uri_of(tmp_path), "away").trials
    assert [(t.state, t.refused) for t in runs] == [("PRUNED", False), ("PRUNED", True)]
    with pytest.raises(StudyError, match="told already: it is PRUNED"):
        tell(spec, asked, job.path, train_loss=0.5, out=tmp_path)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_it_without_a_checkpoint(tmp_path: Path) -> None:
    asked = ask(make_study(), tmp_path / "hp.json", trials=1, out=tmp_path)
    told = tell(make_study(), asked, step=1, train_loss=math.nan, out=tmp_path)
    assert (told.state, told.status) == ("PRUNED", "training loss is nan")


@pytest.mark.slow
def test_a_failure_is_kept_with_its_reason_and_not_tried_again(tmp_path: Path) -> None:
    asked = ask(make_study(), tmp_path / "hp.json", trials=1, out=tmp_path)
    told = tell(make_study(), asked, failed="out of memory", out=tmp_path)
    assert told.completes and told.state == "FAIL"
    (trial,) = study_in(tmp_path).trials
    assert (trial.state.name, trial.user_attrs["error"]) == ("FAIL", "out of memory")
    (run,) = wwopt.read_study(uri_of(tmp_path), "away").trials
    assert (run.state, run.tags["wwopt.error"]) == ("FAIL", "out of memory")


@pytest.mark.slow
def test_a_late_result_is_refused_and_taken_only_if_nobody_tries_again(tmp_path: Path) -> None:
    asked = ask(make_study(), tmp_path / "a.json", trials=2, out=tmp_path, lease=1e-3)
    job = Job(asked, tmp_path / "0.pt")
    assert time.time() > asked.until
    with pytest.raises(StudyError, match="--late takes the result if nobody has yet"):
        tell(make_study(), asked, job.path, train_loss=0.5, out=tmp_path)
    told = tell(make_study(), asked, job.path, train_loss=0.5, late=True, out=tmp_path)
    assert told.state == "COMPLETE"
    late = ask(make_study(), tmp_path / "b.json", out=tmp_path, lease=1e-3)
    again = ask(make_study(), tmp_path / "c.json", out=tmp_path)
    assert again.hp == late.hp
    for options in ({}, {"late": True}):
        with pytest.raises(StudyError, match=f"trial {again.trial} tries the same values"):
            tell(make_study(), late, job.path, train_loss=0.5, out=tmp_path, **options)  # type: ignore[arg-type]
    assert tell(make_study(), again, job.path, train_loss=0.4, out=tmp_path).completes
    states = [t.state.name for t in study_in(tmp_path).trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]
