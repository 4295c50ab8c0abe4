"""A study begun with wwopt 0.1.0 resumes, and every command reads it as that version did."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures.recorded.old_study import PACKED, unpack_old_study

import wwopt
from wwopt.cli import main
from wwopt.tracking import read_settings, read_spectra, tracked_trials
from wwopt.tracking.validation_metrics import read_metric

# Of trials 6 and 7, as version 0.1.0 went on: what the sampler drew, and the value it led to.
WENT_ON = {
    6: ({"lr/depth=first": 0.0437962, "momentum/depth=last": 0.205916}, 0.0752304),
    7: ({"lr/depth=first": 0.0355788, "momentum/depth=last": 0.685204}, 0.0317270),
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_old_study(tmp_path_factory.mktemp("old"))


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [*map(str, arguments)], env={"COLUMNS": "120"})
    assert result.exit_code in (0, 1), result.stderr
    return result


def test_compare_prints_what_it_printed(old: Path) -> None:
    assert run("compare", old).stdout == (PACKED / "compare.txt").read_text()


def test_recommend_reads_all_of_its_probes_and_judges_by_the_rules_of_today(old: Path) -> None:
    found = json.loads(run("recommend", old, "--json").stdout)
    said = json.loads((PACKED / "recommend.json").read_text())
    same = ("study", "trial", "metric", "better", "validated", "failed")
    assert {key: found[key] for key in same} == {key: said[key] for key in same}
    assert found["now"] == pytest.approx(said["now"]) and found["paid"]["probes"] > 24
    assert set(found["actions"]) == set(said["actions"])
    assert found["actions"]["data"]["gain"] is not None and found["probes"]["total"] > 5.0


def test_its_best_trial_is_exported_with_its_thinned_spectra(old: Path, tmp_path: Path) -> None:
    run("export", old, "-o", tmp_path)
    document = json.loads((tmp_path / "trial-3.json").read_text())
    assert document["objective"] == pytest.approx(-0.00229503, rel=1e-5)
    layers = [row["longname"] for row in document["layers"]]
    assert layers == ["embed", "qkv.q", "qkv.k", "qkv.v", "up", "head"]
    spectrum = document["spectra"]["qkv.q"]
    assert len(spectrum["eigenvalues"]) == 54 and spectrum["share_above"][0] == 1.0
    assert (tmp_path / "trial-3.safetensors").stat().st_size == 59_000


def test_its_report_has_every_section_and_its_pictures_are_drawn(old: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    run("report", old, "-o", page)
    text = page.read_text()
    for place in ("history", "terms", "alphas", "depth", "parallel", "spectrum0", "next_step"):
        assert f'id="{place}"' in text
    # qkv's rates stand at each of its parts, which version 0.1.0 left blank.
    assert text.count("qkv.q") > 3
    said = run("export", old, "-o", tmp_path, "--pictures").stdout
    assert re.search(r"^7 pictures attached", said, flags=re.MULTILINE)


def test_what_it_did_not_write_is_told_from_what_it_did(old: Path) -> None:
    study = wwopt.read_study(f"sqlite:///{old / 'mlflow.db'}")
    settings = read_settings(study)  # from parameters: there was no study.json
    assert settings["space"]["ranges"]["lr"] == [0.01, 1.0] and "format" not in settings
    assert read_metric(settings) == "accuracy" and settings["second"] is None
    curves = read_spectra(study[3])
    assert curves is not None and curves["up"].shape == (2, 54)
    assert not any(trial.refused for trial in study.trials)
    assert tracked_trials.ENDING_TAG not in study[3].tags


def test_it_resumes_where_it_was_left(tmp_path: Path) -> None:
    old = unpack_old_study(tmp_path)
    said = run("tune", old / "attention.py", "--trials", "8", "--out", old, "--no-explain").stdout
    assert "Study attention: 8 trials" in said
    study = wwopt.read_study(f"sqlite:///{old / 'mlflow.db'}", "attention")
    for number, (drawn, value) in WENT_ON.items():
        assert study[number].state == "COMPLETE"
        knobs = {k.removeprefix("tuned/"): float(v) for k, v in study[number].params.items()}
        for name, expected in drawn.items():
            key = name.replace("/", ".").replace("=", "_")
            assert knobs[key] == pytest.approx(expected, rel=2e-6)
        assert study[number].value == pytest.approx(value, rel=1e-4)
    assert read_settings(study)["format"] == 1  # from now on
