"""The project's tasks. `nox -s compare` runs the main job, `nox -s tests` every check; both set up what they need."""

from __future__ import annotations

import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = ("-c", "constraints.txt")
FRAMEWORKS = ("torch", "keras", "flax")
# Frameworks fight over threads and memory in one process, so each has its own pytest.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
WORKERS = ("-n", "auto", "--maxprocesses", "4")
# Of the core's statements and branches by its own tests, in percent; a little under what was measured.
COVERED = 93
# The files of a backend that hold its composition.
COMPOSITION = ("_compose", "_compose_jax", "_products", "_operators", "_kernels", "_taps", "_formula")
# What enters a composition beside the suite: frozen parameters, transforms, explicit sharding, errors.
COMPOSITION_TESTS = {"torch": ("compose",), "flax": ("compose", "contract", "sharding", "verbs")}
# Tests that need no framework.
FRAMEWORKLESS = (
    *(f"core/test_{name}" for name in ("blocked", "composition", "contract", "convolution", "dtypes", "geometry")),
    *(f"core/test_{name}" for name in ("framework_padding", "layouts", "selection")),
    *(f"checkpoints/test_{name}" for name in ("commands", "convert", "files", "fold", "models", "original", "outputs")),
    *(f"checkpoints/test_{name}" for name in ("fuzz", "prefixes", "recognise", "shards", "stats")),
)


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
    pytest(session, "checkpoints")
    pytest(session, "recipes", "site")


@nox.session(name="tests-framework")
@nox.parametrize("framework", FRAMEWORKS, ids=FRAMEWORKS)
def tests_framework(session: nox.Session, framework: str) -> None:
    """One backend with only its own extra installed."""
    session.install(*CONSTRAINTS, "-e", f".[{framework},test]")
    pytest(session, framework)


@nox.session(name="tests-flax-oldest", python="3.12")
def tests_flax_oldest(session: nox.Session) -> None:
    """Flax's tests with the oldest versions that pyproject.toml allows."""
    tests_flax(session, "flax==0.12.4", "jax==0.8.1", "jaxlib==0.8.1")


@nox.session(name="tests-flax-newest", python="3.13")
def tests_flax_newest(session: nox.Session) -> None:
    """Flax's tests with the newest versions there are."""
    tests_flax(session, "--upgrade", "flax", "jax", "jaxlib")


def tests_flax(session: nox.Session, *versions: str) -> None:
    session.install("-e", ".[flax,test]")
    session.install(*versions)
    session.run("pip", "list", "--format=freeze")
    pytest(session, "flax")


@nox.session
def zoo(session: nox.Session) -> None:
    """Third-party models: over-parameterized, trained, folded, loaded, for PyTorch, Keras and Flax.

    What is installed last is without its dependencies, of which the models need those that are named.
    """
    flax = ("einops", "h5py", "pillow", "requests", "tqdm")
    keras = ("kagglehub", "regex", "sentencepiece", "tokenizers")
    torch = ("accelerate", "diffusers", "huggingface_hub", "lightning", "timm", "torchvision", "transformers")
    session.install(*CONSTRAINTS, "-e", ".[flax,keras,torch,test]", *flax, *keras, *torch)
    session.install("--no-deps", "flaxdiff", "flaxmodels", "jax-resnet", "keras-hub", "segmentation-models-pytorch")
    for files in (("torch/zoo", "torch/zoo_loaders"), ("keras/zoo",), ("flax/zoo",)):
        session.run("pytest", *(f"conformance/tests/{file}.py" for file in files), *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types only."""
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    check(session)


@nox.session
def thorough(session: nox.Session) -> None:
    """The tests with thousands of random configurations per backend instead of hundreds."""
    session.env["HYPOTHESIS_PROFILE"] = "thorough"
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    for framework in FRAMEWORKS:
        pytest(session, framework)


@nox.session
def ways(session: nox.Session) -> None:
    """Every way of every backend with every case that it supports, hours, and a fault planted in each."""
    session.env["DOCONV_FULL"] = "1"
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    for framework in FRAMEWORKS:
        # Ways share nothing: whichever worker is free takes the next.
        pytest(session, f"{framework}/test_ways.py", dist="worksteal")
        pytest(session, f"{framework}/test_planted_ways.py")


@nox.session(name="kill-matrix")
def kill_matrix(session: nox.Session) -> None:
    """Every planted fault against the case table, with three seeds: a survivor is a failure. Writes docs/kill-matrix.md.

    Then the diagnosis of every fault, and of each as if it were not in the catalogue.
    """
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run(
        "python",
        "-m",
        "doconv_conformance.maintenance.kill_matrix",
        "--output",
        "docs/kill-matrix.md",
        *session.posargs,
    )
    session.env["DOCONV_FULL"] = "1"
    pytest(session, "suite/diagnosis/test_diagnosis.py")


@nox.session(name="no-false-alarm")
def no_false_alarm(session: nox.Session) -> None:
    """20,000 random draws per backend, none of which may leave its bound."""
    session.install(*CONSTRAINTS, "-e", ".[all]")
    for framework in FRAMEWORKS:
        draws = ("python", "-m", "doconv_conformance.maintenance.no_false_alarm", "--backend", framework)
        session.run(*draws, *session.posargs, env=ONE_THREAD)


@nox.session
def fuzz(session: nox.Session) -> None:
    """A million files that no program should write, against every reader: each is read or refused."""
    session.install(*CONSTRAINTS, "-e", ".[torch]", "h5py")
    session.run("python", "-m", "doconv_conformance.maintenance.fuzz", *session.posargs, env=ONE_THREAD)


@nox.session
def coverage(session: nox.Session) -> None:
    """The branches of the core that its own tests enter, and those of each backend's composition, by the suite and its tests.

    The first has a floor. The second is a report to read. What it does not see are processes that a test starts (a wrong
    variable of the environment) and what `torch.compile` traces (autocast, compiled), which other tests enter.
    """
    session.install(*CONSTRAINTS, "-e", ".[all,test]", "coverage")
    data = Path("build/coverage")
    data.mkdir(parents=True, exist_ok=True)
    core = (f"--data-file={data / 'core'}",)
    files = [f"conformance/tests/{name}.py" for name in FRAMEWORKLESS if "fuzz" not in name]
    session.run(
        "coverage", "run", "--branch", *core, "--source=doconv_core", "-m", "pytest", "-q", *files, env=ONE_THREAD
    )
    session.run("coverage", "report", *core, "--skip-covered", "--show-missing", f"--fail-under={COVERED}")
    for framework in FRAMEWORKS:
        mine = f"--data-file={data / framework}"
        include = ",".join(f"*/doconv_{framework}/{name}.py" for name in COMPOSITION)
        # A run starts more than one process of the port; each writes a file of its own.
        measure = ("coverage", "run", "--branch", "--parallel-mode", mine, f"--include={include}", "-m")
        adapter = f"doconv_conformance.adapters.{framework}"
        for engine in ("tensorflow", "jax") if framework == "keras" else ("",):  # they compose groups differently
            env = ONE_THREAD | ({"KERAS_BACKEND": engine} if engine else {})
            session.run("doconv", "check", "--", "python", "-m", *measure, adapter, env=env)
        for name in COMPOSITION_TESTS.get(framework, ()):
            session.run(*measure, "pytest", "-q", f"conformance/tests/{framework}/test_{name}.py", env=ONE_THREAD)
        session.run("coverage", "combine", mine)
        session.run("coverage", "report", mine, "--show-missing")


@nox.session
def mutants(session: nox.Session) -> None:
    """Every small change of the core's mathematics, or of the modules named, must fail a test; half an hour."""
    session.install(*CONSTRAINTS, "-e", ".[all,test]", "cosmic-ray")
    session.run("python", "-m", "doconv_conformance.maintenance.mutants", *session.posargs, env=ONE_THREAD)


@nox.session
def oldest(session: nox.Session) -> None:
    """The core, the commands and the suite's reference port with the lowest versions that are declared."""
    declared = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    requirements = declared["dependencies"] + declared["optional-dependencies"]["report"]
    session.install(*(requirement.replace(">=", "==") for requirement in requirements))
    session.install("--no-deps", "-e", ".")
    session.install("h5py", "hypothesis", "pytest")
    files = [f"conformance/tests/{name}.py" for name in FRAMEWORKLESS]
    # Old versions of some packages use what new versions of others call deprecated.
    session.run("pytest", "-W", "ignore::DeprecationWarning", *files, *session.posargs, env=ONE_THREAD)
    session.run("doconv", "check", "--", "python", "-m", "doconv_conformance.adapters.core", env=ONE_THREAD)


@nox.session
def bench(session: nox.Session) -> None:
    """Every benchmark, half an hour; the results go to benchmarks/results/, the tables to docs/benchmarks.md."""
    session.install(*CONSTRAINTS, "-e", ".[all]", "optax")
    results = f"benchmarks/results/{session.posargs[0] if session.posargs else 'local'}.json"
    session.run("python", "benchmarks/run.py", "--out", results)
    session.run("python", "benchmarks/table.py", *map(str, sorted(Path("benchmarks/results").glob("*.json"))))


@nox.session
def evidence(session: nox.Session) -> None:
    """Train the six-layer task on both sides, a few minutes on two cores; the page goes to evidence-local.md.

    48 of the full recipe's runs: the two rates at which no run of its grid failed on either side. Needs the pictures of
    Fashion-MNIST: `apt-get install dataset-fashion-mnist`.
    """
    session.install(*CONSTRAINTS, "-e", ".[torch,report]", "scikit-learn")
    out, page = "evidence-local.csv", Path("evidence-local.md")
    chosen = ("--rates", "0.02", "0.04", "--variants", "plain", "do", "plain-equal-time", "plain-longer")
    options = (*chosen, "--grid-seeds", "2", "--jobs", "2", "--out", out, *session.posargs)
    session.run("python", "recipes/train.py", "six-layers", *options, env=ONE_THREAD)
    page.write_text("<!-- results: written by python recipes/report.py -->\n<!-- /results -->\n", "utf-8")
    session.run("python", "recipes/report.py", out, "--page", str(page))


@nox.session
def tutorials(session: nox.Session) -> None:
    """Run the tutorials and write what they print into their pages, a minute."""
    session.install(*CONSTRAINTS, "-e", ".[all]", "scikit-learn")
    session.run("python", "docs/run_tutorials.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, in `site/`; a broken link is an error."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", *session.posargs)


def check(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


def pytest(session: nox.Session, *folders: str, dist: str = "loadfile") -> None:
    """By default a file stays with one worker: its tests share what is slow to make."""
    paths = (f"conformance/tests/{folder}" for folder in folders)
    session.run("pytest", *WORKERS, "--dist", dist, *paths, *session.posargs, env=ONE_THREAD)
