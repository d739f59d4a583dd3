"""The command `deltarule`: its commands in groups by task, its errors and exit codes."""

from __future__ import annotations

import errno
import gc
import io
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from backends.errors import interruption
from pipelines.cli import compare, data, prove, run, search, serve, start
from pipelines.cli.options import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED
from pipelines.console import printable

GROUPS = {
    "Start": (start.new, data.data, start.spec, start.schema, start.backends),
    "Run": (run.run, *run.STAGES, run.sync, run.report, run.code),
    "Search": (search.search, search.adopt, search.evaluate, search.study),
    "Compare": (compare.runs, compare.compare),
    "Prove": (prove.reproduce, prove.parity),
    "Serve": (serve.predict, serve.export, serve.register, serve.ui),
}
app = typer.Typer(
    help="One experiment spec, any framework, the same experiment.", pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
for group, commands in GROUPS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, name="study", rich_help_panel=group)
        else:
            app.command(rich_help_panel=group)(command)

# Module, class, exit code (unless the error carries its own): errors whose text is all that people need.
OUR_ERRORS = (
    ("pipelines.spec", "SpecError", BAD_INPUT),
    ("backends", "BackendError", BAD_INPUT),
    ("pipelines.data", "DataError", BAD_INPUT),
    ("pipelines.stages", "StageError", FAILED),
    ("pipelines.new", "ProjectError", BAD_INPUT),
    ("pipelines.search.trials", "StudyError", BAD_INPUT),
    ("pipelines.tracking", "TrackingError", FAILED),
    ("pipelines.compare.choose", "QueryError", BAD_INPUT),
    ("pipelines.executors", "ExecutorError", FAILED),
    ("pipelines.search.storage", "StorageError", BAD_INPUT),
    ("pipelines.check.recorded", "ReproduceError", BAD_INPUT),
)
# What to do about an error of the operating system. What was there before is as it was.
RIGHTS = "give yourself the right to it (ls -ld shows whose it is), or work elsewhere"
GONE = "its folder is gone; restore it, or work in one that is there"
WAYS_OUT = {
    errno.ENOSPC: "make room on that disk, or work on another",
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: "have the disk mounted for writing, or work on another",
}


class Terminated(BaseException):
    """SIGTERM came. Not an Exception: nothing on the way out may take it for a failure of its own."""


@app.callback()
def common(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """One experiment spec, any framework, the same experiment."""


# -- errors and the end --


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and leave with its exit code: 0, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM, or the stage's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        # What a terminal has no character for must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app([a for a in arguments if a != "--debug"] or ["--help"], prog_name="deltarule", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if debug:
            traceback.print_exc()
        code, message = _judge(error)
        if message:
            print(printable(message), file=sys.stderr)
    else:
        if code == INTERRUPTED:
            print("interrupted", file=sys.stderr)
    gc.freeze()  # a framework's 300 000 objects are no garbage: Python would look through them for 2 s on its way out
    sys.exit(code)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _judge(error: BaseException) -> tuple[int, str]:
    """Exit code and the one message of an error."""
    came = interruption(error)  # what fails on the way out of a Ctrl-C or SIGTERM is no failure of its own
    if isinstance(came, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(came, Terminated):
        return TERMINATED, "terminated"
    if isinstance(error, typer.TyperException):
        said = error.format_message()  # none where a group without a command has printed its help
        return BAD_INPUT, f"{said} (deltarule --help)" if said else ""
    for module, name, code in OUR_ERRORS:  # their modules are loaded already if they were raised
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return getattr(error, "exit_code", code), str(error)
    told = f"{type(error).__name__}: {error} (the traceback: deltarule --debug ...)"
    if not isinstance(error, OSError):
        return FAILED, f"internal error: {told}"
    gone = isinstance(error, FileNotFoundError)
    with suppress(FileNotFoundError):  # of a working folder that is gone
        gone = gone and not (error.filename and Path(error.filename).absolute().parent.is_dir())
    if error.strerror:
        where = error.filename2 or error.filename or ("the working folder" if gone else "a file")
        told = f"{where}: {error.strerror}; {GONE if gone else WAYS_OUT.get(error.errno or 0, '')}".rstrip("; ")
    return BAD_INPUT if isinstance(error, FileNotFoundError | FileExistsError) and not gone else FAILED, told
