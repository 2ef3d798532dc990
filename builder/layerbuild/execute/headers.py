"""What a lock says of model files: facts of their contents, from what is known and from headers read by range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layerbuild.digests import header_facts
from layerbuild.errors import LayerbuildError, SourceError
from layerbuild.execute.contents import Contents
from layerbuild.execute.parallel import in_threads
from layerbuild.execute.pinning import PARALLEL, Task
from layerbuild.formats import files_of
from layerbuild.kinds import requests
from layerbuild.lockmerge import merge_facts
from layerbuild.lockmodel import Lock, LockedLayer
from layerbuild.model import Content, Facts
from layerbuild.schema import ModelLayer
from layerbuild.webui.modeltypes import is_safetensors
from layerbuild.webui.safetensors import PREFIX, header_length, invalid
from layerbuild.webui.tensors import fault_of_header, fault_of_length

_FIRST_READ = 256 * 1024
"""Bytes of a model that are asked for first: the headers of most Loras and of SD 1.5 end within them."""


@dataclass(frozen=True)
class Headers:
    """Finds the facts of a project's models."""

    task: Task

    def facts(self, layers: Mapping[str, LockedLayer]) -> tuple[dict[str, Facts], dict[str, LayerbuildError]]:
        """Facts of every model file: from the old lock, the store, and safetensors headers read by range. And, by
        layer, what is called safetensors and is none."""
        contents = Contents(self.task.store, self.task.context, Lock(layers=layers), self.task.progress)
        files = {c.sha256: c for layer in layers.values() for c in models(layer) if c.sha256 is not None}
        known = {
            sha256: merge_facts(sha256, self.task.old.files.get(sha256), self.task.store.facts(sha256))
            for sha256 in files
        }
        named = self._safetensors(layers)
        unread = [files[sha256] for sha256 in named if (facts := known[sha256]) is None or not facts.safetensors]
        faults: dict[str, str] = {}
        if self.task.options.inspect and not self.task.context.offline:
            read = in_threads(lambda content: self._read_header(contents, content), unread, parallel=PARALLEL)
            for content, (facts, fault) in zip(unread, read, strict=True):
                sha256 = content.sha256 or ""
                known[sha256] = merge_facts(sha256, known[sha256], facts)
                if fault is not None:
                    faults[sha256] = fault
        for sha256, content in files.items():
            if known[sha256] is None and content.size is not None:
                known[sha256] = Facts(size=content.size)
        found = {sha256: facts for sha256, facts in known.items() if facts is not None}
        return found, {
            pin_key: invalid(name, faults.get(sha256))
            for sha256, users in named.items()
            for pin_key, name in users
            if sha256 in found and found[sha256].safetensors is False
        }

    def _safetensors(self, layers: Mapping[str, LockedLayer]) -> dict[str, list[tuple[str, str]]]:
        """sha256 of models that some name calls safetensors -> the layers that hold them, and that name."""
        named: dict[str, list[tuple[str, str]]] = {}
        for pin_key, use in {use.pin_key: use for image in self.task.images for use in image.uses}.items():
            if pin_key in layers and isinstance(use.layer, ModelLayer):
                for name, content in files_of(use.layer, layers[pin_key].pins):
                    if is_safetensors(name) and content.sha256 is not None:
                        named.setdefault(content.sha256, []).append((pin_key, name))
        return named

    def _read_header(self, contents: Contents, content: Content) -> tuple[Facts | None, str | None]:
        """What the header says, if the source gives it, and why it is none: one read, or two where it is long. It is
        a claim until the whole file was seen: whoever sees it compares."""
        if content.size is None:
            return None, None
        try:
            start = contents.read_range(content, 0, min(_FIRST_READ, content.size))
            fault = fault_of_length(start, content.size)
            if fault is not None:
                return Facts(size=content.size, safetensors=False), fault
            length = header_length(start) or 0
            header = start[PREFIX : PREFIX + length]
            if len(header) < length:
                header += contents.read_range(content, len(start), length - len(header))
        except SourceError:
            return None, None
        if len(header) < length:
            return None, None
        facts = header_facts(header, content.size)
        if facts.safetensors and facts.metadata is None:
            self.task.store.add_document(header)
        return facts, fault_of_header(header, content.size)


def models(layer: LockedLayer) -> Iterator[Content]:
    """Every model and sidecar that a layer pins."""
    for role, pin in layer.pins.items():
        if role == requests.MODEL or role.startswith(requests.sidecar("")):
            yield from (file.content for file in pin.files)
