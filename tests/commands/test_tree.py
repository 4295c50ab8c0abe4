"""`wwopt tree` end to end: a page, words, JSON, a correction, and a line for each wrong input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fixtures.networks.class_trees import draw_features, make_classifier
from fixtures.readers.pages import Page
from safetensors.torch import save_file

from wwopt.class_tree.trees import class_tree
from wwopt.cli import main

NAMES = ("cat", "dog", "car", "bus")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, names of its classes, and features, in the working directory."""
    monkeypatch.chdir(tmp_path)
    model = make_classifier()
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n\n", "utf-8")
    rows = class_tree(model).head.weight
    draw_features(rows).save(tmp_path / "f.npz")
    draw_features(rows, seed=1).save(tmp_path / "unseen.npz")
    return tmp_path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["tree", "m.safetensors", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_a_tree_needs_no_data(folder: Path) -> None:
    status, said, _ = run("--classes", "names.txt")
    assert status == 0 and "├─ " in said and "tree.html: " in said
    page = Page((folder / "tree.html").read_text("utf-8"))
    assert "Classes of m.safetensors" in page.words and all(n in page.words for n in NAMES)
    assert run()[0] == 0  # classes are then called by their numbers


def test_the_shape_may_be_that_of_another_network(folder: Path) -> None:
    other = make_classifier()
    with torch.no_grad():
        other[2].weight.copy_(other[2].weight[[2, 0, 3, 1]])
    save_file(other.state_dict(), folder / "first.safetensors")
    own, kept = (
        json.loads(run("--json", *more)[1])["nodes"]
        for more in ([], ["--shape-of", "first.safetensors"])
    )
    assert kept == class_tree(other).to_dict()["nodes"] != own
    save_file({"w.weight": torch.randn(3, 6)}, folder / "first.safetensors")
    status, _, said = run("--shape-of", "first.safetensors")
    assert status == 2 and "3 names of classes, but layer '2' has 4 rows" in said


def test_with_features_it_judges_and_corrects(folder: Path) -> None:
    given = ["--classes", "names.txt", "--features", "f.npz", "--held-out", "unseen.npz"]
    status, said, _ = run(*given, "-o", "judged.html")
    assert status == 0 and "Right of 80 examples: the network" in said
    assert "Node by node" in (folder / "judged.html").read_text("utf-8")
    tree = class_tree(folder / "m.safetensors", NAMES).hierarchy
    far = next(n for n in ("dog", "car", "bus") if tree.meet(0, NAMES.index(n)) == tree.root)
    status, said, _ = run(*given, "--move", "cat", far, "-o", "moved.html", "--json")
    document = json.loads(said)
    fitted = [node for node in document["nodes"] if node["fitted"]]
    assert status == 0
    assert [set(node["classes"]) for node in fitted] == [{0, NAMES.index(far)}]
    assert document["judgement"]["accuracies"].keys() == {"network", "tree", "hard"}
    assert "What the correction changed" in (folder / "moved.html").read_text("utf-8")


def test_a_target_is_a_class_of_that_name_before_a_node_of_that_number(folder: Path) -> None:
    tree = class_tree(folder / "m.safetensors").hierarchy
    far = next(number for number in (1, 2, 3) if tree.meet(0, number) == tree.root)
    names = ["x"] * 4
    names[0], names[far] = "cat", "5"  # there is a node 5 too
    (folder / "named.txt").write_text("\n".join(names))
    status, said, _ = run(
        "--classes", "named.txt", "--features", "f.npz", "--move", "cat", "5", "--json"
    )
    assert status == 0
    assert any(set(node["classes"]) == {0, far} for node in json.loads(said)["nodes"])


def write_files(folder: Path) -> None:
    (folder / "six.txt").write_text("\n".join("abcdef"))
    (folder / "two.txt").write_text("a\nb\n")
    (folder / "gap.txt").write_text("a\n\nb\nc\n")
    (folder / "none.txt").write_text("\n \n")
    (folder / "latin.txt").write_bytes("Bär\nb\nc\nd".encode("latin-1"))
    np.savez(folder / "wide.npz", inputs=np.ones((3, 9)), labels=np.arange(3))
    np.savez(folder / "label.npz", inputs=np.ones((3, 6)), labels=np.array([0, 1, 4]))
    inputs, labels = draw_features(np.ones((4, 6))).inputs, np.tile([0, 2], 40)
    np.savez(folder / "half.npz", inputs=inputs, labels=labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "six.txt"], "6 names of classes, but layer '2' has 4 rows"),
        (["--classes", "two.txt"], "2 names of classes, but layer '2' has 4 rows"),
        (["--classes", "gap.txt"], "gap.txt has no name on line 2"),
        (["--classes", "none.txt"], "none.txt is empty"),
        (["--classes", "latin.txt"], "latin.txt is no UTF-8 text, at byte 1"),
        (["--classes", "missing.txt"], "missing.txt"),
        (["--layer", "head"], "no layer 'head'; did you mean"),
        (["--features", "wide.npz"], "9 numbers an example, layer '2' reads 6"),
        (["--held-out", "wide.npz"], "9 numbers an example, layer '2' reads 6"),
        (["--features", "label.npz"], "a label is 4, and the classes are 0 to 3"),
        (["--features", "names.txt"], "names.txt is no .npz of plain arrays"),
        (["--features", "half.npz", "--move", "0", "1"], "no example of 1"),
        (["--features", "f.npz", "--move", "cow", "0"], "no class 'cow'"),
        (["--move", "0", "1"], "give them with --features"),
        (["-o", "nowhere/t.html"], "there is no folder nowhere"),
        (["--key", "ema"], "m.safetensors holds one model under no key"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(folder: Path, arguments: list[str], message: str) -> None:
    write_files(folder)
    status, _, said = run(*arguments)
    assert status == 2 and message in said and "Traceback" not in said
    assert not (folder / "tree.html").exists()


def test_a_model_without_a_last_linear_layer_is_told(folder: Path) -> None:
    state = {"conv.weight": torch.ones(4, 3, 3, 3)}
    save_file(state, folder / "m.safetensors")
    status, _, said = run()
    assert status == 2 and "the model has no linear layer" in said and "conv (conv2d)" in said
    two = {f"{name}.weight": torch.randn(n, 6) for name, n in (("age", 4), ("kind", 5))}
    save_file({"body.weight": torch.ones(6, 8), **two}, folder / "m.safetensors")
    status, _, said = run()
    assert status == 2 and "age (4 rows), kind (5 rows); choose by --layer NAME" in said
