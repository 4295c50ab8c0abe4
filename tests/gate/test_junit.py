"""JUnit XML of a check is valid by its schema, whatever layers are called, and says what broke."""

import pytest
from fixtures.readers.junit_files import read_junit
from fixtures.weights.damaged_models import edited, model

import wwopt
from wwopt.gate.checks import GateResult
from wwopt.gate.history import Drift
from wwopt.gate.junit import format_junit, format_junit_error

DRIFT = Drift("fc1", "change/ks", 0.05, 0.01, z=9.0, limit=5.0, past=7)


@pytest.fixture(scope="module")
def scaled() -> GateResult:
    return wwopt.check(model(), edited(lambda w: w * 4.0, "fc2"))


def test_every_layer_is_a_case_and_what_broke_fails(scaled: GateResult) -> None:
    suite = read_junit(format_junit(scaled, before="good", after="bad", seconds=1.5))
    assert [case.name for case in suite] == ["fc1", "fc2", "fc3", "head"]
    assert {c.name: c.result[0].message for c in suite if c.result} == {"fc2": "scaled by 4"}
    assert next(c for c in suite if c.result).result[0].type == "broken"
    facts = {p.name: p.value for p in suite.properties()}
    assert (facts["before"], facts["after"], facts["max-scale"]) == ("good", "bad", "1.18")
    assert suite.time == 1.5


def test_what_drifted_fails_as_drift_and_beside_what_broke(scaled: GateResult) -> None:
    broken = Drift("fc2", "change/ks", 0.05, 0.01, z=9.0, limit=5.0, past=7)
    suite = read_junit(format_junit(scaled, [DRIFT, broken]))
    endings = {case.name: case.result[0] for case in suite if case.result}
    assert (endings["fc1"].type, endings["fc1"].message) == ("drift", DRIFT.words)
    assert endings["fc2"].type == "broken" and broken.words in endings["fc2"].text


def test_a_check_that_could_not_be_done_is_an_error() -> None:
    suite = read_junit(format_junit_error("a.pt is no file of tensors", before="a.pt"))
    (case,) = suite
    assert case.result[0].message == "a.pt is no file of tensors"


@pytest.mark.parametrize("name", ["a<b>&\"'", "x\0y\x1b[31m", "größe\ufffe", "", "  ", "]]>"])
def test_no_name_breaks_the_document(name: str) -> None:
    state = {name: model()["fc1.weight"]}
    result = wwopt.check(state, {name: 4 * state[name]})
    suite = read_junit(format_junit(result, before=name, after=name))
    assert len(list(suite)) == 1 and suite.failures == 1
    read_junit(format_junit_error(name, before=name))
