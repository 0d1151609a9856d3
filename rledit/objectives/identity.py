"""What an object is, as JSON: to tell whether a checkpoint belongs to the present objective."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..storage.files import Json
from ..storage.fingerprint import fingerprint

_PACKAGE = __name__.partition(".")[0]
_WRITTEN_BY_DATACLASS = "<string>"  # the file name of the methods that @dataclass makes up


@runtime_checkable
class Identified(Protocol):
    """Something that says itself what it is."""

    def identity(self) -> dict[str, Json]: ...


def identity_of(subject: object) -> dict[str, Json]:
    """Class, settings and code of an object, or name and code of a function.

    Two that differ are told apart where this can be done without running them: by bytecode, constants,
    defaults, closures and the globals that are read, helper functions of the same package included. Tensors
    and arrays count with their values, other objects with their class alone. Addresses, file names and line
    numbers do not count; the version of Python does, since it changes the bytecode.
    """
    return cast(dict[str, Json], _Describer(subject).describe(subject))


class _Describer:
    """Describes values by JSON that is the same for equal values, in every process."""

    def __init__(self, subject: object) -> None:
        self._subject = subject
        self._home = _package(subject if isinstance(subject, FunctionType) else type(subject))
        self._above: list[object] = []  # what is being described, from outside to inside
        self._functions: dict[FunctionType, Json] = {}

    def describe(self, value: object) -> Json:
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else repr(float(value))
        if isinstance(value, (bytes, complex, range, slice, EllipsisType, Enum, PurePath)):
            return repr(value)
        if any(value is outer for outer in self._above):
            return "..."  # a list that holds itself, a function that calls itself
        self._above.append(value)
        try:
            return self._describe(value)
        finally:
            self._above.pop()

    def _describe(self, value: object) -> Json:
        if isinstance(value, (list, tuple)):
            return [self.describe(part) for part in value]
        if isinstance(value, (set, frozenset)):
            return {"set": sorted((self.describe(part) for part in value), key=json.dumps)}
        if isinstance(value, Mapping):
            entries = [[self.describe(key), self.describe(part)] for key, part in value.items()]
            return {"mapping": sorted(entries, key=json.dumps)}
        if isinstance(value, np.generic):
            return self.describe(value.item()) if value.dtype.kind in "biuf" else repr(value)
        if isinstance(value, (Tensor, np.ndarray)):
            return _tensor(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return {"method": self.describe(value.__func__), "of": self.describe(value.__self__)}
        if isinstance(value, functools.partial):
            return {"partial": [self.describe(part) for part in (value.func, value.args, value.keywords)]}
        if isinstance(value, (type, BuiltinFunctionType)):
            return {"name": _name(value)}
        if isinstance(value, ModuleType):
            return {"module": value.__name__}
        if isinstance(value, nn.Module):
            return {"class": _name(type(value)), "weights": _digest(self.describe(value.state_dict()))}
        if value is self._subject:
            return self._object(value)
        if isinstance(value, Identified) and not isinstance(value, type):
            return value.identity()
        if dataclasses.is_dataclass(value) or callable(value):
            return self._object(value)
        return {"class": _name(type(value))}  # it may hold anything, a logger's whole tree for one

    def _object(self, value: object) -> Json:
        kind = type(value)
        out: dict[str, Json] = {"class": _name(kind)}
        if settings := _settings(value):
            out["settings"] = {name: self.describe(part) for name, part in settings.items()}
        if members := _members(kind):
            out["code"] = _digest([[name, self.describe(member)] for name, member in members])
        return out

    def _function(self, function: FunctionType) -> Json:
        if _package(function) != self._home:
            return {"name": f"{function.__module__}.{function.__qualname__}"}
        if function not in self._functions:
            code = function.__code__
            cells = [_content(cell) for cell in function.__closure__ or ()]
            read = {name: function.__globals__.get(name) for name in sorted(_globals(code))}
            values = (function.__defaults__, function.__kwdefaults__, cells, read)
            description = [self._code(code, function.__doc__), *(self.describe(part) for part in values)]
            self._functions[function] = {"function": function.__qualname__, "code": _digest(description)}
        return self._functions[function]

    def _code(self, code: CodeType, doc: str | None = None) -> Json:
        constants: list[Json] = []
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                constants.append(self._code(constant))
            else:
                constants.append(None if doc is not None and constant == doc else self.describe(constant))
        return [code.co_code.hex(), constants, list(code.co_names), code.co_argcount]


def _settings(value: object) -> dict[str, object]:
    if dataclasses.is_dataclass(value):
        return {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare
        }
    computed = {
        name
        for kind in type(value).__mro__
        for name, member in vars(kind).items()
        if isinstance(member, functools.cached_property)
    }
    attributes = sorted(value.__dict__.items()) if hasattr(value, "__dict__") else []
    return {name: part for name, part in attributes if not name.startswith("_") and name not in computed}


def _members(kind: type) -> list[tuple[str, object]]:
    """Methods and constants of a class and its bases, as far as they are of the package of the class, and
    that is not this one: whose code may change without its meaning."""
    home = _package(kind)
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    found: list[tuple[str, object]] = []
    for part in kind.__mro__:
        if _package(part) != home or home == _PACKAGE:
            continue
        for name, member in sorted(vars(part).items()):
            if isinstance(member, property):
                member = member.fget
            elif isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            elif isinstance(member, functools.cached_property):
                member = member.func
            special = name.startswith("__") and name.endswith("__")
            if isinstance(member, FunctionType):
                made_up = special and member.__code__.co_filename == _WRITTEN_BY_DATACLASS
                if not name.startswith("__annotate") and not (made_up and dataclasses.is_dataclass(part)):
                    found.append((name, member))
            elif not special and name not in fields:
                found.append((name, member))
    return found


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _globals(code: CodeType) -> set[str]:
    """Names of the globals that a function reads, those within it included."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(_globals(part) for part in code.co_consts if isinstance(part, CodeType)))


def _tensor(value: Tensor | np.ndarray[Any, Any]) -> Json:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return {"array": str(value.dtype), "values": repr(value.tolist())}
        kind = f"{value.dtype.kind}{value.dtype.itemsize}{value.shape}"
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        return {"array": kind, "values": "sha256:" + hashlib.sha256(native.tobytes()).hexdigest()}
    dense = value.detach()
    if dense.is_meta or dense.is_quantized:
        return {"tensor": f"{dense.dtype} {tuple(dense.shape)}"}
    return {"tensor": fingerprint({"": dense if dense.layout == torch.strided else dense.to_dense()})}


def _package(value: Any) -> str:
    """The outermost package that a class or a function is defined in."""
    return str(value.__module__ or "").partition(".")[0]


def _name(kind: Any) -> str:
    """A name without its module, which may be moved or run as a script; code tells equal names apart."""
    name: str = kind.__qualname__
    return f"{_PACKAGE}.{name}" if _package(kind) == _PACKAGE else name


def _digest(description: Json) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(description).encode()).hexdigest()
