"""Two gloo processes a trial, by torchrun: one study, whatever becomes of either of them."""

from pathlib import Path
from typing import cast

import optuna
import pytest
from fixtures.machines.torchrun import Done, run_torchrun

import wwopt
from wwopt.integrations.processes import Ranks, SharedRecorder, from_rank_0, join_ranks
from wwopt.study.trial.recorder import Recorder

STUDY = """
import os, signal
from pathlib import Path
from typing import cast
import optuna, torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
import wwopt
from wwopt.integrations import run_together

CASE = os.environ.get("CASE", "")

class PruneSecond(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number == 1 and os.environ["TRIALS"] == "5"

def make():
    return nn.Sequential(nn.Linear(64, 129), nn.ReLU(), nn.Dropout(), nn.Linear(129, 60))

def train(hp, conditions, recorder):
    trial = getattr(recorder.recorder, "trial", None)
    seen = [None if trial is None else trial.number]
    dist.broadcast_object_list(seen, src=0)
    (number,), rank = seen, dist.get_rank()
    model = hp.apply_dropout(make())
    if os.environ["KIND"] == "fsdp":
        for layer in (model[0], model[3]):
            fully_shard(layer)  # 129 rows: the pieces are not equal
        fully_shard(model)
    optimizer = hp.optimizer(model, torch.optim.AdamW)
    net = DistributedDataParallel(model) if os.environ["KIND"] == "ddp" else model
    for epoch in range(conditions.epochs):
        if CASE and epoch == 1 and rank == 1 and not Path("failed").exists():
            Path("failed").touch()
            if CASE == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("boom")  # while rank 0 waits for its gradients
        x = torch.randn(32, 64, generator=torch.Generator().manual_seed(100 * epoch + rank))
        loss = (net(x) - x[:, :60]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        if epoch == 1 and not CASE and (number, rank) in ((2, 1), (3, 0)):
            raise ValueError(f"no luck on {rank}")  # while the other one comes to step
        recorder.step(net, train_loss=loss.item())

study = wwopt.StudySpec(
    "together", train,
    wwopt.LayerSpace.from_model(make(), lr=(.001, .1), dropout=(0., .5), momentum=(0., .9)),
    conditions=wwopt.Conditions(seed=0, epochs=4), pruner=PruneSecond(),
)
if __name__ == "__main__":
    dist.init_process_group("gloo")
    result = run_together(
        wwopt.tune, study, trials=int(os.environ["TRIALS"]), out="out", progress=False,
        explain=False,
    )
    said = f"rank {dist.get_rank()} returns {type(result).__name__}\\n"
    print(said, end="", flush=True)  # in one write: the ranks share their output
    dist.destroy_process_group()
"""


def run(folder: Path, kind: str, trials: int, case: str = "") -> Done:
    script = folder / "together.py"
    script.write_text(STUDY)
    variables = {"KIND": kind, "CASE": case, "TRIALS": str(trials), "WWOPT_GRACE_SECONDS": "5"}
    return run_torchrun(script, cwd=folder, **variables)


def study_in(folder: Path) -> optuna.Study:
    storage = f"sqlite:///{folder / 'out' / 'optuna.db'}"
    assert len(optuna.get_all_study_summaries(storage)) == 1
    return optuna.load_study(study_name="together", storage=storage)


@pytest.mark.integration
def test_ddp_and_fsdp_make_one_study_and_the_same_one(tmp_path: Path) -> None:
    """Complete, pruned, failed on rank 1, failed on rank 0, complete: and it goes on after each."""
    found = {}
    for kind in ("ddp", "fsdp"):
        folder = tmp_path / kind
        folder.mkdir()
        done = run(folder, kind, 5)
        assert done.status == 0, done.said
        assert "rank 0 returns StudyResult" in done.said and "rank 1 returns NoneType" in done.said
        found[kind] = study_in(folder).trials
        tracked = wwopt.read_study(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
        states = [trial.state for trial in tracked.trials]
        assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "COMPLETE"]
        assert "wwopt.weights" not in tracked[0].tags  # they were gathered, and logged
        layers = {key for key in tracked[0].metrics if key.startswith("layer_alpha/")}
        assert layers == {"layer_alpha/0", "layer_alpha/3"}  # without DDP's "module."
    for ours, theirs in zip(*found.values(), strict=True):
        assert (ours.state, ours.params) == (theirs.state, theirs.params)
        if ours.values is not None:
            assert ours.values == pytest.approx(theirs.values, rel=1e-4)
        assert ours.user_attrs.get("error") == theirs.user_attrs.get("error")
    errors = [trial.user_attrs.get("error") for trial in found["ddp"]]
    assert errors[2:4] == ["PeerError: rank 1 raised ValueError: no luck on 1",
                           "ValueError: no luck on 0"]  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("case", ["kill", "raise"])
def test_a_process_that_is_lost_ends_all_in_seconds_and_the_trial_is_tried_again(
    case: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "ddp", 1, case)
    assert done.status != 0
    assert done.seconds < 150.0  # of which the imports take most, where others share the machine
    if case == "raise":
        assert "wwopt: rank 1 raised ValueError: boom, and the others wait for it" in done.said
    again = run(tmp_path, "ddp", 1)
    assert again.status == 0, again.said
    first, second = study_in(tmp_path).trials
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert first.user_attrs["wwopt.interrupted"] in ("lost", "stopped")
    assert first.params == second.params
    runs = wwopt.read_study(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}").trials
    assert [trial.state for trial in runs] == ["FAIL", "COMPLETE"]


@pytest.mark.integration
def test_a_sharded_model_is_gathered_layer_by_layer(tmp_path: Path) -> None:
    """No process holds more than its shard and a layer; other processes nothing more at all."""
    from fixtures.paths import ROOT

    script = ROOT / "benchmarks" / "sharded_memory.py"
    done = run_torchrun(script, cwd=tmp_path, MALLOC_MMAP_THRESHOLD_="65536")
    assert done.status == 0, done.said
    rose = [float(line.split()[2]) for line in done.said.splitlines() if line.startswith("rank ")]
    assert "layer 16 MB" in done.said
    assert 15.0 < rose[0] < 16.0 + 4.0 and rose[1] < 4.0


def test_without_torchrun_it_says_what_to_do() -> None:
    for function in (join_ranks, lambda: from_rank_0(lambda: 1)):
        with pytest.raises(RuntimeError, match=r"call torch.distributed.init_process_group\(\)"):
            function()


def test_what_a_framework_tells_reaches_the_recorder_where_there_is_one() -> None:
    recorder = Recorder(optuna.create_study().ask())
    ranks = cast(Ranks, None)  # neither is said to the others
    for own in (recorder, None):
        shared = SharedRecorder(ranks, own)
        shared.expect(30)
        shared.go_back(10)
    assert recorder.epochs == 30
