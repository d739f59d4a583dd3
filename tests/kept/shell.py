"""Carries out commands of deltarule one after the other in one process, so that frameworks are imported once.

A line of JSON each on standard input: the folder, then the words. A line of JSON each on standard output: exit code, what was
written to standard output, and to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile


def carry_out(folder: str, words: list[str]) -> tuple[int, str, str]:
    from pipelines.cli import main

    os.chdir(folder)
    before = [os.dup(1), os.dup(2)]
    code = 0
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), before, strict=True):
                os.dup2(old, number)
                os.close(old)
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


for line in sys.stdin:
    place, *command = json.loads(line)
    print(json.dumps(carry_out(place, command)), flush=True)
