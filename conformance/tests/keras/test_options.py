"""The whole option space: a DO layer is Keras's own layer with the composed kernel, bit for bit, and refuses the same."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import doconv_keras
from doconv_keras._arrays import to_numpy

KINDS = [f"{kind}{rank}D" for kind, ranks in (("Conv", (1, 2, 3)), ("DepthwiseConv", (1, 2)), ("SeparableConv", (1, 2)))
         for rank in ranks] + [f"Conv{rank}DTranspose" for rank in (1, 2, 3)]  # fmt: skip
POLICIES = ("float32", "float64", "bfloat16", "mixed_bfloat16", "mixed_float16")


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A layer's class and arguments, an input's shape and type; about one in four can't work."""
    name = draw(st.sampled_from(KINDS))
    rank = next(int(letter) for letter in name if letter.isdigit())
    plain, transposed = name == f"Conv{rank}D", name.endswith("Transpose")
    largest = (5, 3, 2)[rank - 1]

    def one_or_each(low: int, high: int) -> Any:
        each = st.integers(low, high)
        return draw(st.one_of(each, st.tuples(*[each] * rank)))

    def seldom(good: Any, bad: Any, times: int = 20) -> Any:
        return draw(st.just(bad) if draw(st.integers(0, times - 1)) == 0 else st.just(good))

    # XLA compiles a grouped convolution on the CPU at every call.
    groups = draw(st.integers(2, 3)) if plain and draw(st.integers(0, 5)) == 0 else 1
    kernel = one_or_each(seldom(1, 0), largest)
    taps = math.prod(kernel if isinstance(kernel, tuple) else (kernel,) * rank)
    strided = draw(st.booleans())
    paddings = [
        "valid",
        "same",
        "SAME",
        *(["causal"] if rank == 1 else []),
        *(["full"] if draw(st.integers(0, 9)) == 0 else []),
    ]
    options: dict[str, Any] = {
        "kernel_size": kernel,
        "strides": one_or_each(1, 3) if strided else 1,
        "dilation_rate": 1 if strided and draw(st.integers(0, 9)) else one_or_each(1, 2),
        "padding": draw(st.sampled_from(paddings)),
        "data_format": seldom(None, "channels_first", 8),
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "relu", "tanh"])),
    }
    if not name.startswith("Depthwise"):
        options["filters"] = groups * draw(st.integers(1, 3)) + seldom(0, 1)
    if name.startswith(("Depthwise", "Separable")):
        options["depth_multiplier"] = seldom(draw(st.integers(1, 3)), 0)
    if plain:
        options["groups"] = groups
    if transposed and draw(st.booleans()):
        options["output_padding"] = one_or_each(0, 1)
    # Keep the default where that is what was drawn: it must mean the same when it is not given.
    options = {key: value for key, value in options.items() if value not in (1, True, None, "valid")
               or key in ("kernel_size", "filters")}  # fmt: skip
    channels = groups * draw(st.integers(1, 3)) + seldom(0, 1)
    space = [draw(st.integers(2, (14, 9, 6)[rank - 1])) for _ in range(rank)]
    first = options.get("data_format") == "channels_first"
    return {
        "name": name,
        "options": options,
        "d_mul": draw(st.sampled_from((None, taps, taps + 1, 2 * taps, 2 * taps + 1))) or None,
        "shape": [draw(st.integers(1, 2)), *([channels, *space] if first else [*space, channels])],
        "policy": draw(st.sampled_from(POLICIES)),
        "seed": draw(st.integers(0, 2**16)),
    }


def attempt(function: Callable[[], Any]) -> tuple[Any, tuple[type, str] | None]:
    """What a call gives, or the type and text of its error; TensorFlow has errors of its own."""
    try:
        return function(), None
    except Exception as error:
        return None, (type(error), str(error))


def compare(drawn: dict[str, Any]) -> str:
    """Assert that both layers do the same, and say what that was."""
    name, options = drawn["name"], drawn["options"] | {"dtype": drawn["policy"], "name": "layer"}
    plain, refused = attempt(lambda: getattr(keras.layers, name)(**options))
    conv, ours = attempt(lambda: getattr(doconv_keras, f"DO{name}")(**options, d_mul=drawn["d_mul"]))
    assert ours == refused, drawn
    if refused:
        return "refused by the constructor"

    rng = np.random.default_rng(drawn["seed"])
    x = tf.cast(rng.standard_normal(drawn["shape"]), plain.compute_dtype)
    (_, refused), (_, ours) = (attempt(lambda layer=layer: layer.build(x.shape)) for layer in (plain, conv))
    assert ours == refused, drawn
    if refused:
        return "refused by build"

    for variable in conv.variables:
        variable.assign(rng.standard_normal(variable.shape))
    trained = [variable for variable in (conv.W, conv.D) if variable is not None]
    others = [variable for variable in conv.variables if not any(variable is one for one in trained)]
    composed = to_numpy(getattr(conv, conv._kernel_name)).astype(plain.variable_dtype)
    plain.set_weights([composed, *map(to_numpy, others)])
    # What XLA compiles again at every call is compared forward only.
    seed = None if options.get("groups", 1) > 1 else drawn["seed"]
    (want, refused), (got, ours) = (
        attempt(lambda layer=layer, count=count: run(layer, count, x, seed))
        for layer, count in ((plain, 1), (conv, len(trained)))
    )
    assert (ours and (ours[0], ours[1].replace(f"DO{name}", name))) == refused, drawn
    if refused:
        return "refused by the call"
    assert conv.compute_output_shape(tuple(drawn["shape"])) == plain.compute_output_shape(tuple(drawn["shape"]))
    for one, other in zip(got["same"], want["same"], strict=True):
        equal(one, other)
    if seed is not None:
        with tf.GradientTape() as tape:
            kernel = tf.convert_to_tensor(getattr(conv, conv._kernel_name))
        (gradient,) = want["kernel"]
        through = tape.gradient(kernel, [v.value for v in trained], output_gradients=tf.cast(gradient, kernel.dtype))
        for one, other in zip(got["kernel"], through, strict=True):
            equal(one, other)
    return "equal"


def run(layer: Any, kernels: int, x: tf.Tensor, seed: int | None) -> dict[str, list[tf.Tensor]]:
    """The output and, with a seed, gradients: of the input and of what follows the kernel; of the first `kernels` variables."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    if seed is None:
        return {"same": [y]}
    upstream = tf.cast(np.random.default_rng(seed).standard_normal(y.shape), y.dtype)
    variables = [variable.value for variable in layer.variables]
    grad_x, *gradients = tape.gradient(y, [x, *variables], output_gradients=upstream)
    return {"same": [y, grad_x, *gradients[kernels:]], "kernel": gradients[:kernels]}


def equal(one: tf.Tensor, other: tf.Tensor) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_layer_is_the_plain_layer_with_the_composed_kernel() -> None:
    outcomes: Counter[str] = Counter()
    given(configurations())(lambda drawn: outcomes.update([compare(drawn)]))()
    # The draw was worth something: most of it works, and every way to refuse was met.
    assert outcomes["equal"] > sum(outcomes.values()) / 2, outcomes
    assert len(outcomes) == 4, outcomes
