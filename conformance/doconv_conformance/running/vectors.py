"""The vectors: the cases as files, and the digests that keep their meaning from changing.

Nothing but digests is stored: the numbers come from a documented generator (`generator`), the right values of the exact cases
from Python integers (`integers`). `vectors.json` carries, for every case, what it is, a digest of every input, and for an
exact case a digest of every output. A digest is the first 32 hexadecimal digits of the SHA-256 of the tensor's bytes,
little-endian and row-major, in its type. `VERSION` counts the changes of a case's meaning, whatever the package's version.

`python -m doconv_conformance.running.vectors` writes `vectors.json` afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from doconv_conformance.cases.table import DTYPES, Case, cases, select
from doconv_conformance.protocol.session import file_pair, hello_request, run_request, write_inputs
from doconv_conformance.verdicts import integers
from doconv_conformance.verdicts.bounds import Expected, Numerics, expected
from doconv_conformance.verdicts.judge import judged_exactly

VERSION = 1
MANIFEST = "vectors.json"
REQUESTS, ANSWERS = "requests.jsonl", "answers.jsonl"
README = """The vectors of the doconv conformance suite, version {version}.

requests.jsonl    what the suite would write to a port: hello, then a run a line, in the order of the stages
cases/ID/OPERATION.inputs.safetensors      the tensors of a run
cases/ID/OPERATION.expected.safetensors    float64: each output under its name, and NAME.bound, how far off it may be
                                           (0: any other value is wrong; infinite: any finite value is right)
vectors.json      every case: what it is, which mistakes it was made to catch, digests of its tensors

Write cases/ID/OPERATION.outputs.safetensors for every run, in the types that the protocol asks for, then

    doconv vectors check FOLDER

gives the verdicts. A port that speaks the protocol does it with `cd FOLDER && PORT < requests.jsonl > answers.jsonl`;
answers.jsonl is read where it is there, so that what the port declares (numerics, what is unsupported) counts.
The formats and the meaning of every field: conformance/README.md of doconv.
"""


def stored() -> str:
    """The text of `vectors.json` as it ships."""
    return (files(__package__) / MANIFEST).read_text("utf-8")


def manifest() -> str:
    """The text of `vectors.json`, computed: always the same bytes."""
    lines = [json.dumps(_entry(case)) for case in cases()]
    return f'{{"format": "doconv-vectors", "version": {VERSION}, "cases": [\n' + ",\n".join(lines) + "\n]}\n"


def select_for_files(stage: str | None = None, case: str | None = None) -> list[tuple[Case, str]]:
    """As `cases.table.select`, both parts of the table; without the stage "large" where neither it nor a case is named.

    Its tensors would fill half a gigabyte.

    Raises:
        ValueError: an unknown stage, or a case that is not in the table.
    """
    pairs = select(stage, case, extended=True)
    return pairs if stage or case else [pair for pair in pairs if not pair[0].large]


def digest(tensor: np.ndarray) -> str:
    """Of a tensor's bytes, as `vectors.json` has it."""
    little = tensor.astype(tensor.dtype.newbyteorder("<")) if tensor.dtype.byteorder == ">" else tensor
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()[:32]


def export(folder: Path, pairs: Sequence[tuple[Case, str]]) -> None:
    """Write the requests, the inputs and the right outputs of `pairs` to a new folder.

    Raises:
        ValueError: the folder is there and not empty, or its parent is not there.
    """
    exportable(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _export(temporary, pairs)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def exportable(folder: Path) -> None:
    """Raise before any work if `export` could not write there.

    Raises:
        ValueError: as `export`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"the folder must be new or empty. Received: {folder}")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"the folder of {folder} does not exist")


def keep_case(folder: Path, case: Case, operation: str, numerics: Numerics) -> None:
    """Beside the inputs and outputs of one operation: the messages that ask for it, and what is right."""
    source, target = file_pair(folder.resolve(), case.id, operation)
    request = _request(case, operation, str(source), str(target))
    _write_lines(source.with_name(f"{operation}.request.jsonl"), [hello_request(), request])
    save_expected(source.with_name(f"{operation}.expected.safetensors"), expected(case, operation, numerics),
                  judged_exactly(case, operation, numerics))  # fmt: skip


def save_expected(path: Path, want: dict[str, Expected], exact: bool) -> None:
    """Each output as float64, and `<name>.bound`: 0 where exact, infinite where any finite value is right."""
    tensors: dict[str, np.ndarray] = {}
    for name, expectation in want.items():
        tensors |= {name: expectation.value, f"{name}.bound": expectation.allowed(exact)}
    save_file({name: np.ascontiguousarray(tensor, np.float64) for name, tensor in tensors.items()}, path)


def _export(temporary: Path, pairs: Sequence[tuple[Case, str]]) -> None:
    requests = [hello_request()]
    for case, operation in pairs:
        source, target = file_pair(Path("cases"), case.id, operation)
        requests.append(_request(case, operation, source.as_posix(), target.as_posix()))
        place = temporary / source
        place.parent.mkdir(parents=True, exist_ok=True)
        write_inputs(case.inputs(operation), place)
        save_expected(place.with_name(f"{operation}.expected.safetensors"), expected(case, operation),
                      judged_exactly(case, operation, Numerics()))  # fmt: skip
    _write_lines(temporary / REQUESTS, requests)
    (temporary / MANIFEST).write_text(stored(), "utf-8")
    (temporary / "README.txt").write_text(README.format(version=VERSION), "utf-8")


def _entry(case: Case) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": case.id, "catches": list(case.catches), "exact": case.exact, "dtype": case.dtype,
        "param_dtype": case.param_dtype, "geometry": case.geometry.to_json(), "batch": case.batch,
        "input_size": list(case.input_size), "inputs": {name: digest(tensor) for name, tensor in case.tensors.items()},
    }  # fmt: skip
    if case.exact:
        entry["outputs"] = {
            operation: {
                name: digest(value.astype(DTYPES[case.dtype if name in ("y", "grad_x") else case.param_dtype]))
                for name, value in integers.expected(case, operation).items()
            }
            for operation in case.operations
        }
    return entry


def _request(case: Case, operation: str, inputs: str, outputs: str) -> dict[str, Any]:
    return run_request(case.id, operation, case.geometry, case.dtype, case.param_dtype, inputs, outputs)


def _write_lines(path: Path, messages: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(message) + "\n" for message in messages), "utf-8")


if __name__ == "__main__":
    path = Path(__file__).with_name(MANIFEST)
    path.with_suffix(".new").write_text(manifest(), "utf-8")
    path.with_suffix(".new").replace(path)
