"""Where training scripts put the weights: dicts around the state dict, and averages (EMA) beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from doconv_core.checkpoint._format import CheckpointError, some
from doconv_core.checkpoint._metadata import KEY
from doconv_core.checkpoint._prefixes import averages_without_dots, is_average
from doconv_core.checkpoint._reader import Gathered, Source

KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
AVERAGES = (*(f"{key}_ema" for key in KEYS), *(f"ema_{key}" for key in KEYS), "ema")
LIVE = "current_model_state"  # beside which Lightning's `WeightAveraging` has the average as `state_dict`
DEEPEST = 10  # dicts around the weights


def find_state(
    loaded: Any,
    label: str,
    is_tensor: Callable[[Any], bool],
    *,
    key: str | None = None,
    ema: bool = False,
) -> tuple[Mapping[str, Any], list[str]]:
    """The dict of tensors in what a training script saved.

    Args:
        loaded: tensors by name, below any number of dicts.
        label: what errors call it.
        is_tensor: what counts as a tensor.
        key: the keys that lead to it, dots between them; None follows those that are usual.
        ema: whether to take the average of the weights, where there is one beside them.

    Returns:
        The dict, and what was chosen, in sentences.

    Raises:
        CheckpointError: no tensors are found, there is no such key, or no average.
    """
    trail: list[str] = []
    notes: list[str] = []
    for part in _split(loaded, key) if key else ():
        named = {str(name): name for name in loaded} if isinstance(loaded, Mapping) else {}
        if part not in named:
            raise CheckpointError(f"{label} has no key {'.'.join([*trail, part])}. Received: {_received(loaded)}")
        loaded = loaded[named[part]]
        trail.append(part)
    averaged = False
    while isinstance(loaded, Mapping) and len(trail) < DEEPEST:
        average = _first(loaded, AVERAGES)
        if average and _has_no_names(loaded[average], is_tensor):
            notes.append(f"the average in {average} has no names: the library that wrote it copies it into the model")
            average = None
        if isinstance(loaded.get(LIVE), Mapping) and "state_dict" in loaded:
            notes.append(
                f"state_dict is Lightning's average of the weights; the weights themselves are in {LIVE} (key)"
            )
            average = "state_dict"
        inner = average if ema and average else _first(loaded, KEYS)
        if inner is None:
            break
        if average and inner != average:
            notes.append(f"{'.'.join([*trail, inner])} is taken; {average} stands beside it, which --ema takes")
        averaged = averaged or inner == average
        loaded = loaded[inner]
        trail.append(inner)
    if not isinstance(loaded, Mapping) or not any(is_tensor(value) for value in loaded.values()):
        around = loaded if isinstance(loaded, Mapping) else {}
        dicts = {name: value for name, value in around.items() if isinstance(value, Mapping)}
        below = [str(name) for name, value in dicts.items() if any(map(is_tensor, value.values()))]
        hint = f" under a usual name: choose one by its key, {some(below, 8)}" if below else ""
        raise CheckpointError(f"{label} holds no state dict{hint}. Received: {_received(loaded)}")
    if ema and not averaged and not key:
        raise CheckpointError(f"{label} has no average of the weights beside them. Received: {_received(loaded)}")
    if trail:
        notes.append(f"the weights are those of {'.'.join(trail)}")
    return loaded, notes


def find_average(source: Source, label: str) -> tuple[Source, list[str]]:
    """The average of the weights in a file of one dict: names below a prefix (`ema.`), or names that lost their dots.

    LitEma and others average parameters only: what has no copy of the second kind (running statistics) is the model's own.

    Returns:
        The tensors by the model's names, and what was chosen, in sentences.

    Raises:
        CheckpointError: there is none.
    """
    copies = averages_without_dots(source.shapes, label)
    for key in AVERAGES:
        below = [name.removeprefix(f"{key}.") for name in source.shapes if name.startswith(f"{key}.")]
        if below and (not copies or any("." in name for name in below)):
            return part_of(source, f"{key}.", label), []
    if not copies:
        raise CheckpointError(
            f"{label} has no average of the weights beside them, no names below a prefix ({AVERAGES[0]}, ema and their "
            f"like), none that lost their dots (ema_conv_W, model_ema.convW). Received: {_received(source.shapes)}"
        )
    own = [name for name in source.shapes if name not in copies and not is_average(name)]
    notes = [f"averages are taken, whose names lost their dots: {_received(dict.fromkeys(copies.values()))}"]
    if own:
        notes.append(f"no average, and taken from the model: {_received(dict.fromkeys(own))}")
    names = {name: copies.get(name, name) for name in source.shapes if name in copies or name in own}
    return _renamed(source, names), notes


def part_of(source: Source, prefix: str, label: str) -> Source:
    """The tensors of a source whose names begin with a prefix, without it.

    Raises:
        CheckpointError: there are none.
    """
    names = {name.removeprefix(prefix): name for name in source.shapes if name.startswith(prefix)}
    if not names:
        received = ", ".join(source.shapes)
        raise CheckpointError(f"{label}: no name begins with the prefix {prefix!r}. Received: {received}")
    return _renamed(source, names)


def _renamed(source: Source, names: Mapping[str, str]) -> Source:
    """Tensors of a source by new names; what its metadata say of layers is of the old ones."""
    metadata = {key: value for key, value in source.metadata.items() if key != KEY}
    return Gathered({name: (source, stored) for name, stored in names.items()}, metadata)


def _first(loaded: Mapping[Any, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if isinstance(loaded.get(key), Mapping)), None)


def _has_no_names(average: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> bool:
    """Whether an average is a list of tensors, in the order of the model's parameters, as torch_ema and diffusers save it."""
    return any(isinstance(value, list | tuple) and any(map(is_tensor, value)) for value in average.values())


def _split(loaded: Any, key: str) -> list[str]:
    return [key] if isinstance(loaded, Mapping) and key in loaded else key.split(".")


def _received(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return type(loaded).__name__
    return some((str(name)[:80] for name in loaded), 8) or "nothing"
