"""The verdict on one answer: the outputs of a port against what the case should give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.verdicts.bounds import Expected, Numerics

VERDICTS = ("exact", "within_bound", "inaccurate", "mismatch", "unsupported", "crashed", "timeout")
AGREEING = ("exact", "within_bound", "inaccurate", "unsupported")
# The limit that the test programs of BLAS use for the ratio of an error to `u * a`.
INACCURATE = 16.0


@dataclass(frozen=True)
class Result:
    """One row of a report.

    Attributes:
        backend: the port, or two of them joined by "~" where they are compared with each other.
        case: the case's id.
        operation: one of `port.OPERATIONS`.
        stage: one of `cases.STAGES`.
        dtype: of the activations.
        param_dtype: of the parameters.
        verdict: one of `VERDICTS`.
        bound_fraction: the largest error as a share of its bound, None where nothing could be compared.
        r: the largest error in units of `u * a`, None likewise.
        reason: what is wrong, in words; empty where nothing is.
        seconds: wall time of the answer.
        contradicts: the port's claim that the answer contradicts, or empty.
    """

    backend: str
    case: str
    operation: str
    stage: str
    dtype: str
    param_dtype: str
    verdict: str
    bound_fraction: float | None = None
    r: float | None = None
    reason: str = ""
    seconds: float = 0.0
    contradicts: str = ""

    @property
    def agrees(self) -> bool:
        """Whether this row leaves `agree` standing."""
        return self.verdict in AGREEING and not self.contradicts


def judged_exactly(case: Case, operation: str, numerics: Numerics) -> bool:
    """Whether every value must be equal: exact cases on algorithms that only add products, and starts from a kernel."""
    return operation == "initialise" or (case.exact and numerics.algorithm in ("direct", "tf32"))


def judge(expected: Mapping[str, Expected], outputs: Mapping[str, np.ndarray], *, exact: bool) -> dict[str, Any]:
    """`verdict`, `bound_fraction`, `r` and `reason` of a port's outputs.

    Args:
        expected: what the case should give.
        outputs: what the port gave.
        exact: whether every value must be equal (-0 equals 0; infinite where the right value is too large for the type).
    """
    if reason := _unfit(expected, outputs):
        return _mismatch(reason)
    fraction = r = 0.0
    for name, want in expected.items():
        with np.errstate(invalid="ignore"):  # NaNs of the other kind, which raise a flag
            got = outputs[name].astype(np.float64)
        equal = got == want.value  # where a result overflows, infinity is right
        if reason := _not_finite(name, got, want, equal):
            return _mismatch(reason)
        error = np.abs(np.subtract(got, want.value, out=np.zeros(got.shape), where=~equal))
        fraction = max(fraction, _largest_ratio(error, want.bound))
        r = max(r, _largest_ratio(error, want.scale) if want.scale.any() else 0.0)
        if reason := _out_of_bound(name, got, want, error, exact):
            return _mismatch(reason, fraction, r)
        if reason := _dead_column(name, got, want):
            return _mismatch(reason)
    if exact:
        return {"verdict": "exact", "bound_fraction": 0.0, "r": 0.0, "reason": ""}
    verdict = "inaccurate" if r > INACCURATE else "within_bound"
    return {"verdict": verdict, "bound_fraction": fraction, "r": r, "reason": ""}


def summarise(results: Iterable[Result]) -> dict[str, Any]:
    """Counts a verdict, and `agree`: at least one case ran, none disagreed and no claim was contradicted."""
    results = list(results)
    counts: dict[str, Any] = {verdict: sum(row.verdict == verdict for row in results) for verdict in VERDICTS}
    ran = any(row.verdict in ("exact", "within_bound", "inaccurate") for row in results)
    return counts | {"agree": ran and all(row.agrees for row in results)}


def disagreements(results: Iterable[Result]) -> list[str]:
    """A line for each row that does not agree: what was run, and what is wrong."""
    return [
        f"{row.backend} {row.case} {row.operation}: {row.verdict} {row.reason or row.contradicts}"
        for row in results
        if not row.agrees
    ]


def row(backend: str, case: Case, operation: str, **judgement: Any) -> Result:
    """A `Result` for a case."""
    return Result(backend, case.id, operation, case.stage(operation), case.dtype, case.param_dtype, **judgement)


def to_json(results: Iterable[Result]) -> dict[str, Any]:
    """The report that `--json` writes: `results` and `summary`."""
    results = list(results)
    return {"version": 1, "results": [asdict(row) for row in results], "summary": summarise(results)}


def _unfit(expected: Mapping[str, Expected], outputs: Mapping[str, np.ndarray]) -> str:
    """Which output is missing, of another shape or type, or was not asked for; empty where none is."""
    for name, want in expected.items():
        got = outputs.get(name)
        if got is None:
            return f"output {name} is missing; received {sorted(outputs)}"
        if got.shape != want.value.shape:
            return f"{name} must have shape {want.value.shape}; received {got.shape}"
        if got.dtype != want.dtype:
            return f"{name} must be {want.dtype}; received {got.dtype}"
    if unknown := sorted(set(outputs) - set(expected)):
        return f"outputs {unknown} were not asked for; asked for {sorted(expected)}"
    return ""


def _not_finite(name: str, got: np.ndarray, want: Expected, equal: np.ndarray) -> str:
    strange = ~np.isfinite(got) & ~equal
    if not strange.any():
        return ""
    at = _first(strange)
    return f"{name}{list(at)} is {got[at]}; must be {_number(want.value[at])}"


def _out_of_bound(name: str, got: np.ndarray, want: Expected, error: np.ndarray, exact: bool) -> str:
    allowed = want.allowed(exact)
    wrong = error > allowed
    if not wrong.any():
        return ""
    at = _first(wrong)
    within = "" if exact else f" within {allowed[at]:.3g}"
    return (
        f"{name}{list(at)} is {_number(got[at])}; must be {_number(want.value[at])}{within} "
        f"({int(wrong.sum())} of {wrong.size} values are wrong)"
    )


def _dead_column(name: str, got: np.ndarray, want: Expected) -> str:
    """Which column that the identity leaves at zero is zero in `W` too, so that no gradient ever reaches it."""
    if want.alive is None:
        return ""
    dead = want.alive & ~got.any(axis=tuple(range(got.ndim - 1)))
    if not dead.any():
        return ""
    return f"{name}[..., {_first(dead)[0]}] is zero throughout, as is that column of D: neither can be trained"


def _first(marked: np.ndarray) -> tuple[int, ...]:
    """The index of the first element that is marked."""
    return tuple(int(i) for i in np.argwhere(marked)[0])


def _mismatch(reason: str, fraction: float | None = None, r: float | None = None) -> dict[str, Any]:
    finite = {"bound_fraction": fraction, "r": r}
    return {"verdict": "mismatch", "reason": reason} | {
        key: value if value is None or np.isfinite(value) else None for key, value in finite.items()
    }


def _largest_ratio(error: np.ndarray, unit: np.ndarray) -> float:
    """The largest `error / unit`; an error where the unit is zero is infinitely large, no error is none."""
    if not error.size:
        return 0.0
    with np.errstate(over="ignore"):
        ratio = np.divide(error, unit, out=np.where(error > 0, np.inf, 0.0), where=(unit > 0) & np.isfinite(unit))
    return float(np.where(np.isinf(unit), 0.0, ratio).max())


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
