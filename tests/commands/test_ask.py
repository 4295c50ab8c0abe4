"""`ask` and `tell` in a shell: files, one line each, and exit statuses."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from fixtures.studies.jobs import make_network

from wwopt.cli import main

STUDY = "from fixtures.studies.jobs import make_study\nstudy = make_study()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "away.py").write_text(STUDY)
    torch.save({"model": make_network().state_dict(), "epoch": 4}, tmp_path / "last.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_a_study_of_two_jobs_in_a_shell(folder: Path) -> None:
    asked = run("ask", "away.py", "--trials", 2, "--lease", "1h30m", "-o", "a.json")
    assert (asked.exit_code, asked.stderr) == (0, "")
    assert asked.stdout.startswith("a.json: trial 0 of study away, to be told by 20")
    step = run("tell", "away.py", "a.json", "last.pt", "--step", 1, "--train-loss", 1.0)
    assert step.exit_code == 0 and step.stdout.startswith("trial 0: step 1, objective ")
    assert step.stdout.endswith(": go on\n")
    back = run("tell", "away.py", "a.json", "--step", 1, "--train-loss", 1.0)
    assert back.exit_code == 2 and back.stderr.startswith("wwopt: step 1 of trial 0 was told")
    end = run("tell", "away.py", "a.json", "last.pt", "--train-loss", 0.5, "--metric", "acc=0.9")
    assert end.exit_code == 0 and end.stdout.startswith("trial 0: complete, objective ")
    again = run("tell", "away.py", "a.json", "last.pt", "--train-loss", 0.5)
    assert again.exit_code == 2 and len(again.stderr.splitlines()) == 1
    assert run("ask", "away.py").exit_code == 0
    none = run("ask", "away.py")
    assert none.exit_code == 1 and "finished or run; ask again" in none.stderr
    failed = run("tell", "away.py", "hp.json", "--failed", "no GPU", "--no-explain")
    assert failed.exit_code == 0
    assert failed.stdout.splitlines() == [
        "trial 1: failed: no GPU",
        "That was the study's last trial. Explain it with: wwopt report away.py",
    ]
    assert run("export", "--trial", "0").exit_code == 0  # the checkpoint that was judged
    assert (folder / "export" / "trial-0.pt").read_bytes() == (folder / "last.pt").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", "away.py", "--lease", "soon"), "'soon' is no duration; write 24h, 90m"),
        (("ask", "away.py", "--lease", "0s", "--trials", 1), "longer than 0 s, got 0"),
        (("ask", "away.py"), "there is no study 'away' in the storage yet"),
        (("tell", "away.py", "no.json", "last.pt"), "no.json cannot be read: No such file"),
        (("tell", "away.py", "no.json", "--metric", "x"), "'x' is no NAME=NUMBER"),
        (("tell", "away.py", "no.json", "--metric", "step=1"), "cannot be the name of a metric"),
    ],
)
def test_wrong_input_is_said_in_a_line(
    folder: Path, arguments: tuple[object, ...], message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == 2 and message in done.stderr
