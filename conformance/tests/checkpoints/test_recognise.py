"""Layers by the names and shapes of their tensors: every way in which files call them, and what must not be left over."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, Layout, compose
from doconv_core.checkpoint import Arrays, Checkpoint, CheckpointError, Hints, convert_file, fold_file, open_checkpoint

CONV = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3), groups=2)
GEOMETRIES = {
    "1-D": ConvGeometry(in_channels=4, out_channels=6, kernel_size=(5,)),
    "2-D": ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 2)),
    "3-D": ConvGeometry(in_channels=2, out_channels=4, kernel_size=(2, 1, 3)),
    "groups": CONV,
    "depthwise": ConvGeometry(in_channels=6, out_channels=12, kernel_size=(2, 2), groups=6),
    "more columns": ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2, d_mul=8),
}


def parameters(geometry: ConvGeometry, label: str = "") -> tuple[np.ndarray, np.ndarray]:
    shapes = {"W": geometry.w_shape, "D": geometry.d_shape}
    W, D = (generator.floats(f"recognise{label}/{n}", s).astype(np.float32) for n, s in shapes.items())
    return W, D


def fold(
    tensors: dict[str, np.ndarray], folder: Path, hints: Hints | None = None, **options: object
) -> dict[str, np.ndarray]:
    save_file(tensors, folder / "in.safetensors")
    with open_checkpoint(folder / "in.safetensors", hints=hints) as checkpoint:
        fold_file(checkpoint, folder / "out.safetensors", **options)  # type: ignore[arg-type]
    return load_file(folder / "out.safetensors")


FLAX_NAMES = {
    "dots": "conv.{}",
    "slashes": "params/conv/{}",
    "collections": "params.block.conv.{}",
    "one layer": "{}",
}


@pytest.mark.parametrize("name", FLAX_NAMES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_flax_parameters_fold_under_their_own_names(name: str, geometry: str, tmp_path: Path) -> None:
    conv, called = GEOMETRIES[geometry], FLAX_NAMES[name].format
    W, D = parameters(conv)
    layout = Layout("flax", conv)
    given = {called("kernel"): layout.w_from_canonical(W), called("D"): layout.d_from_canonical(D)}
    given |= {called("bias"): np.ones(conv.out_channels, np.float32)}
    if name != "one layer":
        given |= {called("x").replace("conv", "bn").replace("x", "scale"): np.ones(4, np.float32)}
    folded = fold({key: np.ascontiguousarray(array) for key, array in given.items()}, tmp_path)
    want = layout.kernel_from_canonical(compose(W, D, conv))
    np.testing.assert_array_equal(folded.pop(called("kernel")), want)
    assert folded.keys() == given.keys() - {called("kernel"), called("D")}


@pytest.mark.parametrize(
    ("swapped", "ends"), [(False, (4, 6)), (False, (5, 4)), (False, (4, 4)), (True, (4, 6)), (True, (5, 4))]
)
def test_flax_transposed_parameters_fold_whether_or_not_they_are_known_as_such(
    swapped: bool, ends: tuple[int, int], tmp_path: Path
) -> None:
    conv = ConvGeometry(in_channels=ends[0], out_channels=ends[1], kernel_size=(2, 3), transposed=True)
    W, D = parameters(conv)
    layout = Layout("flax", conv, transpose_kernel=swapped)
    given = {"up.kernel": layout.w_from_canonical(W), "up.D": layout.d_from_canonical(D)}
    folded = fold({name: np.ascontiguousarray(array) for name, array in given.items()}, tmp_path)
    want = layout.kernel_from_canonical(compose(W, D, conv))
    # Both are sums in float64, in another order, and rounded once: to the same number or to its neighbour.
    np.testing.assert_array_max_ulp(folded["up.kernel"], want, maxulp=1)


def test_flax_parameters_convert_to_the_other_layouts(tmp_path: Path) -> None:
    conv = GEOMETRIES["2-D"]
    W, D = parameters(conv)
    layout = Layout("flax", conv)
    tensors = {"params.conv.kernel": layout.w_from_canonical(W), "params.conv.D": layout.d_from_canonical(D)}
    tensors |= {"params.fc.kernel": np.ones((4, 5), np.float32), "params.fc.bias": np.ones(5, np.float32)}
    tensors |= {"params.bn.scale": np.ones(4, np.float32), "params.bn.bias": np.ones(4, np.float32)}
    tensors |= {"batch_stats.bn.mean": np.ones(4, np.float32), "batch_stats.bn.var": np.ones(4, np.float32)}
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "in")
    with open_checkpoint(tmp_path / "in") as checkpoint:
        convert_file(checkpoint, tmp_path / "out", "torch")
    there = load_file(tmp_path / "out")
    np.testing.assert_array_equal(there["conv.W"], W)
    np.testing.assert_array_equal(there["conv.D"], D)
    assert there["fc.weight"].shape == (5, 4)
    assert {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"} < there.keys()


def gluon(geometry: ConvGeometry) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The authors' GluonCV file in its own words: `W.transpose(2, 3, 1, 0)`, then `einsum("msi,sio->mio", D, W)`."""
    taps, groups = geometry.taps, geometry.groups
    weight = generator.integers("gluon/W", geometry.kernel_shape, -3, 3).astype(np.float32)
    D = generator.integers("gluon/D", (taps, taps, geometry.in_channels), -3, 3).astype(np.float32)
    W = weight.transpose(2, 3, 1, 0).reshape(taps, geometry.in_channels, -1)
    composed = np.einsum("msi,sio->mio", D + np.eye(taps).reshape(taps, taps, 1), W)
    size = (*geometry.kernel_size, geometry.in_channels // groups, geometry.out_channels)
    return {"weight": weight, "D": D}, composed.reshape(size).transpose(3, 2, 0, 1)


@pytest.mark.parametrize("path", ["features.0", "resnetv10_conv0"])
@pytest.mark.parametrize("geometry", ["2-D", "groups", "depthwise"])
def test_the_authors_gluoncv_files_fold_and_import_exactly(geometry: str, path: str, tmp_path: Path) -> None:
    conv, called = GEOMETRIES[geometry], f"{path}{'.' if '.' in path else '_'}{{}}".format
    given, want = gluon(conv)
    state = {called(name): array for name, array in given.items()} | {called("bias"): np.ones(conv.out_channels)}
    np.savez(tmp_path / "in.npz", **state)
    with open_checkpoint(tmp_path / "in.npz") as checkpoint:
        done = fold_file(checkpoint, tmp_path / "out")
        convert_file(checkpoint, tmp_path / "canonical", "canonical")
    assert f"read as the authors' GluonCV file writes it: {path}" in done.notes
    folded, canonical = load_file(tmp_path / "out"), load_file(tmp_path / "canonical")
    assert folded.keys() == {called("weight"), called("bias")}
    np.testing.assert_array_equal(folded[called("weight")], want)
    W, D = canonical[f"{path}.W"], canonical[f"{path}.D_delta"]
    np.testing.assert_array_equal(compose(W, D, conv), want)


AVERAGES = {
    "mmengine": ("ema_backbone_conv_W", "ema_backbone_conv_D", "ema_backbone_conv_weight"),
    "LitEma": ("model_ema.backboneconvW", "model_ema.backboneconvD", "model_ema.backboneconvweight"),
    "with dots": ("ema.backbone.conv.W", "ema.backbone.conv.D", "ema.backbone.conv.weight"),
}


@pytest.mark.parametrize("alone", [False, True], ids=["beside the model", "alone"])
@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_fold_as_the_model_does(kind: str, alone: bool, tmp_path: Path) -> None:
    conv = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(1, 9))
    (W, D), (ema_W, ema_D) = parameters(conv), parameters(conv, "ema")
    of_W, of_D, of_weight = AVERAGES[kind]
    state = {of_W: ema_W, of_D: ema_D} | ({} if alone else {"backbone.conv.W": W, "backbone.conv.D": D})
    folded = fold(state, tmp_path, Hints({"*conv*": (1, 9)}))
    np.testing.assert_array_equal(folded.pop(of_weight), compose(ema_W, ema_D, conv))
    assert folded.keys() == (set() if alone else {"backbone.conv.weight"})


def test_an_average_of_one_tap_folds_with_its_original(tmp_path: Path) -> None:
    W = parameters(ConvGeometry(in_channels=4, out_channels=6, kernel_size=(1, 1)))[0]
    folded = fold({"a.one.W": W, "ema_a_one_W": 2 * W}, tmp_path)
    assert {name: array.shape for name, array in folded.items()} == dict.fromkeys(
        ("a.one.weight", "ema_a_one_weight"), (6, 4, 1, 1)
    )


@pytest.mark.parametrize(
    ("hints", "others", "shape"),
    [
        (Hints({"one": (1,)}), {}, (6, 4, 1)),
        (Hints({"one": (1, 1, 1)}), {}, (6, 4, 1, 1, 1)),
        (Hints(like={"one.weight": (6, 4, 1, 1, 1)}), {}, (6, 4, 1, 1, 1)),
        (Hints(), {"other.weight": np.ones((2, 2, 3), np.float32)}, (6, 4, 1)),
        (Hints(), {"other.weight": np.ones((2, 2, 3, 3, 3), np.float32)}, (6, 4, 1, 1, 1)),
        (Hints(), {}, (6, 4, 1, 1)),
    ],
)
@pytest.mark.parametrize("dialect", [None, "original-torch"])
def test_one_tap_has_as_many_axes_as_the_network(
    hints: Hints, others: dict, shape: tuple[int, ...], dialect: str | None
) -> None:
    tensors = {"one.W": np.ones((6, 4, 1), np.float32), **others}
    checkpoint = Checkpoint(Arrays("x", tensors), "x", dialect=dialect, hints=hints)
    assert checkpoint.read("one")["weight"].shape == shape


@pytest.mark.parametrize("axes", [4, 5])
def test_folded_files_that_keep_the_name_W(axes: int, tmp_path: Path) -> None:
    W, D = parameters(CONV)
    folded = fold({"a.W": W, "a.D": D, "fc.weight": np.ones((2, 3), np.float32)}, tmp_path, names="W")
    assert {name: array.shape for name, array in folded.items()} == {"a.W": (6, 2, 3, 3), "fc.weight": (2, 3)}
    np.testing.assert_array_equal(folded["a.W"], compose(W, D, CONV))
    again = np.ones((6, 2, *[3] * (axes - 2)), np.float32)
    checkpoint = Checkpoint(Arrays("x", {"a.W": again}), "x")
    assert checkpoint.notes == ["W of more than three axes is taken for a folded kernel: a"]
    np.testing.assert_array_equal(checkpoint.read("a")["weight"], again)


def zeros(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        (
            zeros(attn__W=(4, 8, 9)),
            r"attn\.W has no attn\.D beside it.*--exclude 'attn' passes on what is another kind",
        ),
        (zeros(ssm__D=(4, 8, 9)), r"ssm\.D has no ssm\.W of three axes"),
        (zeros(a__D=(3, 3, 9, 4)), r"a\.D belongs to no layer"),
        (zeros(a__D_delta=(3, 3, 9, 4)), r"a\.D_delta belongs to no layer"),
        (zeros(a__D_diag=(4, 9, 9)), r"a\.D_diag belongs to no layer"),
        (zeros(a__kernel=(3, 3, 2, 8), a__D=(3, 3, 8, 2)), r"a\.kernel: d_mul must be at least 9"),
        (zeros(a__kernel=(3, 3, 2, 8), a__D=(3, 3, 10, 2)), r"a\.kernel and a\.D do not belong together"),
        (zeros(a__kernel=(3, 3, 2, 8), a__D=(3, 3, 9, 5)), r"a\.kernel: out_channels must be divisible|do not belong"),
        (zeros(a__weight=(8, 2, 3, 3), a__D=(9, 8, 2)), r"a\.weight and a\.D do not belong together"),
        (
            zeros(a__W=(4, 2, 9), a__D=(2, 9, 9), b__kernel=(3, 3, 2, 8), b__D=(3, 3, 9, 2)),
            "layers have PyTorch's names and Flax's. Received: a and b",
        ),
    ],
)
def test_what_would_be_left_over_is_an_error_unless_it_is_excluded(
    tensors: dict[str, np.ndarray], error: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=error):
        fold(tensors, tmp_path)
    excluded = sorted({name.rpartition(".")[0] for name in tensors})
    passed = fold(tensors | zeros(conv__W=(4, 2, 9), conv__D=(2, 9, 9)), tmp_path, Hints(exclude=excluded))
    assert passed.keys() == {*tensors, "conv.weight"}


def test_two_names_that_differ_in_their_separators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"two tensors have the same name. Received: a\.b\.W and a/b/W"):
        fold({"a.b.W": np.ones((4, 2, 1)), "a/b/W": np.ones((4, 2, 1))}, tmp_path)


def test_tensors_of_such_names_that_are_no_layers_do_not_block(tmp_path: Path) -> None:
    foreign = zeros(gru__W=(4, 8), mixer__D=(16,), s4__D=(2, 16), x__W=(3,))
    folded = fold(foreign | zeros(conv__W=(4, 2, 9), conv__D=(2, 9, 9)), tmp_path)
    assert folded.keys() == {*foreign, "conv.weight"}


@pytest.mark.parametrize("delta", ["D", "D_delta"])
def test_a_model_to_be_like_is_plain(delta: str, tmp_path: Path) -> None:
    W, D = parameters(CONV)
    with pytest.raises(CheckpointError, match=rf"is over-parameterized itself.*Received: a\.W and a\.{delta}"):
        fold({"a.W": W, "a.D": D}, tmp_path, Hints(like={"a.W": W.shape, f"a.{delta}": D.shape}))


def test_a_name_with_brackets_is_a_pattern_of_itself() -> None:
    tensors = {"stem[0].W": np.ones((4, 2, 9), np.float32), "stem[0].D": np.zeros((2, 9, 9), np.float32)}
    checkpoint = Checkpoint(Arrays("x", tensors), "x", hints=Hints({"stem[0]": (1, 9)}))
    assert checkpoint.layers["stem[0]"].conv.kernel_size == (1, 9)


def test_a_plain_transposed_layer_stands_beside_the_authors(tmp_path: Path) -> None:
    """As the upsampling layers of restoration networks do; their own layers are never transposed."""
    W, D = parameters(ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3)))
    tensors = {"conv.W": W, "conv.D": D, "conv.D_diag": np.repeat(np.eye(9, dtype=np.float32)[None], 4, 0)}
    tensors |= zeros(up__weight=(8, 4, 2, 2), up__bias=(4,), square__weight=(4, 4, 2, 2))
    source = Arrays("x", tensors)
    checkpoint = Checkpoint(source, "x", dialect="original-torch", hints=Hints(transposed="square"))
    turned = {path for path, info in checkpoint.layers.items() if info.geometry.get("transposed")}
    assert turned == {"up", "square"}
    assert not checkpoint.others
    with pytest.raises(CheckpointError, match=r"no transposed DO-Conv layer. Received: conv, original-torch"):
        Checkpoint(source, "x", dialect="original-torch", hints=Hints(transposed="conv"))


WRAPPERS = ["", "module.", "_orig_mod.", "module._orig_mod.", "module.module."]
OWN = ["model.", "net.", "generator.unet."]
PATTERNS = [
    {"kernel_sizes": {"stem": (1, 9)}},
    {"kernel_sizes": {"st*": (1, 9)}},
    {"like": {"stem.weight": (6, 4, 1, 9), "up.weight": (4, 4, 3, 3)}},
]


@pytest.mark.parametrize(("prefix", "hint"), list(product(range(len(WRAPPERS) + len(OWN)), range(len(PATTERNS)))))
@pytest.mark.parametrize("beside", [{}, {"n_averaged": np.array(7)}], ids=["alone", "beside a counter"])
def test_wrappers_and_hints(prefix: int, hint: int, beside: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Every prefix with every kind of hint: the kernel has the sides that the hint says, under the plain model's name."""
    before, hints = [*WRAPPERS, *OWN][prefix], dict(PATTERNS[hint])
    stem = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(1, 9))
    up = ConvGeometry(in_channels=4, out_channels=4, kernel_size=(3, 3), transposed=True)
    (W, D), (up_W, up_D) = parameters(stem), parameters(up, "up")
    state = {f"{before}{n}": a for n, a in {"stem.W": W, "stem.D": D, "up.W": up_W, "up.D": up_D}.items()} | beside
    if before in OWN and "like" not in hints:
        hints["prefix"] = before
    folded = fold(state, tmp_path, Hints(transposed="up", **hints))  # type: ignore[arg-type]
    assert folded.keys() == {"stem.weight", "up.weight", *beside}
    np.testing.assert_array_equal(folded["stem.weight"], compose(W, D, stem))
    np.testing.assert_array_equal(folded["up.weight"], compose(up_W, up_D, up))


@pytest.mark.parametrize(
    ("hints", "error"),
    [
        (
            Hints({"stern": (3, 3)}),
            r"the pattern 'stern' \(kernel size\) matches no convolution, whose paths are stem, up\.",
        ),
        (Hints({"fc": (3, 3)}), r"the pattern 'fc' \(kernel size\) matches no convolution"),
        (Hints({"module.*": (3, 3)}), r"the pattern 'module\.\*'"),
        (Hints(transposed="no*"), r"the pattern 'no\*' \(transposed\) matches no convolution"),
        (Hints(transposed=["up", "down"]), r"the pattern 'down'"),
        (Hints(embeddings="words"), r"the pattern 'words' \(embedding\) matches no layer"),
        (Hints(exclude="attn.*"), r"the pattern 'attn\.\*' \(exclude\) matches no layer"),
        (Hints(like={"other.weight": (4, 2, 3, 3)}), r"no layer of the plain model is in it"),
        (Hints(like={"stem.weight": (4, 2, 3, 3)}), r"up is no layer of the plain model"),
        (Hints(prefix="model."), r"no name begins with the prefix 'model\.'"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_hints_that_match_nothing_are_errors(prefix: str, hints: Hints, error: str) -> None:
    shapes = zeros(stem__W=(4, 2, 9), stem__D=(2, 9, 9), up__W=(4, 4, 9), up__D=(4, 9, 9), fc__weight=(3, 2))
    tensors = {prefix + name: array for name, array in shapes.items()}
    with pytest.raises(CheckpointError, match=error):
        Checkpoint(Arrays("x", tensors), "x", hints=hints)


def test_a_string_is_one_pattern() -> None:
    tensors = zeros(up__W=(4, 4, 9), up__D=(4, 9, 9), down__W=(4, 4, 9), down__D=(4, 9, 9))
    for transposed in ("up*", ["up*"], ("up",)):
        layers = Checkpoint(Arrays("x", tensors), "x", hints=Hints(transposed=transposed)).layers
        assert [layers[path].conv.transposed for path in ("up", "down")] == [True, False]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"transposed": 5}, r"transposed must be a glob of layer paths, or several. Received: 5"),
        ({"exclude": [5]}, r"exclude must be a glob"),
        ({"kernel_sizes": 5}, r"kernel_sizes must map globs of layer paths to kernel sizes"),
        (
            {"kernel_sizes": {"a": "3x3"}},
            r"kernel_sizes must map globs to integers, one per axis. Received: 'a': '3x3'",
        ),
        ({"like": 5}, r"like must map names to shapes. Received: int"),
        ({"prefix": 5}, r"prefix must be a string"),
    ],
)
def test_hints_of_other_types_are_refused(options: dict, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        Hints(**options)


def test_hints_for_a_file_that_says_it_itself_are_refused(tmp_path: Path) -> None:
    W, D = parameters(CONV)
    save_file({"a.W": W, "a.D": D}, tmp_path / "in")
    with open_checkpoint(tmp_path / "in") as checkpoint:
        convert_file(checkpoint, tmp_path / "canonical", "canonical")
    with pytest.raises(CheckpointError, match=r"says itself what its layers are.*Received: kernel_sizes"):
        open_checkpoint(tmp_path / "canonical", hints=Hints({"a": (1, 9)}))


def test_a_depthwise_layer_of_the_authors_tensorflow_file(tmp_path: Path) -> None:
    """What `fold` writes can be opened, folded and converted again."""
    W, D = parameters(CONV)
    depthwise = generator.floats("dw", (3, 3, 4, 2)).astype(np.float32)
    np.savez(
        tmp_path / "in.npz",
        **{"conv/kernel:0": W.transpose(2, 1, 0), "conv/D:0": D.transpose(1, 2, 0), "dw/depthwise_kernel:0": depthwise},
    )
    with open_checkpoint(tmp_path / "in.npz", dialect="original-tf") as checkpoint:
        fold_file(checkpoint, tmp_path / "out")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        want = depthwise.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3)  # o = i * multiplier + m
        np.testing.assert_array_equal(checkpoint.read("dw")["weight"], want)
        convert_file(checkpoint, tmp_path / "torch", "torch")
    np.testing.assert_array_equal(load_file(tmp_path / "torch")["dw.weight"], want)


@pytest.mark.parametrize("d_mul", [9, 11])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_layer_of_keras_is_known_by_its_bias(multiplier: int, d_mul: int, tmp_path: Path) -> None:
    """Under Flax's names, in arrays that nobody described; a plain one and a plain transposed one are passed on."""
    conv = ConvGeometry(in_channels=4, out_channels=4 * multiplier, kernel_size=(3, 3), groups=4, d_mul=d_mul)
    (W, D), layout = parameters(conv, f"{multiplier}"), Layout("keras", conv, depthwise=True)
    others = {
        "plain.kernel": np.ones((3, 3, 4, 2), np.float32), "plain.bias": np.ones(8, np.float32),
        "up.kernel": np.ones((2, 2, 3, 4), np.float32), "up.bias": np.ones(3, np.float32),
    }  # fmt: skip
    bias = np.ones(conv.out_channels, np.float32)
    given = {"dw.kernel": layout.w_from_canonical(W), "dw.D": layout.d_from_canonical(D), "dw.bias": bias} | others
    folded = fold({name: np.ascontiguousarray(array) for name, array in given.items()}, tmp_path)
    want = compose(W, D, conv)
    np.testing.assert_array_equal(folded.pop("dw.kernel"), layout.kernel_from_canonical(want))
    assert folded.keys() == {"dw.bias", *others}
    with open_checkpoint(tmp_path / "in.safetensors") as checkpoint:
        convert_file(checkpoint, tmp_path / "torch", "torch")
    converted = load_file(tmp_path / "torch")
    np.testing.assert_array_equal(converted["dw.W"], W)
    np.testing.assert_array_equal(converted["dw.D"], D)
