"""A study on a real Ray cluster of two node processes, one of which is killed in the middle: the same study, nothing repeated."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("ray")

from test_executors_ray import nodes
from test_search import spec, told

from backends.supervisor import Checkpoint
from pipelines.search import driver, networks, search

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
    # Ray's own: sockets and files that it leaves to the collector, and what it announces of its next version.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:.*accelerator visible devices:FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
__all__ = ["nodes"]  # a fixture


def marked(job: networks.Job) -> Checkpoint:
    """`advance`, which leaves a mark with its node's name when it begins.

    Every other one takes two seconds, so that some are in the middle when others end.
    """
    import ray

    node, marks = ray.get_runtime_context().get_node_id(), Path(job.data).parents[3] / "marks"
    how = ("short", "long")[len([*marks.iterdir()]) % 2]
    (marks / f"{job.key}.{node}.{time.monotonic_ns()}.{how}").touch()
    time.sleep(2 if how == "long" else 0.1)
    return networks.advance(job)


def test_a_cluster_whose_node_is_killed_gives_the_study_of_this_process(nodes, monkeypatch, tmp_path):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.search.study.draw_study", lambda *_: None)
    experiment = spec(search__trials=12, search__generation=12, search__width=1, search__rung=3, search__pruner="median")
    wanted = told(search(experiment, name="calm"))
    (marks := tmp_path / "marks").mkdir()
    saved: list[str] = []
    killed: list[str] = []

    really = Checkpoint.save

    def save(reached, path):
        really(reached, path)
        saved.append(path.stem.partition("-")[2])
        begun = [mark.name.split(".") for mark in marks.iterdir()]
        # Surely in the middle of a long job: what has only not been fetched yet is older.
        busy = {node for _, node, at, how in begun if how == "long" and time.monotonic_ns() - int(at) < 1.5e9}
        there = [node for node in nodes.worker_nodes if node.node_id in busy]
        if there and len(saved) > 2 and not killed:
            killed.extend(saved)
            there[0].kill_raylet(check_alive=False)
            nodes.remove_node(there[0], allow_graceful=False)

    monkeypatch.setattr(driver, "advance", marked)
    monkeypatch.setattr(Checkpoint, "save", save)
    study = search(experiment.override("search.engine", f"ray:{nodes.address}"), name="disturbed")
    assert told(study) == wanted
    begun = Counter(mark.name.split(".")[0] for mark in marks.iterdir())
    assert killed and set(begun) == set(saved)
    assert [key for key in killed if begun[key] != 1] == [], "a job that had finished was repeated"
    if max(begun.values()) == 1:  # on a machine so busy that the job was over before its node was
        pytest.skip("the node was killed between two jobs: there was nothing to repeat")
