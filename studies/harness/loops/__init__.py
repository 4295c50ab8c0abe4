"""Closed loops: searches that a score guides, at equal cost, and the networks they end with."""
