"""Modules whose own code uses the `kernel` of a convolution that they hold.

Such code masks, normalises or regularises the convolution's kernel. In a DO layer `kernel` is `W`, and what is done to `W`
before composition is not what was meant: `D` undoes a mask. nnx gives no sign of it at run time, so the code is looked at.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

from flax import nnx

LIBRARIES = ("flax.", "jax.", "numpy.", "optax.")


def kernel_uses(model: nnx.Module, layers: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Where the code that a call of `model` reaches says `.kernel`; `layers` are convolutions by path.

    Returns:
        The paths of layers whose kernel is used, each with the method that does it ("Masked.__call__"); and methods that use
        the kernel of something that can't be told from the code ("for layer in self.layers: layer.kernel", or functions that
        a method calls).
    """
    paths = {id(layer): path for path, layer in layers.items()}
    used: dict[str, str] = {}
    unclear: dict[str, None] = {}
    for _, node in nnx.iter_graph(model):
        if not isinstance(node, nnx.Module) or isinstance(node, nnx.Conv | nnx.ConvTranspose):
            continue
        holds = any(id(part) in paths for _, part in nnx.iter_graph(node))
        for name, code, self in _reached(type(node)) if holds else ():
            for chain in _owners_of_kernel(code, self):
                if chain is None:
                    unclear[name] = None
                elif (path := paths.get(id(_follow(node, chain)))) is not None:
                    used.setdefault(path, name)
    return used, list(unclear)


def _reached(cls: type) -> Iterator[tuple[str, CodeType, str]]:
    """The methods that `__call__` reaches by name, itself first; all but constructors if there is none; functions they name.

    Each with its name and that of its first argument, which functions have none of.
    """
    own = [base for base in cls.__mro__ if not base.__module__.startswith("flax.") and base is not object]
    functions = {
        (base, name): inspect.unwrap(value) for base in own for name, value in vars(base).items() if callable(value)
    }
    codes = {key: function.__code__ for key, function in functions.items() if hasattr(function, "__code__")}
    called = [name for _, name in codes if name == "__call__"]
    todo = called[:1] or [name for _, name in codes if name != "__init__"]
    seen: set[str] = set()
    helpers: dict[FunctionType, None] = {}
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            for (base, other), code in codes.items():
                if other == name:
                    todo += code.co_names
                    yield f"{base.__name__}.{name}", code, code.co_varnames[0] if code.co_argcount else ""
                    _add_helpers(functions[base, other], helpers)
    for helper in helpers:
        yield helper.__qualname__, helper.__code__, ""


def _add_helpers(function: Any, found: dict[FunctionType, None]) -> None:
    """Add the functions that a function names, and those that they name, but for libraries'."""
    with suppress(TypeError, ValueError):  # no function of Python's, or a name without a value yet
        named = inspect.getclosurevars(function)
        for value in (*named.nonlocals.values(), *named.globals.values()):
            if inspect.isfunction(value) and value not in found and not value.__module__.startswith(LIBRARIES):
                found[value] = None
                _add_helpers(value, found)


def _owners_of_kernel(code: CodeType, self: str) -> Iterator[tuple[str, ...] | None]:
    """For every `.kernel` in a method the attributes that lead to its owner from `self`; None for an owner of another kind."""
    chain: tuple[str, ...] | None = None
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "STORE_ATTR", "LOAD_METHOD"):
            if step.argval == "kernel" and chain != ():  # `self.kernel` is the module's own
                yield chain
            chain = None if chain is None else (*chain, step.argval)
        elif step.opname.startswith("LOAD_"):
            loaded = step.argval[-1] if isinstance(step.argval, tuple) and step.argval else step.argval
            chain = () if loaded == self else None
        else:
            chain = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _owners_of_kernel(inner, self)


def _follow(node: Any, chain: tuple[str, ...]) -> Any:
    for name in chain:
        node = getattr(node, name, None)
    return node
