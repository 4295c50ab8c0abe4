"""Where training loops that people already have meet wwopt.

`processes`: several processes a trial, under torchrun.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
