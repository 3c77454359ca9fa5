"""The project's tasks. `nox -s compare` runs the main job, `nox -s tests` every check; both set up what they need."""

from __future__ import annotations

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = ("-c", "constraints.txt")
FRAMEWORKS = ("torch", "keras", "flax")
# Frameworks fight over threads and memory in one process, so each has its own pytest.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@nox.session
def compare(session: nox.Session) -> None:
    """The main job, with a photograph that scikit-learn carries: `doconv compare --image china.jpg`."""
    session.install(*CONSTRAINTS, "-e", ".[all]", "scikit-learn")
    find = "import sklearn.datasets as d, pathlib; print(pathlib.Path(d.__file__).parent / 'images' / 'china.jpg')"
    photograph = session.run("python", "-c", find, silent=True).strip()
    session.run("doconv", "compare", "--image", photograph, *session.posargs)


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
