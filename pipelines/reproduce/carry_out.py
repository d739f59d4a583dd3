"""A stage in the checkout, in a process of its own."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pipelines.reproduce.checkout import Checkout

LAST_LINES = 20  # of standard error, from which the reason of a failure is taken
PROGRESS = ("epoch ", "fold ")
HELD = 1  # exit code of a stage that did its work, and holds the pipeline


class Failed(Exception):
    """A stage that did not come to its end, and the last that it said."""


def run_stage(stage: str, checkout: Checkout, spec: Path, say: Callable[[str], None]) -> None:
    """Run a stage of the checkout; `say` is told its epochs. A threshold that is missed again is no failure."""
    say(stage)
    last: deque[str] = deque(maxlen=LAST_LINES)
    # --json: its words come on standard error, and the result, which is read from the outs, on the other stream.
    command = checkout.command(stage, "--params", str(spec), "--json")
    with subprocess.Popen(
        command, cwd=checkout.project, env=checkout.environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace",
    ) as process:  # fmt: skip
        try:
            for line in process.stderr or ():
                last.append(line.rstrip())
                if line.startswith(PROGRESS):
                    say(line.rstrip())
        except BaseException:  # Ctrl-C and SIGTERM end it too
            process.terminate()
            raise
    if process.returncode and not (process.returncode == HELD and stage == "validate" and _is_written(checkout)):
        said = next((line for line in reversed(last) if line.strip()), "nothing")
        raise Failed(f"{stage} ended with exit code {process.returncode}, saying: {said}")


def _is_written(checkout: Checkout) -> bool:
    return (checkout.project / "outputs/validate/about.json").is_file()
