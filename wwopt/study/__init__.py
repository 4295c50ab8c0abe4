"""What is a study, and what does one trial of it record?

A study (`spec`) says which networks to train, over which space (`layer_space`), under which
conditions and judged how. Training meets wwopt at one point, `recorder.step(model)`: the recorder
logs, analyses, judges, reports, prunes and guards, and `record` opens and closes a trial around it.
How trials are sampled and run is no question of this wing.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
