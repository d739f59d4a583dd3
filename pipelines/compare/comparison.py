"""Runs side by side, and groups of them against one another."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.compare import differences
from pipelines.compare.choose import choose, pick
from pipelines.compare.differences import COMMIT, Metrics, Texts
from pipelines.compare.keys import Key, Keys, QueryError, number
from pipelines.compare.listing import MONITOR, as_dict, finite
from pipelines.compare.pairs import FOLDS, SOURCE, Group, Pairing, groups_by, pairing
from pipelines.compare.significance import Comparison, judge, measure
from pipelines.compare.where import parse
from pipelines.project import project_of
from pipelines.spec.describe import nearest
from pipelines.stages.paths import RunPaths
from pipelines.stages.test import openers
from pipelines.tracking.events import KIND
from pipelines.tracking.query import Curves, Recorded, histories, texts

if TYPE_CHECKING:
    from pipelines.spec import Experiment, Tracking

TEST = "deltarule.data.test"
VALIDATE = "validate_"


@dataclass(frozen=True)
class Grouping:
    """What is set against what: the values of a key, or two expressions; by which metrics; a margin given beforehand."""

    by: str | None = None
    one: str | None = None
    other: str | None = None
    metrics: tuple[str, ...] = ()
    margin: str | None = None  # a number, or METRIC=number for each of several
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What was compared, and what was found."""

    runs: tuple[Recorded, ...]
    params: Texts
    metrics: Metrics
    curves: Mapping[str, tuple[Mapping[int, float], ...]]  # metric -> a curve a run
    groups: tuple[Group, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {
            "runs": [as_dict(run) for run in self.runs],
            "params": self.params,
            "metrics": {name: [one and asdict(one) for one in each] for name, each in self.metrics.items()},
            "curves": {
                name: [{str(step): value for step, value in one.items()} for one in each] for name, each in self.curves.items()
            },
            "groups": {str(group): [run.id for run in group.runs] for group in self.groups},
            "comparisons": [asdict(one) for one in self.comparisons],
            "notes": self.notes,
        }
        return dict(finite(found))


def compare(
    experiment: Experiment,
    names: Sequence[str] = (),
    *,
    study: str | None = None,
    where: str | None = None,
    grouping: Grouping | None = None,
    project: Path | None = None,
) -> Result:
    """Set runs side by side: those of `names`, the trials of a study, those of which an expression is true, or all.

    With a `grouping` also groups of them against one another. Raises QueryError for what cannot be meant or compared,
    TrackingError if the store fails.
    """
    project, tracking = project or project_of(Path()), experiment.tracking
    runs, note = _runs(tracking, project, names, study, where)
    curves = differences.curve_names(runs)
    held: dict[str, Curves] = histories(tracking, project, [run.id for run in runs], curves)
    found = Result(
        tuple(runs),
        differences.differing(runs),
        differences.measured(runs),
        {name: tuple(held[run.id].get(name, {}) for run in runs) for name in curves},
    )
    if grouping is not None:
        found = _grouped(found, grouping, tracking, project)
    return replace(found, notes=(*found.notes, note)) if note else found


def _runs(
    tracking: Tracking, project: Path, names: Sequence[str], study: str | None, where: str | None
) -> tuple[list[Recorded], str]:
    """Those to compare, and a note on those of which the record has only begun."""
    if names and (study or where):
        raise QueryError("give either runs by name, or --study and --where")
    found = choose(tracking, project, study=study, where=where, children=bool(names))
    found = pick(found, names, project) if names else [run for run in found if run.tags.get(KIND) != "study"]
    bare = [run for run in found if run.status == "RUNNING" and not run.params]
    called = ", ".join(f"{run.name} ({run.id[:8]}, {run.status})" for run in bare)
    note = f"Left out, since their params are not on record (yet): {called}." if bare else ""
    if bare and names:
        raise QueryError(f"{note} Name others, or wait until it has begun to train")
    found = [run for run in found if run not in bare]
    if len(found) < 2:
        raise QueryError(f"at least two runs are needed to compare, got {len(found)}; `deltarule runs` lists those on record")
    return found, note


# -- groups ---------------------------------------------------------------------------------------------------------------


def _grouped(found: Result, asked: Grouping, tracking: Tracking, project: Path) -> Result:
    runs, keys = found.runs, Keys(found.runs)
    groups, compared = _groups(runs, asked, keys)
    metrics = [metric_of(runs, text) for text in asked.metrics] or [usual_metric(runs)]
    ignored = [keys.find(text) for text in asked.ignore]
    pairings = {m: [pairing(a, b, compared, ignored, m) for a, b in combinations(groups, 2)] for m in dict.fromkeys(metrics)}
    margins = margins_of(runs, asked.margin, list(pairings))
    _check(pairings)
    measured = []
    for metric, each in pairings.items():
        folds = fold_values(each, metric, tracking, project)
        measured += [measure(one, metric, margins.get(metric), folds) for one in each]
    notes = _notes(measured, pairings, project)
    return replace(found, groups=tuple(groups), comparisons=tuple(judge(measured)), notes=tuple(notes))


def _groups(runs: Sequence[Recorded], asked: Grouping, keys: Keys) -> tuple[list[Group], list[Key]]:
    """The groups, and the keys that tell them apart."""
    if asked.by is not None:
        key = keys.find(asked.by)
        return groups_by(runs, key), [key]
    sides = {option: parse(text or "", keys, option) for option, text in (("--a", asked.one), ("--b", asked.other))}
    groups = [Group(option.strip("-"), tuple(side.chosen(runs)), side.text) for option, side in sides.items()]
    for option, group in zip(sides, groups, strict=True):
        if not group.runs:
            raise QueryError(f"{option}: {group.meaning} must be true of some run, and is true of none")
    both = {run.id for run in groups[0].runs} & {run.id for run in groups[1].runs}
    if both:
        raise QueryError(f"--a and --b must have no run in common, and have {len(both)}, such as {min(both)[:8]}")
    # Of the keys of the expressions, those whose values are not the same on both sides; the others only choose.
    known = dict.fromkeys(key for side in sides.values() for key in side.keys)
    return groups, [key for key in known if len({frozenset(key.of(run) for run in group.runs) for group in groups}) > 1]


def metric_of(runs: Sequence[Recorded], text: str) -> str:
    """The metric that is meant: itself, or that of the validation report, or of the best epoch. Raises QueryError."""
    known = dict.fromkeys(name for run in runs for name in run.metrics)
    for name in (text, f"validate_{text}", f"best_val_{text}"):
        if name in known:
            return name
    bare = [name for name in known if name.startswith(("validate_", "test_", "best_val_"))]
    raise QueryError(f"--metric must be one that the runs have, got {text}; {nearest(text, bare or list(known))}")


def margins_of(runs: Sequence[Recorded], text: str | None, metrics: Sequence[str]) -> dict[str, float]:
    """Metric -> margin. Raises QueryError: a margin has the unit of its metric, so of several metrics each needs its own."""
    if text is None:
        return {}
    pairs = [part.rpartition("=") for part in text.split(",")]
    if len(metrics) > 1 and not all(equals for _, equals, _ in pairs):
        each = ",".join(f"{metric}=X" for metric in metrics)
        raise QueryError(f"--margin must name one for each metric, since they differ in unit: --margin {each}; got {text}")
    found = {metric_of(runs, name.strip()) if equals else metrics[0]: _margin(value) for name, equals, value in pairs}
    if set(found) != set(metrics):
        raise QueryError(f"--margin must be of what is compared ({', '.join(metrics)}), got {', '.join(found)}")
    return found


def _margin(text: str) -> float:
    value = number(text.strip())
    if value is None or not 0 < value < float("inf"):
        raise QueryError(f"--margin must be a number above 0, got {text.strip() or 'nothing'}")
    return value


def usual_metric(runs: Sequence[Recorded]) -> str:
    """What most runs monitor, of the validation report, or where there is none (trials of a study) of the best epoch."""
    watched = [run.params.get(MONITOR, "loss") for run in runs]
    return metric_of(runs, max(dict.fromkeys(watched), key=watched.count))


def fold_values(pairings: Sequence[Pairing], metric: str, tracking: Tracking, project: Path) -> dict[str, dict[int, float]]:
    """Run id -> fold -> the metric on the rows that the fold validates, of the runs in pairs that were split into folds."""
    runs = {run.id: run for found in pairings for pair in found.pairs for run in (pair.one, pair.other)}
    ids = [run.id for run in runs.values() if number(run.params.get(FOLDS)) is not None]
    if not ids or not metric.startswith(VALIDATE):
        return {}
    found = {}
    for run_id, text in texts(tracking, project, ids, "validate/folds.csv").items():
        values = {int(row["fold"]): number(row.get(metric.removeprefix(VALIDATE))) for row in csv.DictReader(io.StringIO(text))}
        found[run_id] = {fold: value for fold, value in values.items() if value is not None}
    return found


def _check(pairings: Mapping[str, Sequence[Pairing]]) -> None:
    """Raises QueryError for what has no common measure."""
    pairs = {metric: [pair for found in each for pair in found.pairs] for metric, each in pairings.items()}
    sources = {pair.one.tags.get(SOURCE, "") for each in pairs.values() for pair in each}
    if len(sources) > 1:
        raise QueryError(
            f"groups must be compared on one data set, got {', '.join(sorted(sources))}: their metrics have no common measure; "
            "choose one with --where 'data.source = ...'"
        )
    for metric, each in pairs.items():
        splits = {pair.split for pair in each if number(pair.one.params.get(FOLDS)) is not None}
        # Means over all folds of a split vary little from split to split, and no correction for that is known.
        if not metric.startswith(VALIDATE) and len(splits) > 1:
            raise QueryError(
                f"--metric must be validate_... to compare runs of folds over several splits, got {metric}: only of these is "
                "each fold on record; or choose one split with --where 'data.split.seed = ...'"
            )


def _notes(measured: Sequence[Comparison], pairings: Mapping[str, Sequence[Pairing]], project: Path) -> list[str]:
    """What a reader of the sentences must know."""
    pairs = [pair for each in pairings.values() for found in each for pair in found.pairs]
    runs = [run for pair in pairs for run in (pair.one, pair.other)]
    notes = []
    if any(one.pairs and one.splits == 1 and one.unit == "seed" for one in measured):
        notes.append("All pairs are of one split of the rows: the interval is about the luck of the seed, not about other rows.")
    if any(one.settings > 1 for one in measured):
        notes.append("The pairs are of several settings of the other params: the interval is about settings such as these.")
    if len({run.tags[COMMIT] for run in runs if COMMIT in run.tags}) > 1:
        notes.append("The runs were made at several commits: what changed in the code between them is in the difference.")
    if any(metric.startswith("test_") for metric in pairings):
        ledger = RunPaths(project, project=project).ledger
        opened = max((len(openers(ledger, rows)) for rows in {run.tags.get(TEST, "") for run in runs}), default=0)
        count = f" {opened} experiments have opened them." if opened > 1 else ""
        notes.append(f"The test rows are for one look after all choices: what is chosen by them looks better than it is.{count}")
    if len(measured) > 1:
        notes.append(f"{len(measured)} comparisons: p values are corrected for that (Holm 1979), intervals are not.")
    return notes
