"""How small can a network be made, and which layer breaks first?

Each layer has a plan (`LayerPlan`): so many bits, so many zeros, a rank. `apply_plans` carries the
plans out, `CompressedNetwork` knows the bytes of its file and the weights it stands for.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
