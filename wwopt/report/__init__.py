"""After a study: what came out, and why?

Everything is read from MLflow alone: the trials in order (`leaderboard`), two of them side by side
(`pairs`), what moved the objective (`importance`), what other scores would have chosen, what speaks
against the winner (`cautions`), all of it on one HTML page (`page`), and the winner's weights
(`export`).
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
