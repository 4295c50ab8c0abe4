"""Parts of the data with the study: probes that `recommend` counts, and no trials."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.studies.probed_study import STUDY, TRIALS, run

import wwopt
from wwopt.cli import main
from wwopt.recommendation.fractions import probe_fractions
from wwopt.recommendation.probes import PARTS, Probe
from wwopt.recommendation.recommendation import recommend
from wwopt.study.references import load_study


@pytest.fixture
def folder(tuned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tuned, tmp_path / "study"))


def test_the_command_trains_the_best_one_on_parts_which_recommend_counts(folder: Path) -> None:
    arguments = [str(folder / "law.py"), "--out", str(folder / "runs"), "--trials", str(TRIALS)]
    done = CliRunner().invoke(main, ["tune", *arguments, "--no-explain", "--fractions"])
    assert done.exit_code == 0, done.output
    study = wwopt.read_study(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    assert len(study.trials) == TRIALS
    found = recommend(study)
    assert (found.paid.probes, found.paid.trainings) == (3, 0.875)
    assert not {Probe("data", part) for part in PARTS} & set(found.plan.probes)
    spec = load_study(f"{folder / 'law.py'}")
    assert probe_fractions(spec, out=folder / "runs", progress=False) == 0  # they are there
    assert recommend(study).paid == found.paid
    assert run(folder / "law.py", "--out", folder / "runs", "--trainings", "5").exit_code in (0, 1)


def test_what_fails_is_counted_and_costs_nothing_else(folder: Path) -> None:
    failing = STUDY.format(limit=0).replace(
        "    model = make_model", "    assert conditions.fraction > 0.2\n    model = make_model", 1
    )
    (folder / "law.py").write_text(failing)
    spec = load_study(f"{folder / 'law.py'}")
    assert probe_fractions(spec, out=folder / "runs", progress=False) == 1
