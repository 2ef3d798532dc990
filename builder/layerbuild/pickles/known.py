"""What a pickle may call: what builds tensors and plain containers, and does nothing else.

The webui's own list (`modules/safe.py`, the same from 1.0 to 1.10) and that of torch's `weights_only`. Whatever
is not here would not be loaded by a webui that was not told to do without its check.
"""

from __future__ import annotations

from collections.abc import Mapping

_CONTAINERS = {"set", "frozenset", "bytearray", "complex", "slice", "int", "float", "bool", "str", "list", "dict"}
_NUMBERS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_MORE = ("ComplexFloat", "ComplexDouble", "QUInt8", "QInt8", "QInt32", "QUInt4x2", "QUInt2x4", "Untyped", "Typed")
_STORAGES = {f"{kind}Storage" for kind in (*_NUMBERS, *_MORE)}
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOATS = {"float16", "float32", "float64", "bfloat16", "half", "float", "double", "complex64", "complex128"}
_SMALL = {"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "bool", "int", "long"}
_ARRAYS = {"_reconstruct", "scalar"}

_KNOWN: Mapping[str, frozenset[str]] = {
    module: frozenset(names)
    for module, names in {
        "collections": {"OrderedDict", "Counter", "defaultdict"},
        "typing": {"OrderedDict"},
        "builtins": _CONTAINERS,
        "__builtin__": _CONTAINERS | {"unicode", "long"},
        "_codecs": {"encode"},
        "torch": _STORAGES | _INTEGERS | _FLOATS | _SMALL | {"Size", "device", "Tensor"},
        "torch.storage": {"UntypedStorage", "TypedStorage", "_TypedStorage", "_UntypedStorage"},
        "torch._utils": {
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_device_tensor_from_numpy",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
        },
        "torch.nn.parameter": {"Parameter", "Buffer"},
        "torch.nn.modules.container": {"ParameterDict"},
        "torch.serialization": {"_get_layout"},
        "numpy": {"dtype", "ndarray"},
        "numpy.core.multiarray": _ARRAYS,
        "numpy._core.multiarray": _ARRAYS,
        "pytorch_lightning.callbacks": {"model_checkpoint"},
        "pytorch_lightning.callbacks.model_checkpoint": {"ModelCheckpoint"},
    }.items()
}


def is_known(module: str, name: str) -> bool:
    """Whether loading `module.name`, and calling it, is harmless."""
    return name in _KNOWN.get(module, ())
