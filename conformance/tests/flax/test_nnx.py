"""The suite on the nnx layers: what is not the linen layers' own code."""

from doconv_conformance.cases.table import select
from doconv_conformance.running.runner import python_backend, run_cases
from doconv_conformance.verdicts.judge import disagreements


def test_every_case_agrees_with_the_core() -> None:
    operations = ("forward", "backward", "fold")  # `compose` and `initialise` are one function for both interfaces
    pairs = [pair for pair in select() if pair[0].dtype in ("float32", "bfloat16") and pair[1] in operations]
    run = run_cases(python_backend("flax-nnx", "doconv_conformance.adapters.flax", "nnx"), pairs)
    wrong = disagreements(run.results)
    assert not wrong, "\n".join(wrong[:20])
    assert sum(row.verdict in ("exact", "within_bound") for row in run.results) > 100
