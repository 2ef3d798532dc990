"""Bytecode of Python sources for an image, made before it starts (PEP 552, unchecked-hash).

`interpreter.find` gives a Python of the target's version, a `Compiler` the `.pyc` of each source: the same
bytes on every machine, whatever was compiled before.
"""

from layerbuild.bytecode.compiler import Compiled, Compiler, cached_path
from layerbuild.bytecode.interpreter import Interpreter, find

__all__ = ["Compiled", "Compiler", "Interpreter", "cached_path", "find"]
