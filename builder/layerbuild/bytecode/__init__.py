"""Bytecode of Python sources for an image, made before it starts (PEP 552, unchecked-hash).

`interpreter.find` gives a Python of the target's version, a `Compiler` the `.pyc` of each source: the same
bytes on every machine, whatever was compiled before.
"""

from layerbuild.bytecode.compiler import LARGEST, Compiled, Compiler, too_long
from layerbuild.bytecode.interpreter import Interpreter, find
from layerbuild.pyc import cached_path

__all__ = ["LARGEST", "Compiled", "Compiler", "Interpreter", "cached_path", "find", "too_long"]
