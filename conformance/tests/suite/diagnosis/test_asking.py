"""The diagnosis by asking, of a port that was written from the README alone: what the first line says of planted mistakes.

The words that each line must have were written beside the mistakes, not taken from the diagnosis.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from diagnosing import Direct, diagnosed

from doconv_conformance.cases.table import select
from doconv_conformance.diagnosis.asking import Question
from doconv_conformance.diagnosis.planted import NOTHING, Options, run
from doconv_conformance.diagnosis.scope import EVERYWHERE, best
from doconv_conformance.faults import CATALOGUE, Fault, FaultyPort
from doconv_conformance.port import Tensors
from doconv_conformance.running.runner import numerics_of
from doconv_conformance.verdicts.bounds import Numerics

# A mistake or two of `independent_port`, and what the first lines must say.
SAID = {
    "no-identity": ["without the identity"],
    "d-flat-transposed": ["reads D as (C_in, S, K)"],
    "d-row-output": ["takes row o of D"],
    "delta-half": ["counts D_delta 1/2 times"],
    "even-o-only": ["leaves out the odd entries of W in the product with D_delta along the output channels"],
    "compose-clipped": ["limits the composed kernel to [-4, 4]"],
    "flip": ["flipped along every axis"],
    "stride-last-one": ["ignores the stride of the last axis"],
    "pad-shift": ["starts one element too late"],
    "group-interleaved": ["channels of x for interleaved by group"],
    "bias-grouped-none": ["adds no bias, in grouped convolutions only"],
    "offset": ["adds 1 to every output"],
    "relu": ["takes 0 for negative entries of the output before the bias"],
    "first-image-only": ["leaves out all but the first entry of x along the batch"],
    "t-outpad-ignored-values": ["zeros in the rows of output padding"],
    "out-size-ceil": ["rounds the size of the output up"],
    "gx-pad-sides": ["low and the high end of the padding in the gradient of x"],
    "gd-mean-o": ["averages the gradient of D_delta"],
    "gb-strided": ["in the gradient of the bias leaves out the odd entries of grad_y along the last axis"],
    "gx-group-first": ["adds the channels of every group of the gradient of x to those of the first group"],
    "fold-doubled-bias": ["counts the bias twice"],
    "start-d-ones": ["fills D_delta with 1"],
    "x-clipped": ["limits the entries of x to [-2, 2]"],
    "sum-by-fours": [
        "leaves out what is beyond the last multiple of 4 along S of D",
        "while those of the parameters are already the right layer's",
    ],
    "dilation-lost-inside": ["ignores the dilation where it reads, with the right size of the output"],
    "even-kernel-early": ["starts one element too early on axes where the kernel is even"],
    "t-assigned": ["keeps only the share of the last tap"],
    "state-kernel-cached": ["keeps something from one question to the next"],
    "delta-small-skipped": ["takes entries of D smaller than about 0.5 for zero"],
    "in-bf16": ["rounds x of float32 convolutions to 8 digits"],
    "acc-bf16": ["adds up sums of products of bfloat16 in bfloat16"],
    "out-f16": ["rounds float32 results to 11 digits"],
    "d-centred": ["subtracts from D its mean along S"],
    "e-slightly-large": ["counts the identity's part 1.00001 times"],
    "circular-modulus": ["a wrap around by one element less than the axis has"],
    "reflect-low-only": ["pads by the mode at the low end and with zeros at the high end"],
    "t-outputs-local": ["adds the channels of every group of the output before the bias to those of the first group"],
    "grad-relu": ["counts grad_y in the gradients only where y is positive"],
    "gw-first-tile": ["for s < K, in the gradient of W"],
    "start-shared": ["divided equally among its whole tiles"],
    "in-tf32": ["rounds x and the kernel of float32 convolutions to 11 digits"],
    # two at once
    "t-outputs-local group-outputs-interleaved": ["of every group of the output", "interleaves the groups"],
    "d-centred grad-relu": ["subtracts from D its mean along S", "only where y is positive"],
    "dilation-swapped pad-sides": ["exchanges the dilations of the axes", "the low and the high end of the padding"],
    "stride-swapped bias-twice": ["adds the bias twice", "exchanges the strides of the axes"],
    "d-channel-last g-kernel-flip": ["reads D as (K, S, C_in)", "gradient of the composed kernel"],
    "t-stride-swapped reflect-edge": ["strides of the axes, in transposed convolutions only", "reflect"],
    "gw-no-delta pad-high-only": ["whole padding at the high end", "from the gradient of W"],
    "tiles-first-only delta-minus": ["first K columns only", "subtracts D_delta"],
}
ALL_TYPES = ("delta-small", "in-bf16", "acc-", "out-f16")
# Every mistake under `nox -s kill-matrix`.
SOME = 1 if os.environ.get("DOCONV_FULL") else 4


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    """The independent port, in this process."""
    arguments, path = sys.argv, str(Path(__file__).parent)
    sys.argv = arguments[:1]
    sys.path.insert(0, path)
    try:
        yield importlib.import_module("independent_port")
    finally:
        sys.argv = arguments
        sys.path.remove(path)


@pytest.mark.parametrize("mistakes", list(SAID)[::SOME])
def test_the_first_lines_say_what_is_wrong(mistakes: str, module: ModuleType) -> None:
    module.ON.clear()
    module.ON.update(mistakes.split())
    module.cache.clear()
    port = module.Independent()
    types = ("float32",) if not mistakes.startswith(ALL_TYPES) else ("float32", "bfloat16", "float16")
    pairs = [pair for pair in select() if pair[0].dtype in types]
    with np.errstate(all="ignore"):
        found = diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Direct(port, module.cache.clear))
    first = found[: len(SAID[mistakes])]
    for words in SAID[mistakes]:
        assert any(words in item.consistent_with for item in first), [item.consistent_with for item in found]
    assert all(item.kind in ("catalogue", "measured") for item in first)


def test_state_of_one_operation_hides_nothing_of_the_others(module: ModuleType) -> None:
    """A kernel that forward keeps, and a bias that fold counts twice: each has its own line."""
    module.ON.clear()
    module.ON.update(["fold-doubled-bias"])
    port, kept = module.Independent(), {}

    class Keeping(Direct):
        def __call__(self, operation: str, question: Question) -> Tensors | None:
            outputs = super().__call__(operation, question)
            if operation != "forward" or outputs is None:
                return outputs
            return kept.setdefault((str(question.geometry), question.tensors["x"].shape), outputs)

        afresh = __call__

    pairs = [pair for pair in select() if pair[0].dtype == "float32"]
    found = diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Keeping(port, kept.clear))
    said = [item.consistent_with for item in found]
    assert any("keeps something from one question to the next" in line and "in forward" in line for line in said), said
    assert any("counts the bias twice" in line for line in said), said


def test_every_mistake_shows_or_is_of_what_the_cases_do_not_reach(module: ModuleType) -> None:
    """The table of mistakes has words for each that the port makes."""
    assert set(" ".join(SAID).split()) <= module.MISTAKES.keys()


def test_without_a_mistake_there_is_nothing_to_say(module: ModuleType) -> None:
    module.ON.clear()
    port = module.Independent()
    pairs = [pair for pair in select(stage="groups") if pair[0].dtype == "float32"]
    assert diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Direct(port)) == []


STRUCTURE = [pair for pair in select() if pair[0].dtype == "float32"]


class Planted(Direct):
    """A fault of the catalogue as a port."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(None)
        self.fault = fault

    def __call__(self, operation: str, question: Question) -> Tensors | None:
        self.port = FaultyPort(self.fault if self.fault.where(question.geometry) else NOTHING)
        return super().__call__(operation, question)

    afresh = __call__


LEFT_OUT = [fault for fault in CATALOGUE if not fault.name.startswith(("float", "compose-", "sums-", "truncated"))]


@pytest.mark.parametrize("fault", LEFT_OUT[:: 1 if SOME == 1 else 12], ids=lambda fault: fault.name)
def test_a_claim_gives_the_ports_values_on_other_numbers(fault: Fault) -> None:
    """Each fault of the catalogue, diagnosed without it: what is claimed alone answers as the port does on other numbers."""
    asker = Planted(fault)
    found = diagnosed(None, STRUCTURE, Numerics(), asker, [other for other in CATALOGUE if other is not fault])
    names = {case.id: case.name for case, _ in select()}
    other_numbers = {(case.name, operation): case for case, operation in select(seed=1)}
    for item in found:
        if item.kind == "unknown" or item.fault is None:
            continue
        alone = len(found) == 1
        for case_id, operation in item.cases if alone else ():
            case = other_numbers[names[case_id], operation]
            want = asker(operation, Question(case.geometry, case.tensors, case.dtype, case.param_dtype))
            got = run([item.fault], case.geometry, operation, case.inputs(operation))
            assert want is not None
            assert got is not None
            for name, value in want.items():
                scale = max(1.0, float(np.abs(value.astype(np.float64)).max()))
                np.testing.assert_allclose(got[name].astype(np.float64), value.astype(np.float64), atol=1e-5 * scale)


def test_the_planted_reference_without_a_fault_is_the_reference() -> None:
    """With hooks that change nothing, every step of `MeasuredPort` gives the core's values, forward and backward."""
    same = Fault("same", "", "", {
        "options": lambda options, g: options, "delta_W": lambda W, g: W, "bare": lambda y, g: y,
        "conv_kernel": lambda kernel, g: kernel, "grad_parts": (1.0, 1.0), "options_grad_x": lambda options, g: options,
    })  # fmt: skip
    for case, operation in select():
        if case.exact and case.dtype == "float32":
            inputs = case.inputs(operation)
            want, got = run([], case.geometry, operation, inputs), run([same], case.geometry, operation, inputs)
            assert want is not None
            assert got is not None
            for name, value in want.items():
                np.testing.assert_array_equal(got[name], value, err_msg=f"{case.id} {operation} {name}")
            assert Options.of(case.geometry).stride == case.geometry.stride


def test_a_scope_holds_wherever_a_fault_shows_and_nowhere_else() -> None:
    from doconv_conformance.diagnosis.replay import Row

    cases = [case for case, operation in select() if operation == "compose" and case.exact and case.dtype == "float32"]
    rows = [Row(case, "compose", {}, failed=True, numerics=Numerics(algorithm="fft")) for case in cases]
    grouped = np.array([case.geometry.groups > 1 for case in cases])
    scope, mask = best(rows, grouped, ~grouped) or (EVERYWHERE, np.zeros(0))
    assert scope.words == "in grouped convolutions only"
    assert (mask == grouped).all()
    assert (best(rows, grouped, np.zeros(len(rows), bool)) or (None,))[0] is EVERYWHERE
    random = np.random.default_rng(0).random(len(rows)) < 0.5
    assert best(rows, random, ~random) is None
