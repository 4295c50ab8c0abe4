"""Pictures: `plot_esd` of a layer, `plot_overview` of a model, `write_plots` of both to a folder.

The functions return matplotlib's Axes and show nothing; without `ax` they make a Figure of their
own, outside pyplot, so that nothing has to be closed and no setting is changed:

    plot_esd(metrics["encoder.fc"]).figure.savefig("fc.png")
"""

import re
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.pictures.layer_plot import plot_esd
from wwopt.metrics.pictures.model_plot import plot_overview


def write_plots(
    metrics: ModelMetrics, folder: str | Path, *, progress: bool = False
) -> tuple[Path, ...]:
    """Write `overview.png` and one `NNN-<name>.png` a layer; the number keeps names apart.

    Args:
        metrics: of the model; its layers' spectra must have been kept, as `analyze` does.
        folder: made where it does not exist; pictures of the same names are replaced.
        progress: show a bar.

    Returns:
        The files, the overview first.

    Raises:
        OSError: if the folder or a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(3, len(str(len(metrics.layers))))
    written = [_write(plot_overview(metrics), folder / "overview.png")]
    bar = tqdm(metrics.layers, desc="pictures", delay=2, disable=not progress)
    for number, layer in enumerate(bar, start=1):
        path = folder / f"{number:0{digits}}-{slugify(layer.name)}.png"
        written.append(_write(plot_esd(layer), path))
    return tuple(written)


def slugify(name: str) -> str:
    """Make a name safe for files anywhere: letters, digits, dots, dashes; at most 80 of them."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name)[:80].strip("-.") or "layer"


def _write(ax: Axes, path: Path) -> Path:
    figure = ax.figure
    assert isinstance(figure, Figure)  # of their own
    picture = BytesIO()
    figure.savefig(picture, format="png")
    path.write_bytes(picture.getvalue())  # at once: an interruption leaves no half of a picture
    return path
