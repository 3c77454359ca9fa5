"""The layer as loops: the unedited program is the layer, and single edits of it that a port makes are read back."""

from dataclasses import replace

import numpy as np
import pytest
from diagnosing import Direct, diagnosed

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import Case, cases, select
from doconv_conformance.diagnosis.loops import layer, search
from doconv_conformance.diagnosis.loops.edits import KEEPS, edits
from doconv_conformance.diagnosis.loops.nest import Edit
from doconv_conformance.diagnosis.planted import MeasuredPort, run
from doconv_conformance.faults import Fault
from doconv_conformance.port import Tensors
from doconv_conformance.running.runner import numerics_of
from doconv_core.geometry import ConvGeometry

FOLLOWED = ("forward", "grad_x", "grad_kernel")


def planted(
    nest: str, name: str, text: str, steps: tuple[str, ...], step: str = "forward", kind: str = "plain", **more
):
    return search.planted(Edit(nest, name, text, **more), step, steps, kind)


def keep(words: str):
    return next(keep for said, keep in KEEPS if said == words)


class Port(CorePort):
    """The core with an edit."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def answer(self, operation: str, g: ConvGeometry, inputs: Tensors) -> Tensors:
        port = MeasuredPort(self.fault) if self.fault.where(g) else CorePort()
        return getattr(port, operation)(g, dict(inputs))

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self.answer("compose", geometry, inputs)

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self.answer("forward", geometry, inputs)

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self.answer("backward", geometry, inputs)

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self.answer("fold", geometry, inputs)


def of_integers() -> list[Case]:
    """A case for each geometry of exact cases."""
    found = {
        (case.geometry, case.input_size): case
        for case in cases()
        if case.numbers == "integers" and case.dtype == case.param_dtype == "float32" and not case.large
    }
    return list(found.values())


def test_the_unedited_program_is_the_layer() -> None:
    assert {case.geometry.padding_mode for case in of_integers()} == {"zeros", "reflect", "replicate", "circular"}
    for case in of_integers():
        g, inputs = case.geometry, case.inputs("backward")
        x, W, grad_y = (inputs[name].astype(np.float64) for name in ("x", "W", "grad_y"))
        D = inputs["D_delta"].astype(np.float64) if g.has_d else None
        kernel = layer.composed((), g, W, D).reshape(g.kernel_shape)
        y = layer.convolved("forward", (), g, {"x": x, "kernel": kernel}, x.shape)
        grad_kernel = layer.convolved("grad_kernel", (), g, {"x": x, "y": grad_y}, x.shape)
        got = {
            "grad_x": layer.convolved("grad_x", (), g, {"y": grad_y, "kernel": kernel}, x.shape),
            "grad_W": layer.grad_W((), g, grad_kernel, D),
        }
        if D is not None:
            got["grad_D_delta"] = layer.grad_D((), g, grad_kernel, W)
        if case.bias:
            y = y + layer.biased((), g, inputs["bias"], x.shape)
            got["grad_bias"] = layer.grad_bias((), g, grad_y, x.shape)
        forward, backward = (run([], g, name, case.inputs(name)) for name in ("forward", "backward"))
        assert forward is not None
        assert backward is not None
        assert backward.keys() == got.keys()
        np.testing.assert_array_equal(y, forward["y"], err_msg=case.name)
        for name, value in got.items():
            np.testing.assert_array_equal(value, backward[name], err_msg=f"{case.name}, {name}")


def test_blocks_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in of_integers() if case.name == "groups-2-exact-float32")
    g, inputs = case.geometry, case.inputs("forward")
    x, kernel = inputs["x"], layer.composed((), g, inputs["W"], inputs["D_delta"])
    edit = Edit("convolution", "q", "p * stride + k * dilation - high")
    whole = layer.convolved("forward", (edit,), g, {"x": x, "kernel": kernel}, x.shape)
    monkeypatch.setattr("doconv_conformance.diagnosis.loops.nest.MOST_TERMS", 200)
    np.testing.assert_array_equal(layer.convolved("forward", (edit,), g, {"x": x, "kernel": kernel}, x.shape), whole)


@pytest.mark.parametrize("nest", layer.NESTS.values(), ids=layer.NESTS)
@pytest.mark.parametrize("kind", ["plain", "transposed"])
def test_every_edit_is_one_of_a_kind_and_has_words(nest: layer.Nest, kind: str) -> None:
    step = {"identity": "compose", "delta": "compose"}.get(nest.name, "forward")
    found = [search.planted(edit, step, (step,), kind) for edit in edits(nest, ("zeros", kind))]
    assert len(found) > 200
    assert all("{" not in fault.words and "_at" not in fault.words for fault in found)


EDITS = {
    "takes min(max(q, 0), the size of the axis before - 1) for the element that position q stands for": planted(
        "convolution", "m", "min(max(q, 0), X_before - 1)", FOLLOWED, axes="last", when="replicate"
    ),
    "floor(i / (C_in/G)) * (C_out/G) + oc is right, in y of transposed layers and in grad_x of the others": planted(
        "convolution", "b", "a // A_G * A_G + c", ("plain:grad_x", "transposed:forward")
    ),
    "reads W' at (floor((n * C_out + o) / N) * (C_in/G) + c) * K + k": replace(
        planted("convolution", "kernel_at", "((n * A + a) // N * B_G + c) * K + tap", FOLLOWED),
        where=lambda g: g.groups == g.in_channels > 1 and not g.transposed,
    ),
    "where p <= trunc((size - 1 + low padding - k * dilation) / stride), not where q < size": planted(
        "convolution", "ends", "p <= cut(X - 1 + low - k * dilation, stride)", FOLLOWED, when="zeros"
    ),
    "k * the dilation of the axis after - low padding for the position in grad_y where it reads": planted(
        "convolution", "q", "p * stride + k * dilation_after - low", ("grad_kernel",), "grad_kernel", axes="first", seen=("m",)
    ),
    "stops the loop over the positions at the first 0 of grad_y in grad_bias": planted(
        "bias", "stops", "", ("grad_bias",), "grad_bias", over=("p",), stops="y"
    ),
    "of those that a tap meets inside where 3 are left beyond a multiple of 4": planted(
        "convolution", "valid", "", ("plain:forward", "transposed:grad_x"), over=("p",), axes="last",
        keep=keep("leaves out the last of {} where 3 are left beyond a multiple of 4"),
    ),
    "runs the loop over the whole tiles to floor(S/K) - 1 where floor(S/K) is right in W E^T": planted(
        "identity", "t", "T - 1", ("compose", "grad_W"), "compose"
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", EDITS, ids=lambda words: EDITS[words].name[:60])
def test_an_edit_is_read_back(words: str) -> None:
    port = Port(EDITS[words])
    types = ("float32", "float64") if "trunc" in words or "dilation of" in words else ("float32",)
    pairs = [pair for pair in select(extended=True) if pair[0].dtype in types and pair[1] != "initialise"]
    pairs = [pair for pair in pairs if not pair[0].large and pair[0].numbers == "integers"]
    first, *rest = diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Direct(port))
    assert words in first.consistent_with, [item.consistent_with for item in (first, *rest)]
    assert first.complete
