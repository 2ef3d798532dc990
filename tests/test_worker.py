"""The catalog's worker: its rendered scripts, run against stand-ins for the webui and the RunPod SDK."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerbuild import images, project
from layerbuild.schema import FilesLayer, FileSpec

WEBUI = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

here = Path(__file__).parent

def note(text):
    with (here / "events").open("a") as file:
        file.write(text + chr(10))

def ended(number, frame):
    note("api got " + signal.Signals(number).name)
    os._exit(0)

class Api(BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if (here / "end").exists():
            os._exit(int((here / "end").read_text()))
        ready = (here / "ready").exists()
        note("polled " + self.path + (" ready" if ready else ""))
        self.answer(200 if ready else 503, b"[]")

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if given.get("prompt") == "refuse":
            self.answer(422, b"no such sampler")
        elif given.get("prompt") == "garbage":
            self.answer(200, b"<html>")
        else:
            self.answer(200, json.dumps({"path": self.path, "given": given}).encode())

    def log_message(self, *arguments):
        pass

signal.signal(signal.SIGTERM, ended)
(here / "argv").write_text(json.dumps(sys.argv[1:]))
(here / "environ").write_text(json.dumps(dict(os.environ)))
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Api).serve_forever()
"""
"""Plays webui.py --nowebui --api: busy until the file `ready` is there, ends at a poll where `end` is."""

RUNPOD = """
import json, os, signal, sys
from pathlib import Path

class serverless:
    @staticmethod
    def start(config):
        here = Path.cwd()
        def ended(number, frame):
            with (here / "events").open("a") as file:
                file.write("handler got " + signal.Signals(number).name + chr(10))
            sys.exit(0)
        signal.signal(signal.SIGTERM, ended)
        jobs = json.loads((here / "jobs").read_text())
        (here / "part").write_text(json.dumps([config["handler"]({"id": "1", "input": job}) for job in jobs]))
        os.rename(here / "part", here / "results")
        if "RUNPOD_ENDS_WITH" in os.environ:
            sys.exit(int(os.environ["RUNPOD_ENDS_WITH"]))
        while True:
            signal.pause()
"""
"""Plays the RunPod SDK: takes the jobs in the file `jobs`, then waits for TERM."""


BLACK_HOLE = "http://192.0.2.1:9"
"""A proxy that nobody can reach (RFC 5737): the handler must not ask it for 127.0.0.1."""


class Worker:
    """The rendered worker in a directory, its API and SDK played by the scripts above."""

    def __init__(self, root: Path, webui: dict[str, str] | None = None, **variables: Any) -> None:
        self.root = root / "webui"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        recipe = {
            "name": "worker",
            "webui": {"root": str(self.root), "models_dir": str(root / "elsewhere"), **(webui or {})},
            "vars": {"worker_port": port, "worker_python": sys.executable, "worker_stop_timeout": 20, **variables},
            "layers": ["runpod-worker"],
        }
        for directory in ("recipes", "webui", "modules/runpod"):
            (root / directory).mkdir(parents=True)
        (root / "recipes" / "worker.yaml").write_text(yaml.safe_dump(recipe))
        (self.root / "webui.py").write_text(WEBUI)
        (self.root / "jobs").write_text("[]")
        (root / "modules" / "runpod" / "__init__.py").write_text(RUNPOD)
        (layer,) = [use.layer for image in images.expand(project.load(root)) for use in image.uses]
        assert isinstance(layer, FilesLayer)
        for place, spec in layer.files.items():
            assert isinstance(spec, FileSpec)
            assert spec.content is not None
            file = root / Path(place).name
            file.write_text(spec.content)
            file.chmod(int(spec.mode or "0644", 8))
        self.script, self.handler = root / "start.sh", root / "handler.py"
        self.modules = root / "modules"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environ: str) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            # A runner in the background ignores INT, and bash cannot trap what it was started to ignore.
            ["env", "--default-signal=INT", str(self.script)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self.modules), "http_proxy": BLACK_HOLE, **environ},
            start_new_session=True,
        )
        return self.process

    def events(self) -> list[str]:
        file = self.root / "events"
        return file.read_text().splitlines() if file.exists() else []

    def read(self, name: str) -> Any:
        until((self.root / name).exists)
        return json.loads((self.root / name).read_text())

    def create(self, name: str, text: str = "") -> None:
        (self.root / "new").write_text(text)
        (self.root / "new").rename(self.root / name)

    def signals(self) -> list[str]:
        """The signals that its processes got, in their order."""
        return [event for event in self.events() if " got " in event]

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`; a minute is for broken code, not for slow machines."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**variables: Any) -> Worker:
        made.append(Worker(tmp_path, **variables))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def test_the_scripts_are_well_formed(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    subprocess.run(["bash", "-n", str(worker.script)], check=True)
    compile(worker.handler.read_text(), "handler.py", "exec")
    assert os.access(worker.script, os.X_OK)


def test_jobs_wait_until_the_api_is_ready(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(worker_checkpoint="sub/a b.safetensors", worker_args="--lowram --device-id '1 2'")
    jobs: list[Any] = [
        {"prompt": "a cat", "steps": 2},
        {"prompt": "b", "endpoint": "img2img"},
        {"endpoint": "../../internal/ping"},
        {"endpoint": ["txt2img"]},
        "a cat",
        {"prompt": "refuse"},
        {"prompt": "garbage"},
    ]
    worker.create("jobs", json.dumps(jobs))
    process = worker.start()
    until(lambda: worker.events().count("polled /sdapi/v1/sd-models") >= 3)
    assert not (worker.root / "results").exists()
    assert process.poll() is None
    worker.create("ready")

    first, second, *refused, unusable = worker.read("results")
    assert first == {"path": "/sdapi/v1/txt2img", "given": jobs[0]}
    assert second == {"path": "/sdapi/v1/img2img", "given": {"prompt": "b"}}
    assert [list(result) for result in refused] == [["error"]] * 4
    assert "img2img" in refused[0]["error"]
    assert "img2img" in refused[1]["error"]
    assert "object" in refused[2]["error"]
    assert "422" in refused[3]["error"]
    assert "no such sampler" in refused[3]["error"]
    assert "no usable answer" in unusable["error"]

    models = worker.root.parent / "elsewhere"
    argv = worker.read("argv")
    assert argv[:4] == ["--nowebui", "--api", "--server-name", "127.0.0.1"]
    assert argv[6:] == [
        *("--no-download-sd-model", "--models-dir", str(models)),
        *("--ckpt", f"{models}/Stable-diffusion/sub/a b.safetensors"),
        *("--lowram", "--device-id", "1 2"),
    ]
    environ = worker.read("environ")
    assert (environ["HF_HOME"], environ["HF_HUB_OFFLINE"]) == ("/opt/huggingface", "1")


def test_the_webui_is_told_where_the_recipe_puts_things(make_worker: Callable[..., Worker]) -> None:
    webui = {
        "data_dir": "/data/it's $HOME",
        "models_dir": "/m",
        "embeddings_dir": "/e",
        "ckpt_dir": "/c c",
        "lora_dir": "/l",
        "vae_dir": "/v",
        "hypernetwork_dir": "/h",
        "ckpt": '/model "1".safetensors',
    }
    worker = make_worker(webui=webui, worker_args="")
    worker.start()
    assert worker.read("argv")[6:] == [
        *("--no-download-sd-model", "--data-dir", "/data/it's $HOME", "--models-dir", "/m", "--embeddings-dir", "/e"),
        *("--ckpt-dir", "/c c", "--lora-dir", "/l", "--vae-dir", "/v", "--hypernetwork-dir", "/h"),
        *("--ckpt", '/model "1".safetensors'),
    ]


def test_the_first_checkpoint_is_looked_for_where_checkpoints_are(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(webui={"ckpt_dir": "/c"}, worker_checkpoint="it's.ckpt", worker_args="")
    worker.start()
    assert worker.read("argv")[-2:] == ["--ckpt", "/c/it's.ckpt"]


def test_the_images_environment_wins(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    worker.start(HF_HOME="/mnt/hf", HF_HUB_OFFLINE="0", SD_WEBUI_CACHE_DIR="/tmp/c")
    environ = worker.read("environ")
    assert (environ["HF_HOME"], environ["HF_HUB_OFFLINE"], environ["SD_WEBUI_CACHE_DIR"]) == ("/mnt/hf", "0", "/tmp/c")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_handler_and_then_the_api(
    make_worker: Callable[..., Worker], number: signal.Signals, status: int
) -> None:
    worker = make_worker()
    worker.create("ready")
    process = worker.start()
    worker.read("results")
    process.send_signal(number)
    assert process.wait(60) == status
    assert worker.signals() == ["handler got SIGTERM", "api got SIGTERM"]


@pytest.mark.parametrize(("api", "status"), [("7", 7), ("0", 1)])
def test_an_api_that_dies_ends_the_worker(make_worker: Callable[..., Worker], api: str, status: int) -> None:
    worker = make_worker()
    worker.create("end", api)
    assert worker.start().wait(60) == status
    assert not (worker.root / "results").exists()


@pytest.mark.parametrize("status", [0, 3])
def test_a_handler_that_ends_ends_the_worker(make_worker: Callable[..., Worker], status: int) -> None:
    worker = make_worker()
    worker.create("ready")
    assert worker.start(RUNPOD_ENDS_WITH=str(status)).wait(60) == status
    assert worker.signals() == ["api got SIGTERM"]


def test_an_api_that_never_gets_ready_ends_the_worker(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker(worker_start_timeout=1)
    assert worker.start().wait(60) == 1
    assert worker.signals() == ["api got SIGTERM"]
    assert not (worker.root / "results").exists()


def test_a_handler_without_an_api_reports_an_error(make_worker: Callable[..., Worker]) -> None:
    handler = runpy.run_path(str(make_worker().handler))["handler"]
    assert "no usable answer" in handler({"input": {"prompt": "a cat"}})["error"]
