"""What the studies stand on: data, networks and zoos of them, situations, loops, trees, tables.

The floors, lowest first; a file imports from floors below its own and from its own folder, and
never in a circle:

1. `data`, `score_statistics`, `markdown_tables`
2. `damage`, `selection_worth`
3. `damage_cases`, `zoos`
4. `scenarios`, `loops`, `layer_rates`, `class_trees`, `compression`, `train_large`,
   `retrainings`
5. `changes`, `embeddings`

A study that somebody copies (`digits.py`, `mnist_mlp.py`, `char_gpt.py`) imports nothing of this.
"""
