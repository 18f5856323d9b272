"""How figures look and are written: vector graphics, legible without colour, with the same bytes for the same data."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from spectralgru.files import write_together
from spectralgru.setting import Setting

WIDTH = 7.2  # inches, the text width of a page
RC: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "spectralgru",  # otherwise element ids are random
    "pdf.fonttype": 42,  # keeps text as text
    "path.simplify": True,
}
MARKERS = "osD^vP*"
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (3, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 1)))
# Constraint in blues, clipping in oranges, each from dark to light, so that the order survives in grey.
RAMPS = {"constraint": ("Blues", 0.95, 0.5), "clipping": ("YlOrBr", 0.9, 0.45), "none": ("Greys", 0.8, 0.8)}


@dataclass(frozen=True)
class Look:
    """How the line of a setting looks."""

    color: str
    linestyle: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Keywords for `Axes.plot`, without marker."""
        return {"color": self.color, "linestyle": self.linestyle}


def looks(settings: Sequence[Setting]) -> dict[Setting, Look]:
    """A look for each setting: colour ramp by method, dash and marker by its position within the method."""
    chosen: dict[Setting, Look] = {}
    for method, (name, dark, light) in RAMPS.items():
        of_method = [setting for setting in settings if setting.method == method]
        for i, setting in enumerate(of_method):
            shade = dark + (light - dark) * (i / max(1, len(of_method) - 1))
            chosen[setting] = Look(_color(name, shade), DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
            if method == "none":
                chosen[setting] = Look(_color(name, shade), (0, (1, 1)), "X")
    return chosen


def method_color(method: str) -> str:
    """Colour of a method of which one setting is shown."""
    name, dark, _ = RAMPS[method]
    return _color(name, dark)


def _color(ramp: str, shade: float) -> str:
    return matplotlib.colors.to_hex(matplotlib.colormaps[ramp](shade))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (size in inches) that needs no window system."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.svg` and `<stem>.pdf` together, without dates."""
    figure.draw_without_rendering()  # lay out once for both
    figure.set_layout_engine("none")
    contents = {}
    for form, canvas, date in (("svg", FigureCanvasSVG, "Date"), ("pdf", FigureCanvasPdf, "CreationDate")):
        file = BytesIO()
        # `savefig` would draw everything once more, to the same bytes.
        getattr(canvas(figure), f"print_{form}")(file, metadata={date: None})
        contents[stem.with_name(f"{stem.name}.{form}")] = file.getvalue()
    write_together(contents)
    return [*contents]
