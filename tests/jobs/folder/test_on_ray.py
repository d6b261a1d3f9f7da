"""Runs on a Ray cluster: the same bytes as in one process, also when a node goes away in the middle."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import layertap
from layertap import Extractor
from layertap.errors import BackendError, OptionError
from layertap.jobs.folder import on_ray
from layertap.jobs.folder.run import RunnerChoice
from tests.faults import visible
from tests.writing import write

pytest.importorskip("ray", reason="Ray is not installed: pip install 'layertap[ray]'")
FEATURE = "v = hidden_states[1].mean"


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("ray") / "tiny-bert"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, count in (("b", 90), ("a", 30)):
        rows = [{"text": f"{name} text {i} " + "of some " * (i % 5), "id": f"{name}-{i}"} for i in range(count)]
        write(tmp_path / f"corpus/{name}.jsonl", rows)
    return tmp_path / "corpus"


def promised(folder: Path) -> dict[str, bytes]:
    return {
        name: content for name, content in visible(folder).items() if not name.startswith(("log/", "layertap.json"))
    }


@pytest.fixture
def cluster(one_ray_at_a_time: None) -> Iterator[Any]:
    """Three nodes on this machine, with one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        own.add_node(num_cpus=1)
    own.wait_for_nodes()
    yield own
    ray.shutdown()
    own.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_three_nodes_of_which_one_is_killed_make_the_same_bytes(tmp_path, monkeypatch, corpus, extractor, cluster):
    layertap.extract(corpus, f"{tmp_path}/whole/", FEATURE, model=extractor, shard_records=3)
    killed: list[Any] = []
    report = on_ray._Supervisor._hear

    def hear(self: Any, actor: Any, reference: Any) -> None:
        report(self, actor, reference)
        if not killed and sum(other.is_ready for other in self._actors) == 3 and len(self._queue) < 35:
            killed.append(cluster.list_all_nodes()[-1])
            cluster.remove_node(killed[0], allow_graceful=False)

    monkeypatch.setattr(on_ray._Supervisor, "_hear", hear)
    layertap.extract(corpus, f"{tmp_path}/f/", FEATURE, model=extractor, shard_records=3, ray=cluster.address)
    assert killed
    assert promised(tmp_path / "f") == promised(tmp_path / "whole")


def test_an_address_that_does_not_answer_is_told_soon(tmp_path, monkeypatch, corpus, extractor):
    asked, connect = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *where, **how: asked.append(how) or connect(*where, **how))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BackendError, match=rf"--ray 127.0.0.1:{port}: nothing answers there within 10 s"):
        layertap.extract(corpus, f"{tmp_path}/f/", FEATURE, model=extractor, ray=f"127.0.0.1:{port}")
    assert asked == [{"timeout": on_ray.ANSWER_SECONDS}]  # once, and Ray itself, which asks for minutes, never


def test_an_address_that_is_none_is_refused(tmp_path, corpus, extractor):
    with pytest.raises(OptionError, match="expected auto, local, or an address such as"):
        layertap.extract(corpus, f"{tmp_path}/f/", FEATURE, model=extractor, ray="somewhere")


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match=r"pip install 'layertap\[ray\]'"):
        RunnerChoice.checked(workers=None, ray="auto")


def test_an_index_worker_has_no_runner_of_its_own():
    with pytest.raises(OptionError, match=r"--worker 0/4 is one process of several .* leave out --ray"):
        RunnerChoice.checked(workers=None, ray="auto", part="0/4")
    with pytest.raises(OptionError, match="leave out --workers"):
        RunnerChoice.checked(workers=2, ray=None, part="0/4")
