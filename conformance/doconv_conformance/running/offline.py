"""Verdicts on a folder of vectors whose outputs a port has written, without ever running the port."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doconv_conformance.cases.table import Case
from doconv_conformance.protocol.schemas import problem
from doconv_conformance.protocol.session import Backend, file_pair, read_outputs
from doconv_conformance.running.runner import Run, answer, numerics_of, wanted
from doconv_conformance.running.vectors import ANSWERS, MANIFEST, VERSION
from doconv_conformance.verdicts.judge import judged_exactly


def check_folder(folder: Path, pairs: Sequence[tuple[Case, str]]) -> Run:
    """A row for every `(case, operation)`; what has no outputs and no answer is a row that says so.

    Raises:
        ValueError: not a folder of vectors: vectors of another version, or answers that are not the protocol's.
    """
    _check_version(folder)
    hello, results = _answers(folder / ANSWERS)
    run = Run(Backend(str(hello.get("name", folder.name)), (str(folder),)), hello=hello)
    with run.clock("total"):
        for case, operation in pairs:
            said = results.get(f"{case.id}/{operation}", {})
            path = file_pair(folder / "cases", case.id, operation)[1]
            status, reason, outputs = said.get("status", "ok"), said.get("reason", ""), {}
            if status == "ok":
                try:
                    outputs = read_outputs(path, 2**20 + 64 * sum(t.nbytes for t in case.tensors.values()))
                except ValueError as error:
                    status, reason = "error", str(error)
            if outputs:
                run.outputs[case.id, operation] = outputs
            exact = judged_exactly(case, operation, numerics_of(hello))
            want = wanted(case, operation, hello)
            run.results.append(
                answer(run.backend.name, case, operation, hello, status, reason, outputs, want, exact=exact)
            )
    return run


def _check_version(folder: Path) -> None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"not a folder of vectors: {MANIFEST} cannot be read: {error}. Received: {folder}") from error
    if wrong := problem(manifest, "vectors"):
        raise ValueError(f"{folder / MANIFEST}: {wrong}")
    if manifest["version"] != VERSION:
        raise ValueError(
            f"the vectors must be of version {VERSION}. Received: version {manifest['version']} in {folder}"
        )


def _answers(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the port said of itself, and its results by id; both empty where there is no such file."""
    hello: dict[str, Any] = {}
    results = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else (), start=1):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} line {number} is not JSON. Received: {line[:200]!r}") from error
        kind = "hello" if isinstance(message, dict) and message.get("type") == "hello" else "result"
        if wrong := problem(message, "protocol", kind):
            raise ValueError(f"{path} line {number}: {wrong}")
        if kind == "hello":
            hello = message
        else:
            results[message["id"]] = message
    return hello, results
