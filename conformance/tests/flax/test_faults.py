"""What went wrong in silence once: refused by name, said loudly, or right."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from doconv_flax import linen as do_linen
from doconv_flax import nnx as do_nnx

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 6, 6, 4)).astype(np.float32))


def integers(*shape: int) -> jax.Array:
    """Small integers: every sum is exact."""
    return jnp.asarray(RNG.integers(-2, 3, shape), jnp.float32)


def equal(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), one, other)


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


# -- fold in a trace, of parameters that the function closes over ---------------------------------------------------------


@pytest.mark.parametrize("stacked", [(), (2,)])
def test_parameters_may_be_closed_over(stacked: tuple[int, ...]) -> None:
    """As a plain model's may: the numbers are known there, and are folded as outside of the trace."""
    params = {"kernel": integers(*stacked, 3, 3, 4, 6), "D": integers(*stacked, 3, 3, 9, 4)}
    want = do_linen.fold(params)["kernel"]

    def kernel(x: jax.Array) -> jax.Array:
        return do_linen.fold(params)["kernel"] * x

    equal(jax.jit(kernel)(jnp.ones(())), want)
    equal(jax.lax.map(kernel, jnp.ones(2))[1], want)
    equal(jax.checkpoint(kernel)(jnp.ones(())), want)
    equal(jax.vmap(kernel)(jnp.ones(2))[1], want)
    equal(jax.grad(lambda x: jax.jit(kernel)(x).sum())(jnp.ones(())), want.sum())
    equal(jax.jit(lambda D: do_linen.fold(params | {"D": D})["kernel"])(params["D"]), want)
    assert jax.eval_shape(lambda: do_linen.fold(params))["kernel"].shape == want.shape


def test_a_single_layer_costs_no_batch_axis() -> None:
    """`fold` of one layer in a trace is `compose`, and nothing around it."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 3, 4, 6), (3, 3, 9, 4))]
    folded = jax.make_jaxpr(lambda kernel, D: do_linen.fold({"kernel": kernel, "D": D})["kernel"])(*shapes)
    from doconv_flax import compose

    assert str(folded) == str(jax.make_jaxpr(compose)(*shapes))


# -- a forgotten fold ---------------------------------------------------------------------------------------------------


def test_a_fold_of_parameters_whose_d_never_moved_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Conv(4, (3, 3))
    spec = do_linen.conv_spec(model, X)
    params = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec)
    with caplog.at_level(logging.WARNING, "doconv"):
        do_linen.fold(params, spec)
        jax.eval_shape(lambda params: do_linen.fold(params, spec), params)
        do_linen.fold(params | {"D": params["D"].at[0, 0, 0, 0].set(1)}, spec)
        do_linen.fold(do_linen.fold(params | {"D": params["D"] + 1}, spec), spec)
    (message,) = caplog.messages
    assert message.startswith("fold: every D is zero, so the kernels are W alone.")


class Scanned(nn.Module):
    """Three layers, stacked, below a lifted transformation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scan = nn.scan(
            lambda conv, x, _: (conv(x), None), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return scan(nn.Conv(4, (3, 3), name="conv"), x, None)[0]


@pytest.mark.parametrize("model", [nn.Conv(4, (3, 3)), nn.ConvTranspose(4, (2, 2)), Scanned()])
def test_a_forgotten_fold_is_an_error_where_it_is_asked_to_be(model: nn.Module) -> None:
    spec = do_linen.conv_spec(model, X)
    params = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec)
    forgotten = jax.jit(lambda params: model.apply({"params": params}, X))
    with (
        do_linen.require_fold(),
        pytest.raises(ValueError, match=r"would run on W alone: give it fold\(params, spec\)"),
    ):
        forgotten(params)

    @do_linen.require_fold()
    def run() -> Any:
        wrapped = do_linen.OverParameterized(model)
        wrapped.apply(wrapped.init(jax.random.key(0), X), X)
        return jax.jit(lambda params: model.apply({"params": do_linen.fold(params, spec)}, X))(params)

    equal(run(), forgotten(params))  # and outside it is as silent as Flax


@do_linen.require_fold()
def test_a_d_that_is_used_or_not_ours_is_no_forgotten_fold() -> None:
    for model in (do_linen.DOConv(4, (3, 3)), do_linen.DOConvTranspose(4, (3, 3)), OwnD()):
        model.apply(model.init(jax.random.key(0), X), X)


# -- a spec that does not fit ---------------------------------------------------------------------------------------------


class Pair(nn.Module):
    """Two layers, of which `encode` reaches one."""

    def setup(self) -> None:
        self.down, self.up = nn.Conv(4, (3, 3)), nn.ConvTranspose(4, (3, 3), transpose_kernel=True)

    def encode(self, x: jax.Array) -> jax.Array:
        return self.down(x)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.up(self.encode(x))


def test_fold_refuses_a_layer_that_the_spec_does_not_know() -> None:
    """A square kernel of it may be transposed: to take it for one that is not was 47% wrong."""
    model = Pair()
    spec = do_linen.conv_spec(model, X)
    params = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec)
    with pytest.raises(ValueError, match=r"no convolution at 'params/down': .* Received: a spec of down, up"):
        do_linen.fold({"params": params}, spec)
    with pytest.raises(ValueError, match=r"no convolution at 'up': .* Received: a spec of down$"):
        do_linen.fold(params, do_linen.conv_spec(model, X, method="encode"))
    with pytest.raises(ValueError, match=r"Received: a spec of nothing"):
        do_linen.fold(params, do_linen.ConvSpec({}))
    with pytest.raises(ValueError, match=r"the spec says which .* Received: a spec and transpose_kernel=True"):
        do_linen.fold(params, spec, transpose_kernel=True)


class OwnD(nn.Module):
    """A state-space layer's skip parameter is called `D`; it stands beside a matrix `kernel`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, D = self.param("kernel", nn.initializers.normal(), (4, 4)), self.param("D", nn.initializers.ones, (4,))
        return nn.Conv(4, (3, 3), name="conv")(x) @ kernel + x * D.reshape(1, 1, 1, 4)


def test_a_modules_own_d_is_left_alone() -> None:
    model = OwnD()
    plain, spec = model.init(jax.random.key(0), X)["params"], do_linen.conv_spec(model, X)
    equal(do_linen.fold(do_linen.overparameterize(plain, spec), spec), plain)
    wrapped = do_linen.OverParameterized(model)
    equal(wrapped.apply(wrapped.init(jax.random.key(0), X), X), model.apply({"params": plain}, X))


class Student(nn.Module):
    """Initialises and runs a teacher, whose path is that of a layer of its own."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        teacher = nn.Sequential([nn.Conv(7, (3, 3), parent=None)], parent=None)
        target = teacher.apply(teacher.init(jax.random.key(1), x), x)
        return nn.Conv(7, (5, 5), name="layers_0")(x) - target


class Renormed(nn.Module):
    """As Hugging Face's Wav2Vec2: a layer that runs on parameters computed by its owner, and has none of its own."""

    def setup(self) -> None:
        self.stem, self.conv = nn.Conv(4, (3, 3)), nn.Conv(4, (3, 3), use_bias=False)
        self.v = self.param("v", nn.initializers.normal(), (3, 3, 4, 4))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv.apply({"params": {"kernel": self.v / jnp.linalg.norm(self.v.ravel())}}, self.stem(x))


def test_convolutions_of_another_models_apply_are_not_the_models() -> None:
    model = Student()
    spec = do_linen.conv_spec(model, X)
    assert {path: entry.kernel_shape for path, entry in spec.items()} == {"layers_0": (5, 5, 4, 7)}
    params = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec)
    assert params["layers_0"]["D"].shape == (5, 5, 25, 4)
    wrapped = do_linen.OverParameterized(Student())
    assert wrapped.init(jax.random.key(0), X)["params"]["layers_0"]["D"].shape == (5, 5, 25, 4)
    assert list(do_linen.conv_spec(Renormed(), X)) == ["stem"]


def test_a_spec_can_be_a_static_argument_and_inputs_may_be_shapes_by_keyword() -> None:
    model = nn.Conv(4, (3, 3))
    spec = do_linen.conv_spec(model, inputs=jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert (spec, hash(spec)) == (do_linen.conv_spec(model, X), hash(do_linen.conv_spec(model, X)))
    assert spec != do_linen.conv_spec(nn.Conv(4, (3, 2)), X)
    params = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec)
    equal(jax.jit(do_linen.fold, static_argnums=1)(params, spec), do_linen.fold(params, spec))


def test_pure_dicts_of_nnx_fold_and_states_are_refused() -> None:
    model = do_nnx.overparameterize(nnx.Sequential(nnx.Conv(4, 4, (3, 3), rngs=rngs())))
    model.layers[0].D[...] = integers(3, 3, 9, 4)
    state = nnx.state(model)
    folded = do_linen.fold(nnx.to_pure_dict(state))
    with pytest.raises(TypeError, match=r"doconv_flax.nnx.fold\(model\).* Received: State"):
        do_linen.fold(state)
    do_nnx.fold(model)
    equal(folded["layers"][0]["kernel"], model.layers[0].kernel[...])


# -- what acts on `W` before it is composed -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [nn.WeightNorm, nn.SpectralNorm])
def test_a_do_layer_in_a_linen_normalisation_can_not_be_folded(norm: type) -> None:
    class Net(nn.Module):
        conv: type

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            options = {"update_stats": False} if norm is nn.SpectralNorm else {}
            return norm(self.conv(4, (3, 3), name="conv"))(x, **options)

    model = Net(do_linen.DOConv)
    params, spec = model.init(jax.random.key(0), X)["params"], do_linen.conv_spec(model, X)
    refusal = rf"'conv' can't be folded: {norm.__name__} normalises W before it is composed.* Received: DOConv"
    with pytest.raises(ValueError, match=refusal):
        do_linen.fold(params, spec)
    if norm is nn.WeightNorm:
        with pytest.raises(ValueError, match=r"which of the two only the spec says.* Received: no spec for conv$"):
            do_linen.fold(params)
    plain = Net(nn.Conv)
    variables, spec = plain.init(jax.random.key(0), X), do_linen.conv_spec(plain, X)
    params = do_linen.overparameterize(
        variables["params"], spec
    )  # the other way round: the composed kernel is normalised
    equal(do_linen.fold(params, spec), variables["params"])


class Masked(nnx.Module):
    """As the masked convolution of a PixelCNN in artifex."""

    def __init__(self) -> None:
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs())
        self.conv.kernel[...] = 2 * self.conv.kernel[...]  # a constructor may

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = self.conv.kernel[...]
        self.conv.kernel[...] = kept.at[2].set(0)
        y = self.conv(x)
        self.conv.kernel[...] = kept
        return y


class Standardised(nnx.Module):
    """In a method that the call reaches, below something else."""

    def __init__(self) -> None:
        self.part = nnx.Dict(conv=nnx.Conv(4, 4, (3, 3), rngs=rngs()))
        self.head = nnx.Linear(4, 4, rngs=rngs())
        self.kernel = nnx.Param(jnp.ones(4))

    def weight(self) -> jax.Array:
        return jax.jit(lambda scale: self.part.conv.kernel[...] * scale)(2.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, self.weight(), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class Innocent(nnx.Module):
    """Uses other kernels, and the convolution's in a method that no call reaches."""

    def __init__(self) -> None:
        self.conv, self.head = nnx.Conv(4, 4, (3, 3), rngs=rngs()), nnx.Linear(4, 4, rngs=rngs())
        self.kernel = nnx.Param(jnp.ones(4))

    def load(self, kernel: jax.Array) -> None:
        self.conv.kernel[...] = kernel

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x) @ self.head.kernel[...].T * self.kernel[...]


class Unclear(nnx.Module):
    def __init__(self) -> None:
        self.convs = nnx.List([nnx.Conv(4, 4, (3, 3), rngs=rngs())])

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in self.convs:
            x = conv(x) + (conv.kernel[...] ** 2).sum()
        return x


def centred(layer: nnx.Conv) -> jax.Array:
    return layer.kernel[...] - layer.kernel[...].mean((0, 1, 2))


def convolve(layer: nnx.Conv, x: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, centred(layer), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Outside(nnx.Module):
    """Its call's functions are outside of the class."""

    def __init__(self) -> None:
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs())

    def __call__(self, x: jax.Array) -> jax.Array:
        return convolve(self.conv, x)


def test_code_that_uses_a_layers_kernel_is_found(caplog: pytest.LogCaptureFixture) -> None:
    for cls, found in ((Masked, r"conv: Masked\.__call__"), (Standardised, r"part\.conv: Standardised\.weight")):
        with pytest.raises(
            TypeError, match=rf"acts before it is composed: leave them out by `where`\. Received: {found}$"
        ):
            do_nnx.overparameterize(cls())
    model = Masked()
    model.conv = do_nnx.DOConv(4, 4, (3, 3), rngs=rngs())
    with pytest.raises(TypeError, match=r"no plain layer would be the same function\. Received: conv: Masked"):
        do_nnx.fold(model)
    with caplog.at_level(logging.WARNING, "doconv"):
        do_nnx.overparameterize(Innocent())
        assert not caplog.messages
        do_nnx.overparameterize(Unclear())
        do_nnx.overparameterize(Outside())
    assert [message.partition(" uses `.kernel` of something")[0] for message in caplog.messages] == [
        "Unclear.__call__", "centred"]  # fmt: skip


class Doubled(nnx.Param):
    def get_value(self, **options: Any) -> jax.Array:
        return 2 * super().get_value(**options)


@pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda kernel: Doubled(kernel), "Doubled.get_value"),
        (lambda kernel: nnx.Param(kernel, on_set_value=lambda _, value: 2 * value), "Param.set_value"),
    ],
)
def test_a_variable_that_changes_its_value_is_refused_by_name(make: Any, name: str) -> None:
    model = nnx.Sequential(nnx.Conv(4, 4, (3, 3), rngs=rngs()), do_nnx.DOConv(4, 4, (3, 3), rngs=rngs()))
    for layer in model.layers:
        layer.kernel = make(layer.kernel.get_value())
    with pytest.raises(TypeError, match=rf"leave them out by `where`. Received: layers.0: {name}$"):
        do_nnx.overparameterize(model)
    with pytest.raises(TypeError, match=rf"no plain layer would be the same function. Received: layers.1: {name}$"):
        do_nnx.fold(model)


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.int8])
def test_kernels_that_are_not_floats_are_refused(dtype: Any) -> None:
    def ones(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype)

    options = {"kernel_init": ones, "param_dtype": dtype, "use_bias": False}
    refusal = rf"must be bfloat16, float16, float32 or float64. Received: {dtype.dtype}\b"
    spec = do_linen.conv_spec(nn.Conv(4, (3, 3), use_bias=False), X)
    with pytest.raises(TypeError, match=refusal):
        do_linen.overparameterize({"kernel": jnp.ones((3, 3, X.shape[-1], 4), dtype)}, spec)
    with pytest.raises(TypeError, match=refusal):
        do_linen.DOConv(4, (3, 3), **options).init(jax.random.key(0), X)
    layer = nnx.Conv(4, 4, (3, 3), rngs=rngs(), **options)
    with pytest.raises(TypeError, match=refusal):
        do_nnx.overparameterize(layer)
    assert type(layer) is nnx.Conv


@pytest.mark.parametrize("norm", [nnx.WeightNorm, nnx.SpectralNorm])
def test_nnx_normalisations_of_a_kernel_are_refused_by_name(norm: type) -> None:
    def make(conv: type) -> nnx.Module:
        return nnx.Sequential(norm(conv(4, 4, (3, 3), rngs=rngs()), rngs=rngs()), nnx.Conv(4, 4, (3, 3), rngs=rngs()))

    path = "layers.0.layer_instance"
    with pytest.raises(TypeError, match=rf"leave them out by `where`. Received: {path}: {norm.__name__}$"):
        do_nnx.overparameterize(make(nnx.Conv))
    with pytest.raises(TypeError, match=rf"no plain layer would be .* Received: {path}: {norm.__name__}$"):
        do_nnx.fold(make(do_nnx.DOConv))
    model = do_nnx.overparameterize(make(nnx.Conv), where="layers.1")
    assert [type(layer).__name__ for layer in model.layers] == [norm.__name__, "DOConv"]


@pytest.mark.parametrize("count", [2, 3])
def test_layers_stacked_along_another_axis_are_refused(count: int) -> None:
    """With as many layers as taps along that axis the kernel's shape is as it should be; the bias's is not."""

    def make(conv: type) -> nnx.Module:
        make = nnx.vmap(lambda rngs: conv(4, 4, (3, 3), rngs=rngs), in_axes=0, out_axes=1)
        return nnx.split_rngs(splits=count)(make)(rngs())

    shape = rf"\(3, {count}, 3, 4, 4\)"
    for verb, layer in ((do_nnx.overparameterize, make(nnx.Conv)), (do_nnx.fold, make(do_nnx.DOConv))):
        with pytest.raises(ValueError, match=rf"stack layers must come first .* a kernel of shape {shape} and a bias"):
            verb(layer)


def test_a_plain_nnx_model_that_was_given_a_d_is_refused() -> None:
    """Flax's layer passes over it: `fold` would find nothing to do, and `overparameterize` begin again from zeros."""
    model, trained = (nnx.Sequential(nnx.Conv(4, 4, (3, 3), rngs=rngs()), nnx.relu) for _ in range(2))
    nnx.update(model, nnx.state(do_nnx.overparameterize(trained)))
    for verb in (do_nnx.fold, do_nnx.overparameterize, do_nnx.inspect_model):
        with pytest.raises(ValueError, match=r"plain convolutions hold a D, .* Received: layers.0"):
            verb(model)


def test_an_abstract_nnx_model_is_refused_and_can_be_looked_at() -> None:
    abstract = nnx.eval_shape(lambda: nnx.Sequential(nnx.Conv(4, 4, (3, 3), rngs=rngs())))
    with pytest.raises(TypeError, match=r"an abstract model .* Received: layers\.0$"):
        do_nnx.overparameterize(abstract)
    assert do_nnx.inspect_model(abstract) == {"layers.0": "plain Conv 3x3"}


# -- names of spatial axes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_mul", [None, 12])
def test_named_spatial_axes_come_back(d_mul: int | None) -> None:
    """At `S != K` the axis of columns has none of their names; `D` keeps them."""
    names = ("row", "column", "in", "out")
    model = nn.Conv(4, (3, 3), kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), names))
    spec = do_linen.conv_spec(model, X)
    over = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec, d_mul=d_mul)
    assert over["D"].names == ("row", "column", None, "in")
    assert do_linen.fold(over, spec)["kernel"].names == names
    mesh = jax.make_mesh((1, 1, 1, 1), names, axis_types=(jax.sharding.AxisType.Auto,) * 4)
    with jax.set_mesh(mesh):
        layer = nnx.Conv(4, 4, (3, 3), kernel_metadata={"out_sharding": names}, rngs=rngs())
        do_nnx.overparameterize(layer, d_mul=d_mul)
        assert layer.D.out_sharding == ("row", "column", None, "in")
        assert do_nnx.fold(layer).kernel.out_sharding == names
