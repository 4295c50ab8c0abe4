"""Networks that are retrained week after week, harmlessly or worse each week, and their checks."""
