"""The commands `runs` and `compare`: what is on record, and what it says. A command parses, calls and prints."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from pipelines.cli.options import PARAMS, Changes, Json, Params, experiment_of, page, write_page
from pipelines.console import Console, plain_columns
from pipelines.project import project_of

if TYPE_CHECKING:
    from pipelines.compare.pairs import Grouping

Study = Annotated[str | None, Option("--study", metavar="STUDY", help="The trials of this study.")]
Where = Annotated[
    str | None,
    Option("--where", metavar="EXPR", help="Runs of which this is true: 'activation = relu and best_val_loss < 0.1'."),
]
USUAL_LIMIT = 20


def runs(
    where: Where = None,
    study: Study = None,
    children: Annotated[bool, Option("--children", help="With the trials of all studies.")] = False,
    columns: Annotated[
        str | None,
        Option("--columns", metavar="A,B", help="Which: params, metrics, tags, and id, name, status, started ..."),
    ] = None,
    sort: Annotated[str | None, Option("--sort", metavar="KEY", help="From the least on; newest first unless given.")] = None,
    reverse: Annotated[bool, Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int | None, Option(min=1, help=f"How many at most; {USUAL_LIMIT} in a table.")] = None,
    everything: Annotated[bool, Option("--all", help="All of them in the table.")] = False,
    as_csv: Annotated[bool, Option("--csv", help="CSV on standard output: whole values of these columns.")] = False,
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """List the runs on record.

    Newest first. A study counts as one run; --study STUDY lists its trials.
    """
    from pipelines.compare.choose import choose
    from pipelines.compare.listing import listing

    _not_both(as_csv and as_json, "--csv and --json")
    _not_both(everything and limit is not None, "--all and --limit")
    console, tracking = Console(as_json or as_csv), experiment_of(params, changes).tracking
    with console.reserved():
        shown = f"{columns} {sort}"
        found = choose(tracking, project_of(Path()), study=study, where=where, children=children, keys=shown)
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    if not found:
        console.say("no run matches" if where else "no runs are on record; `deltarule run` and `dvc repro` make some")
        names = None
    most = limit if everything or as_csv or as_json else limit or USUAL_LIMIT
    table = listing(found, names, sort if found else None, reverse, most)
    if names is None and console.stream.isatty():
        table = table.fitting(shutil.get_terminal_size().columns)
    if as_csv:
        sys.stdout.write(table.csv())
    elif as_json:
        console.result(table.as_dict())
    elif found:
        console.say("\n".join(plain_columns(table.columns, table.shown())))
        if table.hidden:
            console.say(f"hidden: {', '.join(table.hidden)}; a wider terminal shows them, or --columns")
        if len(table.runs) < table.total:
            console.say(f"{len(table.runs)} of {table.total} runs; --all shows all of them, --where and --limit fewer")


def compare(
    names: Annotated[list[str] | None, Argument(metavar="RUN", help="Ids, the start of ids, names, runs/ folders.")] = None,
    study: Study = None,
    where: Where = None,
    by: Annotated[
        str | None, Option("--by", metavar="KEY", help="Set groups against one another: one for each value of this key.")
    ] = None,
    one: Annotated[str | None, Option("--a", metavar="EXPR", help="Or this group, as for --where ...")] = None,
    other: Annotated[str | None, Option("--b", metavar="EXPR", help="... against this one.")] = None,
    metrics: Annotated[
        str | None, Option("--metric", metavar="A,B", help="By what; what the runs monitor, on the validation rows.")
    ] = None,
    margin: Annotated[
        str | None,
        Option("--margin", metavar="X", help="Largest difference that would not matter, named before you look; or METRIC=X,..."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        Option("--ignore", metavar="KEY", help="May differ within a pair, too; may be given several times."),
    ] = None,
    html: Annotated[Path | None, page("with the curves")] = None,
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Compare runs, or groups of runs.

    The params that differ, metrics, curves. With --by, or --a and --b: groups paired by seed and split, and whether their
    difference is real.
    """
    from pipelines.compare.comparison import compare as set_side_by_side
    from pipelines.compare.pairs import Grouping
    from pipelines.compare.show import lines
    from pipelines.report.compare_page import compare_page

    wanted = tuple(name.strip() for name in (metrics or "").split(",") if name.strip())
    grouping = _grouping(Grouping(by, one, other, wanted, margin, tuple(ignore or ())))
    console, experiment = Console(as_json), experiment_of(params, changes)
    with console.reserved():
        found = set_side_by_side(experiment, names or (), study=study, where=where, grouping=grouping)
    console.say("\n".join(lines(found)))
    if html is not None:
        write_page(console, html, compare_page(found.as_dict()))
    console.result(found.as_dict())


def _grouping(asked: Grouping) -> Grouping | None:
    """None where no groups are asked for, and nothing that is of groups."""
    _not_both(asked.by is not None and (asked.one, asked.other) != (None, None), "--by and --a, --b")
    if (asked.one is None) is not (asked.other is None):
        raise BadParameter("--a and --b go together: give both groups, or --by")
    if asked.by is not None or asked.one is not None:
        return asked
    given = [f"--{name.rstrip('s')}" for name in ("metrics", "margin", "ignore") if getattr(asked, name)]
    if given:
        raise BadParameter(f"{', '.join(given)} must go with groups: --by KEY, or --a and --b")
    return None


def _not_both(both: bool, names: str) -> None:
    if both:
        raise BadParameter(f"{names} do not go together; give one of them")
