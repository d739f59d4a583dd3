"""A whole study: opened, topped up to its number of trials, summed up in files, and on record in MLflow."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from math import prod
from pathlib import Path

from backends.weights import layout, write_atomically
from pipelines.data import About
from pipelines.executors import Executor, check_name, open_executor
from pipelines.project import project_of
from pipelines.search import driver
from pipelines.search.driver import Driver, Progress, choose_width, networks, processor_width
from pipelines.search.figures import draw_study, importances
from pipelines.search.networks import DatasetCache
from pipelines.search.record import StudyRecorder
from pipelines.search.records import CURVES, FILES, STUDIES, STUDY, TABLE, WINNER, StudyRecord, read_study, save_study, text
from pipelines.search.storage import locked, uninterrupted
from pipelines.search.trials import NothingFound, StudyError, StudyStorage, grid, identity, points
from pipelines.spec import Experiment
from pipelines.spec.file import write
from pipelines.spec.to_trial import check_spec, trial
from pipelines.stages.folds import check_monitor

Warn = Callable[[str], None]


def search(
    spec: Experiment,
    *,
    name: str | None = None,
    trials: int | None = None,
    project: Path | None = None,
    anew: bool = False,
    into: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    warn: Warn = lambda text: None,
) -> StudyRecord:
    """Top a study up to `trials` trials in all (search.trials), and say what it found.

    A study of that name is continued if its spec is the same; `anew` begins one anew that is complete. `into`: a folder that
    gets study.json, trials.csv and winner.yaml too, and makes the study's name follow from its spec. `warn` is told what ends no
    study: what went wrong with MLflow, and workers that have nothing to do. Raises StudyError (another spec, nothing to search,
    no trial that completed), SpecError, DataError, BackendError, ExecutorError, StorageError.
    """
    check(spec)
    project, name = project or project_of(Path()), name or default_name(spec, into is not None)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise StudyError(f"--name must be letters, digits, '.', '_' and '-', at most 100, and no dot or '-' first, got {name!r}")
    folder, total = project / STUDIES / name, trials or spec.search.trials
    if spec.search.sampler == "grid":
        total = min(total, prod(map(len, grid(spec).values())))
    with locked(folder, spec.search.storage, name) as held:
        if (folder / STUDY).exists():
            read_study(folder)
        base = (datasets := DatasetCache(folder, project)).of(spec)
        check_monitor(spec, base.about, base.folder, [name for name in spec.search.metrics if name != "weights"])
        known = identity(spec, base.about.sha256)
        storage = StudyStorage(folder, spec, name, known, held)
        if anew and storage.count_finished() >= total:
            with uninterrupted():
                storage.storage.delete_study(storage.id)
            for place in (CURVES, "trials"):  # the second of versions before 0.2
                shutil.rmtree(folder / place, ignore_errors=True)
            storage = StudyStorage(folder, spec, name, known, held)
        begun = StudyRecord.of(storage.study, spec)
        save_study(folder, begun)
        with StudyRecorder(folder, project, begun) as recorder:
            try:
                left = total - storage.count_finished()
                if left > 0:
                    _warn_of_repeats(spec, total, warn)
                    with _executor(spec, base.about, left) as executor:
                        width = _fixed_width(spec, storage, executor, left, warn)
                        hear = on_progress, recorder.trial_ended
                        Driver(spec, folder, storage, datasets, executor, width, *hear).run(total)
            finally:
                record, shares = sum_up(folder, spec, storage)
            _draw(folder, storage, record, shares, warn)
            recorder.finish()
    if recorder.warning:
        warn(recorder.warning)
    if into is not None:
        hand_out(folder, into)
    if not any(one.state == "COMPLETE" for one in record.trials):
        raise NothingFound(f"no trial of study {name!r} completed, so there is no best; see deltarule study show {name}")
    return record


def _warn_of_repeats(spec: Experiment, total: int, warn: Warn) -> None:
    found = points(spec)
    if found < total:
        warn(
            f"search.space has {found:.0f} points: {total - found:.0f} of {total} trials or more draw one again, "
            "and take over what it came to"
        )


def _fixed_width(spec: Experiment, storage: StudyStorage, executor: Executor, left: int, warn: Warn) -> int:
    """Networks in a stack: as the spec has it, or as it was chosen when the study began.

    Warns where workers have nothing to do, since the networks of a generation make fewer stacks.
    """
    width = storage.width
    if width is None or spec.search.width != "auto":
        width = choose_width(executor, spec)
        storage.fix_width(width)
    at_once = networks(spec, min(left, spec.search.generation))
    stacks = -(-at_once // width)
    if stacks < min(executor.workers, at_once):
        warn(
            f"{at_once} networks at a time in stacks of {width} keep {stacks} of {executor.workers} workers busy; search.width: "
            f"{-(-at_once // executor.workers)} would keep all of them, and so would a larger search.generation"
        )
    return width


def _executor(spec: Experiment, about: About, left: int) -> Executor:
    """As the spec says; auto goes by the size of the work."""
    search, network = spec.search, trial(spec, about.each[0])
    steps = -(-about.each[0].rows["train"] // spec.train.batch_size) * spec.train.epochs
    work = 3 * layout(network)[-1].stop * spec.train.batch_size * steps * networks(spec, left)
    jobs = -(-networks(spec, min(left, spec.search.generation)) // processor_width(spec))
    return open_executor(search.engine, spec.train.backend, search.workers, module=driver.__name__, work=work, jobs=jobs)


def check(spec: Experiment) -> None:
    """Raises StudyError for what the spec allows and a search does not."""
    if not spec.search.space:
        raise StudyError("search.space must name at least one key of the spec and its values, got none; see docs/search.md")
    check_name(spec.search.engine)
    check_spec(spec)
    if spec.train.devices not in ("auto", 1):
        raise StudyError(
            f"train.devices must be auto or 1 in a search, got {spec.train.devices}: trials are dealt out to workers "
            "instead; set search.workers"
        )


def default_name(spec: Experiment, by_spec: bool = False) -> str:
    """After the data; `by_spec` adds what differs between specs."""
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", Path(spec.data.shown_source).stem).strip("-") or "study"
    known = json.dumps(identity(spec, {}), sort_keys=True)
    return f"{stem}-{sha256(known.encode()).hexdigest()[:8]}" if by_spec else stem


def sum_up(folder: Path, spec: Experiment, storage: StudyStorage) -> tuple[StudyRecord, dict[str, float]]:
    """Write study.json, trials.csv and winner.yaml from the storage; the study, and how much each key matters."""
    storage.check()
    record, shares = StudyRecord.of(storage.study, spec), importances(storage.study)
    save_study(folder, record, shares)
    write_atomically(folder / TABLE, text(record).encode())
    if record.best is None:
        (folder / WINNER).unlink(missing_ok=True)
    else:
        write_atomically(folder / WINNER, write(record.trial(record.best).changes).encode())
    return record, shares


def _draw(folder: Path, storage: StudyStorage, record: StudyRecord, shares: dict[str, float], warn: Warn) -> None:
    """The figures; the study is over without them too."""
    try:
        draw_study(folder, storage.study, record.metrics, shares)
    except Exception as error:
        warn(f"the figures of study {folder.name!r} could not be drawn ({type(error).__name__}: {error})")


def hand_out(folder: Path, into: Path) -> None:
    """Copies of what the study found, and no file of an earlier one."""
    into.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (into / name).unlink(missing_ok=True)
        if (folder / name).exists():
            write_atomically(into / name, (folder / name).read_bytes())
