"""Which layers broke between two checkpoints, and how?

`check` matches the layers of two sources by name and measures what changed in each (`changes`);
what moved further than any harmless change in calibration (`thresholds`) is named (`damage`).
`history` keeps a line for each check of a model that is retrained, and tells what is unlike the
past.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
