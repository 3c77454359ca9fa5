"""The declared ways: which ports a run asks, in which environment, and with which cases."""

import pytest

from doconv_conformance.adapters.ways.table import WAYS, ways_of
from doconv_conformance.cases.table import select
from doconv_conformance.running.ways import engines_of, idle_ways, select_ways


def test_without_a_way_each_backend_runs_in_its_default_with_every_case() -> None:
    ports = select_ways(["torch", "keras", "flax"], select())
    assert [port.port.name for port in ports] == ["torch", "keras", "flax"]
    assert [port.way.name for port in ports] == ["eager", "eager", "compiled"]
    assert all(len(port.pairs) == len(select()) for port in ports)


def test_each_way_is_a_port_of_its_own_and_flax_has_two_interfaces() -> None:
    ports = select_ways(["torch", "flax"], select(), ["compiled", "sharded"])
    names = ["torch/compiled", "torch/sharded", "flax", "flax/sharded", "flax-nnx", "flax-nnx/sharded"]
    assert [port.port.name for port in ports] == names
    assert ports[-1].port.command[-2:] == ("nnx", "sharded")
    assert ports[-1].port.env["JAX_NUM_CPU_DEVICES"] == "8"


def test_the_engine_of_keras_is_that_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (port,) = select_ways(["keras"], select(), ["sharded"])
    assert port.port.env["KERAS_BACKEND"] == "jax"
    with pytest.raises(ValueError, match=r"--way must be all or one of.*Received: onnx, mirrored"):
        select_ways(["keras"], select(), ["onnx", "mirrored"])


def test_ways_that_run_none_of_the_cases_are_said() -> None:
    ports = select_ways(["torch"], select(case="plain-3x3-exact-float32"), ["eager", "aot", "autocast"])
    assert [bool(port.pairs) for port in ports] == [True, False, False]
    assert idle_ways(ports) == [
        "run none of the cases asked for: torch/autocast",
        "run none of the cases asked for without --full: torch/aot",
    ]
    with pytest.raises(ValueError, match=r"run none of the cases asked for: torch/autocast"):
        select_ways(["torch"], select(case="plain-3x3-exact-float32"), ["autocast"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join((way.backend, *way.engines, way.name)))
def test_a_way_has_cases_and_more_of_them_in_full(way) -> None:
    own, full = way.choose(select()), way.choose(select(), full=True)
    assert own
    assert set(own) <= set(full)
    assert {operation for _, operation in full} == set(way.operations)
    assert way.summary


@pytest.mark.parametrize("backend", ["torch", "keras", "flax"])
def test_no_name_stands_twice(backend: str) -> None:
    for engine in ("tensorflow", "jax", "torch", "numpy") if backend == "keras" else engines_of(backend):
        names = [way.name for way in ways_of(backend, engine)]
        assert len(names) == len(set(names))


def test_a_gpu_runs_the_ways_that_it_can() -> None:
    names = {port.way.name for port in select_ways(["torch", "flax"], select(), ["all"], device="cuda")}
    assert {"eager", "compiled", "vmap"} <= names
    assert not {"replicated", "sharded", "onnx"} & names
    (flax,) = select_ways(["flax"], select(), device="cuda")
    assert flax.port.env["JAX_PLATFORMS"] == "cuda,cpu"
    assert 200 < len(flax.pairs) < len(select())  # XLA compiles long for a GPU
