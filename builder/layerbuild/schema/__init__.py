"""Declarations as people write them: the shape of `layers/*.yaml` and `recipes/*.yaml`.

These classes are the one definition of the format: they check what was written, and `layerbuild
schema` prints their JSON Schema for editors. A field's description is its documentation.
"""

from layerbuild.schema.base import Fetch, Flavor
from layerbuild.schema.documents import json_schema
from layerbuild.schema.layers import (
    LAYER_KINDS,
    FilesLayer,
    FileSpec,
    HuggingFaceLayer,
    Layer,
    ModelLayer,
    ModelType,
    PythonLayer,
    RequirementsFile,
    WebuiLayer,
)
from layerbuild.schema.recipe import ImageConfig, OwnerSpec, Recipe, WebuiTarget

__all__ = [
    "LAYER_KINDS",
    "Fetch",
    "FileSpec",
    "FilesLayer",
    "Flavor",
    "HuggingFaceLayer",
    "ImageConfig",
    "Layer",
    "ModelLayer",
    "ModelType",
    "OwnerSpec",
    "PythonLayer",
    "Recipe",
    "RequirementsFile",
    "WebuiLayer",
    "WebuiTarget",
    "json_schema",
]
