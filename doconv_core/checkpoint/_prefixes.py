"""What wrappers and trainers do to the names of a model's tensors: the one rule that finds the plain model's names again.

| who | writes |
|---|---|
| `DataParallel`, `DistributedDataParallel`, `AveragedModel` | `module.<name>`; the last one `n_averaged` beside them |
| `torch.compile` | `_orig_mod.<name>`, also in the middle of a name |
| `checkpoint_wrapper`, FSDP1 | `_checkpoint_wrapped_module.`, `_fsdp_wrapped_module.`, also in the middle |
| a `LightningModule`, a trainer | `model.<name>`, `net.<name>`, any other, with tensors of its own beside them |
| LitEma, mmengine | copies for averages whose names lost their dots: `model_ema.convW`, `ema_backbone_conv_W` |

Without the plain model, the first three are dropped and nothing else: a model may well have a part named `model` or `net`.
With it (`like`), the prefix is the one under which most of its layers are found, whatever it is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from doconv_core.checkpoint._format import CheckpointError, some
from doconv_core.checkpoint._hints import Shapes
from doconv_core.checkpoint._layers import join, split

WRAPPERS = ("module.", "_orig_mod.")  # before all names
INNER = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")  # anywhere: no model names its parts so
MARKS = ("modelema", "ema", "avg", "average")  # before the names of averages, their dots and underscores aside
KERNELS = ("W", "weight", "kernel")


@dataclass(frozen=True)
class PlainNames:
    """How the names of a state dict relate to the plain model's.

    Attributes:
        names: for each name of the state, in its order, that of the plain model.
        prefix: what was dropped from the names that have it, without what may stand anywhere (`_orig_mod.`); "" for nothing.
        prefixes: where `like` was given: the prefixes (of the names before `prefix` is dropped) under which its layers were
            found, most layers first. A teacher, or an average of the weights, stands beside the model under a second one.
        outer: what wrappers put before all names, where a prefix was given without it; it is dropped as well.
        rivals: those of `prefixes` among which `like` cannot decide, none of them dropped; empty as a rule.
    """

    names: dict[str, str]
    prefix: str = ""
    prefixes: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    outer: str = ""
    _like: Mapping[str, str] = field(default_factory=dict, repr=False)

    def in_like(self, path: str) -> str | None:
        """The name in `like` of the kernel of a layer, by its plain path (without `prefix`); None if `like` lacks it."""
        whole = (path, self.prefix + path)
        for prefix in ("", *self.prefixes):
            for name in whole:
                found = self._like.get(join(name[len(prefix) :], "weight")) if name.startswith(prefix) else None
                if found is not None:
                    return found
        return None


def plain_names(
    shapes: Shapes, *, like: Collection[str] = (), prefix: str | None = None, label: str = "state dict"
) -> PlainNames:
    """Find what the plain model calls each tensor of a state dict.

    Args:
        shapes: the shape of each tensor by name. Entries that are no tensors are to be left out.
        like: the names of the plain model's tensors, or of its over-parameterized form; empty if it is not known.
        prefix: what to drop from the names that have it, instead of what the rule finds; "" drops nothing.
        label: what errors call the state dict.

    Raises:
        CheckpointError: no name begins with `prefix`; no layer of `like` is in the state under any prefix; two tensors would
            have one name.
    """
    raw, cleaned, outer = {name: name for name in shapes}, {name: without_inner(name) for name in shapes}, ""
    if prefix and not any(name.startswith(prefix) for name in shapes):
        outer = _wrapper_of_all({cleaned[name]: shape for name, shape in shapes.items()})
        raw = cleaned = {name: called.removeprefix(outer) for name, called in cleaned.items()}
        if not any(called.startswith(prefix) for called in raw.values()):
            raise CheckpointError(f"{label}: no name begins with the prefix {prefix!r}. Received: {some(shapes, 4)}")
    if not like:
        dropped = (
            _wrapper_of_all({cleaned[name]: shape for name, shape in shapes.items()}) if prefix is None else prefix
        )
        return PlainNames(_drop(raw if prefix == "" else cleaned, dropped, label), without_inner(dropped), outer=outer)

    known = {_kernel_name(name): name for name in like}
    of_like = _wrapper_of_all(dict.fromkeys(map(without_inner, like), (1,)))
    clean_like = {_kernel_name(without_inner(name).removeprefix(of_like)): name for name in like}
    counts, clean_counts, names = _count(raw, known), _count(cleaned, clean_like), raw
    if max(clean_counts.values(), default=0) > max(counts.values(), default=0):
        counts, names, known = clean_counts, cleaned, clean_like
    if not counts and any(split(name)[1] in KERNELS for name in shapes):
        raise CheckpointError(
            f"{label}: no layer of the plain model is in it, under any prefix. Received: {some(shapes, 4)}; "
            f"of the plain model: {some(like, 4)}"
        )
    prefixes = tuple(sorted(counts, key=lambda found: (-counts[found], found != "")))
    best = [found for found in prefixes if counts[found] == counts[prefixes[0]]]
    rivals = tuple(best) if prefix is None and len(best) > 1 and "" not in best else ()
    if prefix is None:
        prefix = best[0] if best and not rivals else ""
    return PlainNames(_drop(names, prefix, label), without_inner(prefix), prefixes, rivals, outer, known)


def model_names(shapes: Shapes, like: Collection[str], label: str, *, choice: str) -> PlainNames | None:
    """`plain_names` for a model that a file is loaded into.

    Returns:
        None where no layer of the model is in the file: loading lists all that is missing.

    Raises:
        CheckpointError: the model is below more than one prefix; `choice` is the argument that says which.
    """
    try:
        found = plain_names(shapes, like=like, label=label)
    except CheckpointError:
        return None
    if found.rivals:
        raise CheckpointError(
            f"{label} has the model below more than one prefix: choose one by `{choice}`. Received: {', '.join(found.rivals)}"
        )
    return found


def copies_without_dots(shapes: Shapes, names: Iterable[str]) -> dict[str, str]:
    """Copies of tensors, made by LitEma, mmengine and their like, whose names lost the dots, each with what it is a copy of.

    Args:
        shapes: the shape of each tensor by name.
        names: those of them that may have copies, here the `W` and `D` of layers.
    """
    known = set(names)
    originals, found = {_letters(name): name for name in known}, {}
    for name, shape in shapes.items():
        if name in known:
            continue
        letters = _letters(name)
        starts = [len(mark) for mark in MARKS if letters.startswith(mark)]
        original = next((originals[rest] for start in starts if (rest := letters[start:]) in originals), None)
        if original is not None and shapes[original] == shape and split(name)[1] != split(original)[1]:
            found[name] = original
    return found


def is_average(name: str) -> bool:
    """Whether a name is that of an average or of what is kept beside one (`model_ema.decay`)."""
    return _letters(name).startswith(MARKS)


def averages_without_dots(shapes: Shapes, label: str) -> dict[str, str]:
    """The names of a model's tensors, each with its copy whose name lost the dots."""
    found: dict[str, str] = {}
    names = [name for name in shapes if not is_average(name)]
    same = Counter(map(_letters, names))
    for copy, original in copies_without_dots(shapes, names).items():
        if original in found or same[_letters(original)] > 1:
            other = found.get(original) or next(n for n in names if n != original and _letters(n) == _letters(original))
            raise CheckpointError(
                f"{label}: without their dots, names of averages say nothing certain. Received: {copy}, {original}, {other}"
            )
        found[original] = copy
    return found


def _wrapper_of_all(shapes: Shapes) -> str:
    """The wrappers' prefixes that all names have, but for the scalars that a wrapper keeps for itself (`n_averaged`)."""
    names, found = [name for name, shape in shapes.items() if "." in name or shape != ()], ""
    while names and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in names)), None)):
        names, found = [name.removeprefix(prefix) for name in names], found + prefix
    return found


def without_inner(name: str) -> str:
    """A name, or a pattern of names, without the wrappers that may stand anywhere in it."""
    for inner in INNER:
        name = name.replace(inner, "") if name.startswith(inner) else name.replace(f".{inner}", ".")
    return name


def _kernel_name(name: str) -> str:
    """The same for the plain and for the over-parameterized form of a layer."""
    path, leaf = split(name)
    return join(path, "weight") if leaf in KERNELS else name


def _count(names: Mapping[str, str], like: Mapping[str, str]) -> Counter[str]:
    """How many kernels of `like` are found under each prefix: over-parameterized ones, where there are any."""
    kernels = [name for name in names.values() if split(name)[1] == "W"] or list(names.values())
    counts: Counter[str] = Counter()
    for kernel in map(_kernel_name, kernels):
        parts = kernel.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in like:
                counts[".".join([*parts[:start], ""]) if start else ""] += 1
    return counts


def _drop(names: Mapping[str, str], prefix: str, label: str) -> dict[str, str]:
    def drop(name: str, called: str) -> str:
        if not called.startswith(prefix) and name.startswith(prefix):  # a prefix that was given with what is inner
            return without_inner(name.removeprefix(prefix))
        return called.removeprefix(prefix)

    plain = {name: drop(name, called) for name, called in names.items()}
    twice = [name for name, count in Counter(plain.values()).items() if count > 1]
    if twice:
        which = [name for name, called in plain.items() if called == twice[0]]
        raise CheckpointError(
            f"{label}: two tensors have the same name without the wrappers' prefixes. Received: {', '.join(which)}"
        )
    return plain


def _letters(name: str) -> str:
    return name.replace(".", "").replace("_", "")
