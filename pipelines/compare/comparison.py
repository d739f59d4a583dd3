"""Runs side by side: the params in which they differ, metrics, curves; and groups of them against one another."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING, Any

from pipelines.compare.choose import SHORT, Keys, QueryError, choose, number
from pipelines.compare.listing import MONITOR, as_dict, chief_metric, finite
from pipelines.compare.pairs import FOLDS, ROWS, SOURCE, Group, Grouping, Pair, groups_of, pairing
from pipelines.compare.significance import Comparison, judge, measure
from pipelines.project import project_of
from pipelines.spec.describe import nearest
from pipelines.stages.paths import RunPaths
from pipelines.stages.test import openers
from pipelines.tracking.events import KIND, ungrouped
from pipelines.tracking.query import Curves, Recorded, histories, meant, texts, with_intervals

if TYPE_CHECKING:
    from pipelines.spec import Experiment, Tracking

NO_SETTING = ("search.", "tracking.")  # params that are of a study and of the store, and of no run
COMMIT, DIRTY = "mlflow.source.git.commit", "mlflow.source.git.dirty"
TEST = "deltarule.data.test"
BACKEND = "train.backend"
VALIDATE = "validate_"
REPORTS = (VALIDATE, "test_")
BOUNDS = ("_low", "_high", "_sd")


@dataclass(frozen=True)
class Measured:
    """A metric of a run, with its 95 % interval where the stage gives one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Result:
    """What was compared, and what was found."""

    runs: tuple[Recorded, ...]
    params: Mapping[str, tuple[str, ...]]  # in each run, "" where there is none; of those that are not the same in all
    metrics: Mapping[str, tuple[Measured | None, ...]]
    curves: Mapping[str, tuple[Mapping[int, float], ...]]  # metric -> a curve a run
    groups: tuple[Group, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    called: tuple[str, ...] = ()  # each run, as it was asked for, or its short id

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {
            "runs": [as_dict(run) for run in self.runs],
            "params": self.params,
            "metrics": self.metrics,
            "curves": self.curves,
            "groups": {str(group): [run.id for run in group.runs] for group in self.groups},
            "comparisons": self.comparisons,
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

    With a `grouping` also groups of them against one another. Raises QueryError or LookupFailed for what cannot be meant,
    TrackingError if the store fails.
    """
    project, tracking = project or project_of(Path()), experiment.tracking
    runs, typed, notes = _runs(tracking, project, names, study, where)
    curves = curve_names(runs)
    held: dict[str, Curves] = histories(tracking, project, [run.id for run in runs], curves)
    found = Result(
        tuple(runs),
        differing(runs),
        measured(runs),
        {name: tuple(held[run.id].get(name, {}) for run in runs) for name in curves},
        notes=tuple(notes),
        called=tuple(typed.get(run.id, run.id[:SHORT]) for run in runs),
    )
    return found if grouping is None else _grouped(found, grouping, tracking, project)


def _runs(
    tracking: Tracking, project: Path, names: Sequence[str], study: str | None, where: str | None
) -> tuple[list[Recorded], dict[str, str], list[str]]:
    """Those to compare; id -> what it was asked for by, of `names`; and a note on those of which the record has only begun."""
    if names and (study or where):
        raise QueryError("give either runs by name, or --study and --where")
    found = choose(tracking, project, study=study, where=where, children=bool(names))
    typed = {meant(found, text, project).id: text for text in names}
    by_id = {run.id: run for run in found}
    found = [by_id[run_id] for run_id in typed] or [run for run in found if run.tags.get(KIND) != "study"]
    bare = [run for run in found if run.status == "RUNNING" and not run.params]
    called = ", ".join(f"{run.name} ({run.id[:SHORT]}, {run.status})" for run in bare)
    notes = [f"Left out, since their params are not on record (yet): {called}."] if bare else []
    if bare and names:
        raise QueryError(f"{notes[0]} Name others, or wait until it has begun to train")
    found = with_intervals(tracking, project, [run for run in found if run not in bare])
    if len(found) < 2:
        raise QueryError(f"at least two runs are needed to compare, got {len(found)}; `deltarule runs` lists those on record")
    return found, typed, notes


# What no param says: other rows under the same name, another commit.
BESIDES: dict[str, Callable[[Recorded], str]] = {
    "data": lambda run: run.tags.get(SOURCE, ""),
    "training rows": lambda run: run.tags.get(ROWS[0], "")[:SHORT],
    "validation rows": lambda run: run.tags.get(ROWS[1], "")[:SHORT],
    "commit": lambda run: run.tags.get(COMMIT, "")[:SHORT] + " and changes" * (run.tags.get(DIRTY) == "true"),
}


def differing(runs: Sequence[Recorded]) -> dict[str, tuple[str, ...]]:
    """Param -> its text in each run, of those that are not the same in all; and what no param says."""
    names = dict.fromkeys(name for run in runs for name in run.params if not name.startswith(NO_SETTING))
    rows = {name: tuple(run.params.get(name, "") for run in runs) for name in names}
    rows |= {label: tuple(ask(run) for run in runs) for label, ask in BESIDES.items()}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def measured(runs: Sequence[Recorded]) -> dict[str, tuple[Measured | None, ...]]:
    """Metric -> what each run has of it: of its reports, or else of its best epoch."""

    def of(run: Recorded, name: str) -> Measured | None:
        held = run.metrics
        return Measured(held[name], held.get(f"{name}_low"), held.get(f"{name}_high")) if name in held else None

    return {name: tuple(of(run, name) for run in runs) for name in dict.fromkeys(_metrics(runs))}


def _metrics(runs: Sequence[Recorded]) -> Iterator[str]:
    every = list(dict.fromkeys(name for run in runs for name in run.metrics if not name.endswith(BOUNDS)))
    yield from (name for report in REPORTS for name in every if name.startswith(report))
    if not all(any(name.startswith("validate_") for name in run.metrics) for run in runs):
        yield from (name for name in every if name.startswith("best_val_"))
    yield from (name for name in ("best_train_loss", "best_epoch", "epochs") if name in every)


def curve_names(runs: Sequence[Recorded]) -> tuple[str, ...]:
    """What is drawn over the epochs: E on the training and the validation rows, and the metric that most runs watch."""
    wanted = dict.fromkeys(("train_loss", "val_loss", f"val_{chief_metric(runs) or 'loss'}"))
    return tuple(name for name in wanted if any(name in run.metrics for run in runs))


# -- groups --


def _grouped(found: Result, asked: Grouping, tracking: Tracking, project: Path) -> Result:
    runs, keys = found.runs, Keys(found.runs)
    groups, compared = groups_of(runs, asked, keys)
    wanted = asked.metrics or [mode(run.params.get(MONITOR, "loss") for run in runs)]
    metrics = [metric_of(runs, text) for text in wanted]
    ignored = [keys.find(text) for text in asked.ignore]
    pairings = {m: [pairing(a, b, compared, ignored, m) for a, b in combinations(groups, 2)] for m in dict.fromkeys(metrics)}
    margins = margins_of(runs, asked.margin, list(pairings))
    pairs = {metric: [pair for found in each for pair in found.pairs] for metric, each in pairings.items()}
    _check(pairs)
    comparisons = []
    for metric, each in pairings.items():
        folds = fold_values(pairs[metric], metric, tracking, project)
        comparisons += [measure(one, metric, margins.get(metric), folds) for one in each]
    notes = (*_notes(comparisons, [pair for each in pairs.values() for pair in each], project), *found.notes)
    return replace(found, groups=tuple(groups), comparisons=tuple(judge(comparisons)), notes=notes)


def metric_of(runs: Sequence[Recorded], text: str) -> str:
    """The metric that is meant: itself, or that of the validation report, or of the best epoch (where there is no report)."""
    known = dict.fromkeys(name for run in runs for name in run.metrics)
    for name in (text, ungrouped(text), f"validate_{text}", f"best_val_{text}"):
        if name in known:
            return name
    bare = [name for name in known if name.startswith(("validate_", "test_", "best_val_"))]
    raise QueryError(f"--metric must be one that the runs have, got {text}; {nearest(text, bare or list(known))}")


def margins_of(runs: Sequence[Recorded], text: str | None, metrics: Sequence[str]) -> dict[str, float]:
    """Metric -> margin.

    Raises QueryError: a margin has the unit of its metric, so of several metrics each needs its own.
    """
    if text is None:
        return {}
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.rpartition("=")
        if len(metrics) > 1 and not equals:
            each = ",".join(f"{metric}=X" for metric in metrics)
            raise QueryError(f"--margin must name one for each metric, since they differ in unit: --margin {each}; got {text}")
        margin = number(value.strip())
        if margin is None or not 0 < margin < float("inf"):
            raise QueryError(f"--margin must be a number above 0, got {value.strip() or 'nothing'}")
        found[metric_of(runs, name.strip()) if equals else metrics[0]] = margin
    if set(found) != set(metrics):
        raise QueryError(f"--margin must be of what is compared ({', '.join(metrics)}), got {', '.join(found)}")
    return found


def fold_values(pairs: Sequence[Pair], metric: str, tracking: Tracking, project: Path) -> dict[str, dict[int, float]]:
    """Run id -> fold -> the metric on its validation rows, of the runs in pairs that have folds."""
    runs = {run.id: run for pair in pairs for run in (pair.one, pair.other)}
    split = [run for run in runs.values() if number(run.params.get(FOLDS)) is not None]
    if not split or not metric.startswith(VALIDATE):
        return {}
    found = {}
    for run_id, text in texts(tracking, project, split, "validate/folds.csv").items():
        values = {int(row["fold"]): number(row.get(metric.removeprefix(VALIDATE))) for row in csv.DictReader(io.StringIO(text))}
        found[run_id] = {fold: value for fold, value in values.items() if value is not None}
    return found


def _check(pairs: Mapping[str, Sequence[Pair]]) -> None:
    """Raises QueryError for what has no common measure."""
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


def _notes(measured: Sequence[Comparison], pairs: Sequence[Pair], project: Path) -> list[str]:
    """What a reader of the sentences must know."""
    runs = [run for pair in pairs for run in (pair.one, pair.other)]
    notes = []
    if any(one.pairs and one.splits == 1 and one.unit == "seed" for one in measured):
        notes.append("All pairs are of one split of the rows: the interval is about the luck of the seed, not about other rows.")
    if any(one.settings > 1 for one in measured):
        notes.append("The pairs are of several settings of the other params: the interval is about settings such as these.")
    if len({run.tags[COMMIT] for run in runs if COMMIT in run.tags}) > 1:
        notes.append("The runs were made at several commits: what changed in the code between them is in the difference.")
    single = [run for run in runs if run.params.get("train.precision", "float32") != "float64"]
    if any(len({run.params.get(BACKEND) for run in (pair.one, pair.other)}) > 1 for pair in pairs) and single:
        notes.append(
            "Backends part by rounding in float32, after some hundred steps: train.precision: float64 keeps them together."
        )
    if any(one.metric.startswith("test_") for one in measured):
        ledger = RunPaths(project, project=project).ledger
        opened = max((len(openers(ledger, rows)) for rows in {run.tags.get(TEST, "") for run in runs}), default=0)
        count = f" {opened} experiments have opened them." if opened > 1 else ""
        notes.append(f"The test rows are for one look after all choices: what is chosen by them looks better than it is.{count}")
    if len(measured) > 1:
        notes.append(f"{len(measured)} comparisons: p values are corrected for that (Holm 1979), intervals are not.")
    return notes
