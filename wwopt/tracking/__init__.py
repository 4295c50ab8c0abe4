"""What is in MLflow, both ways: studies, trials, probes and rankings, written and read back.

A study is an experiment with a parent run, a trial a child run of it; what no metric or tag can
hold is an artifact. This is the only wing that imports mlflow or holds its client. Everything goes
through `MlflowClient` with explicit run ids: the fluent API keeps its active run in thread-local
state and marks a pruned trial as failed. MLflow takes two seconds to import, so it happens inside
functions.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
