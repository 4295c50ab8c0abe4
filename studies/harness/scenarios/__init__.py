"""Situations in which someone asks what to do next: lived through, judged, told in tables."""
