"""What weight matrices does this source hold?

A source is a module in memory, a state dict, a checkpoint file or a folder of them. Whatever it is,
it becomes a list of stored tensors (`stored_tensors`), parametrised and adapted ones rebuilt
(`rebuilt_weights`, `lora`), of which each holds one or more matrices (`layouts`). They are
described at once and read one at a time, so that a checkpoint of any size costs one tensor of
memory. Files are other people's: nothing in them is run, and nothing is allocated on a header's
word.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
