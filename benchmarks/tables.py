"""Tables of a run of the benchmark: ratios, and what they were made of. At most 80 columns wide."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from bars import FIRST, FROM_SERVER, KIB, MIB, NO_STORE, SECOND, bars
from harness import table
from results import Case, Part, Results, Run, passes, peak, ratios, totals

GIB = 1024**3

Row = list[str]
NONE = "-"

STARTS = {
    "curl -T": "tar",
    "layerbuild": "model",
    "layerbuild, layer known": "model",
    FROM_SERVER: "server",
    NO_STORE: "server",
    "skopeo copy": "layout",
    "oras": "tar",
    "umoci + skopeo": "model",
    "buildah": "model",
}
"""Peer -> what it starts from."""


# --- all of them -------------------------------------------------------------------------------------


def ratio_tables(results: Results) -> Iterator[tuple[str, str]]:
    """Titles and tables of what matters: promises, and everybody against a reference of the same round."""
    yield "Promises", promises(results)
    parts, size = results.parts, in_gib(results.size)
    if "push" in parts:
        yield f"Build and first push of {size}, `curl -T` = 1.00", first_ratios(parts["push"])
        yield "A second image with the same model, `layerbuild` = 1.00", second_ratios(parts["push"])
        yield f"Bytes of build and first push, the model's {size} = 1.00", byte_ratios(results)
    if "hashing" in parts:
        yield "Rate of hashing, one sha256 = 1.00", hashing_ratios(parts["hashing"])
    if "pull" in parts:
        yield "Pulling weights, uncompressed = 1.00", pull_ratios(parts["pull"])


def absolute_tables(results: Results) -> Iterator[tuple[str, str]]:
    """Titles and tables of what was measured, in units."""
    parts = results.parts
    if "push" in parts:
        yield f"Seconds to push {in_gib(results.size)}", push_seconds(parts["push"])
        yield "Processor and memory of build and first push", push_costs(parts["push"])
        counted = in_gib(int(parts["bytes"]["layerbuild"].facts["size"]))
        yield f"Sent for a second image with a model of {counted}, and read", second_bytes(parts["bytes"])
    if "hashing" in parts:
        yield f"Seconds to hash {in_gib(results.size)}", hashing_seconds(results)
    if results.scale:
        yield f"Images of {results.scale['models']} models, from the lock alone", scale_table(results)
    if "memory" in parts:
        yield "Memory of a large model", memory_table(parts["memory"])
    if "pull" in parts:
        yield "Seconds to pull", pull_seconds(parts["pull"])


def left_out(results: Results) -> list[str]:
    """Who could not be tried, and why: a line for each."""
    found = {name: case.missing for part in results.parts.values() for name, case in part.items() if case.missing}
    return [f"{name} was not tried: {reason}" for name, reason in found.items()]


# --- one at a time ----------------------------------------------------------------------------------


def promises(results: Results) -> str:
    """Met or not met, and by how much."""
    words = {True: "met", False: "**not met**", None: NONE}
    return table(["promise", "", "measured", ""], [[b.what, b.limit, b.measured, words[b.met]] for b in bars(results)])


def rows_of(part: Part, cells: Callable[[Case], Sequence[str]], width: int) -> list[Row]:
    """A row for each case; what could not be tried has none of the cells."""
    return [
        [name, *(cells(case) if case.missing is None else ["not tried", *[NONE] * (width - 1)])]
        for name, case in part.items()
    ]


def first_ratios(part: Part) -> str:
    """Time until the first image is there; the floor's rounds are the reference."""
    floor = part["curl -T"]

    def cells(case: Case) -> Row:
        if floor.missing is not None:
            return [NONE, NONE]
        return spread(ratios(totals(case, FIRST), totals(floor, FIRST)))

    rows = [[name, STARTS[name], *others] for name, *others in rows_of(part, cells, 2)]
    return table(["", "starts from", "time", "rounds"], rows)


def second_ratios(part: Part) -> str:
    """Time of a second image, in both places."""
    ours = part["layerbuild"]

    def cells(case: Case) -> Row:
        return [cell for step in SECOND for cell in spread(ratios(totals(case, [step]), totals(ours, [step])))[:1]]

    with_second = {name: case for name, case in part.items() if case.missing is not None or "same" in case.steps}
    return table(["", *SECOND.values()], rows_of(with_second, cells, len(SECOND)))


def byte_ratios(results: Results) -> str:
    """Bytes in multiples of the model. What is sent was counted with a smaller one."""
    push = results.parts["push"]
    sent = {name: multiple(case, "sent", case.facts.get("size", 0)) for name, case in results.parts["bytes"].items()}
    rows = rows_of(push, lambda case: [multiple(case, key, results.size) for key in ("read", "written")], 2)
    return table(["", "read", "written to the disk", "sent"], [[*row, sent[row[0]]] for row in rows])


def hashing_ratios(part: Part) -> str:
    """Rates: of the pass alone, and of the whole command."""
    one = part["one sha256"]

    def cells(case: Case) -> Row:
        whole = ratios(totals(one, ["whole"]), totals(case, ["whole"]))
        return [*spread(ratios(passes(one), passes(case))), spread(whole)[0]]

    return table(["", "the pass", "rounds", "the whole command"], rows_of(part, cells, 3))


def pull_ratios(part: Part) -> str:
    """Time and size."""
    plain = part["uncompressed"]

    def cells(case: Case) -> Row:
        time = spread(ratios(totals(case, ["pull"]), totals(plain, ["pull"])))
        return [*time, f"{case.facts['size'] / plain.facts['size']:.2f}"]

    return table(["", "time", "rounds", "bytes"], rows_of(part, cells, 3))


def push_seconds(part: Part) -> str:
    """Medians of every step."""
    headers = {"build": "build", "first": "first push", "same": "2nd, same", "other": "2nd, other"}

    def cells(case: Case) -> Row:
        return [median(totals(case, [step])) if step in case.steps else NONE for step in headers]

    return table(["", *headers.values()], rows_of(part, cells, len(headers)))


def push_costs(part: Part) -> str:
    """CPU seconds of all steps until the first image is there, and the largest process."""

    def cells(case: Case) -> Row:
        steps = [case.steps[step] for step in FIRST if step in case.steps]
        cpu = [sum(run.cpu for run in runs) for runs in zip(*steps, strict=True)]
        return [f"{statistics.median(cpu):.1f} s", mib(max(peak(runs) for runs in steps))]

    return table(["", "CPU", "peak memory"], rows_of(part, cells, 2))


def second_bytes(part: Part) -> str:
    """What went to the registry for a second image, and what read calls returned."""
    steps = ("same", "other", "elsewhere")

    def cells(case: Case) -> Row:
        runs = [case.steps.get(step, []) for step in steps]
        return [bytes_of(total(run, "sent")) for run in runs] + [bytes_of(total(runs[0], "read"))]

    with_second = {name: case for name, case in part.items() if case.missing is not None or "same" in case.steps}
    headers = ["", "same", "other", "elsewhere", "read (same)"]
    return table(headers, rows_of(with_second, cells, len(headers) - 1))


def hashing_seconds(results: Results) -> str:
    """The command, its start, the pass between, and the pass as a rate."""

    def cells(case: Case) -> Row:
        rates = [results.size / value for value in passes(case)]
        found = [totals(case, ["whole"]), totals(case, ["start"]), passes(case)]
        return [*map(median, found), f"{statistics.median(rates) / 1e9:.2f} GB/s"]

    return table(["", "command", "its start", "the pass", "rate"], rows_of(results.parts["hashing"], cells, 4))


def scale_table(results: Results) -> str:
    """A row for each number of images and command."""
    assert results.scale is not None
    rows = [
        [
            f"{row['images']:,} {row['command']}",
            f"{row['seconds']:.2f}",
            "" if row["cpu"] is None else f"{row['cpu']:.2f}",
            "" if row["peak"] is None else mib(row["peak"]),
        ]
        for row in results.scale["rows"]
    ]
    return table(["images, command", "seconds", "CPU", "peak memory"], rows)


def memory_table(part: Part) -> str:
    """The large sparse model."""
    rows = [
        [f"{name}, {in_gib(int(case.facts['size']))}", median(totals(case, ["build"])), mib(peak(case.steps["build"]))]
        for name, case in part.items()
    ]
    return table(["", "seconds", "peak memory"], rows)


def pull_seconds(part: Part) -> str:
    """Medians, and what the layer weighs."""

    def cells(case: Case) -> Row:
        cpu = statistics.median(run.cpu for run in case.steps["pull"])
        return [median(totals(case, ["pull"])), f"{cpu:.1f} s", mib(case.facts["size"])]

    return table(["", "seconds", "CPU", "layer"], rows_of(part, cells, 3))


# --- numbers ----------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> Row:
    """The median, and between what the rounds lie."""
    return [f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]


def median(values: Sequence[float]) -> str:
    """Of seconds."""
    return f"{statistics.median(values):.2f}"


def total(runs: Sequence[Run], key: str) -> int | None:
    """The sum of a counter; None where it was not counted."""
    values = [getattr(run, key) for run in runs]
    return None if not values or None in values else sum(values)


def multiple(case: Case, key: str, size: float) -> str:
    """A counter of the first round's steps until the first image is there, as a multiple of `size` bytes."""
    value = total([run for step in FIRST for run in case.steps.get(step, [])[:1]], key)
    return NONE if value is None else f"{value / size:.2f}"


def bytes_of(value: int | None) -> str:
    """Bytes in a unit that fits."""
    if value is None:
        return NONE
    return f"{value / KIB:.1f} KiB" if value < MIB else f"{value / MIB:.1f} MiB"


def mib(value: float) -> str:
    """Bytes in MiB."""
    return f"{value / MIB:.0f} MiB"


def in_gib(size: int) -> str:
    """A size in GiB, or in MiB where it is smaller."""
    return f"{size / GIB:.0f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
