"""The house: no module imports upward, and no framework is imported where it does not belong."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITE = ROOT / "conformance" / "doconv_conformance"
# From the ground up: a module imports from its own floor and the ones below.
FLOORS = (
    ("port", "files", "escaping", "counting"),
    ("cases",),
    ("verdicts",),
    ("protocol", "adapters"),
    ("running", "faults"),
    ("diagnosis",),
    ("reports",),
    ("cli", "pytest_plugin", "layer_checks", "maintenance", "__main__"),
)
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "flax", "mxnet", "optax"}
OWN = {
    "doconv_torch": {"torch"},
    "doconv_keras": {"keras", "tensorflow", "jax", "torch"},
    "doconv_flax": {"flax", "jax", "optax"},
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What a file imports, as dotted names, and whether at its top."""
    tree = ast.parse(path.read_text("utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def floor_of(parts: tuple[str, ...]) -> int:
    for floor, names in enumerate(FLOORS):
        if parts[0].removesuffix(".py") in names:
            return floor
    raise AssertionError(f"{parts[0]} has no floor")


def test_every_room_of_the_suite_has_a_floor() -> None:
    rooms = {path.relative_to(SUITE).parts[0].removesuffix(".py") for path in modules(SUITE)} - {"__init__"}
    assert rooms == {name for names in FLOORS for name in names}


@pytest.mark.parametrize("path", modules(SUITE), ids=lambda path: str(path.relative_to(SUITE)))
def test_no_module_of_the_suite_imports_upward(path: Path) -> None:
    parts = path.relative_to(SUITE).parts
    if parts == ("__init__.py",):
        return
    for name, _ in imports(path):
        if name.startswith("doconv_conformance."):
            assert floor_of(tuple(name.split(".")[1:])) <= floor_of(parts), f"{'/'.join(parts)} imports {name}"


@pytest.mark.parametrize("path", modules(ROOT / "doconv_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_no_framework_and_nothing_above_it(path: Path) -> None:
    for name, _ in imports(path):
        package = name.split(".")[0]
        assert package not in FRAMEWORKS, f"imports {name}"
        assert not package.startswith("doconv_") or package == "doconv_core", f"imports {name}"


@pytest.mark.parametrize("backend", OWN)
def test_a_backend_imports_its_own_framework_and_no_other_backend(backend: str) -> None:
    for path in modules(ROOT / "backends" / backend):
        for name, _ in imports(path):
            package = name.split(".")[0]
            assert package not in FRAMEWORKS - OWN[backend], f"{path.name} imports {name}"
            assert not package.startswith("doconv_") or package in ("doconv_core", backend), (
                f"{path.name} imports {name}"
            )


def test_only_the_adapters_and_the_packages_themselves_import_a_backend() -> None:
    for path in modules(SUITE):
        if path.relative_to(SUITE).parts[0] == "adapters":
            continue
        for name, top in imports(path):
            assert not (top and name.split(".")[0] in {*OWN, *FRAMEWORKS}), f"{path.relative_to(SUITE)} imports {name}"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of the graph, or nothing."""
    done, path = set[str](), list[str]()

    def visit(node: str) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        found = next((found for after in sorted(graph.get(node, ())) if (found := visit(after))), [])
        path.pop()
        done.add(node)
        return found

    return next((found for node in sorted(graph) if (found := visit(node))), [])


@pytest.mark.parametrize(
    "package", ["doconv_core", *(f"backends/{name}" for name in OWN), "conformance/doconv_conformance"]
)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    """Imports at the top of a module; one inside a function is there for a reason that its comment gives."""
    base = (ROOT / package).parent
    names = {".".join(path.relative_to(base).with_suffix("").parts): path for path in modules(ROOT / package)}
    graph = {
        name: {
            target
            for wanted, top in imports(path)
            if top
            for target in (wanted, wanted.rpartition(".")[0])
            if target in names
        }
        for name, path in names.items()
    }
    assert not circle({name: targets - {name} for name, targets in graph.items()})


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
