"""What a training job is handed: one trial's hyperparameters as a file that any language reads.

Plain JSON: the study's name and UUID, the trial's number, seed, epochs and checkpoint folder, and
under `layers` each layer's own learning rate, dropout, momentum and weight decay.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wwopt.study.conditions import Conditions
from wwopt.study.errors import StudyError
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.wording import first_line

FORMAT = 1
KINDS = ("lr", "dropout", "momentum", "weight_decay")
_CONDITIONS = ("seed", "epochs", "fraction", "width", "depth", "checkpoint_dir")


@dataclass(frozen=True)
class AskedTrial:
    """One trial that was handed out."""

    name: str  # of its study
    study: str  # UUID of it
    trial: int  # Optuna's number
    hp: LayerHyperparameters
    conditions: Conditions
    _: KW_ONLY
    owner: str  # of its lease, as in `wwopt.tuning.claims.leases.Worker`
    holder: str  # likewise: its name
    until: float  # when the lease ends, if nothing renews it; seconds since 1970
    reference: str = ""  # to the study, as it was named
    run: Mapping[str, Any] = field(default_factory=dict)  # its own in MLflow: tracking_uri, run_id

    def to_dict(self) -> dict[str, Any]:
        """As the file has it."""
        hp, conditions = self.hp, self.conditions
        values = {kind: getattr(hp, kind) for kind in KINDS}
        layers = {
            layer: {kind: float(v[layer]) for kind, v in values.items() if layer in v}
            for layer in hp.lr
        }
        return {
            "format": FORMAT,
            "study": {"name": self.name, "uuid": self.study, "reference": self.reference},
            "trial": self.trial,
            **{name: getattr(conditions, name) for name in _CONDITIONS},
            "batch_size": hp.batch_size,
            "layers": layers,
            "functional_dropout": list(hp.functional),
            "sampled": {"width": hp.width, "depth": hp.depth},
            "lease": {
                "owner": self.owner,
                "holder": self.holder,
                "until": datetime.fromtimestamp(self.until, UTC).isoformat(),
            },
            "mlflow": dict(self.run),
        }

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, path)


def read_asked(path: str | Path) -> AskedTrial:
    """Read the file that `wwopt ask` wrote.

    Raises:
        StudyError: if it cannot be read, or is no such file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StudyError(f"{path} cannot be read: {reason}") from error
    try:
        found = json.loads(text)
        version = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is not what `wwopt ask` writes: {first_line(error)}") from error
    if version != FORMAT:
        raise StudyError(f"{path} has format {version!r}; this version of wwopt reads {FORMAT}")
    try:
        return _from_dict(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = first_line(error, named=True)
        raise StudyError(f"{path} is not what `wwopt ask` wrote any more: {reason}") from error


def _from_dict(found: Mapping[str, Any]) -> AskedTrial:
    layers = found["layers"]
    values = {k: {name: own[k] for name, own in layers.items() if k in own} for k in KINDS}
    lease = found["lease"]
    return AskedTrial(
        found["study"]["name"],
        found["study"]["uuid"],
        int(found["trial"]),
        LayerHyperparameters(
            **values,
            functional=tuple(found["functional_dropout"]),
            batch_size=found["batch_size"],
            width=found["sampled"]["width"],
            depth=found["sampled"]["depth"],
        ),
        Conditions(**{name: found[name] for name in _CONDITIONS}),
        owner=lease["owner"],
        holder=lease["holder"],
        until=datetime.fromisoformat(lease["until"]).timestamp(),
        reference=found["study"]["reference"],
        run=found["mlflow"],
    )
