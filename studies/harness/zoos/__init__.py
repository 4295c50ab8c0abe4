"""Zoos: many networks of one task with random hyperparameters, recorded, scored and judged."""
