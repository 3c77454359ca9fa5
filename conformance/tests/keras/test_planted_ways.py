"""Faults that one way alone meets, planted in a copy of the backend: each is a mismatch there, and the default stays right."""

import importlib.util
import os
from collections.abc import Callable

import pytest

from doconv_conformance.adapters.ways.table import ways_of

Compare = Callable[..., tuple[int, dict[str, set[str]]]]
# Of PyTorch's compiler and exports its own tests see the faults, in a third of the time.
ENGINES = ("tensorflow", "jax", "torch") if os.environ.get("DOCONV_FULL") else ("tensorflow", "jax")
# Without XLA a compiled function of TensorFlow meets most of what it meets with it.
SKIPPED = () if os.environ.get("DOCONV_FULL") else ("compiled-xla",)

FAULTS = '''

import sys
import keras
from keras import ops
import doconv_keras._layers as layers

right = layers.compose

def within(name):
    """Whether one of the framework's modules of this name traces the layer."""
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.endswith(name):
        frame = frame.f_back
    return frame is not None

def compose(W, D, **options):
    return right(W, wrong(D), **options)

def tensorflow(D):
    import tensorflow as tf
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    if tf.distribute.has_strategy():  # the second replica has no D
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return D * tf.cast(replica == 0, D.dtype)
    if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return 2 * D  # what XLA compiles counts it twice
    if tf.inside_function():
        return ops.flip(D, -2)  # a compiled branch has its columns in another order
    return D

def jax(D):
    if keras.distribution.distribution() is not None:  # the columns on the other devices are not gathered
        return ops.concatenate([D[..., :1, :], 0 * D[..., 1:, :]], -2)
    if within("jax2tf.py") or within("_export.py"):
        return ops.flip(D, -2)
    called = within("layers/layer.py") and not within("pjit.py")
    return 2 * D if called else D  # a call that nothing compiles counts it twice

def torch(D):
    import torch

    return ops.flip(D, -2) if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export() else D

wrong = {"tensorflow": tensorflow, "jax": jax, "torch": torch}[keras.backend.backend()]
layers.compose = compose
'''


def ways(engine: str) -> list[str]:
    return [way.name for way in ways_of("keras", engine)[1:] if way.name not in SKIPPED]


@pytest.fixture(scope="module", params=ENGINES)
def planted(request: pytest.FixtureRequest, compare_copy: Compare) -> tuple[str, int, dict[str, set[str]]]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"Keras's {request.param} backend needs {request.param}, which is not installed")
    asked = [ways_of("keras", request.param)[0].name, *ways(request.param)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", request.param)
        done = compare_copy("keras", FAULTS, "--way", ",".join(asked), "--case", "plain-3x3-exact-float32")
    return request.param, *done


def test_a_fault_of_each_way_is_a_mismatch(planted: tuple[str, int, dict[str, set[str]]]) -> None:
    engine, status, verdicts = planted
    assert status == 1
    assert verdicts.pop("keras") == {"exact"}
    assert verdicts == {f"keras/{way}": {"exact", "mismatch"} for way in ways(engine)}  # exact: the fold
