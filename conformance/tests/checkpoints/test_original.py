"""The authors' checkpoints, made here by the formulas of their files, folded and imported for every number of groups."""

from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, compose
from doconv_core.checkpoint import (
    Arrays,
    Checkpoint,
    CheckpointError,
    Hints,
    convert_file,
    fold_file,
    open_checkpoint,
)

# (C_in, C_out, G): every kind of pairing, and channel counts that differ.
SIZES = [(6, 4, 1), (4, 8, 2), (8, 4, 4), (6, 6, 6), (6, 12, 6), (8, 12, 4), (12, 6, 3), (3, 3, 1)]
KERNEL, MULTIPLIER = (3, 2), 8
TAPS = 6


def identity() -> np.ndarray:
    E = np.zeros((TAPS, MULTIPLIER), np.float32)
    for s in range(TAPS * (MULTIPLIER // TAPS)):
        E[s % TAPS, s] = 1
    return E


def torch_row(o: int, c: int, channels: int, outputs: int, groups: int) -> int:
    return (o % groups) * (channels // groups) + c


def tf_row(o: int, c: int, channels: int, outputs: int, groups: int) -> int:
    return c * groups + o // (outputs // groups)


def layer(channels: int, outputs: int, groups: int, row: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`W` and `D` of integers, canonical shapes, and the kernel `(C_out, C_in/G, M, N)` that the authors make of them."""
    label = f"original/{channels}/{outputs}/{groups}"
    W = generator.integers(label + "/W", (outputs, channels // groups, MULTIPLIER), -3, 3).astype(np.float32)
    D = generator.integers(label + "/D", (channels, TAPS, MULTIPLIER), -3, 3).astype(np.float32)
    kernel = np.zeros((*W.shape[:2], TAPS), np.float32)
    for o, c in product(*map(range, kernel.shape[:2])):
        kernel[o, c] = (identity() + D[row(o, c, channels, outputs, groups)]) @ W[o, c]  # type: ignore[operator]
    return W, D, kernel.reshape(*W.shape[:2], *KERNEL)


def torch_file(diagonal: str | None, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A state dict as the authors' PyTorch file saves it, and the plain one that it stands for."""
    given: dict[str, np.ndarray] = {}
    plain: dict[str, np.ndarray] = {}
    for index, (channels, outputs, groups) in enumerate(SIZES):
        W, D, plain[f"net.{index}.weight"] = layer(channels, outputs, groups, torch_row)
        bias = plain[f"net.{index}.bias"] = np.arange(outputs, dtype=np.float32)
        given |= {f"net.{index}.W": W, f"net.{index}.D": D, f"net.{index}.bias": bias}
        if diagonal:
            given[f"net.{index}.{diagonal}"] = np.repeat(identity()[None], channels, 0)
    given["one.W"] = generator.floats("original/one", (4, 3, 1)).astype(np.float32)
    plain["one.weight"] = given["one.W"][..., None]
    given["fc.weight"] = plain["fc.weight"] = generator.floats("original/fc", (5, 4)).astype(np.float32)
    return {prefix + name: array for name, array in given.items()}, plain


HINTS = Hints({"net.*": KERNEL})


@pytest.mark.parametrize("diagonal", ["D_diag", "d_diag", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_files_fold_exactly(diagonal: str | None, prefix: str, tmp_path: Path) -> None:
    given, plain = torch_file(diagonal, prefix)
    save_file(given, tmp_path / "in")
    with open_checkpoint(tmp_path / "in", dialect="original-torch", hints=HINTS) as checkpoint:
        fold_file(checkpoint, tmp_path / "out")
    folded = load_file(tmp_path / "out")
    assert folded.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(folded[name], array)


def test_torch_files_import_unfolded_where_that_is_exact(tmp_path: Path) -> None:
    given, plain = torch_file("d_diag", "module.")
    save_file(given, tmp_path / "in")
    with open_checkpoint(tmp_path / "in", dialect="original-torch", hints=HINTS) as checkpoint:
        done = convert_file(checkpoint, tmp_path / "canonical", "canonical")
    folded_only = {f"net.{i}" for i, (_, outputs, groups) in enumerate(SIZES) if 1 < groups < outputs}
    assert set(done.refolded) == folded_only
    assert 0 < len(folded_only) < len(SIZES)
    tensors = load_file(tmp_path / "canonical")
    for index, (channels, outputs, groups) in enumerate(SIZES):
        W, D = tensors[f"net.{index}.W"], tensors[f"net.{index}.D_delta"]
        conv = ConvGeometry(
            in_channels=channels, out_channels=outputs, kernel_size=KERNEL, groups=groups, d_mul=MULTIPLIER
        )
        np.testing.assert_array_equal(compose(W, D, conv), plain[f"net.{index}.weight"])
        if f"net.{index}" in folded_only:
            assert not D.any()
            assert (W[..., TAPS:] != 0).any()  # columns without a gradient would be dead
        else:
            np.testing.assert_array_equal(W, given[f"module.net.{index}.W"])
    np.testing.assert_array_equal(tensors["one.weight"], plain["one.weight"])


@pytest.mark.parametrize("wide", ["W", "D"])
@pytest.mark.parametrize("trained", [False, True])
def test_two_types_are_refused_with_a_trained_diagonal_too(trained: bool, wide: str) -> None:
    W, D, _ = layer(4, 8, 2, torch_row)
    tensors = {"a.W": W, "a.D": D, "a.D_diag": np.repeat(identity()[None], 4, 0) * (2 if trained else 1)}
    tensors[f"a.{wide}"] = tensors[f"a.{wide}"].astype(np.float64)
    checkpoint = Checkpoint(Arrays("file", tensors), "file", dialect="original-torch", hints=Hints({"a": KERNEL}))
    for use in (checkpoint.fold, checkpoint.read):
        with pytest.raises(CheckpointError, match=r"must have the same dtype\. Received: float32, float64"):
            use("a")


@pytest.mark.parametrize("kind", ["h5", "nested.h5", "npz"])
def test_tensorflow_files_fold_and_import_exactly(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind.rpartition('.')[2]}"
    tensors: dict[str, np.ndarray] = {}
    plain: dict[str, np.ndarray] = {}
    for index, (channels, outputs, groups) in enumerate(SIZES):
        W, D, plain[f"conv{index}"] = layer(channels, outputs, groups, tf_row)
        tensors |= {f"conv{index}/kernel:0": W.transpose(2, 1, 0), f"conv{index}/D:0": D.transpose(1, 2, 0)}
        tensors[f"conv{index}/bias:0"] = np.arange(outputs, dtype=np.float32)
    tensors["one/kernel:0"] = generator.floats("original/one", (1, 3, 4)).astype(np.float32)
    tensors["bn/gamma:0"] = tensors["bn/moving_mean:0"] = tensors["bn/moving_variance:0"] = np.ones(4, np.float32)
    tensors["fc/kernel:0"] = generator.floats("original/fc", (4, 5)).astype(np.float32)
    prefix = ""
    if kind == "npz":
        np.savez(path, **tensors)
    else:
        prefix = "model." if kind == "nested.h5" else ""
        with h5py.File(
            path, "w"
        ) as file:  # Keras groups the weights of a layer under its name, which is also in theirs
            root = file.create_group("model_weights") if prefix else file
            for name, array in tensors.items():
                root[f"{name.partition('/')[0]}/{prefix.replace('.', '/')}{name}"] = array
    with open_checkpoint(path, dialect="original-tf", hints=Hints({f"{prefix}conv*": KERNEL})) as checkpoint:
        fold_file(checkpoint, tmp_path / "folded")
        done = convert_file(checkpoint, tmp_path / "canonical", "canonical")
    assert not done.refolded
    folded, canonical = load_file(tmp_path / "folded"), load_file(tmp_path / "canonical")
    for index, (channels, outputs, groups) in enumerate(SIZES):
        want = plain[f"conv{index}"]
        np.testing.assert_array_equal(folded[f"{prefix}conv{index}.kernel"], want.transpose(2, 3, 1, 0))
        W, D = (canonical[f"{prefix}conv{index}.{name}"] for name in ("W", "D_delta"))
        conv = ConvGeometry(
            in_channels=channels, out_channels=outputs, kernel_size=KERNEL, groups=groups, d_mul=MULTIPLIER
        )
        np.testing.assert_array_equal(compose(W, D, conv), want)
        np.testing.assert_array_equal(W.transpose(2, 1, 0), tensors[f"conv{index}/kernel:0"])
    assert folded[f"{prefix}one.kernel"].shape == (1, 1, 3, 4)
    np.testing.assert_array_equal(canonical[f"{prefix}fc.weight"], tensors["fc/kernel:0"].T)
    assert {f"{prefix}bn.weight", f"{prefix}bn.running_mean", f"{prefix}bn.running_var"} <= canonical.keys()


def test_an_hdf5_file_is_not_kept_open(tmp_path: Path) -> None:
    path = tmp_path / "in.h5"
    for value in (
        1,
        2,
    ):  # the second time the first checkpoint is there still, and HDF5 would refuse to write an open file
        with h5py.File(path, "w") as file:
            file["fc/fc/kernel:0"] = np.full((4, 5), value, np.float32)
        with open_checkpoint(path, dialect="original-tf") as checkpoint:
            np.testing.assert_array_equal(checkpoint.read("fc")["weight"], value)


def test_a_dialect_that_matters_must_be_said() -> None:
    def state(size: tuple[int, int, int]) -> dict[str, np.ndarray]:
        W, D, _ = layer(*size, torch_row)
        return {"a.W": W, "a.D": D, "a.D_diag": np.repeat(identity()[None], size[0], 0)}

    with pytest.raises(
        CheckpointError, match=r"file: a\.D_diag is the authors'.* say which dialect. Received: dialect=None"
    ):
        Checkpoint(Arrays("file", state((4, 8, 2))), "file", hints=Hints({"a": KERNEL}))
    same = Checkpoint(Arrays("file", state((6, 4, 1))), "file", hints=Hints({"a": KERNEL}))
    np.testing.assert_array_equal(same.fold("a"), layer(6, 4, 1, torch_row)[2])


@pytest.mark.parametrize("dialect", ["original-torch", None])
def test_a_diagonal_that_was_trained_is_part_of_the_function(dialect: str | None, tmp_path: Path) -> None:
    """`D + D_diag` is what their layer computes with, so a training that unfroze `D_diag` changed the function."""
    W, D, _ = layer(6, 4, 1, torch_row)
    diagonal = np.repeat(identity()[None], 6, 0) + generator.integers("diagonal", D.shape, -2, 2).astype(np.float32)
    save_file({"a.W": W, "a.D": D, "a.D_diag": diagonal}, tmp_path / "in")
    want = np.einsum("iks,ois->oik", D + diagonal, W).reshape(4, 6, *KERNEL)
    with open_checkpoint(tmp_path / "in", dialect=dialect, hints=Hints({"a": KERNEL})) as checkpoint:
        done = fold_file(checkpoint, tmp_path / "out")
        convert_file(checkpoint, tmp_path / "canonical", "canonical")
    assert done.notes == ("D_diag is not the identity, it was trained: read as D + D_diag: a",)
    np.testing.assert_array_equal(load_file(tmp_path / "out")["a.weight"], want)
    np.testing.assert_array_equal(load_file(tmp_path / "canonical")["a.D_delta"], D + diagonal - identity())


def test_a_diagonal_of_another_shape_is_refused() -> None:
    W, D, _ = layer(6, 4, 1, torch_row)
    tensors = {"a.W": W, "a.D": D, "a.D_diag": np.repeat(identity()[None], 3, 0)}
    with pytest.raises(CheckpointError, match=r"file: a\.D_diag must have the shape of D"):
        Checkpoint(Arrays("file", tensors), "file", dialect="original-torch", hints=Hints({"a": KERNEL}))


def test_files_that_are_not_the_authors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"bad\.h5 is not a readable HDF5 file"):
        open_checkpoint(tmp_path / "bad.h5", dialect="original-tf")
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file["layers/conv/vars/0"] = np.zeros(3)
    with pytest.raises(CheckpointError, match=r"written by Keras 3.*Received: layers/conv/vars/0"):
        open_checkpoint(tmp_path / "new.h5", dialect="original-tf")
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"bad\.npz cannot be read"):
        open_checkpoint(tmp_path / "bad.npz", dialect="original-tf")
    with pytest.raises(CheckpointError, match=r"is a pickle, which only PyTorch reads.* Received: model\.pth"):
        open_checkpoint(tmp_path / "model.pth", dialect="original-torch")
    with pytest.raises(ValueError, match=r"dialect must be one of .*Received: 'tf'"):
        Checkpoint(Arrays("x", {}), "x", dialect="tf")
