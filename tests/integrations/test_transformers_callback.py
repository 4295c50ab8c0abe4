"""Trainer trains small BERTs and GPTs under a recorder, with all that it does to a loss."""

import math
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
from wwopt.metrics.base.base_comparison import compare_with_base
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.trial.last_network import LastNetwork
from wwopt.study.trial.recording import record

pytestmark = pytest.mark.slow  # transformers takes five seconds to import
STOPS = 8  # the optimizer step at which a trial is pruned, of 16


@pytest.fixture(scope="module")
def hf() -> ModuleType:
    from fixtures.networks import small_transformers

    return small_transformers


def pruning() -> optuna.pruners.BasePruner:
    """Prunes at the first report."""
    return optuna.pruners.ThresholdPruner(upper=-100.0)


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bert", {}),
        ("bert", {"bf16": True}),
        ("gpt2", {}),
        ("gpt2", {"gradient_accumulation_steps": 4}),
    ],
)
def test_a_training_is_recorded_in_optimizer_steps(
    hf: ModuleType, name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model = getattr(hf, name)()
    data = hf.digits() if name == "bert" else hf.words()
    start, s = wwopt.analyze(model), study()
    with record(s.ask()) as recorder:
        trainer = hf.trainer(model, tmp_path, recorder, data=data, **arguments)
        trainer.train()
        assert recorder.epochs == 16  # known when training began
        assert list(recorder._losses.values()) == losses_of(trainer)
        assert list(recorder._losses) == [4, 8, 12, 16]
        assert recorder._initial is not None
        assert recorder._initial.summary() == start.summary()
    assert sorted(s.trials[0].intermediate_values) == [8, 12, 16]
    judged = SpectralObjective("validation-free")(
        wwopt.analyze(model), train_loss=recorder.train_loss
    )
    assert recorder.value == judged.value
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_epochs_are_recorded_with_what_their_evaluation_measured(
    hf: ModuleType, tmp_path: Path
) -> None:
    s = study()
    with record(s.ask()) as recorder:
        trainer = hf.trainer(
            hf.bert(), tmp_path, recorder, data=hf.digits(128), every="epoch",
            max_steps=-1, num_train_epochs=3, evaluate_on=hf.digits(64), eval_strategy="epoch",
        )  # fmt: skip
        trainer.train()
        assert (recorder.epochs, list(recorder._losses)) == (3, [1, 2, 3])
    evaluated = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    metrics = s.trials[0].user_attrs["metrics"]
    assert metrics == {"train_loss": recorder.train_loss, "eval_loss": evaluated[-1]}


def test_a_one_epoch_fine_tune_is_pruned_in_the_middle(hf: ModuleType, tmp_path: Path) -> None:
    s = study(pruning())
    reached = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal reached
        with record(trial) as recorder:
            trainer = hf.trainer(
                hf.bert(), tmp_path, recorder, every=5, data=hf.digits(256),
                max_steps=-1, num_train_epochs=1,
            )  # fmt: skip
            try:
                trainer.train()
            finally:
                reached = trainer.state.global_step
        return recorder.value

    s.optimize(objective, n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert reached == 10  # the first of 5, 10, 15, 16 from half-way on
    assert list(s.trials[0].intermediate_values) == [10]


def test_the_loss_is_the_mean_since_the_last_record_however_often_trainer_logs(
    hf: ModuleType, tmp_path: Path
) -> None:
    each = hf.trainer(hf.bert(), tmp_path, logging_strategy="steps", logging_steps=1)
    each.train()
    with record(study().ask()) as recorder:
        hf.trainer(
            hf.bert(), tmp_path, recorder, every=8, logging_strategy="steps", logging_steps=3
        ).train()
        found = dict(recorder._losses)
    losses = losses_of(each)
    assert found[8] == pytest.approx(sum(losses[:8]) / 8, rel=1e-6)
    assert found[16] == pytest.approx(sum(losses[8:]) / 8, rel=1e-6)


def test_a_loss_that_trainer_multiplies_is_divided_again(hf: ModuleType, tmp_path: Path) -> None:
    with record(study().ask()) as recorder:
        trainer = hf.trainer(hf.bert(), tmp_path, recorder, gradient_accumulation_steps=4)
        with pytest.warns(UserWarning, match="multiplies loss and gradient by 4") as said:
            trainer.train()
        assert list(recorder._losses.values()) == [loss / 4 for loss in losses_of(trainer)]
        assert losses_of(trainer)[0] > 8.0 > 3.0 > recorder._losses[4]
    assert len([w for w in said if "multiplies" in str(w.message)]) == 1

    repaired = hf.bert()
    repaired.accepts_loss_kwargs = False
    with record(study().ask()) as recorder:
        trainer = hf.trainer(repaired, tmp_path, recorder, gradient_accumulation_steps=4)
        trainer.train()
        assert list(recorder._losses.values()) == losses_of(trainer)


@pytest.mark.parametrize("swallows", [False, True])
def test_a_loss_that_is_not_a_number_is_seen_and_prunes(
    hf: ModuleType, tmp_path: Path, swallows: bool
) -> None:
    """Trainer would log 0.0; and whoever swallows the exception does not save the trial."""

    class Breaks(hf.TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 6:
                nn.init.constant_(model.classifier.weight, math.nan)

    class Careless(hf.Trainer):
        def train(self, *args, **kwargs):
            try:
                return super().train(*args, **kwargs)
            except Exception:
                return None

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def objective(trial: optuna.Trial) -> float:
        with record(trial, tracking=uri) as recorder:
            cls = Careless if swallows else hf.Trainer
            hf.trainer(hf.bert(), tmp_path, recorder, callbacks=(Breaks(),), cls=cls).train()
        return recorder.value

    s = optuna.create_study(study_name="nan")
    s.optimize(objective, n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert s.trials[0].user_attrs["status"] == "training loss is nan"
    (run,) = [r for r in runs_of(uri, "nan") if "mlflow.parentRunId" in r.data.tags]
    assert (run.info.status, run.data.tags["optuna.state"]) == ("KILLED", "PRUNED")


@pytest.mark.parametrize("pruned", [False, True])
def test_trainers_own_mlflow_callback_logs_into_the_same_run(
    hf: ModuleType, tmp_path: Path, pruned: bool
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="both", pruner=pruning() if pruned else None)

    def objective(trial: optuna.Trial) -> float:
        with record(trial, tracking=uri) as recorder:
            trainer = hf.trainer(hf.bert(), tmp_path, recorder, report_to="mlflow")
            with recorder.active_run():
                trainer.train()
        return recorder.value

    before = mlflow.get_tracking_uri()
    s.optimize(objective, n_trials=2)
    assert mlflow.active_run() is None and mlflow.get_tracking_uri() == before
    children = [r for r in runs_of(uri, "both") if "mlflow.parentRunId" in r.data.tags]
    assert len(children) == 2 and len(MlflowClient(uri).search_experiments()) == 2  # and Default
    assert not MlflowClient(uri).search_runs(["0"])
    for run in children:
        assert run.info.status == ("KILLED" if pruned else "FINISHED")
        assert run.data.params["hidden_size"] == "64" and "learning_rate" in run.data.params
        history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
        ours = MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss")
        assert [(m.step, m.value) for m in history] == [(m.step, m.value) for m in ours]
        assert [m.step for m in ours] == ([4, 8] if pruned else [4, 8, 12, 16])


def test_a_training_that_goes_on_from_trainers_checkpoint_ends_as_if_uninterrupted(
    hf: ModuleType, tmp_path: Path
) -> None:
    class Interrupts(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 14:
                raise KeyboardInterrupt

    s = study()

    def train(folder: Path, *, resume: bool = False, callbacks: tuple[Any, ...] = ()) -> float:
        conditions = wwopt.Conditions(seed=3, epochs=1, checkpoint_dir=str(folder))
        with record(s.ask(), conditions=conditions) as recorder:
            hf.trainer(
                hf.bert(), folder, recorder, callbacks=callbacks, seed=conditions.seed,
                save_strategy="steps", save_steps=6,
            ).train(resume_from_checkpoint=resume or None)  # fmt: skip
        return recorder.value

    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    expected = train(folders[0])
    with pytest.raises(KeyboardInterrupt):
        train(folders[1], callbacks=(Interrupts(),))
    assert train(folders[1], resume=True) == pytest.approx(expected, rel=1e-6)
    whole, _, parts = s.trials
    # Its loss at step 16 is the mean since the checkpoint of step 12, which was recorded then.
    assert parts.intermediate_values == pytest.approx(whole.intermediate_values, rel=1e-6)
    assert parts.user_attrs["constraints"] == pytest.approx(whole.user_attrs["constraints"])


def test_the_best_weights_that_trainer_puts_back_are_judged(hf: ModuleType, tmp_path: Path) -> None:
    """Here "best" is the first of four evaluations, whose loss is the largest."""
    s, model = study(), hf.bert()
    with record(s.ask()) as recorder:
        trainer = hf.trainer(
            model, tmp_path, recorder, learning_rate=5e-3, evaluate_on=hf.digits(64),
            eval_strategy="steps", eval_steps=4, save_strategy="steps", save_steps=4,
            load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=True,
        )  # fmt: skip
        trainer.train()
        restored = trainer.state.best_global_step
        assert restored < 16
        loss = recorder._losses[restored]
    expected = SpectralObjective("validation-free")(wwopt.analyze(model), train_loss=loss)
    assert recorder.value == expected.value != s.trials[0].intermediate_values[16]


def test_a_training_that_stops_early_is_judged_by_its_last_step(
    hf: ModuleType, tmp_path: Path
) -> None:
    class Stops(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 10
            return control

    s, model = study(), hf.bert()
    with record(s.ask()) as recorder:
        hf.trainer(model, tmp_path, recorder, callbacks=(Stops(),)).train()
        assert recorder._step == 10 and list(recorder._losses) == [4, 8]
    assert recorder.metrics is not None
    assert recorder.metrics.summary() == wwopt.analyze(model).summary()


def test_the_seed_of_the_conditions_is_that_of_order_and_dropout(
    hf: ModuleType, tmp_path: Path
) -> None:
    """Trainer seeds torch with its own argument, 42 by default, whatever was seeded before."""

    def train(seed: int) -> torch.Tensor:
        model = hf.bert()
        hf.trainer(model, tmp_path, LastNetwork(), seed=seed, max_steps=4).train()
        return model.classifier.weight.detach()

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_a_second_training_with_the_same_recorder_is_refused(
    hf: ModuleType, tmp_path: Path
) -> None:
    s = study()
    with (
        pytest.raises(ValueError, match="step 0 comes after step 4: steps of a trial only go"),
        record(s.ask()) as recorder,
    ):
        trainer = hf.trainer(hf.bert(), tmp_path, recorder, max_steps=4)
        trainer.train()
        trainer.train()
    with pytest.raises(TypeError, match="needs a recorder"):
        hf.TransformersCallback(None)
    with pytest.raises(ValueError, match="every must be"):
        hf.TransformersCallback(LastNetwork(), every=0)


def test_a_study_file_trains_with_trainer(hf: ModuleType, tmp_path: Path) -> None:
    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        model = hp.apply_dropout(hf.bert(conditions.seed % 1000))
        trainer = hf.trainer(
            model, tmp_path / "hf", recorder, data=hf.digits(128), every="epoch", max_steps=-1,
            num_train_epochs=conditions.epochs, seed=conditions.seed % 1000,
            optimizer=hp.optimizer(model, torch.optim.AdamW),
        )  # fmt: skip
        trainer.train()
        rates = {g["name"]: g["initial_lr"] for g in trainer.optimizer.param_groups}
        assert rates == dict(hp.lr)

    space = wwopt.LayerSpace.from_model(
        hf.bert(), lr=(1e-4, 1e-2), dropout=(0.0, 0.3), momentum=(0.8, 0.95)
    )
    spec = wwopt.StudySpec("bert", train, space, conditions=wwopt.Conditions(seed=0, epochs=2))
    result = wwopt.tune(spec, trials=2, out=tmp_path, progress=False)
    assert [sorted(t.intermediate_values) for t in result.complete_trials] == [[1, 2], [1, 2]]
    assert "train_loss" in result.complete_trials[0].user_attrs["constraints"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_lora_trains_and_is_recorded_with_its_factors_alone(hf: ModuleType, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def make() -> nn.Module:
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
        return get_peft_model(hf.bert(), lora)

    ranges = {"lr": (1e-3, 1e-2), "dropout": None, "momentum": None}
    every = wwopt.LayerSpace.from_model(make(), **ranges).to_frame()
    trained = list(every["layer"][every["governs"] != ""])
    space = wwopt.LayerSpace.from_model(make(), **ranges, include=trained)
    assert len(trained) == 8 and all(".lora_" in layer for layer in trained)

    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        model, before = make(), compare_with_base(make())
        assert {layer.balance for layer in before.moved} == set()  # B starts at zero
        hf.trainer(
            model, tmp_path / "hf", recorder, data=hf.digits(64), every="epoch", max_steps=-1,
            num_train_epochs=conditions.epochs, optimizer=hp.optimizer(model, torch.optim.AdamW),
        ).train()  # fmt: skip
        moved = compare_with_base(model).moved
        assert [(x.rank, x.N, x.M) for x in moved] == [(8, 64, 64)] * 4
        assert all(0.0 < x.balance < 1.0 < x.delta_stable_rank <= 8.0 for x in moved)

    spec = wwopt.StudySpec("lora", train, space, conditions=wwopt.Conditions(seed=0, epochs=2))
    result = wwopt.tune(spec, trials=1, out=tmp_path, progress=False)
    assert len(result.complete_trials) == 1  # though no factor has 50 eigenvalues


def dropped(attention: nn.Module, hidden: int, run: Any) -> float:
    """The share of attention weights that a forward in training sets to zero."""
    seen: list[torch.Tensor] = []
    attention.register_forward_hook(lambda _m, _a, output: seen.append(output[1]))
    run()
    return (seen[0] == 0).double().mean().item()


@pytest.mark.parametrize(
    ("name", "layer", "attention"),
    [
        (
            "bert",
            "bert.encoder.layer.1.attention.self.value",
            "bert.encoder.layer.1.attention.self",
        ),
        # Defined after the projection, GPT-2's attention dropout is that of its layer.
        ("gpt2", "transformer.h.1.attn.c_proj", "transformer.h.1.attn"),
        ("llama", "model.layers.1.self_attn.v_proj", "model.layers.1.self_attn"),
    ],
)
def test_attention_really_drops_at_its_layers_own_rate(
    hf: ModuleType, name: str, layer: str, attention: str
) -> None:
    model = getattr(hf, name)()
    space = wwopt.LayerSpace.from_model(model, lr=(1e-4, 1e-2), dropout=(0.0, 0.5), momentum=None)
    hp = wwopt.LayerHyperparameters(
        lr=dict.fromkeys(space.layers, 1e-3),
        dropout={n: 0.3 if n == layer else 0.0 for n in space.dropout_layers},
    )
    hp.apply_dropout(model)
    model.set_attn_implementation("eager")  # the others do not return what they dropped
    ids = torch.randint(0, 17, (64, 16))
    module = model.get_submodule(attention)
    causal = 0.0 if name == "bert" else 15 / 32  # of 16×16 places, those after the token
    share = dropped(module, 64, lambda: model.train()(input_ids=ids))
    assert share == pytest.approx(causal + (1.0 - causal) * 0.3, abs=0.01)
    assert dropped(module, 64, lambda: model.eval()(input_ids=ids)) == pytest.approx(causal)


def test_a_space_names_embeddings_norms_and_heads(hf: ModuleType) -> None:
    space = wwopt.LayerSpace.from_model(hf.gpt2(), lr=(1e-4, 1e-2), dropout=None, momentum=None)
    frame = space.to_frame().set_index("layer")
    assert frame.loc["transformer.wte", "governs"] == "weight, lm_head.weight"
    assert "transformer.ln_f.weight" in frame.loc["transformer.h.1.mlp.c_proj", "governs"]
    assert list(frame["kind"].unique()) == ["Embedding", "Conv1D"]
    bert = wwopt.LayerSpace.from_model(hf.bert(), lr=(1e-4, 1e-2), dropout=None, momentum=None)
    governs = bert.to_frame().set_index("layer")["governs"]
    assert governs["classifier"] == "weight, bias"
    assert "bert.embeddings.LayerNorm.weight" in governs["bert.embeddings.token_type_embeddings"]


def test_schedulers_keep_the_ratio_of_two_layers_but_for_greedy(hf: ModuleType) -> None:
    from transformers import SchedulerType, get_scheduler

    given = {
        "cosine_with_min_lr": {"min_lr_rate": 0.1},
        "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
        "warmup_stable_decay": {"num_decay_steps": 5},
    }
    changed = set()
    for kind in SchedulerType:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        hp = wwopt.LayerHyperparameters(lr={"0": 0.1, "1": 0.01})
        optimizer = hp.optimizer(model, torch.optim.AdamW)
        scheduler = get_scheduler(
            kind, optimizer, 2, 20, scheduler_specific_kwargs=given.get(kind.value, {})
        )
        for step in range(20):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            loss = 1.0 + step  # rises, so that those which look at it act
            scheduler.step(loss) if kind.value in ("greedy", "reduce_lr_on_plateau") else (
                scheduler.step()
            )
            first, second = (group["lr"] for group in optimizer.param_groups)
            if second > 0.0 and first / second != pytest.approx(10.0):
                changed.add(kind.value)
    assert changed <= {"greedy"}
