"""Planted: what is fetched later, how the webui is started, bytecode, secrets."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import struct
import sys
from pathlib import Path

import pytest

from audit.planting import REFINER, ROOT, SD3, SDXL, Image, Item, empty, model
from layerbuild.model import MTIME

CHECKPOINT = f"{ROOT}/models/Stable-diffusion/photo.safetensors"
APPROX = f"{ROOT}/models/VAE-approx"
SITE = "usr/local/lib/python3.10/site-packages"


@pytest.mark.parametrize(("names", "kind"), [(SDXL, "sdxl"), (REFINER, "sdxl"), (SD3, "sd3")])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_vae_approximations(sound: Image, names: tuple[str, ...], kind: str, compression: str) -> None:
    image = sound.plant({CHECKPOINT: model(names)}, compression=compression)
    finding = image.found("vae-approx-missing")
    assert finding.paths == (f"/{APPROX}/vaeapprox-{kind}.pt",) and finding.cost.when == "use"
    assert "vae-approx-missing" not in image.plant({f"{APPROX}/vaeapprox-{kind}.pt": "x"}).ids()


def test_a_header_that_tells_late(sound: Image) -> None:
    many = tuple(f"a.long.name.of.a.tensor.that.says.nothing.{i}" for i in range(400))
    assert "vae-approx-missing" in sound.plant({CHECKPOINT: model((*many, *SDXL))}).ids()


def test_helpers_are_information(sound: Image) -> None:
    finding = sound.found("fetched-on-use")
    assert finding.severity == "info" and f"/{ROOT}/models/GFPGAN/GFPGANv1.4.pth" in finding.paths
    image = sound.plant({f"{ROOT}/models/GFPGAN/GFPGANv1.4.pth": "x"})
    assert f"/{ROOT}/models/GFPGAN/GFPGANv1.4.pth" not in image.found("fetched-on-use").paths


def test_no_checkpoint(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/models/Stable-diffusion": None})
    finding = image.found("no-checkpoint")
    assert finding.severity == "error" and finding.cost.downloaded == 4265146304
    started = image.configured(Cmd=["python3", f"/{ROOT}/webui.py", "--no-download-sd-model"])
    assert started.found("no-checkpoint").severity == "info"


def test_no_webui(tmp_path: Path) -> None:
    image = empty(tmp_path / "out").plant({"etc/os-release": "ID=debian"})
    assert image.ids() == {"no-webui"}


def test_launch_py(sound: Image) -> None:
    command = ["python3", "launch.py", "--api"]
    image = sound.plant({f"{ROOT}/repositories/BLIP/a.py": "", f"{ROOT}/repositories/k-diffusion/.git/HEAD": "ref"})
    assert image.ids() == set()
    launched = image.configured(Cmd=command, WorkingDir=f"/{ROOT}")
    assert launched.ids() == {"launch-prepares", "checkout-without-git"}
    assert launched.found("checkout-without-git").paths == (f"/{ROOT}/repositories/BLIP",)
    assert image.configured(Cmd=[*command, "--skip-prepare-environment"]).ids() == set()
    variable = image.configured(Cmd=command, env={"COMMANDLINE_ARGS": "--skip-prepare-environment --xformers"})
    assert variable.ids() == set()
    script = 'cd "$(dirname "$0")"\n# not: python webui.py\nexec python -u launch.py --skip-install "$@"\n'
    scripted = image.plant({"start": Item(data=b"#!/bin/bash\n" + script.encode(), mode=0o755)}, compression="gzip")
    finding = scripted.configured(Cmd=["/start"]).found("launch-prepares")
    assert finding.paths == ("/start",) and "pip" not in finding.what
    assert (
        "launch-prepares"
        in image.plant({f"{ROOT}/webui.sh": "#!/bin/sh\n"}).configured(Cmd=["./webui.sh"], WorkingDir=f"/{ROOT}").ids()
    )


def test_a_checkout_that_the_webui_asserts(sound: Image) -> None:
    image = sound.plant({f"{ROOT}/modules/paths.py": "x"})
    assert image.found("checkout-missing").severity == "error"
    proof = f"{ROOT}/repositories/stable-diffusion-stability-ai/ldm/models/diffusion/ddpm.py"
    assert image.plant({proof: "x"}).ids() == set()


def test_flags_move_directories(sound: Image) -> None:
    data = {
        "data/models/Stable-diffusion/a.safetensors": model(),
        "data/models/Lora/b.safetensors": model(("lora_te",)),
    }
    command = ["python3", f"/{ROOT}/webui.py"]
    view = sound.plant(data).configured(Cmd=[*command, "--data-dir", "/data"]).view()
    assert {m.placed.path for m in view.models} == {f"/{path}" for path in data}
    view = sound.plant(data).configured(Cmd=[*command, "--lora-dir=/data/models/Lora"]).view()
    assert [m.placed.path for m in view.of_type("lora")] == ["/data/models/Lora/b.safetensors"]
    view = sound.plant({"model.safetensors": model()}).configured(Cmd=[*command, "--ckpt", "/model.safetensors"]).view()
    assert "checkpoint/model.safetensors" in {m.placed.keys.key for m in view.models}
    script = "models='/data/models'\nargs=(--nowebui\n  --api)\n"
    script += 'args+=(--models-dir "$models")\npython webui.py "${args[@]}" &\n'
    view = sound.plant({**data, "s.sh": script}).configured(Cmd=["/s.sh"]).view()
    assert [m.placed.path for m in view.of_type("checkpoint")] == ["/data/models/Stable-diffusion/a.safetensors"]


def test_scripts_are_read_with_care(sound: Image) -> None:
    doubling = "A=xxxxxxxx\n" + "".join(
        f"{b}=${a}${a}\n" for a, b in zip("ABCDEFGHIJKLMNOP", "BCDEFGHIJKLMNOPQ", strict=True)
    )
    doubling += "echo $Q $Q $Q\n" * 1000
    words = 'ARGS="--data-dir /data --api"\npython webui.py $ARGS\necho "never run launch.py --skip-install"\n'
    image = sound.plant({"a.sh": f"{words}. /b.sh\n{doubling}", "b.sh": "/a.sh\n/b.sh\n'unclosed\n"})
    view = image.configured(Cmd=["bash", "/a.sh"]).view()
    assert view.webui is not None and view.webui.data_dir == "/data"
    assert not view.command.starts("launch.py")
    assert view.command.scripts == ("/a.sh", "/b.sh")
    shell = sound.configured(Entrypoint=["/bin/sh", "-c"], Cmd=[f"cd /{ROOT} && exec python launch.py --api"])
    assert shell.view().command.starts("launch.py")


def test_what_the_webui_lists(sound: Image) -> None:
    checkpoints = f"{ROOT}/models/Stable-diffusion"
    image = sound.plant(
        {
            f"{checkpoints}/UPPER.SAFETENSORS": model(),
            f"{checkpoints}/.hidden/a.safetensors": model(),
            f"{checkpoints}/note.txt": "x",
            f"{checkpoints}/linked": Item(type=b"2", target="/data/more"),
            f"{checkpoints}/dangling.ckpt": Item(type=b"2", target="/nowhere"),
            "data/more/b.ckpt": b"pickle",
            f"{ROOT}/embeddings/empty.pt": b"",
        }
    )
    names = {m.placed.name for m in image.view().of_type("checkpoint")}
    assert names == {"photo.safetensors", "sub/paint.safetensors", "UPPER.SAFETENSORS", "linked/b.ckpt"}
    assert len(image.view().of_type("embedding")) == 1
    old = image.plant({f"{ROOT}/CHANGELOG.md": "## 1.7.0\n"}).view()
    assert "UPPER.SAFETENSORS" not in {m.placed.name for m in old.of_type("checkpoint")}


@pytest.mark.parametrize("flavor", ["installer.py", "modules_forge/x.py"])
def test_forks(sound: Image, flavor: str) -> None:
    view = sound.plant({f"{ROOT}/{flavor}": "x"}).view()
    assert view.webui is not None
    expected = {
        "installer.py": ("sdnext", f"/{ROOT}/data/cache.json"),
        "modules_forge/x.py": ("forge", f"/{ROOT}/cache.json"),
    }
    assert (view.webui.flavor, view.webui.cache_file) == expected[flavor]


# --- bytecode ----------------------------------------------------------------------------------------


def pyc(source: bytes, *, mtime: int = MTIME, flags: int = 0, magic: int = 3439) -> bytes:
    """The head of a .pyc for Python 3.10, and some code."""
    rest = struct.pack("<II", mtime, len(source)) if not flags else b"12345678"
    return struct.pack("<H", magic) + b"\r\n" + struct.pack("<I", flags) + rest + b"code"


def packages(image: Image, source: bytes, compiled: bytes | None, compression: str = "none") -> Image:
    """With torch, as far as its bytecode is concerned."""
    image = image.plant({f"{SITE}/torch/big.py": source}, compression="zstd")
    if compiled is None:
        return image
    return image.plant({f"{SITE}/torch/__pycache__/big.cpython-310.pyc": compiled}, compression=compression)


SOURCE = b"#" * 30_000_000


@pytest.mark.parametrize(
    ("compiled", "identity"),
    [
        (None, "bytecode-missing"),
        (pyc(SOURCE), None),
        (pyc(SOURCE, flags=1), None),
        (pyc(SOURCE, flags=3), None),
        (pyc(SOURCE, mtime=MTIME + 1), "bytecode-void"),
        (pyc(SOURCE + b" "), "bytecode-void"),
        (pyc(SOURCE)[:10], "bytecode-void"),
        (pyc(SOURCE, magic=3495), "bytecode-magic"),
    ],
)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_bytecode(sound: Image, compiled: bytes | None, identity: str | None, compression: str) -> None:
    image = packages(sound, SOURCE, compiled, compression)
    assert image.ids() == ({identity} if identity else set())
    if identity:
        finding = image.found(identity)
        assert finding.paths == (f"/{SITE}",) and 1 < finding.cost.seconds < 2 and "python3.10" in finding.hint


def test_a_little_bytecode_is_information(sound: Image) -> None:
    image = packages(sound, b"x = 1\n", None)
    assert image.ids() == set()
    assert {"bytecode-missing"} <= {f.id for f in image.findings()}


def test_bytecode_of_another_version_alone(sound: Image) -> None:
    image = packages(sound, SOURCE, None).plant({f"{SITE}/torch/__pycache__/big.cpython-38.pyc": pyc(SOURCE)})
    assert image.ids() == {"bytecode-magic"}
    image = packages(sound, SOURCE, None).plant({f"{SITE}/torch/__pycache__/bigger.cpython-38.pyc": pyc(SOURCE)})
    assert image.ids() == {"bytecode-missing"}


@pytest.mark.parametrize(
    ("level", "suffix"), [("", ""), ("0", ""), ("1", ".opt-1"), ("yes", ".opt-1"), ("3", ".opt-2")]
)
def test_optimised_bytecode_has_a_name_of_its_own(sound: Image, level: str, suffix: str) -> None:
    image = packages(sound, SOURCE, pyc(SOURCE, flags=1)).configured(env={"PYTHONOPTIMIZE": level})
    assert image.ids() == ({"bytecode-missing"} if suffix else set())
    optimised = f"{SITE}/torch/__pycache__/big.cpython-310{suffix}.pyc"
    assert image.plant({optimised: pyc(SOURCE, flags=1)}).ids() == set()


def test_bytecode_that_nobody_looks_at(sound: Image) -> None:
    image = packages(sound, SOURCE, pyc(SOURCE, flags=1)).configured(env={"PYTHONPYCACHEPREFIX": "/tmp/cache"})
    finding = image.found("bytecode-ignored")
    assert finding.paths == (f"/{SITE}",) and "PYTHONPYCACHEPREFIX" in finding.hint


def test_a_webui_without_packages(sound: Image) -> None:
    image = sound.plant({"usr/lib/python3.10/os.py": "", f"{ROOT}/modules/big.py": SOURCE})
    finding = image.found("bytecode-missing")
    assert finding.paths == (f"/{ROOT}",) and 3 < finding.cost.seconds < 4
    compiled = {f"{ROOT}/modules/__pycache__/big.cpython-310.pyc": pyc(SOURCE, flags=1)}
    assert not any(f.severity == "warning" for f in image.plant(compiled).findings())
    # Of two Pythons nobody can tell which one runs it.
    assert "bytecode-missing" not in image.plant({"usr/lib/python3.11/os.py": ""}).ids()


def test_what_python_itself_compiles_is_accepted(sound: Image, tmp_path: Path) -> None:
    minor = sys.version_info.minor
    source = tmp_path / "m.py"
    source.write_bytes(b"x = 1\n" * 100)
    os.utime(source, (MTIME, MTIME))
    compiled = Path(py_compile.compile(str(source), cfile=str(tmp_path / "m.pyc"), doraise=True))
    assert compiled.read_bytes()[:4] == importlib.util.MAGIC_NUMBER
    site = f"usr/lib/python3.{minor}/site-packages"
    cached = f"{site}/__pycache__/m.cpython-3{minor}.pyc"
    image = sound.plant({f"{site}/m.py": source.read_bytes(), cached: compiled.read_bytes()})
    assert not any(f.id.startswith("bytecode") and site in f.paths[0] for f in image.findings())


# --- secrets -----------------------------------------------------------------------------------------

HF = "hf_" + "aB3" * 11 + "x"
AWS = "AKIA" + "ABCDEFGHIJKLMNOP"
GITHUB = "ghp_" + "x1Y2" * 9


@pytest.mark.parametrize(
    "path",
    [
        "root/.cache/huggingface/token", "opt/huggingface/token", "root/.netrc", "home/u/.docker/config.json",
        "root/.git-credentials", "root/.ssh/id_ed25519", "root/.aws/credentials", "root/.civitai/token",
        "root/.config/civitai/api_key", "workspace/civitai_token.txt", "root/.config/rclone/rclone.conf",
    ],
)  # fmt: skip
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_credential_files(sound: Image, path: str, compression: str) -> None:
    image = sound.plant({path: "value"}, compression=compression)
    finding = image.found("secret-file")
    assert finding.severity == "error" and finding.paths == (f"/{path}",)
    hidden = image.plant({path: None}).found("secret-file")
    assert hidden.paths == (f"/{path}",) and "later layer" in hidden.what
    assert sound.plant({path: ""}).ids() == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "anything"), ("CIVITAI_API_KEY", "anything"), ("DB_PASSWORD", "x"), ("X", HF), ("X", AWS),
        ("X", GITHUB), ("PIP_INDEX_URL", "https://user:secret-word@pypi.example.com/simple"),
        ("URL", "https://civitai.com/api/download/models/1?token=0123456789abcdef"),
    ],
)  # fmt: skip
def test_secrets_in_the_environment(sound: Image, name: str, value: str) -> None:
    image = sound.configured(env={name: value})
    finding = image.found("secret-in-config")
    assert name in finding.what
    if value not in ("x", "anything"):
        assert value not in json.dumps([f.as_json() for f in image.findings()])


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_TOKEN": ""},
        {"HF_TOKEN": "$HF_TOKEN"},
        {"HF_TOKEN_PATH": "/x"},
        {"TOKENIZERS_PARALLELISM": "false"},
        {"KEY": "v"},
    ],
)
def test_what_is_no_secret(sound: Image, variables: dict[str, str]) -> None:
    assert sound.configured(env=variables).ids() == set()


@pytest.mark.parametrize(
    "line",
    [
        f"|1 HF_TOKEN={HF} /bin/sh -c pip install x",
        "|2 A=b CIVITAI_TOKEN=0123456789 /bin/sh -c wget",
        f'RUN curl -H "Authorization: Bearer {HF[3:]}" https://huggingface.co/x',
        f"RUN aws configure set aws_access_key_id {AWS}",
        "RUN git clone https://me:pass-word@github.com/me/private",
        "RUN wget 'https://civitai.com/api/download/models/1?token=0123456789abcdef'",
    ],
)
def test_secrets_in_history(sound: Image, line: str) -> None:
    image = sound.with_history("RUN true", line)
    finding = image.found("secret-in-history")
    assert "line 2" in finding.what
    text = json.dumps([f.as_json() for f in image.findings()])
    assert not any(word in text for word in (HF[3:], AWS, "pass-word", "0123456789"))


@pytest.mark.parametrize(
    "line",
    ['RUN curl -H "Authorization: Bearer $HF_TOKEN" x', "ARG HF_TOKEN", "RUN echo HF_TOKEN=$HF_TOKEN", "ENV A=b"],
)
def test_history_that_only_names_them(sound: Image, line: str) -> None:
    assert sound.with_history(line).ids() == set()
