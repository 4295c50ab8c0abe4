"""What is measured, said, drawn and scored of a network?

`analyze` measures every layer of a model (`model_metrics` says what each number is), `verdicts` and
`shapes` say it in words, the plots draw it, `objective` makes one number of it, lower is better,
`guards` tell what a network must not do, and `base_comparison` what became of the base that one was
made of. Everything here sees weights alone, but for the training loss where an objective or a guard
says so.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
