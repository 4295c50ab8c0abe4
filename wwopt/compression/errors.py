"""What cannot be compressed, or not so far."""


class CompressionError(ValueError):
    """What happened, with the value found, and the way out, in one line."""
