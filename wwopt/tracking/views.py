"""A saved view of a study in MLflow's screens: the columns, the order and the charts that matter.

By default MLflow 3.17 shows no metric in its table of runs, and a chart for every metric in
alphabetical order. What a person saves there under "Views" is kept in a tag of the experiment; this
writes one. The format is MLflow's own (read in 3.17.2: JSON, zlib, base64), and documented nowhere:
under another version than 3.17 nothing is written, and links lead to the plain table.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from wwopt.tracking.keys import LAYER_ALPHA, STATUS_TAG, SUGGESTED, VALUE
from wwopt.tracking.runs import StudyRun, now
from wwopt.tracking.store import connect

VERSION = ["3", "17"]  # of MLflow, whose format this is
VIEW = "wwopt"  # name of the view, and its key in a link
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
MAX_TAG = 20_000  # characters of an experiment's tag

COLUMNS = (VALUE, "alpha/mean", "traps/count", "train/loss")  # metrics, in this order
GROUPS = ("objective", "alpha", "traps", "train", "metrics", LAYER_ALPHA, "guards", "rank", "best")
MAX_PARAMS = 9  # columns and axes


def save_view(study: StudyRun, *, metrics: Sequence[str], params: Sequence[str]) -> None:
    """Save the view "wwopt" of a study: trials by objective, and four charts on top.

    Args:
        study: the parent run.
        metrics: keys of the trials' metrics.
        params: keys of the trials' parameters, those that matter most first.
    """
    if not knows_views():
        return
    knobs = [key for key in params if key.startswith(f"{SUGGESTED}/")] or list(params)
    shown = [key for key in COLUMNS if key in metrics]
    shown += [key for key in metrics if key.startswith("metrics/")][:3]
    state = _describe(shown, knobs[:MAX_PARAMS], _group(metrics))
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    tag = {"name": VIEW, "createdAt": now(), "updatedAt": now(), "state": f"deflate;{packed}"}
    text = json.dumps(tag)
    if len(text) <= MAX_TAG:
        connect(study.uri).set_experiment_tag(study.experiment_id, VIEW_TAG, text)


def link_to(study: StudyRun, server: str) -> str:
    """The address of the view on a tracking server, or of its table without one."""
    page = f"{server.rstrip('/')}/#/experiments/{study.experiment_id}/runs"
    view = f"viewStateShareKey={VIEW}&" if knows_views() else ""
    return f"{page}?{view}workflowType=machine_learning"


def knows_views() -> bool:
    """Whether the installed MLflow is one whose format of views is known."""
    return version("mlflow").split(".")[:2] == VERSION


def _describe(
    metrics: Sequence[str], knobs: Sequence[str], groups: Iterable[str]
) -> dict[str, Any]:
    """The state of MLflow's page, in its own words."""
    return {
        "searchFilter": f"tags.`{STATUS_TAG}` LIKE '%'",  # trials: the parent run has no status
        "orderByKey": f"metrics.`{VALUE}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *(f"metrics.`{key}`" for key in metrics),
            f"tags.`{STATUS_TAG}`",
            *(f"params.`{key}`" for key in knobs),
        ],
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": _make_charts(metrics, knobs),
        "compareRunSections": [_section("What matters"), *map(_section, groups)],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
    }


def _make_charts(metrics: Sequence[str], knobs: Sequence[str]) -> list[dict[str, Any]]:
    def chart(kind: str, name: str, **options: Any) -> dict[str, Any]:
        return {
            "uuid": f"{VIEW}-{name}",
            "type": kind,
            "runsCountToCompare": 100,
            "metricSectionId": _section("What matters")["uuid"],
            "deleted": False,
            "isGenerated": False,
            "displayName": name,
            **options,
        }

    charts = [chart("BAR", "objective (lower is better)", metricKey=VALUE)]
    if knobs:
        charts.append(
            chart(
                "PARALLEL",
                "hyperparameters → objective",
                selectedParams=list(knobs),
                selectedMetrics=[VALUE],
                showAllRuns=True,
            )
        )
    for x, name in (("train/loss", "training loss"), ("alpha/mean", "mean alpha")):
        if x in metrics:
            axes = {"xaxis": _axis(x), "yaxis": _axis(VALUE)}
            charts.append(chart("SCATTER", f"objective against {name}", **axes))
    return charts


def _axis(key: str) -> dict[str, str]:
    return {"key": key, "type": "METRIC"}


def _section(name: str) -> dict[str, Any]:
    return {
        "uuid": f"{VIEW}-{name}",
        "name": name,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": name != "What matters",
    }


def _group(metrics: Iterable[str]) -> list[str]:
    """Groups of the metrics, those that matter first."""
    found = dict.fromkeys(key.partition("/")[0] for key in metrics if "/" in key)
    known = [group for group in GROUPS if group in found]
    return known + [group for group in found if group not in known]
