"""A forgotten `fold`, noticed where a convolution is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flax import linen as nn

from doconv_flax._fold import belong_together
from doconv_flax._linen_layers import DOConv, DOConvTranspose
from doconv_flax._linen_tree import raw


@contextmanager
def require_fold() -> Iterator[None]:
    """Within it, a plain convolution that is given a `D` beside its kernel raises, in place of ignoring it.

    Linen passes over parameters that no layer asks for, and at `S == K` `W` has the plain kernel's shape, so nothing of Flax's
    notices that a model is given the parameters of `overparameterize` without `fold`. `with require_fold():` around a training
    loop or a test, or `@require_fold()` before a function, notices it at the first call. It looks at what is traced or run in
    this thread; a function that was compiled before is not traced again.

    Raises:
        ValueError: at the call of the convolution.
    """

    def check(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        plain = isinstance(module, nn.Conv | nn.ConvTranspose) and not isinstance(module, DOConv | DOConvTranspose)
        if plain and context.method_name == "__call__" and module.has_variable("params", "D"):
            kernel, D = (raw(module.get_variable("params", name)) for name in ("kernel", "D"))
            if belong_together(kernel.shape, D.shape):
                raise ValueError(
                    "a convolution is given W and D and would run on W alone: give it fold(params, spec), or use "
                    "OverParameterized(model) and call the wrapper, not the model in it. "
                    f"Received: {'/'.join(module.scope.path) or type(module).__name__}"
                )
        return call(*args, **kwargs)

    with nn.intercept_methods(check):
        yield
