"""A whole study: opened or taken up, topped up to its number of trials, summed up in files, and on record in MLflow."""

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
from pipelines.search.driver import Driver, Progress, choose_width, networks, networks_at_once, processor_width
from pipelines.search.figures import draw_study
from pipelines.search.networks import Dataset, DatasetCache
from pipelines.search.record import StudyRecorder
from pipelines.search.records import CURVES, STUDIES, STUDY, StudyRecord, read_study, save_study
from pipelines.search.results import importances, text
from pipelines.search.sampling import grid, points
from pipelines.search.storage import locked, uninterrupted
from pipelines.search.trials import NothingFound, StudyError, StudyStorage, identity
from pipelines.spec import Experiment, SpecError
from pipelines.spec.file import write
from pipelines.spec.to_trial import check_spec, trial
from pipelines.stages.folds import check_monitor
from pipelines.stages.metrics import Truth, check_metric

WINNER, TABLE = "winner.yaml", "trials.csv"


def search(
    experiment: Experiment,
    *,
    name: str | None = None,
    trials: int | None = None,
    project: Path | None = None,
    anew: bool = False,
    into: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda text: None,
) -> StudyRecord:
    """Top a study up to `trials` trials in all (search.trials), and say what it found.

    A study of that name is continued if its spec is the same; `anew` begins one anew that is complete. `into`: a folder that
    gets study.json, trials.csv and winner.yaml too, and makes the study's name follow from its spec. `warn` is told what ends no
    study: what went wrong with MLflow, and workers that have nothing to do. Raises StudyError (another spec, nothing to search,
    no trial that completed), SpecError, DataError, BackendError, ExecutorError, StorageError.
    """
    check(experiment)
    project, name = project or project_of(Path()), name or default_name(experiment, into is not None)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise StudyError(f"--name must be letters, digits, '.', '_' and '-', at most 100, and no dot or '-' first, got {name!r}")
    folder, total = project / STUDIES / name, trials or experiment.search.trials
    if experiment.search.sampler == "grid":
        total = min(total, prod(map(len, grid(experiment).values())))
    with locked(folder, experiment.search.storage, name) as held:
        if (folder / STUDY).exists():
            read_study(folder)
        base = (datasets := DatasetCache(folder, project)).of(experiment)
        check_metrics(experiment, base)
        known = identity(experiment, base.about.sha256)
        storage = StudyStorage(folder, experiment, name, known, held)
        if anew and storage.count_finished() >= total:
            with uninterrupted():
                storage.storage.delete_study(storage.id)
            for place in (CURVES, "trials"):  # the second of versions before 0.2
                shutil.rmtree(folder / place, ignore_errors=True)
            storage = StudyStorage(folder, experiment, name, known, held)
        begun = StudyRecord.of(storage.study, experiment)
        save_study(folder, begun)
        with StudyRecorder(folder, project, begun) as recorder:
            try:
                left = total - storage.count_finished()
                if left > 0:
                    _warn_of_repeats(experiment, total, warn)
                    with _executor(experiment, base.about, left) as executor:
                        width = _fixed_width(experiment, storage, executor, networks_at_once(experiment, left), warn)
                        hear = on_progress, recorder.trial_ended
                        Driver(experiment, folder, storage, datasets, executor, width, *hear).run(total)
            finally:
                record, shares = sum_up(folder, experiment, storage)
            _draw(folder, storage, record, shares, warn)
            recorder.finish()
    if recorder.warning:
        warn(recorder.warning)
    if into is not None:
        hand_out(folder, into)
    if not any(one.state == "COMPLETE" for one in record.trials):
        raise NothingFound(f"no trial of study {name!r} completed, so there is no best; see deltarule study show {name}")
    return record


def _warn_of_repeats(experiment: Experiment, total: int, warn: Callable[[str], None]) -> None:
    found = points(experiment)
    if found < total:
        warn(
            f"search.space has {found:.0f} points: {total - found:.0f} of {total} trials or more draw one again, "
            "and take over what it came to"
        )


def _fixed_width(
    experiment: Experiment, storage: StudyStorage, executor: Executor, networks: int, warn: Callable[[str], None]
) -> int:
    """Networks in a stack: as the spec has it, or as it was chosen when the study began.

    Warns where workers have nothing to do, since the networks of a generation make fewer stacks.
    """
    if "width" not in storage.settings or experiment.search.width != "auto":
        storage.fix(width=choose_width(executor, experiment))
    width = int(storage.settings["width"])
    stacks = -(-networks // width)
    if stacks < min(executor.workers, networks):
        warn(
            f"{networks} networks at a time in stacks of {width} keep {stacks} of {executor.workers} workers busy; search.width: "
            f"{-(-networks // executor.workers)} would keep all of them, and so would a larger search.generation"
        )
    return width


def _executor(experiment: Experiment, about: About, left: int) -> Executor:
    """As the spec says; auto goes by the size of the work."""
    search, network = experiment.search, trial(experiment, about.each[0])
    steps = -(-about.each[0].rows["train"] // experiment.train.batch_size) * experiment.train.epochs
    work = 3 * layout(network)[-1].stop * experiment.train.batch_size * steps * networks(experiment, left)
    jobs = -(-networks_at_once(experiment, left) // processor_width(experiment))
    return open_executor(search.engine, experiment.train.backend, search.workers, module=driver.__name__, work=work, jobs=jobs)


def check(experiment: Experiment) -> None:
    """Raises StudyError for what the spec allows and a search does not."""
    if not experiment.search.space:
        raise StudyError("search.space must name at least one key of the spec and its values, got none; see docs/search.md")
    check_name(experiment.search.engine)
    check_spec(experiment)
    if experiment.train.devices not in ("auto", 1):
        raise StudyError(
            f"train.devices must be auto or 1 in a search, got {experiment.train.devices}: trials are dealt out to workers "
            "instead; set search.workers"
        )


def check_metrics(experiment: Experiment, base: Dataset) -> None:
    """Raises SpecError for a metric that the validation rows do not define."""
    check_monitor(experiment, base.about, base.folder)
    for one in base.about.each:
        truth = Truth.of(one, one.open(base.folder, "valid").y)
        try:
            for name in experiment.search.metrics:
                if name != "weights":
                    check_metric(truth, name, "search.metric")
        except ValueError as error:
            raise SpecError(str(error)) from None


def default_name(experiment: Experiment, by_spec: bool = False) -> str:
    """After the data; `by_spec` adds what differs between specs."""
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", Path(experiment.data.shown_source).stem).strip("-") or "study"
    known = json.dumps(identity(experiment, {}), sort_keys=True)
    return f"{stem}-{sha256(known.encode()).hexdigest()[:8]}" if by_spec else stem


def sum_up(folder: Path, experiment: Experiment, storage: StudyStorage) -> tuple[StudyRecord, dict[str, float]]:
    """Write study.json, trials.csv and winner.yaml from what the storage holds; the study, and how much each key matters."""
    storage.check()
    record, shares = StudyRecord.of(storage.study, experiment), importances(storage.study)
    save_study(folder, record, shares)
    write_atomically(folder / TABLE, text(record).encode())
    if record.best is None:
        (folder / WINNER).unlink(missing_ok=True)
    else:
        write_atomically(folder / WINNER, write(record.trial(record.best).changes).encode())
    return record, shares


def _draw(
    folder: Path, storage: StudyStorage, record: StudyRecord, shares: dict[str, float], warn: Callable[[str], None]
) -> None:
    """The figures; the study is over without them too."""
    try:
        draw_study(folder, storage.study, record.metrics, shares)
    except Exception as error:
        warn(f"the figures of study {folder.name!r} could not be drawn ({type(error).__name__}: {error})")


def hand_out(folder: Path, into: Path) -> None:
    """Copies of what the study found, and no file of an earlier one."""
    into.mkdir(parents=True, exist_ok=True)
    for name in (STUDY, TABLE, WINNER):
        (into / name).unlink(missing_ok=True)
        if (folder / name).exists():
            write_atomically(into / name, (folder / name).read_bytes())
