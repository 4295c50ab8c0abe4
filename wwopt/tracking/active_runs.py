"""A trial's run as MLflow's active one: frameworks log through its fluent API, into that run."""

from collections.abc import Iterator
from contextlib import contextmanager

from wwopt.tracking.runs import TrialRun


@contextmanager
def activate(run: TrialRun) -> Iterator[None]:
    """Make a run the active one inside the block; afterwards none is, as before.

    Leaving the block waits for what is logged in the background, and ends the run as MLflow does,
    as finished: whoever opened the run says later how it ended.

    Raises:
        mlflow.exceptions.MlflowException: if another run is active, or another experiment was set.
    """
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.uri)
    try:
        mlflow.start_run(run_id=run.run_id)
        try:
            yield
        finally:
            mlflow.flush_async_logging()
            mlflow.end_run()
    finally:
        mlflow.set_tracking_uri(before)
