"""On a Dask cluster: a worker each, and nothing left there when they are stopped."""

from pathlib import Path
from typing import Any

import pytest
from fixtures.machines.processes import unused_port
from fixtures.studies.quick_studies import write_tiny_study
from fixtures.studies.tuned_folders import runs_of, trial_runs
from optuna.trial import TrialState

from wwopt.study.errors import StudyError
from wwopt.tuning.claims.leases import lease_of
from wwopt.tuning.tuning import tune
from wwopt.tuning.workers.dask_workers import run_on_dask

pytest.importorskip("distributed")

LOADS = """
    data = torch.utils.data.DataLoader(torch.arange(4), num_workers=1)
    assert sum(int(batch) for batch in data) == 6
    model = hp"""


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_each_worker_of_a_cluster_takes_part(tmp_path: Path, dask: Any) -> None:
    path = write_tiny_study(tmp_path, {"\n    model = hp": LOADS})
    address = dask.scheduler.address
    result = tune(path, trials=8, out=tmp_path / "out", dask=address, progress=False)
    assert [t.state for t in result.study.trials] == [TrialState.COMPLETE] * 8
    leases = [lease_of(trial) for trial in result.study.trials]
    assert len({lease["pid"] for lease in leases if lease is not None}) == 2
    assert trial_runs(tmp_path / "out") == [str(number) for number in range(8)]
    assert [r.info.status for r in runs_of(tmp_path / "out")] == ["FINISHED"] * 9


def test_a_cluster_that_is_not_there_is_said() -> None:
    address = f"tcp://127.0.0.1:{unused_port()}"
    with pytest.raises(StudyError, match=f"no Dask cluster at {address}"):
        run_on_dask(address, [], {}, owner="me", on_look=lambda: 0)
