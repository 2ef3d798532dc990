"""Building and pushing one large model: time, CPU and peak memory, beside `skopeo copy` of the same bytes.

    make bench                           2 GiB, three rounds
    python benchmarks/run.py --size 512 --rounds 1

Each round starts both tools on an empty registry, in turn. Absolute figures belong to the machine; the
ratio in the last column compares a row with skopeo's copy of the same image in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import harness
from harness import Run

MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the model")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="layerbuild-bench-") as name:
        root = Path(name)
        project(root / "project", arguments.size * MIB)
        rounds = [one_round(root, number) for number in range(arguments.rounds)]
    print(f"A model of {arguments.size} MiB, medians of {arguments.rounds} rounds\n")
    print(report(rounds))


def project(root: Path, size: int) -> None:
    """A Lora, which needs every digest there is, and two recipes that share it."""
    harness.model(root / "models" / "big.safetensors", size)
    (root / "layers").mkdir()
    (root / "layers" / "big.yaml").write_text("big: {kind: model, type: lora, source: 'file:models/big.safetensors'}\n")
    (root / "recipes").mkdir()
    for image, webui in (("first", "/stable-diffusion-webui"), ("second", "/srv/webui")):
        text = f"base: scratch\nwebui: {{root: {webui}}}\nlayers: [big]\ntags: [bench]\n"
        (root / "recipes" / f"{image}.yaml").write_text(text)


def one_round(root: Path, number: int) -> dict[str, Run]:
    """Every step once, on an empty store and an empty registry."""
    cwd = root / "project"
    environment = harness.layerbuild_environment(root / f"store-{number}")
    found: dict[str, Run] = {}

    def step(title: str, *command: str) -> None:
        found[title] = harness.measure(command, environment=environment, cwd=cwd)

    (cwd / "lockfile.yaml").unlink(missing_ok=True)
    step("lock (sha256 and Lora hash)", *harness.layerbuild("lock"))
    step("build (tar digest)", *harness.layerbuild("build"))
    with harness.registry(root) as host:
        step("push, empty registry", *harness.layerbuild("push", f"{host}/bench", "first"))
        step("push again", *harness.layerbuild("push", f"{host}/bench", "first"))
        step("push a second image with the model", *harness.layerbuild("push", f"{host}/bench", "second"))
    layout = root / f"layout-{number}"
    step("push to an OCI layout", *harness.layerbuild("push", f"oci:{layout}", "first"))
    with harness.registry(root) as host:
        # Without --preserve-digests it would compress the weights first.
        copy = [
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout}:first:bench",
            f"docker://{host}/bench/first:bench",
        ]
        step("skopeo copy, empty registry", "skopeo", "--insecure-policy", *copy)
    return found


def report(rounds: list[dict[str, Run]]) -> str:
    """Medians, and each row against skopeo's copy in its own round."""
    peer = "skopeo copy, empty registry"
    rows = []
    for title in rounds[0]:
        seconds = statistics.median(r[title].seconds for r in rounds)
        cpu = statistics.median(r[title].cpu for r in rounds)
        peak = max(r[title].peak for r in rounds)
        ratio = statistics.median(r[title].seconds / r[peer].seconds for r in rounds)
        rows.append([title, f"{seconds:.1f} s", f"{cpu:.1f} s", f"{peak / MIB:.0f} MiB", f"{ratio:.2f}"])
    return harness.table(["step", "time", "CPU", "peak memory", "time against skopeo"], rows)


if __name__ == "__main__":
    main()
