"""`wwopt tune`: run or resume a study, and say what came out."""

import logging
import shlex
import sys
from pathlib import Path

import click
import optuna
import pandas as pd

from wwopt.tracking import hide_password
from wwopt.tuning import StudyResult


@click.command()
@click.argument("study")
@click.option("--trials", default=20, help="Finished trials that the study shall have.")
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder for databases and artifacts.",
)
@click.option("--seed", default=0, help="Seed of initialisation, data order and sampler.")
@click.option("--storage", show_default="sqlite, OUT/optuna.db", help="Optuna's database URL.")
@click.option("--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI.")
@click.option("--jobs", default=1, help="Processes on this machine.")
def tune(
    study: str,
    trials: int,
    out: Path,
    seed: int,
    storage: str | None,
    tracking_uri: str | None,
    jobs: int,
) -> None:
    """Run or resume STUDY (a file such as studies/digits.py, or module:attribute)."""
    from wwopt.study import StudyError
    from wwopt.tracking import TrackingError
    from wwopt.tuning import tune as run

    # Trials that fail are told in one line each; their traceback lies in MLflow.
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        result = run(
            study,
            trials=trials,
            out=out,
            storage=storage,
            tracking=tracking_uri,
            seed=seed,
            jobs=jobs,
        )
    except (StudyError, TrackingError) as error:
        click.echo(f"wwopt: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted; the same command resumes", err=True)
        sys.exit(130)
    click.echo(summarize(result))
    sys.exit(0 if result.best_trial is not None else 1)


def summarize(result: StudyResult) -> str:
    """The end of a study for a reader: the best trial, its layers, and where to look further."""
    trials = result.study.get_trials(deepcopy=False)
    counts = {
        name: sum(t.state.name == state for t in trials)
        for name, state in (("complete", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"))
    }
    tally = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = ["", f"Study {result.spec.name}: {sum(counts.values())} trials ({tally})."]
    best = result.best_trial
    if best is None:
        lines.append("No trial was completed, so there is no best one.")
    else:
        lines += ["", _headline(result, best), "", *_layer_table(best)]
    lines += [
        "",
        f"Optuna: {result.storage}",
        f"MLflow: {hide_password(result.run.uri)}",
    ]
    if result.run.uri.startswith("sqlite"):
        uri = shlex.quote(result.run.uri)
        lines.append(f"Look at it with:  mlflow ui --backend-store-uri {uri}")
    return "\n".join(lines)


def _headline(result: StudyResult, best: optuna.trial.FrozenTrial) -> str:
    terms = best.user_attrs.get("terms", {})
    parts = ", ".join(f"{name} {value:+.3f}" for name, value in terms.items() if value)
    line = f"Best: trial {best.number}, objective {best.value:.4f} ({parts}; lower is better)"
    metrics = best.user_attrs.get("metrics", {})
    shown = [name for name in ("train_loss", result.spec.metric) if name in metrics]
    if shown:
        line += "\n      " + ", ".join(f"{name} {metrics[name]:.4g}" for name in shown)
        if result.spec.metric in shown:
            line += f"  ({result.spec.metric} was not seen by the objective)"
    return line


def _layer_table(best: optuna.trial.FrozenTrial) -> list[str]:
    values = best.user_attrs.get("hyperparameters", {})
    kinds = list(dict.fromkeys(key.partition("/")[0] for key in values))
    rows = {}
    for name, layer in best.user_attrs.get("layers", {}).items():
        row = {kind: _number(values.get(f"{kind}/{name}"), ".3g") for kind in kinds}
        row["alpha"] = _number(layer["alpha"], ".2f")
        if layer["alpha"] is not None and layer["sigma"] is not None:
            row["alpha"] += f" ± {layer['sigma']:.2f}"
        row["D"] = _number(layer["D"], ".3f")
        row["traps"] = _number(layer["traps"], ".0f")
        row["status"] = layer["status"]
        rows[name] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.to_string().splitlines()


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
