"""doconv_flax as a port: `python -m doconv_conformance.adapters.flax [linen|nnx] [WAY]`.

On the device that DOCONV_DEVICE names, TF32 off.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import version
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

import doconv_core
import doconv_flax
from doconv_conformance.adapters.ways.flax import WAYS, Holder, stack
from doconv_conformance.adapters.ways.table import way_of
from doconv_conformance.port import Port, Tensors, Unsupported, serve
from doconv_core import Layout
from doconv_core.geometry import ConvGeometry

PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
# A function is compiled once for all numbers of a shape.
compose = jax.jit(doconv_flax.compose)
start_from = jax.jit(doconv_flax.start_from, static_argnums=1, static_argnames="d_mul")
QUICK_WITH = "0.10.2"
FOUND_PRECISION = jax.config.jax_default_matmul_precision
GROUPED = "Flax's ConvTranspose has no feature_group_count"


class FlaxPort(Port):
    """Both of Flax's interfaces through one program. What Flax's paddings do not say is `jnp.pad` before the layer."""

    def __init__(self, api: str, way: str = "compiled") -> None:
        self.api = api
        declared = way_of("flax", way, api)
        self.way = WAYS[way]()
        self.name = f"flax-{api}" if way == "compiled" else f"flax-{api}/{way}"
        self.version = f"doconv {doconv_core.__version__}, flax {flax.__version__}, jax {jax.__version__}"
        device = jax.devices()[0]
        self.device = device.platform if device.platform == "cpu" else f"{device.platform}: {device.device_kind}"
        self.supports = declared.supports([{"when": {"transposed": True, "grouped": True}, "reason": GROUPED}])
        self.numerics = {
            "algorithm": "direct",
            "accumulator": {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"},
            "reduction": {"float16": "float16", "bfloat16": "bfloat16"},
            "switches": {
                "jax_enable_x64": True,
                # What a convolution asks for that says nothing itself: on a GPU the default is TF32.
                "jax_default_matmul_precision": {"found": FOUND_PRECISION, "set": "highest"},
                "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
                "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
            },
        } | declared.numerics

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        refuse(geometry)
        params, layout = load(geometry, inputs), Layout("flax", geometry)
        return {"weight": layout.kernel_to_canonical(np.asarray(compose(params["kernel"], params.get("D"))))}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"y": self._run(geometry, load(geometry, inputs), inputs["x"], plain=False)}

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        refuse(geometry)
        layout, params = Layout("flax", geometry), load(geometry, inputs)
        x, grad_y = (jnp.asarray(layout.activation_from_canonical(inputs[name])) for name in ("x", "grad_y"))
        backward = self._backward(geometry, x.dtype, params["kernel"].dtype, "bias" in params)
        gradients, grad_x = jax.tree.map(np.asarray, backward(params, x, grad_y))
        outputs = {
            "grad_x": layout.activation_to_canonical(grad_x),
            "grad_W": layout.w_to_canonical(gradients["kernel"]),
        }
        if "D" in gradients:
            outputs["grad_D_delta"] = layout.d_to_canonical(gradients["D"])
        if "bias" in gradients:
            outputs["grad_bias"] = gradients["bias"]
        return outputs

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        refuse(geometry)
        params, layout = self.way.place(load(geometry, inputs)), Layout("flax", geometry)
        if self.api == "linen":
            folded = doconv_flax.linen.fold(params)
        else:
            graph, state = self._graph(geometry, inputs["x"].dtype, params["kernel"].dtype, "bias" in params, False)
            plain = doconv_flax.nnx.fold(nnx.merge(graph, fill(state, params)))
            folded = nnx.to_pure_dict(nnx.state(plain))
        outputs = {"weight": layout.kernel_to_canonical(np.asarray(folded["kernel"]))}
        outputs["y"] = self._run(geometry, folded, inputs["x"], plain=True)
        return outputs | ({"bias": np.asarray(folded["bias"])} if "bias" in folded else {})

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        refuse(geometry)
        layout = Layout("flax", geometry)
        plain = jnp.asarray(layout.kernel_from_canonical(inputs["weight"]))
        W, D = start_from(plain, geometry.in_channels, d_mul=geometry.d_mul, key=jax.random.key(0))
        outputs = {"W": layout.w_to_canonical(np.asarray(W))}
        outputs["weight"] = layout.kernel_to_canonical(np.asarray(compose(W, D)))
        return outputs | ({} if D is None else {"D_delta": layout.d_to_canonical(np.asarray(D))})

    def _run(self, geometry: ConvGeometry, params: dict, x: np.ndarray, *, plain: bool) -> np.ndarray:
        refuse(geometry)
        layout = Layout("flax", geometry)
        x = jnp.asarray(layout.activation_from_canonical(x))
        call = self._call(geometry, x.dtype, params["kernel"].dtype, "bias" in params, plain)
        return layout.activation_to_canonical(np.asarray(call(params, x)))

    @cache  # noqa: B019  # one port a process; a function is compiled once for all numbers of a geometry
    def _call(self, geometry: ConvGeometry, dtype: Any, param_dtype: Any, bias: bool, plain: bool) -> Any:
        return self.way.run(self._function(geometry, dtype, param_dtype, bias, plain))

    def _function(self, geometry: ConvGeometry, dtype: Any, param_dtype: Any, bias: bool, plain: bool) -> Any:
        """The layer as a function of its parameters and the input."""
        stacked = self.way.stacked
        if self.api == "linen":
            holder = Holder(self._layer(geometry, dtype, param_dtype, bias, plain), self.way)

            def call(params: Any, x: jax.Array) -> jax.Array:
                return holder.apply({"params": {"layer": params}}, x)
        else:
            graph, state = self._graph(geometry, dtype, param_dtype, bias, plain)

            def call(params: Any, x: jax.Array) -> jax.Array:
                return self.way.nnx(nnx.merge(graph, fill(state, params)), x)

        def function(params: Any, x: jax.Array) -> jax.Array:
            y = call(stack(params) if stacked else params, pad(x, geometry))
            return y[1] if stacked else y

        return self.way.function(function)

    def _graph(self, geometry: ConvGeometry, dtype: Any, param_dtype: Any, bias: bool, plain: bool) -> Any:
        """The layer as structure and shapes: no number is drawn."""
        return nnx.split(nnx.eval_shape(lambda: self._layer(geometry, dtype, param_dtype, bias, plain)))

    @cache  # noqa: B019
    def _backward(self, geometry: ConvGeometry, dtype: Any, param_dtype: Any, bias: bool) -> Any:
        function = self._function(geometry, dtype, param_dtype, bias, False)
        return self.way.run(lambda params, x, grad_y: jax.vjp(function, params, x)[1](grad_y))

    def _layer(self, geometry: ConvGeometry, dtype: Any, param_dtype: Any, bias: bool, plain: bool) -> Any:
        plain_source, do_source = (nn, doconv_flax.linen) if self.api == "linen" else (nnx, doconv_flax.nnx)
        name = "ConvTranspose" if geometry.transposed else "Conv"
        cls = getattr(plain_source, name) if plain else getattr(do_source, f"DO{name}")
        extra: dict[str, Any] = {} if plain else {"d_mul": geometry.d_mul}
        channels: tuple[int, ...] = (geometry.out_channels,)
        if self.api == "nnx":
            channels, extra = (geometry.in_channels, geometry.out_channels), extra | {"rngs": nnx.Rngs(0)}
        types = {"dtype": dtype, "param_dtype": param_dtype}
        return cls(*channels, geometry.kernel_size, use_bias=bias, **types, **options(geometry), **extra)


def refuse(geometry: ConvGeometry) -> None:
    if geometry.transposed and geometry.groups > 1:
        raise Unsupported(GROUPED)


def load(geometry: ConvGeometry, inputs: Tensors) -> dict[str, jax.Array]:
    """The case's parameters in Flax's layout and under its names."""
    layout = Layout("flax", geometry)
    params = {"kernel": layout.w_from_canonical(inputs["W"])}
    if "D_delta" in inputs:
        params["D"] = layout.d_from_canonical(inputs["D_delta"])
    if "bias" in inputs:
        params["bias"] = inputs["bias"]
    return {name: jnp.asarray(value) for name, value in params.items()}


def fill(state: nnx.State, params: dict[str, jax.Array]) -> nnx.State:
    """The state of a single layer with these parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: params[path[0].key], state)


def options(geometry: ConvGeometry) -> dict[str, Any]:
    """The arguments that the plain and the DO layer share."""
    shared = {"strides": geometry.stride, "kernel_dilation": geometry.dilation}
    if not geometry.transposed:
        return shared | {"padding": own_padding(geometry) or "VALID", "feature_group_count": geometry.groups}
    pairs = [
        (span - low, span - high + extra)
        for span, (low, high), extra in zip(
            [d * (k - 1) for d, k in zip(geometry.dilation, geometry.kernel_size, strict=True)],
            geometry.padding,
            geometry.output_padding,
            strict=True,
        )
    ]
    return shared | {"padding": pairs}


def own_padding(geometry: ConvGeometry) -> Any:
    """The `padding` of Flax's layer that says what the geometry says, or None."""
    reach = [d * (k - 1) for d, k in zip(geometry.dilation, geometry.kernel_size, strict=True)]
    if geometry.padding_mode == "zeros":
        return "CAUSAL" if geometry.padding == ((reach[0], 0),) and reach[0] else list(geometry.padding)
    halves = tuple((size // 2, size - size // 2) for size in reach)
    names = {"reflect": "REFLECT", "circular": "CIRCULAR"}
    return names.get(geometry.padding_mode) if geometry.padding == halves else None


def pad(x: jax.Array, geometry: ConvGeometry) -> jax.Array:
    if geometry.transposed or own_padding(geometry):
        return x
    return jnp.pad(x, [(0, 0), *geometry.padding, (0, 0)], mode=PAD_MODES[geometry.padding_mode])


def compile_quickly() -> None:
    """Halves XLA's time to compile small functions for the CPU; an XLA that does not know the flag would end the program."""
    if version("jaxlib") == QUICK_WITH:
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


if __name__ == "__main__":
    if os.environ.get("DOCONV_QUICK"):
        compile_quickly()
    if os.environ.get("DOCONV_DEVICE") == "cuda" and jax.devices()[0].platform == "cpu":
        sys.exit("JAX finds no GPU, and would run on the CPU")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    serve(FlaxPort(*(sys.argv[1:] or ["linen"])))
