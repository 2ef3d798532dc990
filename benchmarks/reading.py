"""What it costs to ask: plan, ls, show, why and diff of a project, in seconds of CPU.

    python benchmarks/reading.py                 projects of 10 and of 200 images, 5 rounds
    python benchmarks/reading.py --images 1000 --rounds 3

The floor is what no tool of this kind can do without: a Python that parses the same files with PyYAML's C loader.
Beside it stands the same with pydantic imported, which checks the declarations. The project is locked and built first,
in a directory and a store of its own; nothing needs a network. CPU is user and system time as the kernel counts it,
the least of the rounds: what else the machine does only adds to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import measure

_FLOOR = "import glob, yaml\nfor p in glob.glob('**/*.yaml', recursive=True): yaml.load(open(p), yaml.CSafeLoader)"
_LAYERS = """
model-{i}: {{kind: model, type: checkpoint, source: 'file:models/{i}.safetensors'}}
files-{i}: {{kind: files, files: {{/opt/note: {{content: 'note {i}'}}}}}}
"""
_RECIPE = "name: image-{i}\nwebui: {{root: /webui}}\nlayers: [model-{i}, model-{j}, files-{i}]\ntags: [v1]\n"
_HEADER = b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'


def create(root: Path, images: int) -> None:
    """A project of as many images, each of which shares a model with the next."""
    for directory in ("layers", "recipes", "models"):
        (root / directory).mkdir(parents=True)
    for i in range(images):
        body = len(_HEADER).to_bytes(8, "little") + _HEADER + i.to_bytes(8, "little")
        (root / f"models/{i}.safetensors").write_bytes(body)
        (root / f"recipes/{i}.yaml").write_text(_RECIPE.format(i=i, j=(i + 1) % images))
    (root / "layers/all.yaml").write_text("".join(_LAYERS.format(i=i) for i in range(images)))


def commands(images: int) -> dict[str, list[str]]:
    """What is measured, by name; the floor first."""
    layerbuild = [sys.executable, "-m", "layerbuild"]
    return {
        "python, the YAML parsed": [sys.executable, "-c", _FLOOR],
        "the same, and import pydantic": [sys.executable, "-c", f"import pydantic\n{_FLOOR}"],
        "layerbuild --help": [*layerbuild, "--help"],
        "layerbuild plan": [*layerbuild, "plan"],
        "layerbuild ls": [*layerbuild, "ls"],
        "layerbuild show": [*layerbuild, "show", "image-0"],
        "layerbuild why": [*layerbuild, "why", "model-1"],
        "layerbuild diff": [*layerbuild, "diff", "image-0", f"image-{images - 1}"],
    }


def run(images: int, rounds: int) -> dict[str, float]:
    """Least seconds of CPU of each command on a project of that many images."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "project")
        create(root, images)
        environment = {**os.environ, "LAYERBUILD_STORE": f"{directory}/store"}
        environment.pop("CI", None)
        for command in ("lock", "build"):
            made = [sys.executable, "-m", "layerbuild", command]
            subprocess.run(made, cwd=root, env=environment, check=True, capture_output=True)
        best: dict[str, float] = {}
        for _ in range(rounds):
            for name, command in commands(images).items():
                taken = measure(command, environment=environment, cwd=root).cpu
                best[name] = min(taken, best.get(name, taken))
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, nargs="+", default=[10, 200])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = {images: run(images, arguments.rounds) for images in arguments.images}
    print("| seconds of CPU | " + " | ".join(f"{images} images" for images in found) + " |")
    print("|---|" + "---:|" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | " + " | ".join(f"{best[name]:.2f}" for best in found.values()) + " |")


if __name__ == "__main__":
    main()
