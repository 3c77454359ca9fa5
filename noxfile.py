"""The project's tasks. `nox -s compare` runs the main job, `nox -s tests` every check; both set up what they need."""

from __future__ import annotations

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "virtualenv|venv"
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = ("-c", "constraints.txt")
FRAMEWORKS = ("torch", "keras", "flax")
# Frameworks fight over threads and memory in one process, so each has its own pytest.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@nox.session
def compare(session: nox.Session) -> None:
    """The main job: every framework against the reference and against the others."""
    session.install(*CONSTRAINTS, "-e", ".[all]")
    session.run("doconv", "compare", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Style, types and every test."""
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    check(session)
    pytest(session, "core", "suite")
    for framework in FRAMEWORKS:
        pytest(session, framework)


@nox.session(name="tests-framework")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def tests_framework(session: nox.Session, framework: str) -> None:
    """One backend with only its own extra installed."""
    session.install(*CONSTRAINTS, "-e", f".[{framework}]", "pytest", "hypothesis", "scikit-learn", "optax")
    pytest(session, framework)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types only."""
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    check(session)


def check(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


def pytest(session: nox.Session, *folders: str) -> None:
    session.run("pytest", *(f"conformance/tests/{folder}" for folder in folders), *session.posargs, env=ONE_THREAD)
