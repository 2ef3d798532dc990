"""Layers are made and sent by the workers of a real Dask scheduler; some of them die."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import distributed
import pytest

from e2e.readers import fetch, sha256, tags
from fixtures.cluster import Cluster, Worker, until
from fixtures.hub import Hub
from fixtures.project import BIG, Project, Result, safetensors
from fixtures.registry import PASSWORD, USER, Front
from fixtures.web import Answer, Asked, Web
from layerbuild.model import LARGE

_COUNT = 4
_NOT_LONG = {"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "1s"}


def _models(seed: int, count: int = _COUNT) -> list[bytes]:
    return [safetensors(BIG, {"n": str(seed + n)}, seed=seed + n) for n in range(count)]


def _declare(project: Project, web: Web, models: list[bytes]) -> Project:
    """Large models that only the web has, the first a Lora, in two images; locked without a download."""
    layers = ""
    for number, data in enumerate(models):
        kind = "lora" if number == 0 else "checkpoint"
        source = web.route(f"/m{number}.safetensors", data)
        layers += f"m{number}: {{kind: model, type: {kind}, source: '{source}', "
        layers += f"sha256: {sha256(data)}, size: {len(data)}}}\n"
    every = ", ".join(f"m{number}" for number in range(len(models)))
    recipes = {
        "recipes/one.yaml": f"name: one\nwebui: {{root: /webui}}\nlayers: [{every}]\ntags: [v1]\n",
        "recipes/two.yaml": "name: two\nwebui: {root: /webui}\nlayers: [m0, m1]\ntags: [v1]\n",
    }
    project.write({"layers/l.yaml": layers, **recipes}).run("lock")
    return project


def _at(registry: Front) -> str:
    return f"{registry.host}/{registry.prefix}"


def _fetched(web: Web, count: int = _COUNT) -> list[int]:
    """How often the whole of each model was asked for."""
    asked = [web.asked(f"/m{number}.safetensors", "GET") for number in range(count)]
    return [len([r for r in requests if "range" not in r.headers]) for requests in asked]


def _pulled(registry: Front, image: str) -> set[bytes]:
    """The contents of the model layers of an image in the registry."""
    prefix = f"{registry.url}/v2/{registry.prefix}/{image}"
    found = set()
    for layer in json.loads(fetch(f"{prefix}/manifests/v1"))["layers"]:
        if layer["size"] >= LARGE:
            data = fetch(f"{prefix}/blobs/{layer['digest']}")
            assert f"sha256:{sha256(data)}" == layer["digest"]
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                stream = archive.extractfile(archive.getmembers()[-1])
                assert stream is not None
                found.add(stream.read())
    return found


def _large(files: Mapping[str, int]) -> list[str]:
    return [name for name, size in files.items() if size >= LARGE]


class Gate:
    """Before a model of the web: the first who asks for the whole of it waits until the gate opens."""

    def __init__(self, web: Web, number: int, data: bytes) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        self._data = data
        web._routes.pop(f"/m{number}.safetensors", None)
        web.handle(f"/m{number}.safetensors", self._answer)

    def _answer(self, asked: Asked) -> Answer:
        if asked.method == "GET" and "range" not in asked.headers and not self.reached.is_set():
            self.reached.set()
            self._open.wait(60)
        return Answer(body=self._data)

    def wait(self) -> None:
        """Until somebody stands there."""
        assert self.reached.wait(60)

    def open(self) -> None:
        """Lets everybody pass."""
        self._open.set()


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Result]]]:
    """Runs a project's command beside the test."""
    with ThreadPoolExecutor() as pool:

        def run(project: Project, *arguments: str, env: Mapping[str, str] | None = None) -> Future[Result]:
            return pool.submit(project.run, *arguments, check=False, env=env)

        yield run


def test_workers_fetch_once_and_send_once(project: Project, web: Web, registry: Front, two_workers: Cluster) -> None:
    models = _models(10)
    _declare(project, web, models)
    found = project.run("push", _at(registry), "--executor", two_workers.address)
    assert f"of {two_workers.address}" in found.err and "4 layers on " in found.err
    assert found.err.count(": done in ") == _COUNT
    assert _fetched(web) == [1] * _COUNT
    assert _pulled(registry, "one") == set(models) and _pulled(registry, "two") == set(models[:2])
    assert len([r for r in registry.requests("PATCH", "/blobs/uploads/") if r.received >= BIG]) == _COUNT
    assert registry.uploaded() < _COUNT * BIG + 256 * 1024
    # Models lie in the workers' stores, each in one of them. What was learnt is at home.
    assert _large(project.stored_files()) == []
    here = [name for worker in two_workers.workers for name in _large(worker.files())]
    assert {sha256(data) for data in models} <= set(here) and len(here) == len(set(here))
    assert len(project.lock["receipts"]) >= _COUNT
    assert all("manifest" in image for image in project.lock["images"].values())
    assert project.lock["files"][sha256(models[0])]["addnet"]
    project.run("lock", "--check")
    # Nothing is left to do, here or there.
    again = project.run("push", _at(registry), "--executor", two_workers.address)
    assert "layers on" not in again.err and "sent 0 B in " in again.out


def test_receipts_come_home_and_what_is_known_is_sent_from_elsewhere(
    project: Project, web: Web, registry: Front, two_workers: Cluster, tmp_path: Path
) -> None:
    models = _models(20)
    _declare(project, web, models)
    project.run("build", "--executor", two_workers.address)
    assert _fetched(web) == [1] * _COUNT and _large(project.stored_files()) == []
    # Another machine with the lock, which has none of the bytes.
    fresh = {"LAYERBUILD_STORE": str(tmp_path / "fresh")}
    found = project.run("push", _at(registry), "--executor", two_workers.address, "--json", env=fresh)
    assert "4 layers on 2 workers" in found.err
    assert _pulled(registry, "one") == set(models) and _pulled(registry, "two") == set(models[:2])
    assert _COUNT * BIG < found.json["uploaded_bytes"] < _COUNT * BIG + 256 * 1024
    # The digests are known: nothing is hashed first.
    assert registry.requests("PATCH") == []
    assert all(path.stat().st_size < LARGE for path in (tmp_path / "fresh/files").glob("*/*"))


def test_registry_that_never_mounts_gets_every_copy_from_elsewhere(
    project: Project, web: Web, registry: Front, two_workers: Cluster
) -> None:
    models = _models(30, 2)
    _declare(project, web, models)

    # What answers a mount of something that is not there: an upload, here one that leads nowhere.
    nowhere = {"Location": f"/v2/{registry.prefix}/two/blobs/uploads/nowhere"}
    registry.rule("POST", "/two/blobs/uploads/", 202, headers=nowhere, query="mount=", times=2)
    project.run("push", _at(registry), "--executor", two_workers.address)
    assert _pulled(registry, "one") == _pulled(registry, "two") == set(models)
    assert len([r for r in registry.requests("PUT", "/two/blobs/uploads/") if r.received >= BIG]) == 2
    assert _large(project.stored_files()) == [] and _fetched(web, 2)[0] <= 2


def test_worker_that_is_killed_loses_its_task_and_no_other(
    project: Project,
    web: Web,
    registry: Front,
    cluster: Cluster,
    background: Callable[..., Future[Result]],
) -> None:
    models = _models(40)
    _declare(project, web, models)
    gate = Gate(web, 3, models[3])
    cluster.start(2).ready()
    running = background(project, "push", _at(registry), "--executor", cluster.address)
    gate.wait()
    # It has finished others before, and their results are at home.
    until(lambda: sum(len(_large(worker.files())) for worker in cluster.workers) == 3)
    (holder,) = [worker for worker in cluster.workers if worker.fetches(sha256(models[3]))]
    assert _large(holder.files())
    holder.kill()
    gate.open()
    result = running.result()
    assert result.code == 0, result
    assert _fetched(web) == [1, 1, 1, 2]
    assert _pulled(registry, "one") == set(models) and _pulled(registry, "two") == set(models[:2])


def test_when_nobody_is_left_the_run_says_so_and_the_next_goes_on(
    project: Project,
    web: Web,
    registry: Front,
    cluster: Cluster,
    background: Callable[..., Future[Result]],
) -> None:
    models = _models(50, 2)
    _declare(project, web, models)
    push = ("push", _at(registry), "--executor", cluster.address)
    for who in ("workers", "scheduler"):
        gate = Gate(web, 1, models[1])
        (worker,) = cluster.start().workers[-1:]
        running = background(project, *push, env=_NOT_LONG)
        gate.wait()
        until(lambda: registry.requests("PATCH", "/blobs/uploads/"))
        if who == "workers":
            worker.kill()
            result = running.result().failed(1, "has had no workers for", "start some", cluster.address)
            assert "has no workers: waiting for one" in result.err
        else:
            cluster.process.kill()
            running.result().failed(1, f"{cluster.address} is gone", "run the command again")
        gate.open()
        assert tags(registry.root, f"{registry.prefix}/one") == []
    # What was finished is known here, and stays where it went.
    known = [layer["layer"] for layer in project.run("plan", "--json").json["layers"] if layer["digest"]]
    assert "weights m0" in known and "weights m1" not in known
    project.run("push", _at(registry))
    assert _pulled(registry, "one") == set(models) and _fetched(web, 2)[0] == 1


def test_bytes_that_are_not_the_pinned_ones_fail_their_images_only(
    project: Project, web: Web, registry: Front, two_workers: Cluster
) -> None:
    models = _models(60)
    _declare(project, web, models)
    web.route("/m2.safetensors", models[2][:-1] + bytes([models[2][-1] ^ 1]))
    found = project.run("push", _at(registry), "--executor", two_workers.address, check=False)
    found.failed(1, "1 of 2 images failed", "one: m2 (m2.safetensors)", sha256(models[2]), "; on ")
    assert tags(registry.root, f"{registry.prefix}/two") == ["v1"]
    assert tags(registry.root, f"{registry.prefix}/one") == []
    assert _pulled(registry, "two") == set(models[:2])
    planned = {layer["layer"]: layer["digest"] for layer in project.run("plan", "--json").json["layers"]}
    assert planned["weights m3"] and planned["weights m2"] is None


def test_two_that_want_the_same_at_once_share_its_task(
    project: Project,
    web: Web,
    registry: Front,
    two_workers: Cluster,
    background: Callable[..., Future[Result]],
) -> None:
    models = _models(70, 2)
    _declare(project, web, models)
    other = _declare(project.sibling("other"), web, models)
    gate = Gate(web, 0, models[0])
    first = background(project, "push", _at(registry), "one", "--executor", two_workers.address)
    gate.wait()
    second = background(other, "push", _at(registry), "two", "--executor", two_workers.address)
    with distributed.Client(two_workers.address, set_as_default=False) as client:
        until(lambda: 2 in client.run_on_scheduler(_askers))
    gate.open()
    assert (first.result().code, second.result().code) == (0, 0), (first.result(), second.result())
    assert _fetched(web, 2)[0] == 1
    assert _pulled(registry, "one") == _pulled(registry, "two") == set(models)


_askers = lambda dask_scheduler: [len(task.who_wants) for task in dask_scheduler.tasks.values()]  # noqa: E731
"""How many clients wait for each task. By value: the scheduler cannot import this module."""


def _login(who: Worker | Project, host: str) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (who.home / ".docker").mkdir()
    (who.home / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_tokens_and_logins_are_those_of_the_workers(
    project: Project, hub: Hub, login_registry: Front, cluster: Cluster
) -> None:
    model = _models(80, 1)[0]
    hub.add("acme/sd", lfs={"sd.safetensors": model}, gated=True)
    project.environ["HF_ENDPOINT"] = hub.endpoint
    layer = "sd: {kind: model, type: checkpoint, source: hf://acme/sd@main/sd.safetensors}\n"
    recipe = "name: one\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"
    project.write({"layers/l.yaml": layer, "recipes/one.yaml": recipe})
    project.run("lock", env={"HF_TOKEN": hub.token})
    _login(project, login_registry.host)
    push = ("push", _at(login_registry), "--executor", cluster.address)
    # Whoever pushes has a token and a login, the worker has none: nobody lends it one.
    cluster.start(environ={"HF_ENDPOINT": hub.endpoint})
    own = {"HF_TOKEN": hub.token}
    project.run(*push, check=False, env=own).failed(1, f"layerbuild login {login_registry.host}", "; on ")
    (worker,) = cluster.workers
    _login(worker, login_registry.host)
    refused = project.run(*push, check=False, env=own).failed(1, "hf://acme/sd", "gated", "; on ")
    (worker.home / ".cache/huggingface").mkdir(parents=True)
    (worker.home / ".cache/huggingface/token").write_text(hub.token)
    done = project.run(*push)
    assert tags(login_registry.root, f"{login_registry.prefix}/one") == ["v1"]
    told = [refused.err, done.err, done.out, cluster.log, worker.log]
    assert not [text for text in told if hub.token in text or PASSWORD in text]


def test_an_interrupt_drops_what_has_not_begun(
    project: Project, web: Web, registry: Front, two_workers: Cluster
) -> None:
    models = _models(90)
    _declare(project, web, models)
    gates = [Gate(web, number, models[number]) for number in range(2)]
    push = ("push", _at(registry), "--executor", two_workers.address)
    result = project.interrupt(*push, when=lambda: all(gate.reached.is_set() for gate in gates))
    for gate in gates:
        gate.open()
    last = [line for line in result.err.splitlines() if line][-1]
    assert result.code == 130 and last.startswith("interrupted") and "Traceback" not in result.err, result
    # The workers go on with what they were doing, and then with what they are asked for.
    project.run(*push, "two")
    assert _pulled(registry, "two") == set(models[:2])
    assert _fetched(web)[2:] == [0, 0]


def test_workers_without_layerbuild(project: Project, web: Web, cluster: Cluster, tmp_path: Path) -> None:
    _declare(project, web, _models(94, 2))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys; sys.modules['layerbuild'] = None\n")
    cluster.start(environ={"PYTHONPATH": str(hidden)}).ready()
    found = project.run("build", "--executor", cluster.address, check=False)
    found.failed(1, "1 of 1 workers of", "has none", "install layerbuild")
    assert cluster.workers[0].process.poll() is None


def test_what_no_other_machine_can_do(project: Project, web: Web, registry: Front, two_workers: Cluster) -> None:
    _declare(project, web, _models(95, 2))
    refused = project.run("push", "oci:out", "--executor", two_workers.address, check=False)
    refused.failed(2, "a directory of this machine", "registry")
    assert not (project.root / "out").exists()
    refused = project.run("push", "archive:out.tar", "--executor", two_workers.address, check=False)
    refused.failed(2, "a file of this machine", "registry")
    assert not (project.root / "out.tar").exists()
    project.run("build", "--check", "--executor", two_workers.address, check=False).failed(2, "--check believes nobody")
