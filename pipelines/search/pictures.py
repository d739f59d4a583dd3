"""The figures of a study in its folder, figures/, each beside the numbers that it shows."""

from __future__ import annotations

from pathlib import Path

from backends.weights import write_atomically
from pipelines.search.records import load_importances, load_study

FIGURES = "figures"


def draw_study(folder: Path) -> list[Path]:
    """Draw what the files of a study tell; the paths written. Same files, same bytes. What there is nothing of is removed.

    Raises FileNotFoundError if the folder is no study's.
    """
    from pipelines.report.study_figures import study_figures, study_numbers

    record, importances = load_study(folder), load_importances(folder)
    made = {**study_numbers(record, importances), **{f"{k}.png": v for k, v in study_figures(record, importances).items()}}
    for name, content in made.items():
        write_atomically(folder / FIGURES / name, content)
    for stale in {*(folder / FIGURES).glob("*.png")} - {folder / FIGURES / name for name in made}:
        stale.unlink()
    return [folder / FIGURES / name for name in made]
