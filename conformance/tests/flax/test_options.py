"""The whole option space: a DO layer is Flax's own layer with the composed kernel, and refuses the same in the same words.

What a layer computes, and its gradients, JAX shows before any number is known: the two programs are compared expression by
expression, which holds for all numbers and on every device. Every twentieth is also run, and its numbers compared bit for bit.
"""

import math
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.errors import FlaxError, ScopeParamShapeError
from hypothesis import given
from hypothesis import strategies as st

import doconv_flax

REFUSALS = (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError, KeyError, FlaxError)
PADDINGS = ("SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL", "SAME_LOWER")
FLOATS = ("float32", "bfloat16", "float16")


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A layer's class and arguments and the input's shape and type; some can't work."""
    api, transposed = draw(st.sampled_from(("linen", "nnx"))), draw(st.booleans())
    rank = draw(st.integers(1, 3))

    def seldom(good: Any, bad: Any) -> Any:
        return draw(st.sampled_from(bad)) if draw(st.integers(0, 19)) == 0 else good

    def each(low: int, high: int) -> Any:
        one = st.integers(low, high)
        return draw(st.one_of(st.none(), one, st.tuples(*[one] * rank)))

    kernel: Any = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    groups = 1 if transposed else draw(st.integers(1, 3))
    features = groups * draw(st.integers(1, 2)) + seldom(0, [1])
    channels = groups * draw(st.integers(1, 2)) + seldom(0, [1])
    ends = st.integers(0, 2)
    options: dict[str, Any] = {
        "strides": each(1, 2),
        "padding": draw(
            st.one_of(
                st.sampled_from(PADDINGS), ends, st.tuples(*[ends] * rank), st.tuples(*[st.tuples(ends, ends)] * rank)
            )
        ),
        "kernel_dilation": each(1, 2),
        "use_bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from((None, None, *FLOATS))),
        "param_dtype": draw(st.sampled_from(("float32", "float32", *FLOATS))),
        "precision": draw(st.sampled_from((None, "highest", jax.lax.Precision.HIGH))),
    }
    options["padding"] = seldom(options["padding"], ["FULL", ((1, 2),) * (rank + 1)])
    transpose_kernel = transposed and draw(st.booleans())
    if transposed:
        options["transpose_kernel"] = transpose_kernel
    else:
        options |= {
            "feature_group_count": groups,
            "input_dilation": draw(st.sampled_from((1, 1, None, 2, (2,) * rank))),
        }
    if transposed or api == "nnx":
        options["preferred_element_type"] = draw(st.sampled_from((None, None, "float32")))
    ends_of_kernel = (features, channels) if transpose_kernel else (channels // groups, features)
    plain = (*kernel, *ends_of_kernel)
    if draw(st.integers(0, 3)) == 0:
        options["mask"] = np.arange(math.prod(plain)).reshape(seldom(plain, [(1, *plain)])) % 2
        options["mask"] = jnp.asarray(options["mask"], options["param_dtype"])
    taps = math.prod(kernel)
    batch = draw(st.sampled_from(((2,), (2,), (), (2, 3))))
    return {
        "api": api,
        "transposed": transposed,
        "channels": channels,
        "features": features,
        "kernel_size": kernel[0] if rank == 1 and draw(st.booleans()) else kernel,
        "options": options,
        "plain": plain,
        "d_mul": draw(st.sampled_from((None, taps, taps + 1, 2 * taps, 2 * taps + 1))),
        "shape": (*batch, *[draw(st.integers(3, 6)) for _ in range(rank)], channels + seldom(0, [1])),
        "x_dtype": options["dtype"] or options["param_dtype"],
    }


def attempt(function: Callable[[], Any]) -> tuple[Any, tuple[type, str] | None]:
    """What a call gives, or the type and text of its error."""
    try:
        return function(), None
    except REFUSALS as error:
        return None, (type(error), str(error))


def layer(drawn: dict[str, Any], ours: bool) -> Callable[[dict, jax.Array], jax.Array]:
    """The layer as a function of its parameters and its input."""
    name, options = "ConvTranspose" if drawn["transposed"] else "Conv", drawn["options"]
    added = {"d_mul": drawn["d_mul"]} if ours else {}
    if drawn["api"] == "linen":
        cls = getattr(doconv_flax.linen, f"DO{name}") if ours else getattr(nn, name)
        module = cls(drawn["features"], drawn["kernel_size"], **options, **added)
        return lambda params, x: module.apply({"params": params}, x)
    cls = getattr(doconv_flax.nnx, f"DO{name}") if ours else getattr(nnx, name)
    zeros = nnx.initializers.zeros
    graph, state = nnx.split(
        nnx.eval_shape(
            lambda: cls(drawn["channels"], drawn["features"], drawn["kernel_size"], **options, **added, kernel_init=zeros,
                        rngs=nnx.Rngs(0))
        )
    )  # fmt: skip

    def call(params: dict, x: jax.Array) -> jax.Array:
        params = params | {"mask": options.get("mask")}
        given = jax.tree_util.tree_map_with_path(lambda path, _: params[path[0].key], state)
        return nnx.merge(graph, given)(x)

    return call


def arguments(drawn: dict[str, Any]) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
    plain, taps, d_mul = (
        drawn["plain"],
        math.prod(drawn["plain"][:-2]),
        drawn["d_mul"] or math.prod(drawn["plain"][:-2]),
    )
    shapes = {"kernel": plain if d_mul == taps or taps == 1 else (d_mul, *plain[-2:])}
    if taps > 1:
        shapes["D"] = (*plain[:-2], d_mul, drawn["channels"])
    if drawn["options"]["use_bias"]:
        shapes["bias"] = (drawn["features"],)
    dtype = jnp.dtype(drawn["options"]["param_dtype"])
    params = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}
    return params, jax.ShapeDtypeStruct(drawn["shape"], jnp.dtype(drawn["x_dtype"]))


def program(layer: Callable[[dict, jax.Array], jax.Array]) -> Callable[[dict, jax.Array], Any]:
    """The output and the gradients of a layer."""

    def run(params: dict, x: jax.Array) -> Any:
        y, pull = jax.vjp(layer, params, x)
        return y, pull(jnp.cos(y))

    return run


def expressions(closed: Any) -> list[Any]:
    """Each output of a program as the expression that computes it: the order of its lines does not matter."""
    known: dict[Any, Any] = {var: ("input", index, str(var.aval)) for index, var in enumerate(closed.jaxpr.invars)}
    known |= {var: ("constant", np.asarray(value).tobytes(), str(var.aval))
              for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True)}  # fmt: skip

    def of(atom: Any) -> Any:
        return known[atom] if atom in known else ("literal", str(atom.aval), str(atom))

    for line in closed.jaxpr.eqns:
        inputs = tuple(of(atom) if not hasattr(atom, "val") else ("literal", str(atom.aval), str(atom.val))
                       for atom in line.invars)  # fmt: skip
        value = hash((line.primitive.name, str(line.params), inputs))
        known |= {var: (value, index, str(var.aval)) for index, var in enumerate(line.outvars)}
    return [known.get(var, str(var)) for var in closed.jaxpr.outvars]


def compare(drawn: dict[str, Any], run: bool) -> str:
    """Assert that both layers do the same, and say what that was."""
    params, x = arguments(drawn)
    plain = {name: leaf for name, leaf in params.items() if name != "D"}
    plain["kernel"] = jax.ShapeDtypeStruct(drawn["plain"], params["kernel"].dtype)
    (_, refused), (got, ours) = (
        attempt(lambda ours=ours, given=given: jax.make_jaxpr(program(layer(drawn, ours)))(given, x))
        for ours, given in ((False, plain), (True, params))
    )
    if (
        refused and refused[0] is ScopeParamShapeError
    ):  # its text names the shape of `kernel`, which here is that of `W`
        ours, refused = ours and ours[:1], refused[:1]
    assert ours == refused, drawn
    if refused:
        return "refused"

    def composed(params: dict, x: jax.Array) -> jax.Array:
        transpose_kernel = drawn["options"].get("transpose_kernel", False)
        kernel = doconv_flax.compose(params["kernel"], params.get("D"), transpose_kernel=transpose_kernel)
        given = {name: value for name, value in params.items() if name != "D"} | {"kernel": kernel}
        return layer(drawn, False)(given, x)

    want = jax.make_jaxpr(program(composed))(params, x)
    assert expressions(got) == expressions(want), (got, want)
    if not run:
        return "the same program"
    rng = np.random.default_rng(0)
    numbers = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), (params, x))
    values = [jax.jit(program(f))(*numbers) for f in (composed, layer(drawn, True))]
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other, strict=True), *values)
    return "the same numbers"


def test_a_layer_is_the_plain_layer_with_the_composed_kernel() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    number = count()

    @given(configurations())
    def each(drawn: dict[str, Any]) -> None:
        outcomes[drawn["api"], compare(drawn, next(number) % 20 == 0)] += 1

    each()
    # The draw was worth something: most of it works, in both interfaces.
    for api in ("linen", "nnx"):
        assert sum(n for (name, _), n in outcomes.items() if name == api) > 0.3 * sum(outcomes.values()), outcomes
        assert all(outcomes[api, outcome] > 2 for outcome in ("refused", "the same program", "the same numbers")), (
            outcomes
        )
    assert sum(n for (_, outcome), n in outcomes.items() if outcome != "refused") > 0.5 * sum(outcomes.values()), (
        outcomes
    )
