"""How does a training loop that belongs to somebody else meet wwopt?

A framework's loop calls back, and the callback calls `recorder.step(model)`: no loop is rewritten.
Frameworks are optional parts, imported when their callback is asked for. `processes`
is for several processes a trial, under torchrun.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
