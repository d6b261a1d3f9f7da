"""Style of all pictures: colours, fonts, figures without a window system, and their encoding as PNG or SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

INK, FAINT, RULE, GROUND = "#1b1f23", "#5f6670", "#e2e2dd", "#fbfbf9"
"""Colours of the page of `layertap explore`, as are those of classes and of heat maps."""

CLASSES = ("#1f6389", "#ec5675", "#265b16", "#af8201", "#3992b8", "#7d46ce", "#b15a08", "#628d73", "#5f2f52", "#4b694a")
"""Colours of classes and of lines, distinct for colour-blind readers, each with a contrast of 3 to the ground."""

CLASSES_DARK = (
    *("#79b8dc", "#ca657c", "#7da700", "#ddd15a", "#88e0fc"),
    *("#866bc9", "#a76935", "#a1ddac", "#ab86b5", "#a8b178"),
)
"""Colours of the same classes in the dark."""

REST = "#858585"
"""Colour of the points of all other classes."""

OPACITY = 0.92
"""Opacity of points, as on the page of `layertap explore`."""

DARK = {
    INK: "#e8eaec",
    FAINT: "#9ea6af",
    RULE: "#2e343a",
    GROUND: "#14171a",
    "#ffffff": "#1b1f23",
    **dict(zip(CLASSES, CLASSES_DARK, strict=True)),
}
"""Colours of an SVG picture -> those in the dark."""

ON_LIGHT, ON_DARK = "#101214", "#fefefe"
"""Ink on light and on dark cells of a heat map, which stay as they are in the dark."""

HEAT = ("#eef3f6", "#1a5a82")
"""Ends of the colours of heat maps."""

SANS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC")


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Any:
    """Create a figure of a size in inches."""
    # Not by pyplot, which keeps figures and chooses a window system.
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style to everything that is drawn and saved within the context."""
    import matplotlib
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    settings: dict[str, Any] = {
        "font.family": [name for name in SANS if name in known] or ["sans-serif"],
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "text.parse_math": False,  # a label may be "$"
        "svg.fonttype": "none",  # text stays text, so that a browser shows any script
        "svg.hashsalt": "layertap",  # equal pictures have equal bytes
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def heat_map() -> Any:
    """Return the colour map of heat maps."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("heat", HEAT)


def in_the_dark(svg: str) -> str:
    """Return an SVG picture that takes dark colours where the page that shows it is dark."""
    rules = "".join(
        f'[style*="{name}: {light}"]{{{name}:{dark} !important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return svg.replace("<defs>", f"{style}<defs>", 1)


def encoded(figure: Any, kind: Literal["png", "svg"]) -> bytes:
    """Encode a figure, without the time of its creation."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": "layertap"}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def hide_frame(axes: Any) -> None:
    """Remove the frame and the tick marks of axes."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def shortened(name: str, most: int = 18) -> str:
    """Shorten a name to a number of characters, with dots at the end."""
    return name if len(name) <= most else name[: most - 3] + "..."
