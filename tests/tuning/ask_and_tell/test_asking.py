"""A trial is handed out once, under a lease, as a file; about `asking` and `asked_trials`."""

import dataclasses
import json
import time
from pathlib import Path

import optuna
import pytest
from fixtures.studies.jobs import make_study

import wwopt
from wwopt.study.errors import StudyError
from wwopt.tuning.ask_and_tell.asked_trials import AskedTrial, read_asked
from wwopt.tuning.ask_and_tell.asking import NothingToAskError, ask
from wwopt.tuning.claims.leases import ends_at, lease_of
from wwopt.tuning.tuning import run_worker, tune


def trials_of(out: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="away", storage=f"sqlite:///{out / 'optuna.db'}").trials


def test_the_file_is_plain_data_and_reads_back_as_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "hp.json"
    asked = ask(make_study(), path, trials=2, out=tmp_path, lease=60.0)
    found = json.loads(path.read_text())
    assert found["layers"]["0"] == {"lr": 0.01, "dropout": 0.1, "momentum": 0.9}  # the textbook
    assert set(found["layers"]["3"]) == {"lr", "momentum"}
    assert (found["trial"], found["epochs"]) == (0, 4)
    assert Path(found["checkpoint_dir"]).is_dir()
    again = read_asked(path)
    assert again == dataclasses.replace(asked, until=again.until)
    assert again.until == pytest.approx(asked.until)
    (trial, waiting) = trials_of(tmp_path)
    assert (trial.state.name, waiting.state.name) == ("RUNNING", "WAITING")
    until = ends_at(lease_of(trial))
    assert until is not None and until == pytest.approx(time.time() + 60.0, abs=30.0)
    (run,) = wwopt.read_study(f"sqlite:///{tmp_path / 'mlflow.db'}", "away").trials
    assert (run.state, run.params["lr/0"]) == ("RUNNING", "0.01")

    assert ask(make_study(), path, out=tmp_path).trial == 1
    with pytest.raises(NothingToAskError, match="all 2 trials of study 'away' are finished or run"):
        ask(make_study(), path, out=tmp_path)


@pytest.mark.slow
def test_a_lease_that_runs_out_hands_the_same_values_to_the_next(tmp_path: Path) -> None:
    first = ask(make_study(), tmp_path / "a.json", trials=1, out=tmp_path, lease=1e-3)
    second = ask(make_study(), tmp_path / "b.json", out=tmp_path)
    assert (first.trial, second.trial) == (0, 1)
    assert second.hp == first.hp
    assert second.conditions == first.conditions  # its seed and its checkpoint folder too
    assert [t.state.name for t in trials_of(tmp_path)] == ["FAIL", "RUNNING"]
    assert trials_of(tmp_path)[0].user_attrs["error"] == "its lease ran out"
    (lost, _) = wwopt.read_study(f"sqlite:///{tmp_path / 'mlflow.db'}", "away").trials
    assert (lost.state, lost.tags["wwopt.interrupted"]) == ("FAIL", "lost")


@pytest.mark.slow
def test_what_cannot_be_written_holds_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError, match=r"cannot write .*: Is a directory"):
        ask(make_study(), tmp_path, trials=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

    def fail(self: AskedTrial, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(AskedTrial, "write", fail)
        with pytest.raises(OSError, match="No space"):
            ask(make_study(), tmp_path / "hp.json", trials=1, out=tmp_path)
    assert [t.state.name for t in trials_of(tmp_path)] == ["FAIL", "WAITING"]
    assert ask(make_study(), tmp_path / "hp.json", out=tmp_path).trial == 1


def test_a_study_that_trains_elsewhere_is_not_run_here(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be run here: its networks are trained by jobs"):
        tune(make_study(), trials=1, out=tmp_path)
    (tmp_path / "away.py").write_text(
        "from fixtures.studies.jobs import make_study\nstudy = make_study()\n"
    )
    with pytest.raises(StudyError, match="`wwopt ask` hands out"):
        run_worker(str(tmp_path / "away.py"), out=tmp_path)


def test_wrong_input_is_said_before_anything_is_made(tmp_path: Path) -> None:
    path, out = tmp_path / "hp.json", tmp_path / "out"
    with pytest.raises(StudyError, match=r"no study 'away' in the storage yet.*pass --trials"):
        ask(make_study(), path, out=out)
    with pytest.raises(StudyError, match="longer than 0 s, got -1"):
        ask(make_study(), path, out=out, lease=-1.0)
    for second in ("size", "bytes", "latency"):
        with pytest.raises(StudyError, match=f'"{second}", which a checkpoint does not tell'):
            ask(dataclasses.replace(make_study(), second=second), path, out=out)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not what `wwopt ask` writes"),
        ("[]", "is not what `wwopt ask` writes"),
        ('{"format": 7}', "has format 7; this version of wwopt reads 1"),
        ('{"format": 1, "layers": 3}', "is not what `wwopt ask` wrote any more: "),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_file_that_is_none_of_ours_is_said(
    text: str | bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "hp.json"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(StudyError, match=message):
        read_asked(path)
