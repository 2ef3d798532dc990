"""What other machines are asked for, what they may not know, and what comes of their answers.

The other machine is a process of a plain `ProcessPoolExecutor`, with a store of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from builders import sha256
from execute.conftest import Works
from fixtures.project import BIG, safetensors
from fixtures.web import Answer, Asked, Web
from layerbuild import __version__
from layerbuild.errors import ContentMismatch, DestinationDown, ExecutorError, LayerbuildError, NotReproducible
from layerbuild.execute import errand, parallel
from layerbuild.execute.build import Builder, distinct
from layerbuild.execute.errand import Outcome
from layerbuild.execute.job import Done, Failed, Job, Sealed, work
from layerbuild.execute.parallel import in_threads
from layerbuild.execute.team import Team
from layerbuild.images import ImageDeclaration
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock
from layerbuild.model import LARGE, Receipt
from layerbuild.progress import Silent
from layerbuild.store import Store

_LONG = {"ss_output_name": "ink", "ss_tag_frequency": "x" * 8000}
_OTHER = f"sha256:{'f' * 64}"


class Crew:
    """What a `Team` wants to know, over any executor."""

    def __init__(self, submit: Callable[[Sealed], Future[Any]], count: int | None = 1, patience: float = 60) -> None:
        self.name = "the others"
        self.patience = patience
        self.jobs: list[Sealed] = []
        self._submit, self._count = submit, count

    def submit(self, job: Sealed) -> Future[Any]:
        self.jobs.append(job)
        return self._submit(job)

    def count(self) -> int | None:
        return self._count

    def explain(self, error: BaseException) -> LayerbuildError | None:
        return None


class Notes(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def _settle(store: Path) -> None:
    os.environ.clear()
    os.environ.update({"LAYERBUILD_STORE": str(store), "NO_PROXY": "127.0.0.1"})


def _pool(store: Path) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_settle, initargs=(store,))


@dataclass(frozen=True, kw_only=True)
class Away:
    """Another machine."""

    store: Path
    pool: ProcessPoolExecutor


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    """Another machine, for all tests."""
    store = tmp_path_factory.mktemp("away")
    with _pool(store) as pool:
        yield Away(store=store, pool=pool)


@pytest.fixture
def crew(away: Away) -> Crew:
    """That machine."""
    return Crew(lambda job: away.pool.submit(work, job))


_seeds = count(100)
"""The other machine remembers what it has made: every test has models of its own."""


@dataclass(kw_only=True)
class Scene:
    """An image with a large Lora, a large checkpoint and a small Lora of a web server, and a large VAE from here."""

    works: Works
    web: Web
    ink: bytes
    night: bytes
    images: tuple[ImageDeclaration, ...]
    lock: Lock

    def builder(self, crew: Crew | None = None, works: Works | None = None, lock: Lock | None = None) -> Builder:
        """What builds it, with the help of others."""
        lock = lock or self.lock
        builder = (works or self.works).builder(self.images, lock)
        if crew is not None:
            builder.team = Team(crew, builder.packer, lock, Silent())
        return builder

    def error(self, crew: Crew) -> LayerbuildError:
        """Why a build fails."""
        return self.builder(crew).run(self.images).failed["one"]

    def layers(self, builder: Builder) -> dict[str, ComposedLayer]:
        """By their labels."""
        return {layer.label: layer for layer in distinct(builder.compose(self.images)).values()}

    def jobs(self, **of_team: Any) -> dict[str, Job]:
        """What a build would hand out, by label."""
        crew = Crew(lambda _: Future())
        builder = self.builder()
        builder.contents.wanted = frozenset({sha256(self.ink)})
        Team(crew, builder.packer, self.lock, Silent(), **of_team).making().begin(list(self.layers(builder).values()))
        return {job.layer.label: job for job in map(_opened, crew.jobs)}


def _opened(sealed: Sealed) -> Job:
    job: Job = pickle.loads(sealed.data)
    return job


@pytest.fixture
def scene(works: Works, web: Web) -> Scene:
    works.write("mine.safetensors", safetensors(BIG, seed=3))
    files = {
        "ink": safetensors(BIG, _LONG, seed=next(_seeds)),
        "night": safetensors(BIG, {"a": "b"}, seed=next(_seeds)),
        "small": safetensors(1000, {}, seed=next(_seeds)),
    }
    layers = "mine: {kind: model, type: vae, source: 'file:mine.safetensors'}\n"
    layers += "hello: {kind: files, files: {/opt/hello: {content: hello}}}\n"
    for name, data in files.items():
        source, kind = web.route(f"/{name}.safetensors", data), "checkpoint" if name == "night" else "lora"
        layers += f"{name}: {{kind: model, type: {kind}, source: '{source}', "
        layers += f"sha256: {sha256(data)}, size: {len(data)}}}\n"
    recipe = "name: one\nwebui: {root: /webui}\nlayers: [ink, night, small, mine, hello]\n"
    images = works.images(layers, recipe)
    ink, night = files["ink"], files["night"]
    return Scene(works=works, web=web, ink=ink, night=night, images=images, lock=works.lock(images))


def _large(store: Path) -> set[str]:
    return {path.name for path in (store / "files").glob("*/*") if path.stat().st_size >= LARGE}


def test_others_make_what_is_large_and_not_of_this_machine(scene: Scene, away: Away, crew: Crew) -> None:
    before = _large(away.store)
    builder = scene.builder(crew)
    builder.run(scene.images).all()
    assert {_opened(job).layer.label for job in crew.jobs} == {"ink", "night"}
    assert _large(away.store) - before == {sha256(scene.ink), sha256(scene.night)}
    assert _large(scene.works.store.root) == set()
    whole = [r.path for r in scene.web.requests if r.method == "GET" and "range" not in r.headers]
    assert sorted(whole) == ["/ink.safetensors", "/night.safetensors", "/small.safetensors"]
    # The Lora's facts were learnt there, and its long header is here for the hash cache.
    facts = builder.lock.files[sha256(scene.ink)]
    assert facts.addnet and facts.metadata is None and facts.header_sha256
    assert b"ss_tag_frequency" in scene.works.store.document(facts.header_sha256)


def test_the_same_image_as_without_others(scene: Scene, new_works: Callable[[str], Works], crew: Crew) -> None:
    builders = [scene.builder(crew), scene.builder(works=new_works("alone"))]
    apart, alone = [builder.record(builder.run(scene.images).all()) for builder in builders]
    assert crew.jobs and apart == alone


def test_facts_that_are_pending_are_learnt_by_others(
    scene: Scene, new_works: Callable[[str], Works], crew: Crew
) -> None:
    first = scene.builder()
    whole = first.record(first.run(scene.images).all())
    # Somebody has the receipts, and none of the facts.
    fresh = new_works("fresh")
    for receipt in whole.receipts.values():
        fresh.store.put_receipt(receipt)
    builder = scene.builder(crew, works=fresh)
    assert builder.record(builder.run(scene.images).all()).files == whole.files
    (job,) = map(_opened, crew.jobs)
    assert (job.layer.label, job.wanted, job.destination) == ("ink", {sha256(scene.ink)}, None)
    assert _large(fresh.store.root) == set()


def test_no_secret_travels(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_aTokenThatMustNeverBeSeen"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "DOCKER_AUTH_CONFIG", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, secret)
        scene.works.environ[name] = secret
    jobs = scene.jobs(destination="127.0.0.1:5000/team", insecure=["registry.lan:5000"])
    assert set(jobs) == {"ink", "night"}
    for job in jobs.values():
        data = pickle.dumps(job.sealed())
        places = (scene.works.root, scene.works.store.root)
        assert not [text for text in (secret, *map(str, places)) if text.encode() in data]
        assert len(data) < 8000


def test_a_job_has_its_own_part_of_the_lock_only(scene: Scene) -> None:
    job = scene.jobs()["night"]
    (layer,) = job.lock.layers.values()
    (pin,) = layer.pins.values()
    assert pin.source == f"{scene.web.url}/night.safetensors"
    assert (set(job.lock.files), job.lock.receipts, job.lock.images) == ({sha256(scene.night)}, {}, {})
    assert job.wanted == set() and scene.jobs()["ink"].wanted == {sha256(scene.ink)}


def test_jobs_are_the_same_where_their_result_is(scene: Scene) -> None:
    jobs = scene.jobs()
    job = replace(jobs["ink"], destination="host.example/a", repositories=("one",))
    renamed = replace(job, layer=replace(job.layer, label="other"), repositories=("two", "one"))
    assert job.identity == renamed.identity == _opened(job.sealed()).identity
    receipt = Receipt(key="k" * 64, diff_id=_OTHER, size=1)
    others = [
        replace(job, destination="host.example/b"),
        replace(job, keep=False),
        replace(job, insecure=("host.example",)),
        replace(job, wanted=frozenset()),
        replace(job, lock=replace(job.lock, receipts={receipt.key: receipt})),
        replace(job, lock=jobs["night"].lock),
        replace(job, layer=jobs["night"].layer),
    ]
    assert len({other.identity for other in [job, *others]}) == 1 + len(others)


def test_another_version_is_refused() -> None:
    outcome = work(Sealed(version="0.0.1", identity="x", data=b"not even a pickle"))
    assert isinstance(outcome, Failed) and isinstance(outcome.error, ExecutorError)
    assert __version__ in outcome.error.message and "0.0.1" in outcome.error.message


def test_what_nobody_foresaw_is_an_answer_too() -> None:
    outcome = work(Sealed(version=__version__, identity="x", data=b"https://example.org/?signature=geheim"))
    assert isinstance(outcome, Failed) and "layerbuild itself failed (UnpicklingError)" in outcome.error.message
    assert "; on " in (outcome.error.cause or "") and "geheim" not in str(outcome.error)


def test_a_failure_is_that_of_its_layer(scene: Scene, crew: Crew) -> None:
    scene.web.route("/night.safetensors", scene.night[:-1] + b"\0")
    builder = scene.builder(crew)
    error = builder.run(scene.images).failed["one"]
    assert isinstance(error, ContentMismatch) and "night" in error.message and "; on " in (error.cause or "")
    known = {label for label, layer in scene.layers(builder).items() if builder.packer.known(layer)}
    assert known >= {"ink", "small", "mine", "hello"} and "night" not in known


def test_receipt_of_another_machine_is_compared(scene: Scene, away: Away, crew: Crew) -> None:
    layer = scene.layers(scene.builder())["night"]
    assert layer.instance is not None
    # The other machine remembers something else than what this one's lock says.
    there = Store(away.store)
    there.put_receipt(Receipt(key=layer.instance.key, diff_id=_OTHER, size=1))
    there.close()
    ours = Receipt(key=layer.instance.key, diff_id=f"sha256:{'e' * 64}", size=1)
    lock = replace(scene.lock, receipts={ours.key: ours})
    outcomes: list[Outcome] = []
    team = Team(crew, scene.builder(lock=lock).packer, lock, Silent())
    sending = team.sending(lambda item: (item, ()), lambda _, outcome: outcomes.append(outcome))
    in_threads(work_here, [layer], away=sending)
    assert isinstance(outcomes[0], NotReproducible) and "; on " not in outcomes[0].message


def work_here(_: object) -> None:
    raise AssertionError("it should be done elsewhere")


def _answering(change: Callable[[Done], Done]) -> Callable[[Sealed], Future[Any]]:
    """Somebody who does nothing, and says that he did."""

    def submit(sealed: Sealed) -> Future[Any]:
        job = _opened(sealed)
        assert job.layer.instance is not None
        receipt = Receipt(key=job.layer.instance.key, diff_id=f"sha256:{sha256(sealed.data)}", size=job.size)
        facts = {name: replace(job.lock.files[name], addnet="a" * 64) for name in job.wanted}
        done = Done(
            receipt=receipt, facts=facts, documents=(), repository=None, sent=0, where="there", seconds=1, notes=("n",)
        )
        return _future(change(done))

    return submit


def _future(outcome: object) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return future


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda done: replace(done, receipt=replace(done.receipt, key="e" * 64)), "another layer"),
        (lambda done: replace(done, receipt=replace(done.receipt, size=5)), "another layer"),
        (lambda done: replace(done, facts={}), "did not say"),
    ],
)
def test_answers_that_are_none(scene: Scene, change: Callable[[Done], Done], words: str) -> None:
    error = scene.error(Crew(_answering(change)))
    assert isinstance(error, ExecutorError) and words in error.message


def test_what_the_user_is_told(scene: Scene) -> None:
    builder, notes = scene.builder(), Notes()
    builder.team = Team(Crew(_answering(lambda done: done), count=3), builder.packer, scene.lock, notes)
    builder.run(scene.images)
    assert notes.texts[0] == "2 layers on 3 workers of the others"
    assert {"weights ink: n", "weights night: done in 1.0 s on there"} <= set(notes.texts)


def test_nobody_for_too_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "_LOOKS", 0)
    monkeypatch.setattr(parallel, "_TICK", 0.01)
    builder, notes = scene.builder(), Notes()
    crew = Crew(lambda _: Future(), count=0, patience=0.05)
    builder.team = Team(crew, builder.packer, scene.lock, notes)
    error = builder.run(scene.images).failed["one"]
    assert isinstance(error, ExecutorError) and "has had no workers for" in error.message and error.hint
    assert notes.texts == ["2 layers on 0 workers of the others", "the others has no workers: waiting for one"]


def test_worker_that_dies_is_no_traceback(scene: Scene, tmp_path: Path) -> None:
    with _pool(tmp_path / "mortal") as pool:
        victim = pool.submit(os.getpid).result()

        def kill(asked: Asked) -> Answer:
            os.kill(victim, signal.SIGKILL)
            return Answer(status=503)

        scene.web._routes.pop("/night.safetensors")
        scene.web.handle("/night", kill)
        mortal = Crew(lambda job: pool.submit(work, job))
        for _ in range(2):
            # The second time nobody is left who could take a job.
            error = scene.error(mortal)
            assert isinstance(error, ExecutorError) and "died" in error.message and error.hint
        with pytest.raises(BrokenExecutor):
            pool.submit(os.getpid)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'layerbuild'"), "cannot run layerbuild's tasks"),
        (AttributeError("Can't get attribute 'work'"), "cannot run layerbuild's tasks"),
        (CancelledError(), "is gone, or has dropped the task"),
        (ValueError("signature=geheim"), "layerbuild itself failed (ValueError)"),
    ],
)
def test_other_ends_of_a_task_have_words(scene: Scene, error: Exception, words: str) -> None:
    failed = scene.error(Crew(lambda _: _future(error)))
    assert words in failed.message and failed.hint and "geheim" not in str(failed)


def test_destination_that_is_down_ends_the_run(scene: Scene) -> None:
    down = DestinationDown("registry.example does not answer")
    with pytest.raises(DestinationDown):
        scene.error(Crew(lambda _: _future(Failed(error=down))))
