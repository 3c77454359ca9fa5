"""A file while its layers are being recognised, and one of them: what is known, what was asked for, what was assumed."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from doconv_core.checkpoint._format import CheckpointError, some
from doconv_core.checkpoint._hints import Hints, Shapes
from doconv_core.checkpoint._prefixes import PlainNames, plain_names, without_inner

# Notes of what could be wrong and would not show: the folded kernel has its shape.
TAKEN_PLAIN = "taken not to be transposed convolutions, which the shapes cannot show"
AGAINST = "taken as was asked, or as the plain model has them, against what the layers say of themselves"
RENAMED = "the metadata is of other names, as where entries were renamed, and was not used"
TAKEN_ALIKE = "taken not to be transposed convolutions; both fold alike"
DOUBTS = (TAKEN_PLAIN, AGAINST, RENAMED)


class Reading:
    """What the functions that recognise layers share.

    Args:
        label: what errors call the file.
        shapes: of its tensors.
        dialect: "original-torch" or "original-tf" for the authors' files.
        hints: what the user says.

    Attributes:
        plain: the plain model's names for the tensors, and its kernels where `hints.like` has them.
        notes: what was assumed, and of which layers.
    """

    def __init__(self, label: str, shapes: Shapes, dialect: str | None, hints: Hints) -> None:
        self.label, self.dialect, self.hints = label, dialect, hints
        self.plain: PlainNames = plain_names(shapes, like=hints.like, prefix=hints.prefix, label=label)
        self.notes: dict[str, list[str]] = {}
        ranks = {len(shapes[name]) - 2 for name, plain in self.plain.names.items() if plain.endswith("weight")}
        ranks |= {len(size) for size in (*hints.kernel_sizes.values(), *hints.known.values())}
        ranks &= {1, 2, 3}
        self._rank = ranks.pop() if len(ranks) == 1 else 2
        for dropped in filter(None, (self.plain.outer, self.plain.prefix)):
            self.note(f"names are without the prefix {dropped!r}")
        if self.plain.rivals:
            self.note("the plain model is found below more than one prefix, and none was dropped", *self.plain.rivals)

    def fail(self, text: str) -> NoReturn:
        """Raise a `CheckpointError` that names the file."""
        raise CheckpointError(f"{self.label}: {text}")

    def note(self, text: str, *paths: str) -> None:
        """Something that was assumed, of one layer or of the file."""
        self.notes.setdefault(text, []).extend(paths)

    def matches(self, path: str, patterns: Iterable[str]) -> bool:
        """Whether a pattern matches a layer by its plain path, or by that with the prefix; wrappers may be in the pattern."""
        plain = [without_inner(pattern) for pattern in patterns]
        called = self._called(path)
        return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in called for pattern in plain)

    def is_said_transposed(self, path: str) -> bool:
        """Whether the user, the plain model or what is known of the layers says that one is a transposed convolution."""
        hints = self.hints
        return (
            self.matches(path, hints.transposed)
            or self.plain.in_like(path) in (hints.like_transposed or ())
            or any(name in hints.known_transposed for name in self._called(path))
        )

    def is_known(self, path: str) -> bool:
        """Whether the layer itself, or a model, says what it is."""
        in_like = self.hints.like_transposed is not None and self.plain.in_like(path) is not None
        return in_like or any(name in self.hints.known for name in self._called(path))

    def forget_renamed(self, layers: Collection[str]) -> None:
        """Drop what layers noted of themselves where entries were renamed since: it may be of another layer by now.

        Entries that were only taken out, or put in, leave it true of the others. With a dialect, a model knows its layers.
        """
        here, noted = [self._called(path) for path in layers], self.hints.known.keys()
        strangers = [names for names in here if noted.isdisjoint(names)]
        if self.dialect is None and strangers and not noted <= {name for names in here for name in names}:
            self.hints = replace(self.hints, known={}, known_transposed=())
            self.note(RENAMED)

    def compare(self, path: str, kernel_size: Sequence[int], transposed: bool) -> None:
        """Note where a layer is taken for another than it says it is."""
        taken = tuple(kernel_size), transposed
        for name in self.hints.known.keys() & self._called(path):
            if (self.hints.known[name], name in self.hints.known_transposed) != taken:
                self.note(AGAINST, path)

    def kernel_size(self, path: str, taps: int, channels: tuple[int, ...]) -> list[int]:
        """The sides of a kernel: as the user says, as the plain model has it, as is known of the layer, or a square."""
        said = next((size for p, size in self.hints.kernel_sizes.items() if self.matches(path, (p,))), None)
        if said is None and not self.hints.like:
            said = next((self.hints.known[name] for name in self._called(path) if name in self.hints.known), None)
        if said is not None:
            if math.prod(said) != taps:
                self.fail(f"{path} has kernels of {taps} taps. Received: {path}={'x'.join(map(str, said))}")
            return list(said)
        if self.hints.like:
            return self._size_in_like(path, taps, channels)
        return self._square(path, taps)

    def check_hints(self, layers: Iterable[str], convs: Iterable[str]) -> None:
        """Every pattern must match one of `layers` (or of what only looks like one) or of `convs`: else it is misspelt."""
        layers, convs, hints = tuple(dict.fromkeys(layers)), tuple(convs), self.hints
        for option, patterns, paths in (
            ("kernel size", hints.kernel_sizes, convs),
            ("transposed", hints.transposed, convs),
            ("embedding", hints.embeddings, layers),
            ("exclude", hints.exclude, layers),
        ):
            for pattern in patterns:
                if not any(self.matches(path, (pattern,)) for path in paths):
                    kind = "convolution" if paths is convs else "layer"
                    self.fail(
                        f"the pattern {pattern!r} ({option}) matches no {kind}, whose paths are {some(paths, 8) or 'none'}. "
                        f"Received: {pattern!r}"
                    )

    def _called(self, path: str) -> tuple[str, ...]:
        names = (path, self.plain.prefix + path) if self.plain.prefix else (path,)
        return (*names, *(self.plain.outer + name for name in names)) if self.plain.outer else names

    def _size_in_like(self, path: str, taps: int, channels: tuple[int, ...]) -> list[int]:
        name = self.plain.in_like(path)
        if name is None:
            self.fail(
                f"{path} is no layer of the plain model: give its kernel size (--kernel-size '{path}=MxN'), or say that it is "
                f"none of ours (--exclude '{path}'). Received: of the plain model {some(self.hints.like, 8) or 'none'}"
            )
        shape = tuple(self.hints.like[name])
        deltas = [delta for delta in (f"{name[:-1]}D", f"{name[:-1]}D_delta") if delta in self.hints.like]
        if name.endswith("W") and deltas:
            self.fail(
                "the plain model to be like is over-parameterized itself: its shapes do not show the kernel's sides. "
                f"Received: {name} and {deltas[0]}"
            )
        if shape[:2] != tuple(channels) or math.prod(shape[2:]) != taps:
            self.fail(
                f"{path} has W for {tuple(channels)} channels and {taps} taps, not that of the plain model. "
                f"Received: {name} of shape {shape}"
            )
        return list(shape[2:])

    def _square(self, path: str, taps: int) -> list[int]:
        side = math.isqrt(taps)
        if side * side != taps:
            self.fail(
                f"the kernel size of {path} is not in the file and {taps} taps are no square: give it "
                f"(--kernel-size '{path}=MxN', or --like the plain model). Received: no kernel size for {path}"
            )
        size = [side] * (2 if taps > 1 else self._rank)
        if taps > 1 or not self.dialect or self._rank != 2:
            sides = "x".join(map(str, size))
            self.note(f"kernel size {sides} assumed for {taps} {'taps' if taps > 1 else 'tap'}", path)
        return size


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be a layer's: their names differ in the last part only, by which they are known here.

    Attributes:
        reading: the file.
        path: of the layer in the plain model.
        stored: the names in the file.
        shapes: of the tensors, in canonical form.
    """

    reading: Reading
    path: str
    stored: Mapping[str, str]
    shapes: Shapes

    def rank(self, leaf: str) -> int:
        """The number of a tensor's axes; 0 where there is no such tensor."""
        return len(self.shapes.get(leaf, ()))

    def first(self, leaves: Iterable[str], rank: int) -> str:
        """The first of `leaves` that is a tensor of so many axes, or ""."""
        return next((leaf for leaf in leaves if self.rank(leaf) == rank), "")

    def called(self, *leaves: str) -> str:
        """What the plain model calls some of the tensors."""
        return " and ".join(self.reading.plain.names[self.stored[leaf]] for leaf in leaves)

    def roles(self, **roles: str) -> dict[str, str]:
        """The names in the file by role; a layer need not have all of them."""
        return {role: self.stored[leaf] for role, leaf in roles.items() if leaf in self.stored}

    def fail(self, text: str, advice: str = "") -> NoReturn:
        """Raise a `CheckpointError` that ends with the shapes."""
        shapes = ", ".join(f"{leaf} of shape {tuple(size)}" for leaf, size in self.shapes.items())
        self.reading.fail(f"{text}. Received: {shapes}{advice}")

    def note(self, text: str) -> None:
        """Something that was assumed of this layer."""
        self.reading.note(text, self.path)
