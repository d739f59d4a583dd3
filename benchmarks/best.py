"""The best validation loss that a search finds beside what people write with Optuna, under several seeds of the sampler.

The task of benchmarks/search.py, like for like: each side starts its layers as the peer's framework does, and each trial has
initial weights of its own (`search.trial_seeds: own`), as in a peer's loop. One study has one best, and luck decides much of
it; so both sides are searched under every seed, and the seeds are a sample. Two numbers a study: its best, and what that
winner is worth under 15 other seeds, the same training on our side for all. Losses, not times: studies run beside each other.

    python benchmarks/best.py --trials 64 --seeds 5                      both peers, some 45 minutes on two cores
    python benchmarks/best.py --trials 64 --seeds 20 --only "ours lightning"
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from search import CANDIDATES, carry_out, make_rows, worth

PAIRS = {"ours lightning": "optuna + lightning", "ours keras": "optuna + keras"}
INITIALIZER = {"lightning": "model.initializer=torch_uniform", "keras": "model.initializer=glorot_uniform"}
LINE = "{:20} {:>6} {:>6} {:>8} {:>18} {:>8} {:>18}"


class Study(NamedTuple):
    """What one study came to, in validation cross-entropy."""

    best: float
    worth: float  # of its winner: the mean under other seeds


def search(name: str, trials: int, seed: int, rows: Path, more: Sequence[str]) -> Study:
    """Search once, and train the winner again."""
    initializer = INITIALIZER[name.split()[-1]]
    changes = (initializer, "search.trial_seeds=own", f"seed={seed}", *more)
    run = carry_out(CANDIDATES[name], trials, rows, "one", changes, seed)
    study = Study(run.best, worth((*run.winner, initializer))["mean"])
    said = f"  {name}, {trials} trials, seed {seed}: {study.best:.4f}, {study.worth:.4f} {' '.join(run.winner)}"
    print(said, file=sys.stderr, flush=True)
    return study


def table(found: dict[str, list[Study]], trials: int) -> None:
    """A line a candidate, then a line a pair: of one study from each side, how often ours is the lower (Mann & Whitney 1947)."""
    print(LINE.format("candidate", "trials", "seeds", "best", "from to", "winner", "from to"))
    for name, studies in found.items():
        best, later = zip(*studies, strict=True)
        each = [word for of in (best, later) for word in (f"{statistics.median(of):.4f}", f"{min(of):.4f} to {max(of):.4f}")]
        print(LINE.format(name, trials, len(studies), *each))
    for ours, theirs in PAIRS.items():
        if ours in found and theirs in found:
            for kind in Study._fields:
                a, b = ([getattr(study, kind) for study in found[name]] for name in (ours, theirs))
                print(f"{kind}: {ours} against {theirs}: {compared(a, b)}")


def compared(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How often ours is lower, and the exact p of as much or more against us if both were drawn alike."""
    from scipy.stats import mannwhitneyu

    test = mannwhitneyu(ours, theirs, alternative="greater", method="exact")
    pairs = len(ours) * len(theirs)
    return f"lower in {pairs - test.statistic:.0f} of {pairs} pairs; p of ours being worse {test.pvalue:.2f}"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for pair in PAIRS.items() for name in pair]
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=5, help="studies a candidate")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="studies at once")
    parser.add_argument("--only", nargs="*", default=every, choices=every, metavar="NAME")
    parser.add_argument("--set", action="append", default=[], help="of ours, such as search.generation=16")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(chosen.jobs) as pool:
        rows = make_rows(Path(place))
        more = ["search.engine=here", *chosen.set]
        running = {
            name: [pool.submit(search, name, chosen.trials, seed, rows, more) for seed in range(chosen.seeds)]
            for name in chosen.only
        }
        table({name: [one.result() for one in studies] for name, studies in running.items()}, chosen.trials)


if __name__ == "__main__":
    main()
