"""A matrix follows the hyperparameters of the module above it, wherever they are shown."""

from pathlib import Path

import optuna
import pytest
import torch
from torch import nn

import wwopt
from wwopt.metrics.owners import group_by_kind, owner_of, settings_of
from wwopt.report.layer_figures import draw_depth
from wwopt.report.page_data import gather
from wwopt.report.pairs import compare_pair
from wwopt.study.space.layer_space import LayerSpace
from wwopt.tracking.tracked_studies import TrackedStudy, read_study
from wwopt.tuning.dashboard_notes import describe
from wwopt.weights.matrices import read_weights


@pytest.mark.parametrize(
    ("matrix", "owner"),
    [
        ("fc", "fc"),
        ("blocks.0.qkv.q", "blocks.0.qkv"),
        ("blocks.0.qkv", "blocks.0.qkv"),
        ("blocks.0.proj", "blocks.0"),  # the nearest that is there
        ("blocks.1.proj", None),
        ("fcx", None),  # a name that begins alike is no module above
        ("", None),
    ],
)
def test_the_owner_is_the_nearest_module_above(matrix: str, owner: str | None) -> None:
    assert owner_of(matrix, {"fc", "blocks.0", "blocks.0.qkv"}) == owner


def test_every_matrix_of_a_model_has_an_owner_in_its_space() -> None:
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(80, 64),
            "attention": nn.MultiheadAttention(64, 4),
            "rnn": nn.LSTM(64, 80, num_layers=2),
            "head": nn.utils.parametrizations.weight_norm(nn.Linear(80, 60)),
        }
    )
    space = LayerSpace.from_model(model, lr=(0.1, 1.0), dropout=None, momentum=None)
    owners = {m.name: owner_of(m.name, set(space.layers)) for m in read_weights(model).matrices}
    assert set(owners.values()) == set(space.layers)
    assert owners["attention.in_proj.q"] == "attention"
    assert owners["rnn.weight_hh_l1.cell_gate"] == "rnn"


def test_each_kind_has_an_owner_of_its_own() -> None:
    kinds = group_by_kind({"lr/qkv": 0.1, "lr/fc": 0.2, "dropout/fc": 0.3, "batch_size": 64})
    assert kinds == {"lr": {"qkv": 0.1, "fc": 0.2}, "dropout": {"fc": 0.3}}
    assert settings_of("qkv.q", kinds) == {"lr": 0.1}
    assert settings_of("fc", kinds) == {"lr": 0.2, "dropout": 0.3}


def make_attention() -> nn.ModuleDict:
    modules = {"qkv": nn.Linear(64, 192), "drop": nn.Dropout(), "up": nn.Linear(64, 80)}
    return nn.ModuleDict(modules)


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, TrackedStudy]:
    """Three trials of a network whose q, k and v are one module."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('attention') / 'mlflow.db'}"
    space = LayerSpace.from_model(
        make_attention(), lr=(0.1, 1.0), dropout=(0.1, 0.5), momentum=None, tie="layer"
    )

    def objective(trial: optuna.Trial) -> float:
        space.suggest(trial)
        torch.manual_seed(trial.number)
        with wwopt.record(trial, epochs=1, tracking=uri) as recorder:
            recorder.step(make_attention())
        return recorder.value

    study = optuna.create_study(study_name="attention", sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, n_trials=3)
    return study, read_study(uri, "attention")


def rates_in_table(markdown: str) -> dict[str, str]:
    """Layer → the learning rate that a Markdown table shows."""
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line[:1] == "|"]
    assert rows[0][:3] == ["layer", "lr", "dropout"]
    return {row[0]: row[1] for row in rows[2:]}


def test_parts_of_a_module_show_its_hyperparameters_everywhere(
    attention: tuple[optuna.Study, TrackedStudy],
) -> None:
    study, tracked = attention
    best = study.best_trial
    rate = best.params["lr/qkv"]
    parts = ("qkv.q", "qkv.k", "qkv.v")
    note = tracked[best.number].tags["mlflow.note.content"]
    for table in (note, describe(best)):  # of MLflow and of Optuna's dashboard
        shown = rates_in_table(table)
        assert [shown[part] for part in parts] == [f"{rate:.3g}"] * 3
        assert shown["up"] == f"{best.params['lr/up']:.3g}"
    pair = compare_pair(tracked[0], tracked[1])
    layers = {layer.name: layer for layer in pair.layers}
    for part in parts:
        both = layers[part].settings["lr"]
        assert list(both) == [study.trials[i].params["lr/qkv"] for i in (0, 1)]
        assert set(layers[part].settings) == {"lr", "dropout"}
    assert pair.settings == {}  # nothing is left that belongs to no layer
    picture = draw_depth(gather(tracked))
    assert picture is not None
    drawn = next(trace for trace in picture.figure.data if trace.name == "best")
    assert list(drawn.y[:4]) == [rate, rate, rate, best.params["lr/up"]]


def test_what_has_no_owner_is_left_open(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    space = LayerSpace.from_model(
        make_attention(), lr=(0.1, 1.0), dropout=None, momentum=None, include=["up"]
    )
    study = optuna.create_study(study_name="half")
    trial = study.ask()
    space.suggest(trial)
    with wwopt.record(trial, epochs=1, tracking=uri) as recorder:
        recorder.step(make_attention())
    note = read_study(uri, "half")[0].tags["mlflow.note.content"]
    row = next(line for line in note.splitlines() if line.startswith("| qkv.q "))
    assert row.split(" | ")[1] == "–"
