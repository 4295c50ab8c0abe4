"""What a tree of classes cannot be made of, or cannot do."""


class ClassTreeError(ValueError):
    """What happened, with the value found, and the way out, in one line."""
