"""The README's tables of what is supported, from what the backends declare, and of the ways in which they are run.

A row of the first is a selection of the suite's cases, so each cell is a claim that the suite checks both ways: what is
declared must work, and what is declared unsupported must not (`runner.declared_unsupported`). A row of the second is a way.
`python -m doconv_conformance.maintenance.support_table FILE` asks every backend and writes the tables between their markers in
FILE.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from doconv_conformance.adapters.ways.table import WAYS, Way, ways_of
from doconv_conformance.cases.table import Case, select
from doconv_conformance.files import insert_between, replacing
from doconv_conformance.running.runner import Backend, PortSession, declared_unsupported, python_backend

BEGIN, END = "<!-- support: written by python -m doconv_conformance.maintenance.support_table -->", "<!-- /support -->"
BACKENDS = {
    "PyTorch": python_backend("torch", "doconv_conformance.adapters.torch"),
    **{
        f"Keras on {label}": python_backend(
            f"keras-{name}", "doconv_conformance.adapters.keras", env={"KERAS_BACKEND": name}
        )
        for label, name in (("TensorFlow", "tensorflow"), ("JAX", "jax"), ("PyTorch", "torch"), ("NumPy", "numpy"))
    },
    "Flax linen": python_backend("flax", "doconv_conformance.adapters.flax"),
    "Flax nnx": python_backend("flax-nnx", "doconv_conformance.adapters.flax", "nnx"),
}
WAYS_BEGIN, WAYS_END = BEGIN.replace("support:", "ways:"), "<!-- /ways -->"
# The columns of the table of ways: a backend, and its engine or interface.
WAY_COLUMNS = {
    "PyTorch": ("torch", ""),
    "Keras on TensorFlow": ("keras", "tensorflow"),
    "Keras on JAX": ("keras", "jax"),
    "Keras on PyTorch": ("keras", "torch"),
    "Flax linen, nnx": ("flax", "linen"),
}
Selects = Callable[[Case, str], bool]


def _convolution(rank: int) -> Selects:
    return lambda case, _: case.geometry.spatial_rank == rank and not case.geometry.transposed


def _transposed(*, groups: bool = False, dilated: bool = False) -> Selects:
    def selects(case: Case, _: str) -> bool:
        g = case.geometry
        return g.transposed and (g.groups > 1) == groups and (max(g.dilation) > 1) == dilated

    return selects


def _strided_and_dilated(case: Case, _: str) -> bool:
    g = case.geometry
    return not g.transposed and max(g.stride) > 1 and max(g.dilation) > 1


def _types(dtype: str, param_dtype: str) -> Selects:
    return lambda case, _: (case.dtype, case.param_dtype) == (dtype, param_dtype)


ROWS: dict[str, Selects] = {
    "convolution 1-D": _convolution(1),
    "convolution 2-D": _convolution(2),
    "convolution 3-D": _convolution(3),
    "groups, depthwise": lambda case, _: case.geometry.groups > 1 and not case.geometry.transposed,
    "strides together with dilation": _strided_and_dilated,
    "transposed 1-D, 2-D, 3-D": _transposed(),
    "transposed with groups": _transposed(groups=True),
    "transposed with strides and dilation": _transposed(dilated=True),
    "`d_mul` above the number of taps": lambda case, _: case.geometry.d_mul > case.geometry.taps,
    "forward": lambda _, operation: operation == "forward",
    "backward": lambda _, operation: operation == "backward",
    "fold, start from a plain kernel": lambda _, operation: operation in ("fold", "initialise"),
    "float64": _types("float64", "float64"),
    "float32": _types("float32", "float32"),
    "bfloat16": _types("bfloat16", "bfloat16"),
    "float16": _types("float16", "float16"),
    "mixed bfloat16": _types("bfloat16", "float32"),
    "mixed float16": _types("float16", "float32"),
}
# What has a row of its own does not count against the others; nor does what two of them would refuse at once.
OWN_ROW = (
    "strides together with dilation", "transposed with groups", "transposed with strides and dilation", "backward", "float64",
)  # fmt: skip


def column(hello: Mapping[str, Any]) -> dict[str, str]:
    """One backend's cells by what it says of itself: "yes", or "no: " and the reasons, or "in part: " and the reasons."""
    cells = {}
    for label, selects in ROWS.items():
        others = [*(ROWS[own] for own in OWN_ROW if own != label), _transposed(groups=True, dilated=True)]
        pairs = [pair for pair in select() if selects(*pair) and not any(other(*pair) for other in others)]
        refused = [declared_unsupported(hello, case, operation) for case, operation in pairs]
        reasons = sorted({reason for reason in refused if reason})
        cells[label] = "yes" if not reasons else f"{'no' if all(refused) else 'in part'}: {'; '.join(reasons)}"
    return cells


def render(columns: Mapping[str, Mapping[str, str]]) -> str:
    """The Markdown table; reasons are footnotes, since a cell has room for one word."""
    notes: dict[str, int] = {}

    def cell(text: str) -> str:
        word, _, reason = text.partition(": ")
        return word + (f" [{notes.setdefault(reason, len(notes) + 1)}]" if reason else "")

    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label in ROWS:
        lines.append(f"| {label} | " + " | ".join(cell(cells[label]) for cells in columns.values()) + " |")
    return "\n".join([*lines, "", *(f"[{number}] {reason}.  " for reason, number in notes.items())]).rstrip()


def ways_table() -> str:
    """The Markdown table of the ways: which backend has which, and whether with gradients. They are the declared ones."""
    columns = {label: {way.name: way for way in ways_of(*key)} for label, key in WAY_COLUMNS.items()}
    names = list(dict.fromkeys(way.name for way in WAYS))

    def cell(way: Way | None) -> str:
        if way is None:
            return ""
        return f"{way.summary}{'' if 'backward' in way.operations else ' (forward)'}"

    lines = ["| `--way` | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        lines.append(f"| `{name}` | " + " | ".join(cell(ways.get(name)) for ways in columns.values()) + " |")
    return "\n".join(lines)


def parse(text: str) -> dict[str, dict[str, str]]:
    """The columns of the table in `text`, the inverse of `render`.

    Raises:
        ValueError: there is no table between the markers.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"no table between {BEGIN} and {END}")
    lines = text.split(BEGIN)[1].split(END)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    notes = dict(line.rstrip(". ").split(" ", 1) for line in lines if line.startswith("["))
    columns: dict[str, dict[str, str]] = {}
    for name, position in zip(rows[0][1:], range(1, len(rows[0])), strict=True):
        columns[name] = {}
        for row in rows[2:]:
            word, _, note = row[position].partition(" [")
            columns[name][row[0]] = word + (f": {notes['[' + note]}" if note else "")
    return columns


def ask(backend: Backend) -> dict[str, Any]:
    """What a backend says of itself."""
    session = PortSession(backend)
    session.close()
    return session.hello


def main() -> None:
    path = Path(sys.argv[1])
    text = path.read_text()
    parse(text)  # raises before any backend is started
    table = render({label: column(ask(backend)) for label, backend in BACKENDS.items()})
    text = insert_between(insert_between(text, ways_table(), WAYS_BEGIN, WAYS_END), table, BEGIN, END)
    with replacing(path) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
