"""Tables as the documentation shows them."""

import pandas as pd


def format_markdown(frame: pd.DataFrame, *, index: bool = True) -> str:
    """A Markdown table; numbers with two decimals.

    Args:
        frame: its columns are the head; its index, if wanted, the first column.
        index: whether it is.
    """
    shown = frame.map(lambda value: f"{value:.2f}" if isinstance(value, float) else str(value))
    if index:
        shown = shown.reset_index(names=frame.index.name or "")
    lines = [map(str, shown.columns), ["---"] * shown.shape[1], *shown.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
