"""What the studies stand on: data, zoos of trained networks, situations, loops, statistics, tables.

The floors, lowest first; a file imports from floors below it or from its own, and never in a
circle:

1. `data`, `score_statistics`, `markdown_tables`
2. `selection_worth`, `damage`, `damage_cases`
3. `zoos`
4. `scenarios`, `loops`

A study that somebody copies (`digits.py`, `mnist_mlp.py`, `char_gpt.py`) imports nothing of this.
"""
