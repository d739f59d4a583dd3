"""Search: studies, what they found, and what a choice is worth under many seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, BadParameter, Option

from pipelines.cli.options import PARAMS, Changes, Json, Params, advised, begin, begin_stage
from pipelines.console import Console, number
from pipelines.project import project_of

if TYPE_CHECKING:
    from pipelines.search.driver import Progress as StudyProgress
    from pipelines.search.records import StudyRecord

Name = Annotated[str, Argument(metavar="STUDY", help="Name of the study, as below studies/.")]
study = typer.Typer(help="Look at studies.", no_args_is_help=True)


def search(
    params: Params = PARAMS,
    changes: Changes = None,
    trials: Annotated[int | None, Option(min=1, help="How many trials in all; search.trials unless given.")] = None,
    name: Annotated[str | None, Option("--name", help="Name of the study; after the data unless given.")] = None,
    anew: Annotated[bool, Option("--anew", help="Carry out a study anew that is complete.")] = False,
    into: Annotated[
        Path | None,
        Option("--into", metavar="DIR", help="Write the results here too; the name then follows from the spec."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for the best values of the spec.

    Varies what search.space names, many trials at once. A study of the same name and spec is continued.
    """
    from pipelines import search as studies

    console, experiment = begin_stage(params, changes, as_json)

    def warn(warning: str) -> None:
        console.warn(advised(warning, changes))

    with console.reserved(), console.progress("trial") as progress:
        shown = _shown_in(progress)
        found = studies.search(experiment, name=name, trials=trials, anew=anew, into=into, on_progress=shown, warn=warn)
    show_study(console, found, rows=5)
    if found.best is not None:
        other = differing(found, params) if changes else ""
        way = f"once {params} has the spec of the study ({other}): " if other else ""
        console.say(f"adopt the winner {way or 'with: '}deltarule adopt {found.name}")
    console.result(summary(found))


def differing(found: StudyRecord, params: Path) -> str:
    """Why adopt would refuse to write into the spec file: what --set changed for this search."""
    from pipelines.search.records import differences
    from pipelines.spec import SpecError, load

    try:
        return "; ".join(differences(found, load(params))[:5])
    except SpecError as error:  # it was whole only with --set
        return str(error)


def _shown_in(progress: Callable[..., None]) -> Callable[[StudyProgress], None]:
    """A function of where the study stands: best 0.0512 (trial 31), 32 running, 9 pruned, 1 failed, 24 trials a minute."""
    began, before = time.monotonic(), -1  # before: trials that were over when it began

    def show(at: StudyProgress) -> None:
        nonlocal before
        over, minutes = sum(at.states.values()), (time.monotonic() - began) / 60
        before = over if before < 0 else before
        counts = {"running": at.running, "pruned": at.states["PRUNED"], "failed": at.states["FAIL"]}
        words = [
            f"best {number(at.best[0])} (trial {at.best[1]})" if at.best else "",
            *(f"{count} {how}" for how, count in counts.items() if count),
            f"{at.saved:.0%} of the epochs saved by pruning" if at.saved else "",
            f"{(over - before) / minutes:.0f} trials a minute" if over > before else "",
        ]
        progress(over, at.total, ", ".join(filter(None, words)))

    return show


def adopt(
    name: Name,
    trial: Annotated[int | None, Option("--trial", metavar="N", help="This trial; the best unless given.")] = None,
    params: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Write the winner of a study into the spec.

    Into params.yaml, which keeps its comments and its order.
    """
    from pipelines.search.records import adopt as write

    console = Console(as_json)
    done = write(folder_of(name), params, trial)
    rows = [(key, number(was), number(now)) for key, (was, now) in done.changes.items()]
    console.table(f"trial {done.trial.number} of {name}, in {params}", ("key", "was", "is"), rows)
    console.result({"study": name, "trial": done.trial.number, "changes": {key: now for key, (_, now) in done.changes.items()}})


def evaluate(
    params: Params = PARAMS,
    changes: Changes = None,
    seeds: Annotated[int, Option(help="How many seeds, from the spec's own on.")] = 15,
    with_test: Annotated[bool, Option("--test", help="Open the test rows too; the pipeline must have validated.")] = False,
    as_json: Json = False,
) -> None:
    """Train the spec under many seeds, as one stack.

    Mean, standard deviation and interval of every metric: what the choice is worth, and not its luck.
    """
    from pipelines.api.evaluate import evaluate as train_all
    from pipelines.stages import RunPaths

    console, experiment = begin(params, changes, as_json)
    with console.reserved():
        report = train_all(experiment, RunPaths(Path()), seeds=seeds, test=with_test)
    for part, metrics in report.parts.items():
        rows = [(key, number(m.mean), number(m.sd), f"[{number(m.low)}, {number(m.high)}]") for key, m in metrics.items()]
        console.table(f"{part}, {seeds} seeds", ("metric", "mean", "sd", "95 % interval of the mean"), rows)
    console.result(report.as_dict())


@study.command("list")
def list_studies(as_json: Json = False) -> None:
    """List the studies of this project."""
    console = Console(as_json)
    rows, found = [], list(_readable(console))
    for one in found:
        best = f"front of {len(one.front)}" if one.front else ""
        if one.best is not None:
            best = f"{one.metrics[0]} {number(one.trial(one.best).values[0])} (trial {one.best})"
        rows.append((one.name, str(len(one.trials)), best, counted(one)))
    console.table("", ("study", "trials", "best", "states"), rows)
    console.result({"studies": [summary(one) for one in found]})


def _readable(console: Console) -> Iterator[StudyRecord]:
    """The studies; a damaged one is told, and hides no other."""
    from pipelines.data import DataError
    from pipelines.search.records import load_study
    from pipelines.search.storage import StorageError
    from pipelines.spec import SpecError

    for path in sorted(studies_folder().glob("*/study.json")):
        try:
            yield load_study(path.parent, histories=False)
        except (DataError, StorageError, SpecError) as error:
            console.warn(str(error))


@study.command("show")
def show(
    name: Name,
    rows: Annotated[int, Option(min=1, help="How many trials, from the best on.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the best trials of a study."""
    from pipelines.search.records import load_study

    console, found = Console(as_json), load_study(folder_of(name))
    show_study(console, found, rows)
    console.result(summary(found))


@study.command("export")
def export(
    name: Name,
    form: Annotated[Literal["csv", "json", "spec"], Option("--as", help="All trials; or the spec of one.")] = "csv",
    trial: Annotated[int | None, Option("--trial", metavar="N", help="The trial of a spec; the best unless given.")] = None,
    out: Annotated[Path | None, Option("--out", metavar="FILE", help="Standard output unless given.")] = None,
) -> None:
    """Write all trials of a study, or the spec of one."""
    from pipelines.search.records import export as text_of
    from pipelines.search.records import load_study

    if trial is not None and form != "spec":
        raise BadParameter("--trial goes with --as spec; csv and json hold all trials")
    text = text_of(load_study(folder_of(name)), form, trial)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


def studies_folder() -> Path:
    """Where the studies of this project stand."""
    from pipelines.search.records import STUDIES

    return project_of(Path()) / STUDIES


def folder_of(name: str) -> Path:
    """The folder of a study. Raises StudyError if there is none of that name."""
    from pipelines.search.trials import StudyError
    from pipelines.spec.describe import nearest

    folder = studies_folder() / name
    if not (folder / "study.json").is_file():
        known = sorted(path.parent.name for path in studies_folder().glob("*/study.json"))
        hint = nearest(name, known) if known else "there are none; run `deltarule search` first"
        raise StudyError(f"there is no study {name!r} below {studies_folder().name}/; {hint}")
    return folder


def show_study(console: Any, found: StudyRecord, rows: int) -> None:
    """Its best trials, and how the others ended."""
    from pipelines.search.records import ranked

    paths = list(found.spec.search.space)
    table = []
    for t in ranked(found)[:rows]:
        state = t.state.lower() + ("" if t.same_as is None else f", as trial {t.same_as}")
        drawn = (t.changes.get(path, "") for path in paths)
        table.append((str(t.number), state, *map(number, t.values or [""] * len(found.metrics)), *map(number, drawn)))
    short = [path.rpartition(".")[2] if not path.rpartition(".")[2].isdigit() else path for path in paths]
    console.table(f"study {found.name}", ("trial", "state", *found.metrics, *short), table)
    console.say(counted(found) + (f"; Pareto front: {', '.join(map(str, found.front))}" if len(found.metrics) > 1 else ""))


def counted(found: StudyRecord) -> str:
    """How many trials ended in what way."""
    return ", ".join(f"{count} {state.lower()}" for state, count in found.counts().items())


def summary(found: StudyRecord) -> dict[str, Any]:
    """What `--json` says of a study."""
    best = None if found.best is None else found.trial(found.best)
    return {
        "study": found.name,
        "trials": len(found.trials),
        "states": found.counts(),
        "metrics": list(found.metrics),
        "best": None if best is None else {"trial": best.number, "values": list(best.values), "changes": best.changes},
        "front": list(found.front),
    }
