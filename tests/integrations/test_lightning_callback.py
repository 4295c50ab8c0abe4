"""Lightning trains a small module under a recorder, with all that it does to losses and steps."""

import math
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
from fixtures.studies.recordings import runs_of, study
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.trial.last_network import LastNetwork
from wwopt.study.trial.recording import record

pytestmark = [
    pytest.mark.slow,  # lightning takes five seconds to import
    # Of Lightning 2.6 with torch 2.13, and its advice on data loaders and loggers.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


@pytest.fixture(scope="module")
def pl() -> ModuleType:
    from fixtures.networks import small_lightning

    return small_lightning


def pruning() -> optuna.pruners.BasePruner:
    """Prunes at the first report."""
    return optuna.pruners.ThresholdPruner(upper=-100.0)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_training_is_recorded_in_optimizer_steps(
    pl: ModuleType, precision: str, tmp_path: Path
) -> None:
    s, module = study(), pl.Digits()
    with record(s.ask()) as recorder:
        trainer = pl.trainer(tmp_path, recorder, every=5, precision=precision)
        trainer.fit(module, pl.loader())
        assert recorder.epochs == 16  # known when training began
        assert list(recorder._losses) == [5, 10, 15, 16]
        assert recorder._initial is not None
    assert sorted(s.trials[0].intermediate_values) == [10, 15, 16]
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert all(p.dtype == dtype for p in module.parameters())
    judged = SpectralObjective("validation-free")(
        wwopt.analyze(module), train_loss=recorder.train_loss
    )
    assert recorder.value == judged.value


def test_epochs_are_recorded_with_what_validation_logged(pl: ModuleType, tmp_path: Path) -> None:
    s = study()
    with record(s.ask()) as recorder:
        trainer = pl.trainer(tmp_path, recorder, every="epoch", limit_val_batches=None)
        trainer.fit(pl.ValidatedDigits(), pl.loader(), pl.loader(first=1000, number=64))
        assert (recorder.epochs, list(recorder._losses)) == (2, [1, 2])
        logged = float(trainer.callback_metrics["train_loss"])
        assert recorder.train_loss == pytest.approx(logged, rel=1e-6)
    found = {n: float(v) for n, v in trainer.callback_metrics.items() if n != "step"}
    metrics = s.trials[0].user_attrs["metrics"]
    assert metrics == found | {"train_loss": recorder.train_loss}
    assert {"val_loss", "val_accuracy"} < metrics.keys()


@pytest.mark.parametrize("every", [2, "epoch"])
def test_accumulated_losses_are_whole_and_steps_are_told_once(
    pl: ModuleType, tmp_path: Path, every: Any
) -> None:
    with record(study().ask()) as recorder:
        trainer = pl.trainer(tmp_path, recorder, every=every, accumulate_grad_batches=4)
        trainer.fit(pl.Digits(), pl.loader())
        assert recorder.epochs == (4 if every == 2 else 2) and trainer.global_step == 4
        assert list(recorder._losses) == ([2, 4] if every == 2 else [1, 2])
        logged = float(trainer.callback_metrics["train_loss"])  # of the second epoch, undivided
        assert recorder.train_loss == pytest.approx(logged, rel=1e-6)
        assert 1.5 < logged < 2.4


def test_one_epoch_is_pruned_in_the_middle(pl: ModuleType, tmp_path: Path) -> None:
    s, trainers = study(pruning()), []

    def objective(trial: optuna.Trial) -> float:
        with record(trial) as recorder:
            trainers.append(pl.trainer(tmp_path, recorder, every=3, max_epochs=1))
            trainers[0].fit(pl.Digits(), pl.loader())
        return recorder.value

    s.optimize(objective, n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert trainers[0].global_step == 6  # the first of 3, 6, 8 from half-way on


@pytest.mark.parametrize("swallows", [False, True])
def test_a_loss_that_is_not_a_number_prunes(pl: ModuleType, tmp_path: Path, swallows: bool) -> None:
    class Breaks(pl.lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 6:
                nn.init.constant_(module.net[0].weight, math.nan)

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def objective(trial: optuna.Trial) -> float:
        with record(trial, tracking=uri) as recorder:
            trainer = pl.trainer(tmp_path, recorder, callbacks=(Breaks(),))
            try:
                trainer.fit(pl.Digits(), pl.loader())
            except optuna.TrialPruned:
                if not swallows:
                    raise
        return recorder.value

    s = optuna.create_study(study_name="nan")
    s.optimize(objective, n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert s.trials[0].user_attrs["status"] == "training loss is nan"
    (run,) = [r for r in runs_of(uri, "nan") if "mlflow.parentRunId" in r.data.tags]
    assert (run.info.status, run.data.tags["optuna.state"]) == ("KILLED", "PRUNED")


@pytest.mark.parametrize("pruned", [False, True])
def test_lightnings_own_mlflow_logger_logs_into_the_same_run(
    pl: ModuleType, tmp_path: Path, pruned: bool
) -> None:
    from lightning.pytorch.loggers import MLFlowLogger

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="both", pruner=pruning() if pruned else None)

    def objective(trial: optuna.Trial) -> float:
        with record(trial, tracking=uri) as recorder:
            logger = MLFlowLogger(run_id=recorder.run_id, tracking_uri=uri)
            pl.trainer(tmp_path, recorder, logger=logger, every="epoch").fit(
                pl.Digits(), pl.loader()
            )
        return recorder.value

    s.optimize(objective, n_trials=1)
    (run,) = [r for r in runs_of(uri, "both") if "mlflow.parentRunId" in r.data.tags]
    assert run.info.status == ("KILLED" if pruned else "FINISHED")
    assert len(MlflowClient(uri).search_experiments()) == 2  # and Default
    theirs = MlflowClient(uri).get_metric_history(run.info.run_id, "train_loss")
    ours = MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss")
    assert [m.step for m in ours] == ([1] if pruned else [1, 2])
    assert [m.value for m in theirs] == pytest.approx([m.value for m in ours][: len(theirs)])
    assert len(theirs) == (0 if pruned else 2)  # it logs an epoch after its callbacks


def test_a_training_goes_on_from_lightnings_checkpoint_and_knows_what_was(
    pl: ModuleType, tmp_path: Path
) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Interrupts(pl.lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 20:
                raise RuntimeError("out of luck")

    s = study()

    def train(folder: Path, *, resume: bool = False, callbacks: tuple[Any, ...] = ()) -> float:
        conditions = wwopt.Conditions(seed=3, epochs=1, checkpoint_dir=str(folder))
        module = pl.Digits()
        nn.init.zeros_(module.net[5].bias)
        module.net[2].p = 0.0  # its generator is not restored
        with record(s.ask(), conditions=conditions) as recorder:
            kept = ModelCheckpoint(folder, save_last=True)
            trainer = pl.trainer(
                folder, recorder, max_epochs=4, enable_checkpointing=True,
                callbacks=(kept, *callbacks),
            )  # fmt: skip
            trainer.fit(
                module, pl.loader(), ckpt_path=str(folder / "last.ckpt") if resume else None
            )
        return recorder.value

    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    expected = train(folders[0])
    with pytest.raises(RuntimeError, match="out of luck"):
        train(folders[1], callbacks=(Interrupts(),))
    assert train(folders[1], resume=True) == pytest.approx(expected, rel=1e-6)
    whole, _, parts = s.trials
    assert sorted(whole.intermediate_values) == [16, 24, 32]
    assert parts.intermediate_values == pytest.approx(whole.intermediate_values, rel=1e-6)
    assert parts.user_attrs["constraints"] == pytest.approx(whole.user_attrs["constraints"])


def test_averaged_weights_that_lightning_puts_in_at_the_end_are_judged(
    pl: ModuleType, tmp_path: Path
) -> None:
    class Averages(pl.lightning.Callback):
        def on_train_end(self, trainer, module):
            with torch.no_grad():
                module.net[0].weight.mul_(0.5)

    module, s = pl.Digits(), study()
    with record(s.ask()) as recorder:
        trainer = pl.trainer(tmp_path, recorder, every="epoch")
        trainer.callbacks.append(Averages())
        trainer.fit(module, pl.loader())
    assert recorder.metrics is not None
    assert recorder.metrics.summary() == wwopt.analyze(module).summary()


def test_a_length_that_nobody_knows_is_none_and_the_end_is_judged(
    pl: ModuleType, tmp_path: Path
) -> None:
    class Stops(pl.lightning.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            trainer.should_stop = trainer.global_step == 10

    s, module = study(), pl.Digits()
    with record(s.ask()) as recorder:
        pl.trainer(tmp_path, recorder, max_epochs=-1, callbacks=(Stops(),)).fit(module, pl.loader())
        assert recorder.epochs is None and list(recorder._losses) == [4, 8, 10]
    assert not s.trials[0].intermediate_values
    assert recorder.metrics is not None
    assert recorder.metrics.summary() == wwopt.analyze(module).summary()


def test_a_second_training_with_the_same_recorder_is_refused(
    pl: ModuleType, tmp_path: Path
) -> None:
    with (
        pytest.raises(ValueError, match="step 0 comes after step 16: steps of a trial only go"),
        record(study().ask()) as recorder,
    ):
        for _ in range(2):
            pl.trainer(tmp_path, recorder).fit(pl.Digits(), pl.loader())
    with pytest.raises(TypeError, match="LightningCallback needs a recorder"):
        pl.LightningCallback(None)
    with pytest.raises(ValueError, match="every must be"):
        pl.LightningCallback(LastNetwork(), every=0)


def test_a_study_file_trains_with_lightning_and_an_interruption_queues_its_trial_again(
    pl: ModuleType, tmp_path: Path
) -> None:
    tries = 0

    class Interrupts(pl.lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 6:
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C; Lightning makes SystemExit of it

    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        nonlocal tries
        tries += 1
        module = pl.Digits(hp, conditions.seed % 1000)
        trainer = pl.trainer(
            tmp_path / "pl", recorder, every="epoch", max_epochs=conditions.epochs,
            callbacks=(Interrupts(),) if tries == 2 else (),
        )  # fmt: skip
        trainer.fit(module, pl.loader())
        rates = {g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups}
        assert rates == dict(hp.lr) and module.net[2].p == hp.dropout["net.0"]

    space = wwopt.LayerSpace.from_model(
        pl.Digits(), lr=(0.01, 0.5), dropout=(0.0, 0.3), momentum=(0.0, 0.9)
    )
    spec = wwopt.StudySpec("lightning", train, space, conditions=wwopt.Conditions(seed=0, epochs=2))
    with pytest.raises(KeyboardInterrupt):
        wwopt.tune(spec, trials=2, out=tmp_path, progress=False)
    result = wwopt.tune(spec, trials=2, out=tmp_path, progress=False)
    states = [(t.state.name, t.user_attrs.get("wwopt.interrupted")) for t in result.study.trials]
    assert states == [("COMPLETE", None), ("FAIL", "stopped"), ("COMPLETE", None)]
    assert all(sorted(t.intermediate_values) == [1, 2] for t in result.complete_trials)


def test_saved_hyperparameters_are_loaded_again(pl: ModuleType, tmp_path: Path) -> None:
    layers = ("net.0", "net.3", "net.5")
    hp = wwopt.LayerHyperparameters(lr=dict.fromkeys(layers, 0.1), dropout={"net.0": 0.25})
    trainer = pl.trainer(tmp_path, LastNetwork(), max_epochs=1)
    trainer.fit(pl.Digits(hp), pl.loader())
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    again = pl.Digits.load_from_checkpoint(tmp_path / "kept.ckpt", weights_only=True)
    assert again.hp == hp and again.net[2].p == 0.25
