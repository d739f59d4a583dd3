"""How figures look: colours that everyone can tell apart, labels on everything, no global state of matplotlib.

The only module that imports matplotlib, and only inside functions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

NDArray = np.ndarray[Any, np.dtype[Any]]
# Okabe & Ito (2008), without the yellow, which is too pale for a line on white.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")  # so that lines differ in grey too
DPI = 110
SHORT = 36  # letters of a title that leaves room beside it, in any panel here
PALETTE = 256  # colours, chosen so that none is far off: a rare one, such as that of a thin line, must stay what it is


def figure(title: str, columns: int, width: float = 5.0, height: float = 3.9, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with rows and columns of panels, each `width` by `height` inches; the panels row by row."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=DPI)
    drawing.suptitle(title, fontsize=11)
    panels = list(drawing.subplots(rows, columns, squeeze=False, subplot_kw={"axes_class": _panel_class()}).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
    return drawing, panels


@cache
def _panel_class() -> type[Axes]:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

    class Panel(Axes):
        """Measures the room that its labels take once. A layout asks twice, for what hardly changes; to measure is most of it."""

        _room: NDArray | None = None

        def get_tightbbox(self, renderer: Any = None, **options: Any) -> Any:
            if self._room is None:
                found = super().get_tightbbox(renderer, **options)
                self._room = None if found is None else np.subtract(found.extents, self.get_window_extent(renderer).extents)
                return found
            self.apply_aspect()
            return Bbox.from_extents(*np.add(self.get_window_extent(renderer).extents, self._room))

    return Panel


def warm() -> None:
    """Draw something: matplotlib's imports and its look for a font take half a second, once a process."""
    drawing, _ = figure("", 1)
    png(drawing)


def label(panel: Axes, title: str, x: str, y: str) -> None:
    """Say what a panel shows and in which units."""
    # Without y matplotlib looks for a free place, which takes a tenth of the time; a long one may lie on a factor such as 1e8.
    panel.set_title(title, fontsize=10, y=1.0 if len(title) <= SHORT else None)
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
    """The drawing as bytes, without time or version in them: same numbers, same bytes.

    In a palette, which takes a third of the bytes. Laid out once, and not again with each drawing: that takes half of the time.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(drawing)
    layout = drawing.get_layout_engine()
    if layout is not None:
        layout.execute(drawing)
        drawing.set_layout_engine("none")
    canvas.draw()
    buffer = io.BytesIO()
    _in_a_palette(np.asarray(canvas.buffer_rgba())).save(buffer, "png")
    return buffer.getvalue()


def _in_a_palette(pixels: NDArray) -> Picture:
    """The picture of pixels (height, width, 4), of which the first is the ground.

    The palette is chosen from the thousand colours that occur, and not from half a million pixels, most of which are ground.
    """
    from PIL import Image

    colours = pixels.view(np.uint32)[..., 0]
    drawn = colours != colours[0, 0]
    found, places = np.unique(colours[drawn], return_inverse=True)
    row = np.append(colours[0, 0], found).view(np.uint8).reshape(1, -1, 4)
    few = Image.fromarray(np.ascontiguousarray(row[..., :3]))
    few = few.quantize(PALETTE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    numbers = np.asarray(few)[0]
    picture = np.full(colours.shape, numbers[0])
    picture[drawn] = numbers[1:][places]
    image = Image.fromarray(picture)
    image.putpalette(few.getpalette() or [])
    return image
