"""What a search is worth, and whether the backends agree: Markdown for docs/quality.md (`--write`, or standard output).

For each data set and each backend a project of its own in a temporary folder, with the params.yaml of this repository but for
the source, the backend and EPOCHS: `search` on the validation rows, `adopt`, then split, train, validate, and `evaluate --test`
under several seeds. Lightning's winner is evaluated on Keras too: there both train one spec from the same initial weights, in
the same order, with the same dropout, so that is where they must be equal. Test for equivalence: two one-sided t tests,
paired by seed (Schuirmann 1987; `deltarule compare` has the same); the margin stands here, fixed before any result.

    python benchmarks/quality.py --write                                      about an hour on two cores
    python benchmarks/quality.py --data diabetes --trials 4 --seeds 3         a quick try
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.compare.inference import LEVEL, p_equivalent, paired

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 100  # at most: early stopping, as params.yaml has it, ends a run. Small sets have few batches an epoch
BACKENDS = ("lightning", "keras")
MARGINS = {"accuracy": 0.01, "r2": 0.05}  # fixed beforehand: one point of accuracy, 0.05 of R²
NAMES = {"accuracy": "accuracy", "r2": "R²"}
DATA = {"breast_cancer": "accuracy", "digits": "accuracy", "diabetes": "r2"}


@dataclass(frozen=True)
class Outcome:
    """One spec on one backend: what was adopted, and the metric of each seed on both parts (None: no network)."""

    changes: dict[str, Any]
    valid: list[float | None]
    test: list[float | None]
    trials: str  # how the study's trials ended


# -- a project ------------------------------------------------------------------------------------------------------------


def begin(folder: Path, source: str, backend: str) -> Path:
    """A folder with this repository's params.yaml, changed as said above."""
    from pipelines.spec.yaml_file import edit, read_text

    folder.mkdir(parents=True)
    changes: dict[tuple[str | int, ...], object] = {
        ("data", "source"): source,
        ("train", "backend"): backend,
        ("train", "epochs"): EPOCHS,
    }
    (folder / "params.yaml").write_text(edit(read_text(ROOT / "params.yaml"), changes))
    return folder


def deltarule(folder: Path, *words: str) -> dict[str, Any]:
    """One command, and its JSON."""
    command = [sys.executable, "-m", "pipelines.cli", *words, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"deltarule {' '.join(words)} in {folder.name} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}"
        )
    print(f"  {folder.name}: {words[0]}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def searched(folder: Path, trials: int) -> tuple[dict[str, Any], str]:
    """Search and adopt: what was adopted, and how the trials ended."""
    found = deltarule(folder, "search", "--name", "quality", "--trials", str(trials))
    deltarule(folder, "adopt", "quality")
    return found["best"]["changes"], ", ".join(f"{count} {state.lower()}" for state, count in found["states"].items())


def evaluated(folder: Path, seeds: int, metric: str) -> tuple[list[float | None], list[float | None]]:
    """The pipeline up to validate, which `evaluate --test` wants, then the seeds: the metric on validation and test rows."""
    for stage in ("split", "train", "validate"):
        deltarule(folder, stage)
    deltarule(folder, "evaluate", "--seeds", str(seeds), "--test")
    with (folder / "outputs/evaluate/seeds.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    valid, test = (
        [float(row[metric]) if row[metric] else None for row in rows if row["part"] == part] for part in ("validate", "test")
    )
    return valid, test


def measure(source: str, place: Path, trials: int, seeds: int) -> dict[str, Outcome]:
    """Each backend with its own winner, and Lightning's winner on Keras."""
    found, metric = {}, DATA[source]
    for backend in BACKENDS:
        folder = begin(place / f"{source}-{backend}", source, backend)
        changes, ended = searched(folder, trials)
        found[backend] = Outcome(changes, *evaluated(folder, seeds, metric), ended)
    other = begin(place / f"{source}-lightning-on-keras", source, "keras")
    (other / "params.yaml").write_text(on_keras((place / f"{source}-lightning/params.yaml").read_text()))
    found["same"] = Outcome(found["lightning"].changes, *evaluated(other, seeds, metric), "")
    return found


def on_keras(text: str) -> str:
    """The spec, but for its backend."""
    from pipelines.spec.yaml_file import edit

    return edit(text, {("train", "backend"): "keras"})


# -- what is said -----------------------------------------------------------------------------------------------------------


def report(found: dict[str, dict[str, Outcome]], trials: int, seeds: int) -> Iterator[str]:
    """Markdown, line by line."""
    whole = (trials, seeds, list(found)) == (100, 15, list(DATA))
    options = "" if whole else f" --data {' '.join(found)} --trials {trials} --seeds {seeds}"
    yield "# Quality: what a search is worth, and whether the backends agree\n"
    yield f"Made by `python benchmarks/quality.py --write{options}`; the module's docstring says what it does.\n"
    yield f"{trials} trials (TPE, validation E) for each backend, at most {EPOCHS} epochs, early stopping as in params.yaml; then"
    yield f"the winner under {seeds} seeds: mean ± sd. The test rows were opened once for each row, after its choices.\n"
    yield "Margins of equivalence, fixed beforehand: 1 point of accuracy, 0.05 of R².\n"
    yield "| data | metric | backend | spec | validation | test |\n| --- | --- | --- | --- | --- | --- |"
    for source, outcomes in found.items():
        for key, label, spec in LINES:
            valid, test = (spread(getattr(outcomes[key], part)) for part in ("valid", "test"))
            yield f"| {source} | {NAMES[DATA[source]]} | {label} | {spec} | {valid} | {test} |"
    yield "\nWinners:\n"
    for source, outcomes in found.items():
        for backend in BACKENDS:
            yield f"- {source}, {backend} ({outcomes[backend].trials}): {told(outcomes[backend].changes)}"
    yield "\n## Are the two the same?\n"
    for source, outcomes in found.items():
        yield f"- {sentence(source, outcomes['lightning'], outcomes['same'], 'the same spec (the winner of Lightning)')}"
        yield f"- {sentence(source, outcomes['lightning'], outcomes['keras'], 'each with its own winner')}"


LINES = (
    ("lightning", "Lightning", "its own winner"),
    ("keras", "Keras", "its own winner"),
    ("same", "Keras", "Lightning's winner"),
)


def spread(values: Sequence[float | None]) -> str:
    """mean ± sd, and how many seeds gave a network if not all did."""
    there = [value for value in values if value is not None]
    if len(there) < 2:
        return f"{len(there)} of {len(values)} seeds"
    lost = f" ({len(there)} of {len(values)} seeds)" if len(there) < len(values) else ""
    return f"{statistics.fmean(there):.4f} ± {statistics.stdev(there):.4f}{lost}"


def told(changes: dict[str, Any]) -> str:
    """What was adopted, in short."""
    return ", ".join(f"{path} {value:.3g}" if isinstance(value, float) else f"{path} {value}" for path, value in changes.items())


def sentence(source: str, one: Outcome, two: Outcome, what: str) -> str:
    """The test for equivalence on the test rows, in words."""
    metric = DATA[source]
    margin, name = MARGINS[metric], NAMES[metric]
    pairs = [b - a for a, b in zip(one.test, two.test, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return f"{source}, {what}: {len(pairs)} pairs of seeds; no test."
    found = paired(pairs)
    p, (low, high) = p_equivalent(found, margin), found.interval(1 - 2 * LEVEL)
    verdict = "equivalent" if p < LEVEL else "not shown to be equivalent"
    return (
        f"{source}, {what}: Keras - Lightning = {found.mean:+.1e} of {name} on the test rows, 90 % interval "
        f"[{low:+.1e}, {high:+.1e}], {found.count} pairs: **{verdict}** within ±{margin:g} (p = {p:.2g})."
    )


def main() -> None:
    """Margins first, then the work, then the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="into docs/quality.md")
    chosen = parser.parse_args()
    print(f"margins of equivalence: {', '.join(f'{m:g} of {NAMES[k]}' for k, m in MARGINS.items())}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as place:
        found = {source: measure(source, Path(place), chosen.trials, chosen.seeds) for source in chosen.data}
    page = "\n".join(report(found, chosen.trials, chosen.seeds)) + "\n"
    if chosen.write:
        (ROOT / "docs/quality.md").write_text(page, encoding="utf-8")
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
