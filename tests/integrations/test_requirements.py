"""A framework that is missing or too old, a callback without a recorder: said, with the way out."""

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from wwopt.integrations.requirements import check_arguments, check_version
from wwopt.study.trial.last_network import LastNetwork

CALLBACKS = {"transformers": "TransformersCallback", "lightning": "LightningCallback"}


def import_with(folder: Path, extra: str) -> str:
    """The last line of an import of a callback, where this folder's modules are found first."""
    code = f"from wwopt.integrations import {CALLBACKS[extra]}"
    environment = {"PYTHONPATH": f"{folder}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("extra", CALLBACKS)
def test_a_framework_that_is_not_there_names_the_extra(extra: str, tmp_path: Path) -> None:
    (tmp_path / f"{extra}.py").write_text("raise ImportError('no such thing')")
    said = import_with(tmp_path, extra)
    assert said.startswith("ImportError: wwopt.integrations needs " + extra)
    assert f"not installed: pip install 'wwopt[{extra}]'" in said


def test_one_that_is_too_old_names_the_extra() -> None:
    check_version("transformers", "5.24.0")
    check_version("lightning", "2.6.6.dev0")
    with pytest.raises(ImportError, match=r"5\.0 or later, and this is 4\.57\.1: pip install"):
        check_version("transformers", "4.57.1")
    with pytest.raises(ImportError, match=r"pip install 'wwopt\[lightning\]'"):
        check_version("lightning", "2.0.9.post0")


def test_a_callback_needs_a_recorder_and_a_rhythm() -> None:
    for every in (1, 50, "epoch"):
        check_arguments("TransformersCallback", LastNetwork(), every)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"TransformersCallback needs a recorder, .* got None"):
        check_arguments("TransformersCallback", None, 4)
    for wrong in (0, -1, 2.5, "step"):
        with pytest.raises(ValueError, match="every must be a number of optimizer steps or"):
            check_arguments("TransformersCallback", LastNetwork(), wrong)  # type: ignore[arg-type]
