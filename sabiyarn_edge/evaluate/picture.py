"""Draws a report: each metric of each model with its interval, and its speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError
from ..system.installation import install_command

__all__ = ["check_picture", "draw_report"]


def check_picture(path: str | Path) -> None:
    """Refuse a picture that cannot be written, before anything is measured for it.

    Raises:
        InvalidInputError: matplotlib is not installed, it does not write such files, or there is no such folder.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError:
        raise InvalidInputError(f"a picture needs matplotlib: {install_command('evaluate')}") from None
    endings = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in endings:
        raise InvalidInputError(
            f"the picture is {path}, but its ending must be one of {', '.join(f'.{name}' for name in endings)}."
        )
    if not Path(path).parent.is_dir():
        raise InvalidInputError(f"cannot write {path}: there is no folder {Path(path).parent}. Make it.")
    if Path(path).is_dir():
        raise InvalidInputError(f"cannot write {path}: it is a folder. Give another name.")


def draw_report(report: Mapping[str, Any], path: str | Path) -> None:
    """Write a picture of a report of `evaluate_models`.

    Args:
        path: its ending says the format: .svg, .png, .pdf.

    Raises:
        InvalidInputError: as `check_picture`, or the file cannot be written.
    """
    check_picture(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = report["models"]
    titles = [*report["metrics"], "lines/s"]
    figure, panels = pyplot.subplots(1, len(titles), figsize=(2.6 * len(titles), 3.2), squeeze=False)
    for panel, title in zip(panels[0], titles, strict=True):
        for place, model in enumerate(models.values()):
            if title == "lines/s":
                panel.bar(place, model["lines_per_second"])
                continue
            found = model["metrics"][title]
            if found["low"] is None:  # nothing was measured
                continue
            below, above = found["value"] - found["low"], found["high"] - found["value"]
            panel.bar(place, found["value"], yerr=[[max(below, 0)], [max(above, 0)]], capsize=4)
        panel.set_title(title, fontsize=10)
        panel.set_xticks(range(len(models)), models, rotation=30, ha="right", fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot write {path}: {error}.") from error
    finally:
        pyplot.close(figure)
