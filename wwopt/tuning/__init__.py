"""Run a study, resume it, and leave its report.

`tune` opens Optuna's database (`storage`) and MLflow's, picks the sampler and the pruner that suit
the study (`sampling`, `refinement`, `strata`), runs its trials here or in processes (`trial_runs`)
until there are as many as were asked for, and leaves notes and a report for their readers.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
