"""What make.py has the code of d895d88 do, and test_kept.py today's: specs, commands, and what is looked at of their answers."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

MADE_AT = "/tmp/kept"  # every absolute path in the archive begins with it; the tests put their own in its place
PARAMS = ["--params", "specs/default.yaml", "--set", "tracking.experiment=project"]  # the params.yaml of d895d88


def sets(**values: Any) -> list[str]:
    """--set options; `__` stands for a dot."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


SMALL = sets(model__hidden="[8]", train__epochs=4)
# name -> options of `deltarule run`. The fifth, a regression on a CSV that nobody cleaned, is the pipeline of the project.
RUNS = {
    "default": [],
    "keras": sets(train__backend="keras", model__hidden="[16, 8]", model__activation="tanh", train__epochs=4),
    "folds": [*SMALL, *sets(data__source="wine", data__split__folds=3, train__class_weights="balanced", train__batch_size=16)],
}
# The test rows of the default run and of the pipeline are opened: two lines in the ledger.
OPENED = {"default"}
STUDY = [
    *sets(
        data__source="iris", model__hidden="[8]", train__epochs=6, train__early_stopping__patience="null", train__batch_size=16,
        search__trials=32, search__generation=8, search__width=8, search__rung=2, search__pruner="median", search__engine="here",
    ),
    "--set", "search.space={model.activation: {choices: [relu, tanh]}, model.dropout: {low: 0.0, high: 0.5}, "
    "train.optimizer.learning_rate: {choices: [1e-3, 1e-2, 1e-1, 1e30]}, "
    "regularization.l2: {low: 1e-6, high: 1e-2, log: true, or: 0.0}}",
]  # fmt: skip
HALTED = [*sets(model__hidden="[32]", train__early_stopping__patience="null")]  # of `deltarule train`, ended by SIGTERM

# Each once, in this order, in the project: its exit code and the keys of its --json are held. RUN stands for the pipeline's run.
SESSION = (
    ("data", "--file", "data/rides.csv", "--target", "fare", *sets(data__format__decimal="comma")),
    ("new", "../another", "--data", "data/rides.csv", "--target", "fare", *sets(data__format__decimal="comma")),
    ("backends",),
    ("code", "--into", "../code"),
    ("runs",),
    ("runs", "--study", "kept"),
    ("compare", "default", "keras"),
    ("compare", "--where", "params.train.epochs = 4", "--by", "train.backend", "--metric", "validate_loss", "--margin", "0.5"),
    ("study", "list"),
    ("study", "show", "kept"),
    ("report", "default"),
    ("register", "default", "--name", "kept"),
    ("sync", "--status"),
    ("sync",),
    ("reproduce", "RUN"),
    ("parity", "--steps", "2", "--backends", "lightning", *SMALL),
    ("split",),
    ("train",),
    ("validate",),
    ("test",),
    ("evaluate", "--seeds", "2"),
    ("run", "--name", "again", "--test", *SMALL),
    ("search", "--name", "two", "--trials", "2", *SMALL, *sets(search__engine="here")),
    ("adopt", "kept", "--params", "specs/study.yaml"),
)
# Commands that end with an error, or print something other than JSON: their exit codes are held.
ENDINGS = (
    (),
    ("--help",),
    ("spec",),
    ("schema",),
    ("spec", "--set", "model.activaton=tanh"),
    ("spec", "--set", "model.dropout=1.5"),
    ("spec", "--params", "missing.yaml"),
    ("split", "--no-such-option"),
    ("nonsense",),
    ("data", "--file", "missing.csv"),
    ("data", "--file", "data/rides.csv", "--target", "no such column"),
    ("new", ".", "--data", "data/rides.csv", "--target", "fare"),
    ("predict", "runs/missing", "data/rides.csv"),
    ("predict", ".", "missing.csv"),
    ("export", ".", "specs"),
    ("validate", "--set", "thresholds={r2: {min: 0.999}}", "--set", "tracking.enabled=false"),
    ("test",),
    ("train", "--set", "train.optimizer.learning_rate=1e30", "--set", "tracking.enabled=false"),
    ("validate",),
    ("runs", "--where", "status >"),
    ("compare", "nothing"),
    ("reproduce", "nothing"),
    ("register", "nothing", "--name", "kept"),
    ("study", "show", "nothing"),
    ("study", "export", "kept", "--as", "csv"),
    ("adopt", "nothing"),
    ("evaluate", "--seeds", "1"),
    ("report", "missing"),
    ("sync", "--drop", "nothing"),
    ("search", "--set", "search.direction=maximize"),
    ("parity", "--backends", "nothing"),
)


def keys(value: Any, place: str = "") -> set[str]:
    """The keys of an answer, dotted, with the kind of each leaf; of a list its entries' together, with [] in their place.

    Keys that name a folder, a run or a group of this very answer count as one, `*`.
    """
    if isinstance(value, dict):
        if not value:
            return {f"{place} {{}}"}
        return {one for key, each in value.items() for one in keys(each, f"{place}.{_named(key)}".lstrip("."))}
    if isinstance(value, list):
        return {one for each in value for one in keys(each, f"{place}[]")} or {f"{place} []"}
    kind = {bool: "truth", int: "number", float: "number", str: "text", type(None): "null"}[type(value)]
    return {f"{place} {kind}"}


def _named(key: str) -> str:
    return "*" if "/" in key or (len(key) == 32 and set(key) <= set("0123456789abcdef")) else key


def is_in(key: str, found: set[str]) -> bool:
    """Whether an answer has a key of then: of the same kind, but what was empty or null may hold something now."""
    place, _, kind = key.rpartition(" ")
    return key in found or (kind in ("null", "[]", "{}") and any(one.startswith(place) for one in found))


def options_of_all_commands() -> list[str]:
    """A line an option or argument: command, names, whether it must be given, what it takes, its default."""
    import typer.main

    from pipelines.cli import app

    return sorted(_options(typer.main.get_command(app), "deltarule"))


def _options(command: Any, name: str) -> list[str]:
    lines = [f"{name}: {_option(one)}" for one in command.params]
    below = getattr(command, "commands", {})
    return [*(lines or [name]), *(line for key, each in below.items() for line in _options(each, f"{name} {key}"))]


def _option(one: Any) -> str:
    many = getattr(one, "multiple", False) or one.nargs == -1
    told = [*one.opts, *one.secondary_opts, *["(must be given)"] * one.required, *["(several times)"] * many]
    if getattr(one, "is_flag", False):
        return " ".join(told)
    return f"{' '.join(told)}; {_kind(one.type_descriptor.annotation)}; default {one.default}"


def _kind(annotation: Any) -> str:
    return (
        "|".join(get_args(annotation)) if get_origin(annotation) is Literal else getattr(annotation, "__name__", str(annotation))
    )


def write_rides(path: Path) -> None:
    """Rows that nobody cleaned: semicolons, decimal commas, gaps in three spellings, dates, an identifier, rows twice."""
    draw = random.Random(12)
    rows: list[list[str]] = []
    for number in range(150):
        miles, hour = draw.uniform(1, 30), draw.randrange(24)
        kind = draw.choice(["city", "city", "land", "airport", ""])
        fare = 3 + 1.7 * miles + (5 if hour < 6 else 0) + (8 if kind == "airport" else 0) + draw.gauss(0, 1)
        shown = draw.choice([f"{miles:.2f}".replace(".", ",")] * 9 + ["n/a"])
        day = f"2024-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d}"
        night = draw.choice(["yes" if hour < 6 else "no"] * 9 + [""])
        rows.append([f"{number * 37 % 1000:05d}", day, kind, shown, str(hour), night, f"{fare:.2f}".replace(".", ",")])
    rows += rows[10:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file, delimiter=";", lineterminator="\n")
        written.writerow(["ride", "day", "kind", "miles", "hour", "night", "fare"])
        written.writerows(rows)
