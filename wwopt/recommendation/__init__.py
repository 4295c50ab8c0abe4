"""More data, more trials, a bigger model, longer training, or stop?

A study's trials and its probes (trainings with one thing changed) are the evidence; from it draws
are made of what each action would bring (`gains`, by way of `learning_curves` and `tuning_curves`),
prices turn them into a verdict (`decisions`), and `phrases` say it. Where the evidence is thin the
verdict is to probe, with what that costs.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
