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
    # Cells stay as they are: no number is read out of a text, and nothing is padded.
    return shown.to_markdown(index=False, tablefmt="github", disable_numparse=True, stralign=None)
