"""The suite as tests of one port: `pytest --pyargs doconv_conformance --doconv-port "python my_port.py"`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from doconv_conformance.cases.table import Case
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.protocol.smoke import ADVICE, smoke
from doconv_conformance.running.runner import Run, numerics_of, run_case
from doconv_conformance.running.vectors import keep_case


def test_smoke(port: PortSession) -> None:
    """Fails where the program does not speak the protocol, whatever its mathematics."""
    if wrong := smoke(port):
        pytest.fail(f"{wrong}\n{ADVICE}", pytrace=False)


def test_case(
    case: Case,
    operation: str,
    port: PortSession,
    port_run: Run,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    """One operation on one case."""
    run_case(port_run, port, case, operation)
    if keep := pytestconfig.getoption("--doconv-keep"):
        keep_case(keep, case, operation, numerics_of(port.hello))
    result = port_run.results[-1]
    for name in ("verdict", "bound_fraction", "r"):
        record_property(name, getattr(result, name))
    if not result.agrees:
        lines = [f"{result.verdict}: {result.reason}" if result.reason else result.verdict, result.contradicts]
        if case.catches:
            lines.append(f"made to catch: {'; '.join(case.catches)}")
        lines.append(f"{operation} with {case.geometry.describe()}, {case.dtype}, parameters {case.param_dtype}")
        lines.append(f"again, with its files: doconv check --case {case.id} -- {' '.join(port.backend.command)}")
        pytest.fail("\n".join(filter(None, lines)), pytrace=False)
    if result.verdict == "unsupported":
        pytest.skip(result.reason)
