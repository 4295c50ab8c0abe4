"""wwopt tunes, picks and judges neural networks without test data, from their weights' spectra.

    weights → spectra → metrics → gate, selection, study → recommendation → report → tuning
    weights → class_tree; weights, spectra, gate, study → compression

Each wing is a folder that answers one question, which its first line asks; docs/architecture.md is
the way through them. Names and wings are imported when they are first asked for, so that a command
that only reads MLflow starts without torch.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
