"""`wwopt recommend`: add data, keep tuning, a bigger model, longer training, or stop?"""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wwopt.study
import wwopt.tracking
from wwopt.commands.study_argument import (
    find_study,
    names_code,
    study_argument,
)

if TYPE_CHECKING:
    from wwopt.recommendation.decisions import Prices
    from wwopt.recommendation.probe_plans import ProbePlan
    from wwopt.recommendation.recommendation import Recommendation

WIDE = 100  # characters of a line where no terminal says otherwise


@click.command()
@study_argument
@click.option(
    "--probe",
    is_flag=True,
    help="Train the probes that are missing, until the verdict stands; needs a file.",
)
@click.option(
    "--trainings",
    type=float,
    help="Full trainings that all probes may take as long as; 5 with --probe, which it implies.",
)
@click.option("--minutes", type=float, help="That probes may take now; implies --probe.")
@click.option(
    "--spend", type=float, help="Money for probes now, at --price-gpu-hour; implies --probe."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--metric", metavar="NAME", help="Validation metric that counts.")
@click.option("--examples", type=click.IntRange(1), help="Training examples there are today.")
@click.option(
    "--validation-examples", type=click.IntRange(1), help="Examples behind an error or accuracy."
)
@click.option("--more-trials", type=click.IntRange(1), help="Trials that further tuning means.")
@click.option("--worth", type=float, help="Of one unit of the metric; needed with prices.")
@click.option("--price-example", type=float, help="Of one labelled example.")
@click.option("--price-trial", type=float, help="Of one trial, beside its GPU hours.")
@click.option("--price-gpu-hour", type=float, help="Of one GPU hour.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Picture to write (PNG, SVG)."
)
@click.option("--seed", default=0, help="Seed of probes and draws.")
def recommend(
    study: str | None,
    out: Path,
    tracking_uri: str | None,
    probe: bool,
    trainings: float | None,
    minutes: float | None,
    spend: float | None,
    as_json: bool,
    worth: float | None,
    price_example: float | None,
    price_trial: float | None,
    price_gpu_hour: float | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Recommend what to do next with STUDY: more data, more trials, a bigger model, or stop.

    STUDY is a study file, an --out folder or a study's name; without it the latest one. Exit
    status: 0 a verdict, 1 not enough evidence, 2 it could not be judged.
    """
    limits = {"trainings": trainings, "minutes": minutes, "spend": spend}
    asked = ["--probe"] * probe + [f"--{name}" for name, v in limits.items() if v is not None]
    if asked and (study is None or not names_code(study)):
        _refuse_probes(study, asked[0])
    prices = _read_prices(worth, example=price_example, trial=price_trial, gpu_hour=price_gpu_hour)
    if plot is not None:
        _check_picture(plot)
    options |= {"prices": prices, "probe": probe, **limits}
    found = _recommend(study, out, tracking_uri, options)
    if plot is not None:
        from wwopt.recommendation.plot import plot_recommendation

        plot_recommendation(found).savefig(plot)
    from wwopt.recommendation.text import describe_recommendation, format_recommendation

    if as_json:
        text = json.dumps(describe_recommendation(found), indent=2)
    else:
        width = shutil.get_terminal_size((WIDE, 24)).columns
        text = format_recommendation(found, width=min(width, WIDE))
    click.echo(text)
    sys.exit(1 if found.verdict == "probe" else 0)


def _recommend(
    study: str | None, out: Path, tracking_uri: str | None, options: dict[str, Any]
) -> "Recommendation":
    from wwopt.recommendation.phrases import say_plan
    from wwopt.recommendation.recommendation import recommend as judge

    spec = None
    if study is not None and names_code(study):
        spec = wwopt.study.load_study(study)
        uri = tracking_uri or wwopt.tracking.folder_uri(out, exists=True)
        tracked = wwopt.tracking.read_study(uri, spec.name)
    else:
        tracked = find_study(study, out=out, tracking_uri=tracking_uri)
    prices = options["prices"]

    limited = any(options[limit] is not None for limit in ("trainings", "minutes", "spend"))

    def announce(plan: "ProbePlan") -> None:
        if plan.probes:
            end = "" if limited else "; they end as soon as the verdict stands"
            click.echo(f"{say_plan(plan, prices)} at most{end}", err=True)

    return judge(tracked, spec=spec, announce=announce, **options)


def _refuse_probes(study: str | None, option: str) -> None:
    """Say, before anything is read, what a folder, a name or nothing lacks for probes."""
    given, there = "no STUDY", ""
    if study is not None:
        folder = Path(study).is_dir()
        given = f"the {'folder' if folder else 'name'} {study!r}"
        there = f" --out {study}" if folder else ""
    raise ValueError(
        f"{option} trains networks, so it needs the study's file, got {given}; "
        f"name the file: wwopt recommend STUDY.py --probe{there}"
    )


def _read_prices(worth: float | None, **prices: float | None) -> "Prices | None":
    from wwopt.recommendation.decisions import Prices

    given = {name: price for name, price in prices.items() if price is not None}
    if worth is None:
        if given:
            options = ", ".join(f"--price-{name.replace('_', '-')}" for name in given)
            raise ValueError(
                f"{options} without --worth: say what one unit of the metric is worth to you"
            )
        return None
    return Prices(worth=worth, **given)


def _check_picture(path: Path) -> None:
    """Refuse, before anything is trained, what cannot be written."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"--plot {path}: the file's ending must be one of {', '.join(known)}")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")
