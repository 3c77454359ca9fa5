"""The whole option space: a DO layer is PyTorch's own layer with the composed kernel, bit for bit, and refuses the same."""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import doconv_torch

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A layer's class and arguments, an input's shape and the arguments of the call; about one in four can't work."""
    rank, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    largest = (5, 3, 2)[rank - 1]

    def one_or_each(low: int, high: int) -> Any:
        each = st.integers(low, high)
        return draw(st.one_of(each, st.tuples(*[each] * rank)))

    def seldom(good: st.SearchStrategy, bad: st.SearchStrategy) -> Any:
        return draw(bad if draw(st.integers(0, 19)) == 0 else good)

    groups = draw(st.integers(1, 3))
    kernel = one_or_each(1, largest)
    taps = math.prod(kernel if isinstance(kernel, tuple) else (kernel,) * rank)
    options: dict[str, Any] = {
        "in_channels": groups * draw(st.integers(1, 3)) + seldom(st.just(0), st.just(1)),
        "out_channels": groups * draw(st.integers(1, 3)) + seldom(st.just(0), st.just(1)),
        "kernel_size": kernel,
        "stride": one_or_each(seldom(st.just(1), st.just(0)), 3),
        # PyTorch leaves the dilation of a transposed kernel to the library beneath, which takes some zeros; ours refuses them.
        "dilation": one_or_each(1 if transposed else seldom(st.just(1), st.just(0)), 2),
        "groups": groups,
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from(DTYPES)),
    }
    if transposed:
        options["padding"] = one_or_each(seldom(st.just(0), st.just(-1)), 2)
        options["output_padding"] = one_or_each(0, 1)
        options["padding_mode"] = seldom(st.just("zeros"), st.just("reflect"))
    else:
        names = st.sampled_from(("same", "valid", "full"))
        options["padding"] = draw(names) if draw(st.integers(0, 3)) == 0 else one_or_each(0, 2)
        if options["padding"] == "same" and draw(st.booleans()):
            options["stride"] = 1
        options["padding_mode"] = draw(st.sampled_from(("zeros", "zeros", "reflect", "replicate", "circular")))
    # Keep the default where that is what was drawn: it must mean the same when it is not given.
    options = {key: value for key, value in options.items() if value not in (1, True, "zeros") or key == "in_channels"
               or key in ("out_channels", "kernel_size")}  # fmt: skip
    space = [draw(st.integers(2, (14, 9, 6)[rank - 1])) for _ in range(rank)]
    batch = [] if draw(st.integers(0, 4)) == 0 else [draw(st.integers(1, 2))]
    call: dict[str, Any] = {}
    if transposed and draw(st.booleans()):
        stride = options.get("stride", 1)
        call["output_size"] = [
            size * (stride if isinstance(stride, int) else 2) + draw(st.integers(0, 3)) for size in space
        ]
    return {
        "name": f"Conv{'Transpose' if transposed else ''}{rank}d",
        "options": options,
        "d_mul": draw(st.sampled_from((None, taps, taps + 1, 2 * taps, 2 * taps + 1))),
        "shape": [*batch, options["in_channels"], *space],
        "call": call,
        "seed": draw(st.integers(0, 2**16)),
    }


def attempt(function: Callable[[], Any]) -> tuple[Any, tuple[type, str] | None]:
    """What a call gives, or the type and text of its error."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
            return function(), None
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return None, (type(error), str(error))


def compare(drawn: dict[str, Any]) -> str:
    """Assert that both layers do the same, and say what that was."""
    options, call = drawn["options"], drawn["call"]
    plain, refused = attempt(lambda: getattr(nn, drawn["name"])(**options))
    conv, ours = attempt(lambda: getattr(doconv_torch, f"DO{drawn['name']}")(**options, d_mul=drawn["d_mul"]))
    if refused:
        assert ours, drawn
        assert (ours[0], ours[1].replace(f"DO{drawn['name']}", drawn["name"])) == refused
        return "refused by the constructor"

    torch.manual_seed(drawn["seed"])
    x = torch.randn(drawn["shape"], dtype=options.get("dtype"))
    if ours:  # earlier than PyTorch, which leaves it to the call
        assert "Received: " in ours[1]
        assert attempt(lambda: plain(x, **call))[1], ours
        return "refused earlier"

    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict({"weight": conv.weight} | ({"bias": conv.bias} if plain.bias is not None else {}))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    (want, refused), (got, ours) = (
        attempt(lambda layer=layer, x=x: layer(x, **call)) for layer, x in zip((plain, conv), inputs, strict=True)
    )
    assert ours == refused
    if refused:
        return "refused by the call"
    assert torch.equal(got, want)
    assert (got.dtype, got.stride()) == (want.dtype, want.stride())
    upstream = torch.randn_like(want)
    for y in (want, got):
        y.backward(upstream)
    assert torch.equal(inputs[1].grad, inputs[0].grad)
    if plain.bias is not None:
        assert torch.equal(conv.bias.grad, plain.bias.grad)
    trained = [parameter for parameter in (conv.W, conv.D) if parameter is not None]
    for parameter, gradient in zip(trained, torch.autograd.grad(conv.weight, trained, plain.weight.grad), strict=True):
        assert torch.equal(parameter.grad, gradient)

    kernel, d_mul = plain.weight.detach().clone(), drawn["d_mul"]
    if (
        conv.D is not None
    ):  # there and back: the plain layer over-parameterized is itself, and folded has its own kernel
        with torch.no_grad():
            assert torch.equal(doconv_torch.overparameterize(plain, d_mul=d_mul)(x, **call), want)
            assert torch.equal(doconv_torch.fold(plain).weight, kernel)
    return "equal"


def test_a_layer_is_the_plain_layer_with_the_composed_kernel() -> None:
    outcomes: Counter[str] = Counter()
    given(configurations())(lambda drawn: outcomes.update([compare(drawn)]))()
    # The draw was worth something: most of it works, and every way to refuse was met.
    assert outcomes["equal"] > sum(outcomes.values()) / 2, outcomes
    assert len(outcomes) == 4, outcomes
