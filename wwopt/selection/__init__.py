"""Which of these models is better trained, as far as their weights can tell?

`rank` reads candidates (`candidates`, and `tracked_candidates` from MLflow), groups them into
families (`families`: one architecture, one family at several sizes, or strangers), ranks each
family by the score that suits its question (`scores`) and says which places are ties (`intervals`).
Across families no order is claimed.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
