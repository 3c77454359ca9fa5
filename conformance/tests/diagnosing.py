"""The diagnosis of a port in the tests' own process, on some cases."""

import numpy as np

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.diagnosis.asking import Question
from doconv_conformance.diagnosis.claims import Diagnosis
from doconv_conformance.diagnosis.diagnose import diagnose
from doconv_conformance.faults import CATALOGUE
from doconv_conformance.port import OPERATIONS, Tensors
from doconv_conformance.verdicts.bounds import Numerics, expected
from doconv_conformance.verdicts.judge import Result, judge, judged_exactly, row
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry


class Direct:
    """Asks a port in this process."""

    supports = OPERATIONS

    def __init__(self, port: object, restart: object = lambda: None) -> None:
        self.port, self.restart = port, restart

    def __call__(self, operation: str, question: Question) -> Tensors | None:
        try:
            with np.errstate(all="ignore"):
                outputs = getattr(self.port, operation)(question.geometry, question.inputs(operation))
        except (ValueError, TypeError, IndexError):
            return None
        return {name: np.ascontiguousarray(value) for name, value in outputs.items()}

    afresh = __call__

    def check(self) -> None:
        """There is time."""


def changed(g: ConvGeometry, **options: object) -> ConvGeometry:
    """The geometry with other options."""
    return ConvGeometry.from_json(g.to_json() | options)


class Changed(CorePort):
    """What is done to the output of `forward`, and so to that of `fold`."""

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        y = super().forward(geometry, inputs)["y"]
        return {"y": self.changed(y.astype(np.float64), geometry, inputs).astype(y.dtype)}

    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        raise NotImplementedError

    def otherwise(
        self, g: ConvGeometry, inputs: Tensors, kernel: np.ndarray | None = None, **options: object
    ) -> np.ndarray:
        """The output with another kernel or other options."""
        kernel = self.kernel(g, inputs) if kernel is None else kernel
        return convolve(inputs["x"], kernel, inputs.get("bias"), changed(g, **options), dtype=np.float64)


def diagnosed(
    port: object, pairs: list, numerics: Numerics, asker: Direct, catalogue: object = CATALOGUE
) -> list[Diagnosis]:
    results: list[Result] = []
    outputs = {}
    for case, operation in pairs:
        answer = asker(operation, Question(case.geometry, case.tensors, case.dtype, case.param_dtype))
        if answer is None:
            results.append(row("port", case, operation, verdict="crashed", reason="raised"))
            continue
        outputs[case.id, operation] = answer
        exact = judged_exactly(case, operation, numerics)
        results.append(row("port", case, operation, **judge(expected(case, operation, numerics), answer, exact=exact)))
    asker.restart()
    return diagnose(results, outputs, numerics, catalogue=catalogue, asker=asker)
