"""Version 3 of the score, frozen: by hand at the knees, and as wwopt 0.1.0 computed it on a zoo."""

import math
from typing import TYPE_CHECKING

import pytest

from wwopt.metrics.model_metrics import COLLAPSED, LayerMetrics, ModelMetrics
from wwopt.metrics.objective import SpectralObjective

if TYPE_CHECKING:
    from fixtures.recorded.zoo import ZooMetricsOf

LN2 = math.log(2.0)
WEIGHTS = SpectralObjective(version=3)
FREE = SpectralObjective("validation-free", version=3)

# Networks of the zoo at the end of training, the third collapsed: what wwopt 0.1.0 gives.
EXPECTED = {
    0: (-0.12135169965720488, -0.6836522855752126),
    10: (-0.020765027069391626, -0.6754112963960947),
    23: (10.0, 0.4243521787560492),
    40: (-0.05006656123551732, -0.6783469803159404),
}


def layer(name: str = "fc", **changes: float | str) -> LayerMetrics:
    """A layer at the knee of every softplus, where each is ln 2."""
    knee = {"hill": 2.5, "hill_random": 3.0, "trap_z": 4.0, "mean_spike": 2.0}
    knee |= {"stable_rank": 3.0, "signal_to_bulk": math.e, "tail_cutoff": 1.3}
    return LayerMetrics(name=name, N=80, M=60, num_evals=60, **{**knee, **changes})  # type: ignore[arg-type]


def test_every_term_by_hand() -> None:
    terms = WEIGHTS(ModelMetrics((layer(),))).terms
    tailed = 1.0 / (1.0 + math.exp(-2.0 / 0.3))
    assert terms == pytest.approx(
        {
            "tail": math.log(1.5 / 2.0),
            "excess": 0.2 * LN2,
            "traps": 0.3 * math.log(1.0 + LN2),
            "mean": 0.25 * math.log(1.0 + LN2),
            "rank": 0.5 * 0.25 * LN2,
            "failure": 0.0,
            "cutoff": tailed * 0.1 * LN2,
            "loss": 0.0,
        }
    )


def test_networks_of_a_zoo_score_as_they_did(zoo_metrics: "ZooMetricsOf") -> None:
    networks = zoo_metrics("1.0")
    for index, (weights_only, validation_free) in EXPECTED.items():
        assert WEIGHTS(networks[index]).value == pytest.approx(weights_only, abs=1e-12)
        found = FREE(networks[index], train_loss=0.5).value
        assert found == pytest.approx(validation_free, abs=1e-12)


def test_what_it_gets_wrong_stays_wrong() -> None:
    good = [layer(str(index)) for index in range(50)]
    collapsed = ModelMetrics((*good, layer("read-out", status=COLLAPSED)))
    assert WEIGHTS(collapsed).status == "broken: read-out collapsed"
    emptied = ModelMetrics((layer(signal_to_bulk=math.inf),))
    assert WEIGHTS(emptied).terms["excess"] == pytest.approx(math.log(1000.0) - 1.0, rel=1e-3)
    small = layer("small", status="too few eigenvalues", tail_cutoff=0.0)
    bent = layer("second", tail_cutoff=2.5)
    assert WEIGHTS(ModelMetrics((small, bent))).terms["cutoff"] == pytest.approx(1.2, rel=1e-2)
