"""Which decisions does a classifier make, one after another, and behind which examples?

The rows of the last linear layer are merged to a tree of its classes (`hierarchy`); each node of it
decides by its children's vectors, so that one decision becomes a path that can be followed
(`inference`), traced to the examples it comes from (`neighbours`) and corrected (`correction`).
Neural-backed decision trees: Wan et al. 2021 (ICLR), arXiv:2004.00221.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
