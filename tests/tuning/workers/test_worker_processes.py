"""`--jobs`: workers are commands of their own, one to a GPU, and one that dies is replaced."""

from pathlib import Path

import optuna
import pytest
from fixtures.studies.quick_studies import write_tiny_study
from fixtures.studies.tuned_folders import runs_of, trial_runs
from optuna.trial import TrialState

from wwopt.study.errors import StudyError
from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.tuning import tune
from wwopt.tuning.workers.worker_processes import list_devices

OPTIONS = {"jobs": 2, "progress": False, "explain": False}

# What each training sees is noted; it reads its data through a worker of its own, and the first one
# to begin is killed as the kernel would.
SEES = """
    import os, signal, pathlib
    seen = pathlib.Path(__file__).with_name("seen")
    with seen.open("a") as file:
        file.write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}\\n")
    data = torch.utils.data.DataLoader(torch.arange(4), num_workers=1)
    assert sum(int(batch) for batch in data) == 6
    mark = pathlib.Path(__file__).with_suffix(".mark")
    try:
        mark.touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        pass
    model = hp"""


def test_two_jobs_share_the_trials_whatever_happens_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    path = write_tiny_study(tmp_path, {"\n    model = hp": SEES})
    out = tmp_path / "out"
    # The workers, too, are told which score guides in place of the rule.
    result = tune(path, trials=7, out=out, objective="weights-only", **OPTIONS)  # type: ignore[arg-type]
    finished = list_finished(result.study)
    assert [t.state for t in finished] == [TrialState.COMPLETE] * 7
    assert {t.user_attrs["guide"] for t in finished} == {"weights-only"}
    assert len({tuple(t.params.values()) for t in finished}) == 7
    assert len(result.study.trials) == 8  # the one that was killed is there besides
    assert trial_runs(out) == sorted(str(t.number) for t in result.study.trials)
    assert not runs_of(out, "attributes.status = 'RUNNING'")
    (lost,) = runs_of(out, "tags.`wwopt.interrupted` = 'lost'")
    assert lost.info.status == "FAILED"
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(seen) == 8 and {device for device, _ in seen} == {"4", "7"}
    assert len({process for _, process in seen}) in (2, 3)  # a replacement may find all done
    with pytest.raises(StudyError, match="holds values of another score: preset 'weights-only'"):
        tune(path, trials=8, out=out, objective="validation-free", **OPTIONS)  # type: ignore[arg-type]


@pytest.mark.slow
def test_workers_that_only_fail_are_given_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = "    raise OSError('no data')\n    model = hp"
    path = write_tiny_study(tmp_path, {"    model = hp": failing})
    with pytest.raises(StudyError, match=r"the first \d trials failed, the last with OSError: no"):
        tune(path, trials=20, out=tmp_path / "out", **OPTIONS)  # type: ignore[arg-type]
    said = capfd.readouterr().err
    assert said.count("failed: OSError: no data") in (3, 4) and "Traceback" not in said
    url = f"sqlite:///{tmp_path / 'out' / 'optuna.db'}"
    study = optuna.load_study(study_name="tiny", storage=url)
    assert not [t for t in study.trials if t.state == TrialState.RUNNING]
    assert [r.info.status for r in runs_of(tmp_path / "out")] == ["FAILED"] * (
        1 + len(list_finished(study))
    )


@pytest.mark.parametrize(
    ("named", "devices"), [("2, 3", ["2", "3"]), ("", []), ("GPU-a,MIG-b", ["GPU-a", "MIG-b"])]
)
def test_devices_are_those_that_this_process_may_see(
    named: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert list_devices() == devices
