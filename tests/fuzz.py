"""Specs that people would not write: mutants of params.yaml are refused by a sentence, or they train.

    python tests/fuzz.py --mutants 100000 --trained 500 --seed 0

A mutant is a spec whose text or values were changed in one to four places. Of those that are accepted some are trained for an
epoch: that ends well, or in an error of ours. Prints how many there were, and each text that did worse; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the tree that this file lies in

import deltarule  # noqa: E402
from backends import BackendError  # noqa: E402
from pipelines.data import DataError  # noqa: E402
from pipelines.spec.describe import SpecError  # noqa: E402
from pipelines.stages import StageError  # noqa: E402

OURS = (SpecError, DataError, StageError, BackendError)
SCRAPS = [
    "\n", "\r", "\t", "\u2028", "\x85", "\x00", "\x1b[31m", "\ud83d", "\ufeff", "\u202e", "\xe9", "\U0001f600", "'", '"',
    '"\\ud83d"', "|", ">", "- ", "? ", "&a", "*a", "!!str", "<<: {}", "%", "#", ":", "{", "[1", "{}", "[]", "[[1]]",
    "{a: 1}", "[null]", "null", "~", "true", "nan", ".inf", "-.inf", "1e309", "1e-400", "-0", "0x1f", "1_000",
    "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    "0", "1", "2", "-1", "0.5", "2026-11-30", "base64", "rot13", "idna", "undefined", "..", "relu", "sgd", "adam", "step",
    "random", "iris", "wine", "diabetes", "a.csv", "openml:61", "model.dropout", "accuracy", "f1", "own", "auto",
]  # fmt: skip
BASES = (
    (ROOT / "params.yaml").read_text(),
    "data: {source: iris, split: {folds: 3}}\nmodel: {hidden: [4, 3], dropout: [0, 0.2, 0]}\n"
    "train: {optimizer: {name: sgd, momentum: 0.5}}\n",
    "data: {source: diabetes}\nsearch:\n  space:\n    model.activation: {choices: [relu, tanh]}\n"
    "    regularization.l2: {low: 1e-6, high: 1, log: true}\n",
    "data:\n  source: a.csv\n  target: [y, 'z (kg)']\n  columns: {age: numeric, day: datetime}\n  format: {encoding: utf-8}\n"
    "thresholds: {r2.y: {min: 0}}\n",
)
SMALL = {"train.epochs": 1, "train.backend": "reference", "tracking.enabled": False}


def mutants(rng: random.Random) -> Iterator[str]:
    """Texts without end."""
    while True:
        text = rng.choice(BASES)
        for _ in range(rng.randint(1, 4)):
            text = changed(text, rng)
        yield text


def changed(text: str, rng: random.Random) -> str:
    """With one change: of a value, a key, a line, its place, or a few characters."""
    lines, scrap, place = text.splitlines(keepends=True) or [""], rng.choice(SCRAPS), rng.randrange(len(text) + 1)
    at = rng.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    match rng.randrange(8):
        case 0 | 1:
            lines[at] = f"{key}: {scrap}\n"
        case 2:
            lines[at] = f"{key[: rng.randrange(len(key) + 1)]}{scrap}{colon} 1\n"
        case 3:
            del lines[at]
        case 4:
            lines.insert(at, rng.choice(lines))
        case 5:
            lines[at] = " " * rng.randrange(7) + lines[at].lstrip()
        case 6:
            return text[:place] + scrap + text[place + rng.randrange(4) :]
        case 7:
            return text[:place] + chr(rng.randrange(0x3000)) + text[place:]
    return "".join(lines)


def problem_of(text: str, path: Path, train: bool) -> tuple[str, str]:
    """ "refused", "accepted", "trained" or "stopped"; and what went wrong, or nothing."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        experiment = deltarule.load(path)
    except SpecError as error:
        told = [line for line in str(error).split("\n") if not line.strip() or len(line) > 2000]
        return "refused", f"a message that cannot be read: {told[0]!r}" if told else ""
    except Exception as error:
        return "refused", repr(error)
    if not train:
        return "accepted", ""
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            deltarule.run(experiment.override(SMALL), Path(folder, "run"))
    except OURS:
        return "stopped", ""
    except Exception as error:
        return "trained", repr(error)
    return "trained", ""


def main(arguments: list[str] | None = None) -> int:
    """Print the counts; 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--trained", type=int, default=10, help="at most, of those that are accepted")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    counts, wrong = Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for _, text in zip(range(asked.mutants), mutants(random.Random(asked.seed)), strict=False):
            ended, problem = problem_of(text, Path(folder, "params.yaml"), counts["trained"] + counts["stopped"] < asked.trained)
            counts[ended] += 1
            if problem:
                wrong += 1
                print(f"{ended}: {problem[:500]}\n{text!r}", flush=True)
    shown = ", ".join(f"{count} {ended}" for ended, count in sorted(counts.items()))
    print(f"seed {asked.seed}, {asked.mutants} mutants: {shown}; {wrong} went wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
