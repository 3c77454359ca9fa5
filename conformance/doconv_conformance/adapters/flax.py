"""doconv_flax as a port: `python -m doconv_conformance.adapters.flax [linen|nnx]`."""

from __future__ import annotations

import sys
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

import doconv_core
import doconv_flax
from doconv_conformance.port import OPERATIONS, Port, Tensors, Unsupported, serve
from doconv_core import Layout
from doconv_core.geometry import PADDING_MODES, ConvGeometry

PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
GROUPED = "Flax's ConvTranspose has no feature_group_count"


class FlaxPort(Port):
    """Both of Flax's interfaces through one program; padding modes are `jnp.pad` before a layer without padding."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.name = f"flax-{api}"
        self.version = f"doconv {doconv_core.__version__}, flax {flax.__version__}, jax {jax.__version__}"
        self.device = jax.devices()[0].platform
        self.supports = {
            "operations": list(OPERATIONS),
            "spatial_ranks": [1, 2, 3],
            "transposed": True,
            "groups": True,
            "padding_modes": list(PADDING_MODES),
            "dtypes": {
                "float64": ["float64"],
                "float32": ["float32"],
                "float16": ["float32", "float16"],
                "bfloat16": ["float32", "bfloat16"],
            },
            "unsupported": [{"when": {"transposed": True, "grouped": True}, "reason": GROUPED}],
        }
        self.numerics = {
            "algorithm": "direct",
            "accumulator": {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"},
            "switches": {"jax_enable_x64": True},
        }

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        params, layout = load(geometry, inputs), Layout("flax", geometry)
        return {
            "weight": layout.kernel_to_canonical(np.asarray(doconv_flax.compose(params["kernel"], params.get("D"))))
        }

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"y": self._run(geometry, load(geometry, inputs), inputs["x"], plain=False)}

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        layout = Layout("flax", geometry)
        params, x = load(geometry, inputs), jnp.asarray(layout.activation_from_canonical(inputs["x"]))
        call = self._call(geometry, params, x.dtype, plain=False)
        _, vjp = jax.vjp(call, params, x)
        grad_y = jnp.asarray(layout.activation_from_canonical(inputs["grad_y"]))
        gradients, grad_x = jax.tree.map(np.asarray, vjp(grad_y))
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
        params = load(geometry, inputs)
        if self.api == "linen":
            folded = doconv_flax.linen.fold(params)
        else:
            plain = doconv_flax.nnx.fold(self._nnx(geometry, params, inputs["x"].dtype))
            folded = {
                name: value[...]
                for name, value in (("kernel", plain.kernel), ("bias", plain.bias))
                if value is not None
            }
        layout = Layout("flax", geometry)
        outputs = {"weight": layout.kernel_to_canonical(np.asarray(folded["kernel"]))}
        outputs["y"] = self._run(geometry, folded, inputs["x"], plain=True)
        return outputs | ({"bias": np.asarray(folded["bias"])} if "bias" in folded else {})

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        raise Unsupported("initialise")

    def _run(self, geometry: ConvGeometry, params: dict, x: np.ndarray, *, plain: bool) -> np.ndarray:
        layout = Layout("flax", geometry)
        x = jnp.asarray(layout.activation_from_canonical(x))
        return layout.activation_to_canonical(np.asarray(self._call(geometry, params, x.dtype, plain=plain)(params, x)))

    def _call(self, geometry: ConvGeometry, params: dict, dtype: Any, *, plain: bool) -> Any:
        refuse(geometry)
        if self.api == "linen":
            cls = (nn.ConvTranspose if plain else doconv_flax.linen.DOConvTranspose) if geometry.transposed else (
                nn.Conv if plain else doconv_flax.linen.DOConv)  # fmt: skip
            extra = {} if plain else {"d_mul": geometry.d_mul}
            kernel = params["kernel"]
            layer = cls(geometry.out_channels, geometry.kernel_size, param_dtype=kernel.dtype, dtype=dtype,
                        use_bias="bias" in params, **options(geometry), **extra)  # fmt: skip
            return jax.jit(lambda p, x: layer.apply({"params": p}, pad(x, geometry)))
        module = self._nnx(geometry, params, dtype, plain=plain)
        graph, state = nnx.split(module)

        def call(p: dict, x: jax.Array) -> jax.Array:
            replaced = nnx.merge(graph, state)
            for name, value in p.items():
                getattr(replaced, name)[...] = value
            return replaced(pad(x, geometry))

        return jax.jit(call)

    def _nnx(self, geometry: ConvGeometry, params: dict, dtype: Any, *, plain: bool = False) -> Any:
        refuse(geometry)
        cls = (nnx.ConvTranspose if plain else doconv_flax.nnx.DOConvTranspose) if geometry.transposed else (
            nnx.Conv if plain else doconv_flax.nnx.DOConv)  # fmt: skip
        extra = {} if plain else {"d_mul": geometry.d_mul}
        layer = cls(geometry.in_channels, geometry.out_channels, geometry.kernel_size, param_dtype=params["kernel"].dtype,
                    dtype=dtype, use_bias="bias" in params, rngs=nnx.Rngs(0), **options(geometry), **extra)  # fmt: skip
        for name, value in params.items():
            getattr(layer, name)[...] = value
        return layer


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


def options(geometry: ConvGeometry) -> dict[str, Any]:
    """The arguments that the plain and the DO layer share."""
    shared = {"strides": geometry.stride, "kernel_dilation": geometry.dilation}
    if not geometry.transposed:
        return shared | {"padding": "VALID", "feature_group_count": geometry.groups}
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


def pad(x: jax.Array, geometry: ConvGeometry) -> jax.Array:
    if geometry.transposed or not any(map(any, geometry.padding)):
        return x
    return jnp.pad(x, [(0, 0), *geometry.padding, (0, 0)], mode=PAD_MODES[geometry.padding_mode])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    serve(FlaxPort(sys.argv[1] if len(sys.argv) > 1 else "linen"))
