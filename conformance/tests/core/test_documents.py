"""The code in the documents runs as it stands: the formulas against the core, each framework's examples in its own process."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import doconv_conformance.cli

ROOT = Path(__file__).parents[3]
PACKAGES = ("torch", "keras", "flax")


def examples(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


# What the README's first example takes for granted.
MODEL = (
    "import torch\nmodel = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))\n"
)


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_readme(package: str, tmp_path: Path) -> None:
    package_needed = package or "torch"
    assert importlib.util.find_spec(package_needed), f"the tests need {package_needed}: pip install '.[dev]'"
    first, *others = examples("README.md")
    example = others[PACKAGES.index(package)] if package else MODEL + first
    assert f"doconv_{package_needed}" in example
    subprocess.run([sys.executable, "-c", example], check=True, timeout=300, cwd=tmp_path)


@pytest.mark.parametrize("page", ["mathematics", "training"])
def test_formulas(page: str) -> None:
    exec("\n".join(examples(f"docs/{page}.md")), {})


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "conformance/README.md", "examples/ports/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))  # tutorials are run, in conformance/tests/site


def commands(text: str) -> Iterator[list[str]]:
    """The commands on a page: the lines of its `sh` blocks, and code within sentences that begins as a command does."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`((?:doconv|nox|python|pytest) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [line for block in blocks for line in block.splitlines()] + inline:
        for part in re.split(r"&&|\|\||\||<|>|;", line.replace("\\|", "/")):
            words = shlex.split(part, comments=True)
            if words and Path(words[0]).name in ("doconv", "nox", "python"):
                yield [Path(words[0]).name, *words[1:]]


def problem(words: list[str]) -> str | None:
    """What is wrong with a command: a subcommand, an option, a session or a file that does not exist."""
    program, *rest = words
    if program == "nox":
        wanted = [rest[index + 1].partition("(")[0] for index, word in enumerate(rest) if word == "-s"]
        sessions = re.findall(r"def (\w+)\(session|@nox.session\(name=\"([\w-]+)\"", (ROOT / "noxfile.py").read_text())
        return next((f"no session {name}" for name in wanted if not any(name in names for names in sessions)), None)
    if program == "python":
        if rest[:1] == ["-m"]:
            return None if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
        script = next((word for word in rest if word.endswith(".py")), None)
        here = script is None or any((ROOT / folder / script).exists() for folder in ("", "examples/ports"))
        return None if here or script == "my_port.py" else f"no file {script}"
    command = typer.main.get_command(doconv_conformance.cli.app)
    while rest and not rest[0].startswith("-"):
        if not hasattr(command, "commands"):
            break
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {"--help"}.union(*(parameter.opts for parameter in command.params))
    for word in rest:
        if word == "--":
            break
        if word.startswith("--") and word.partition("=")[0] not in options:
            return f"no option {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist(page: Path) -> None:
    wrong = [f"{shlex.join(words)}: {text}" for words in commands(page.read_text("utf-8")) if (text := problem(words))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("doconv fold IN OUT --like FILE", None),
        ("doconv check --stage compose -- ./my_port --its-own", None),
        ("doconv vectors export DIR", None),
        ("doconv unfold IN OUT", "no command unfold"),
        ("doconv vectors import DIR", "no command import"),
        ("doconv check --steps compose -- ./my_port", "no option --steps"),
        ("nox -s kill-matrix", None),
        ("nox -s everything", "no session everything"),
        ("python -m doconv_conformance.adapters.core", None),
        ("python benchmarks/missing.py", "no file benchmarks/missing.py"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, found: str | None) -> None:
    assert [problem(words) for words in commands(f"```sh\n{line}\n```")] == [found]
