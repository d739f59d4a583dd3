"""How figures look: colours that everyone can tell apart, labels on everything, no global state of matplotlib.

matplotlib is imported inside functions only: importing it takes half a second.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), without the yellow, which is too pale for a line on white.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")  # so that lines differ in grey too
DPI = 110
GRID = "#dddddd"
OPTUNAS: Any = {
    "figure.dpi": DPI,
    "figure.figsize": (5.8, 4.2),
    "figure.titlesize": 11,
    "savefig.bbox": "tight",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "figure.subplot.wspace": 0.3,
}


def figure(title: str, columns: int, width: float = 5.0, height: float = 3.9, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with rows and columns of panels, each `width` by `height` inches; the panels row by row."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=DPI)
    drawing.suptitle(title, fontsize=11, parse_math=False)  # names may hold a $
    panels = list(drawing.subplots(rows, columns, squeeze=False).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color=GRID, linewidth=0.6)
        panel.set_axisbelow(True)
    return drawing, panels


def label(panel: Axes, title: str, x: str, y: str) -> None:
    """Say what a panel shows and in which units."""
    panel.set_title(title, fontsize=10)
    panel.set_xlabel(x)
    panel.set_ylabel(y)


def epochs(panel: Axes) -> None:
    """Whole numbers on the axis of epochs, also when there is one epoch."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def series_colours(count: int) -> Sequence[str | tuple[float, ...]]:
    """`count` colours: Okabe-Ito while they last, then cividis, which the colour-blind see too, without its pale end."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    from matplotlib import colormaps

    return [colormaps["cividis"](0.85 * i / (count - 1)) for i in range(count)]


def png(drawing: Figure) -> bytes:
    """The drawing as PNG, without time or version in it: same numbers, same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A box is drawn; the warning would send the character
        # to the terminal.
        warnings.filterwarnings("ignore", "Glyph")
        # Laid out at once: savefig would draw all of it for
        # that, and then again.
        if engine := drawing.get_layout_engine():
            engine.execute(drawing)
            drawing.set_layout_engine("none")
        drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def optunas() -> Iterator[None]:
    """Optuna's figures in our look: it draws through pyplot, without a window here, and sets the style "ggplot" each time.

    `png` belongs inside: settings count when ticks are drawn.
    """
    import matplotlib
    from matplotlib import pyplot, style

    backend, open_before, theirs = matplotlib.get_backend(), pyplot.get_fignums(), style.library["ggplot"]
    with matplotlib.rc_context(OPTUNAS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"optuna\.visualization.* is experimental")  # of class ExperimentalWarning
        pyplot.switch_backend("agg")
        style.library["ggplot"] = matplotlib.RcParams(OPTUNAS)
        try:
            yield
        finally:
            for number in set(pyplot.get_fignums()) - set(open_before):
                pyplot.close(number)
            style.library["ggplot"] = theirs
            pyplot.switch_backend(backend)
