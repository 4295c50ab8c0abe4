"""`wwopt recommend` end to end: it announces, runs and judges probes, or says what is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from fixtures.studies.probed_study import STUDY, run

import wwopt
from wwopt.recommendation.probe_records import find_probes
from wwopt.tracking import probes, store


def test_probes_are_announced_run_once_and_judged(probed: tuple[Path, Result]) -> None:
    folder, first = probed
    assert first.exit_code in (0, 1), first.stderr
    assert "probes, about" in first.stderr and "full trainings" in first.stderr
    document = json.loads(first.stdout)
    assert document["failed"] == [] and 0.0 < document["paid"]["trainings"] <= 5.0
    assert document["changes"] and document["probes"]["total"] > 0.0
    assert document["actions"]["data"]["gain"] > 0.01  # the law: .08 falls to .05
    assert document["actions"]["bigger"]["missing"]  # this model has no width
    again = run(folder / "law.py", "--out", folder / "runs", "--probe", "--json")
    assert json.loads(again.stdout) == document  # the verdict stands: nothing was trained


def test_each_probe_is_read_once(
    probed: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = probed
    read: list[str] = []

    def count(uri: str, source: str, target: Path | None = None) -> Path:
        read.append(source)
        return store.download(uri, source, target)

    monkeypatch.setattr(probes, "download", count)
    again = run(folder / "law.py", "--out", folder / "runs", "--probe", "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    study = wwopt.read_study(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    known = find_probes(study, study[json.loads(first.stdout)["trial"]])
    assert len(known) >= 5 and len(read) == 2 * len(known)  # by the command, and by this test
    assert len(set(read)) == len(known)


def test_without_probes_it_says_what_they_cost(tuned: Path) -> None:
    result = run(tuned / "law.py", "--out", tuned / "runs", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == (1 if document["verdict"] == "probe" else 0)
    assert document["probes"]["trainings"] > 1 and len(document["reasons"]) >= 3
    assert document["actions"]["data"]["gain"] is None and document["actions"]["data"]["missing"]
    words = " ".join(run(tuned / "law.py", "--out", tuned / "runs").stdout.split())
    # Whatever it says, it does not hide that nothing is known of more data.
    assert "not enough evidence" in words or "nothing is known of data" in words
    assert "full trainings" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "colour"), "no metric 'colour'"),
        (("--price-example", "2"), "--price-example without --worth"),
        (("--worth", "100", "--price-example", "2"), "how many training examples"),
        (("--worth", "-1"), "not negative"),
        (("--plot", "picture.doc"), "ending must be one of"),
        (("--trainings", "1"), "1 trainings are too few for any verdict: it takes 5 probes"),
        (("--spend", "2"), "say what a GPU hour costs"),
    ],
)
def test_wrong_input_is_one_line(tuned: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(tuned / "law.py", "--out", tuned / "runs", *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("wwopt: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_study_and_no_file_are_one_line(tuned: Path, tmp_path: Path) -> None:
    for arguments in ((tmp_path,), ("--out", tmp_path)):
        result = run(*arguments)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1


def test_only_a_file_can_probe_and_that_is_said_before_anything_is_read(tmp_path: Path) -> None:
    for arguments, given in (
        ((tmp_path,), f"the folder '{tmp_path}'"),  # it holds no study, which is not looked at
        (("law", "--out", tmp_path), "the name 'law'"),
        (("--out", tmp_path), "no STUDY"),
    ):
        result = run(*arguments, "--probe")
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert f"needs the study's file, got {given}; name the file: " in result.stderr
    assert f"STUDY.py --probe --out {tmp_path}\n" in run(tmp_path, "--probe").stderr


def test_failed_probes_are_told(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(tuned, folder)
    (folder / "law.py").write_text(STUDY.format(limit=4))
    result = run(folder / "law.py", "--out", folder / "runs", "--probe")
    assert result.exit_code in (0, 1)
    assert "Probes that failed" in result.stdout and "out of memory" in result.stdout


def test_prices_reach_the_table(probed: tuple[Path, Result]) -> None:
    folder = probed[0]
    prices = ("--worth", "1000", "--price-example", "0.5", "--examples", "100")
    result = run(folder / "law.py", "--out", folder / "runs", *prices, "--json")
    document = json.loads(result.stdout)
    data = document["actions"]["data"]
    assert data["cost"] == pytest.approx(50.0)
    assert data["net"] == pytest.approx(1000.0 * data["gain"] - 50.0, rel=1e-6)
    told = run(folder / "law.py", "--out", folder / "runs", *prices).stdout
    assert "net value" in told and " 50 " in told
