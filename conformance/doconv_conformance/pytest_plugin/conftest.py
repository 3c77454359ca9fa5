"""The port that `pytest --pyargs doconv_conformance --doconv-port PROGRAM` tests, and what is said at the end.

`options` has the options, `test_port` the tests.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from doconv_conformance.cases.table import select
from doconv_conformance.diagnosis.diagnose import diagnose_run
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import Backend, PortSession
from doconv_conformance.running.runner import Run

RUN = pytest.StashKey[Run]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each case and operation, in the order of the stages, named STAGE-OPERATION-CASE."""
    if "operation" in metafunc.fixturenames:
        pairs = select(extended=True)
        pairs = (
            pairs if metafunc.config.getoption("--doconv-port") else pairs[:1]
        )  # one is enough to say what is missing
        ids = [f"{case.stage(operation)}-{operation}-{case.id}" for case, operation in pairs]
        metafunc.parametrize(("case", "operation"), pairs, ids=ids)


@pytest.fixture(scope="session")
def port_run(pytestconfig: pytest.Config) -> Run:
    """What the port has answered so far."""
    if not pytestconfig.getoption("--doconv-port"):
        pytest.fail('these are tests of a port: give --doconv-port "PROGRAM ARGUMENTS"', pytrace=False)
    run = Run(Backend("port", tuple(shlex.split(pytestconfig.getoption("--doconv-port")))))
    pytestconfig.stash[RUN] = run
    return run


@pytest.fixture(scope="session")
def port(port_run: Run, pytestconfig: pytest.Config) -> Iterator[PortSession]:
    """The port, started once."""
    keep, timeout = (pytestconfig.getoption(name) for name in ("--doconv-keep", "--doconv-timeout"))
    try:
        session = PortSession(port_run.backend, keep, timeout=timeout)
    except (PortCrash, PortTimeout) as failure:
        pytest.fail(f"the port {failure}", pytrace=False)
    port_run.hello = session.hello
    yield session
    session.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What the failures are consistent with."""
    run = config.stash.get(RUN, None)
    for found in (
        diagnose_run(run, ask=bool(run.hello)) if run and any(row.verdict == "mismatch" for row in run.results) else ()
    ):
        terminalreporter.section(f"doconv: {found.name}")
        for line in (found.consistent_with, f"look at: {found.look_at}", *found.detail):
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Cases that were all skipped are no success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus or reporter is None or not session.config.getoption("--doconv-port"):
        return
    passed = [item for item in reporter.stats.get("passed", ()) if "::test_case[" in item.nodeid]
    skipped = [item for item in reporter.stats.get("skipped", ()) if "::test_case[" in item.nodeid]
    if skipped and not passed:
        reporter.write_line("doconv: no case ran, the port supports none of those chosen", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
