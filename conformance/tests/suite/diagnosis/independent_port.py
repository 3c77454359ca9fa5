"""A port written from conformance/README.md alone, with mistakes that porters make, each behind its name.

`python independent_port.py` is right; `python independent_port.py stride-swapped bias-twice` makes two mistakes. Nothing of
`doconv_core`'s arithmetic, of the catalogue or of the diagnosis is used: its own loops, in another style. What each mistake is,
in words, is in `independent_mistakes.py`.
"""

from itertools import product

import numpy as np
from independent_mistakes import MISTAKES, ON, on

from doconv_conformance.port import EVERYTHING, Port, serve

__all__ = ["MISTAKES", "ON", "Independent"]
LOW = ("bfloat16", "float16")
cache: dict = {}


def rounded(t, bits):
    fraction, exponent = np.frexp(np.asarray(t, np.float64))
    return np.ldexp(np.rint(fraction * 2.0**bits), exponent - bits)


def geometry_of(g):
    """Options as this port uses them; `t-` mistakes and those with a scope are decided here."""
    stride, dilation, pads, mode = list(g.stride), list(g.dilation), [list(p) for p in g.padding], g.padding_mode
    if (
        on("stride-swapped")
        or (on("t-stride-swapped") and g.transposed)
        or (on("stride-swapped-3d") and len(stride) == 3)
    ):
        stride = stride[::-1]
    if on("stride-first"):
        stride = [stride[0]] * len(stride)
    if on("stride-last-one"):
        stride[-1] = 1
    if on("dilation-swapped"):
        dilation = dilation[::-1]
    if on("dilation-none") or (on("t-dilation-none") and g.transposed):
        dilation = [1] * len(dilation)
    if on("dilation-last-none"):
        dilation[-1] = 1
    if on("pad-sides") or (on("t-crop-sides") and g.transposed) or (on("pad-sides-dilated") and max(g.dilation) > 1):
        pads = [p[::-1] for p in pads]
    if on("pad-axes"):
        pads = pads[::-1]
    if on("pad-low-both"):
        pads = [[p[0], p[0]] for p in pads]
    if on("pad-high-only"):
        pads = [[0, p[0] + p[1]] for p in pads]
    if on("pad-none"):
        pads = [[0, 0] for p in pads]
    if on("pad-symmetric"):
        pads = [[sum(p) // 2, sum(p) - sum(p) // 2] for p in pads]
    if on("high-pad-dropped-strided") and max(g.stride) > 1 and not g.transposed:
        pads = [[p[0], 0] for p in pads]
    if on("strided-starts-late") and max(g.stride) > 1 and not g.transposed:
        pads = [[p[0] - 1, p[1] + 1] for p in pads]
    if on("pad-shift"):
        pads = [[p[0] - 1, p[1] + 1] for p in pads]
    return stride, dilation, pads, mode


def source(i, n, mode):
    if 0 <= i < n:
        return i
    if mode == "reflect" and on("reflect-low-only") and i >= n:
        return None
    if (mode == "reflect" and on("reflect-zeros")) or (mode == "replicate" and on("replicate-zeros")):
        return None
    if mode == "circular" and on("circular-reflect"):
        mode = "reflect"
    if mode == "zeros":
        return None
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    if mode == "circular":
        return i % max(1, n - on("circular-modulus"))
    if on("reflect-edge"):
        return -i - 1 if i < 0 else 2 * n - 1 - i
    return -i if i < 0 else 2 * n - 2 - i


def compose_rows(g):
    first, second = g.w_shape[0], g.w_shape[1]
    ig, og = g.in_channels // g.groups, g.out_channels // g.groups
    rows = np.zeros((first, second), int)
    for a, b in product(range(first), range(second)):
        if g.transposed:
            group, c, i, o = a // ig, a % ig, a, a // ig * og + b
        else:
            group, c, o = a // og, b, a
            i = group * ig + c
        if on("d-row-local"):
            i = c
        if on("d-row-output") or (on("t-d-row-output") and g.transposed):
            i = o % g.in_channels
        if on("d-row-interleaved"):
            i = c * g.groups + group
        if on("d-row-off-by-one"):
            i = (i + 1) % g.in_channels
        rows[a, b] = i
    return rows


def identity_of(g):
    K, S = g.taps, g.d_mul
    E, tiles = np.zeros((K, S)), S // K
    for t, k in product(range(tiles), range(K)):
        if on("tiles-first-only") and t:
            continue
        E[k, k * tiles + t if on("tiles-strided") else t * K + k] = 1
    if on("tiles-all"):
        for s in range(tiles * K, S):
            E[s % K, s] = 1
    if on("no-identity") or (on("identity-only-square") and S > K):
        E *= 0
    if on("e-scaled-by-tiles"):
        E /= tiles
    if on("identity-twice"):
        E *= 2
    if on("e-slightly-large"):
        E *= 1.00001
    return E


def read_d(D, g):
    D = D.astype(np.float64)
    if on("d-transposed"):
        D = np.concatenate([D[:, :, : g.taps].transpose(0, 2, 1), D[:, :, g.taps :]], 2)
    if on("d-flat-transposed"):
        D = D.reshape(g.in_channels, g.d_mul, g.taps).transpose(0, 2, 1)
    if on("d-channel-last"):
        D = D.reshape(g.taps, g.d_mul, g.in_channels).transpose(2, 0, 1)
    if on("d-first-tile"):
        D = D * (np.arange(g.d_mul) < g.taps)
    if on("delta-minus"):
        D = -D
    if on("delta-half"):
        D = D / 2
    if on("delta-small-skipped"):
        D = np.where(np.abs(D) < 0.5, 0, D)
    if on("delta-ignored-surplus") and g.d_mul > g.taps:
        D = 0 * D
    if on("d-mean-of-channels"):
        D = np.repeat(D.mean(0, keepdims=True), len(D), 0)
    if on("d-row-normalised"):
        D = D / g.taps
    if on("d-centred"):
        D = D - D.mean(2, keepdims=True)
    if on("d-and-w-shifted"):
        D = np.roll(D, 1, 2)
    return D


def read_w(W, g):
    W = W.astype(np.float64)
    if on("w-transposed"):
        W = W.reshape(W.shape[1], W.shape[0], W.shape[2]).transpose(1, 0, 2)
    if on("w-s-first"):
        W = W.reshape(W.shape[2], W.shape[0], W.shape[1]).transpose(1, 2, 0)
    if on("last-s-missing"):
        W = W * (np.arange(g.d_mul) < g.d_mul - 1)
    if on("w-abs"):
        W = np.abs(W)
    if on("w-surplus-wrapped"):
        W = W[
            ...,
            np.where(np.arange(g.d_mul) < g.d_mul // g.taps * g.taps, np.arange(g.d_mul), np.arange(g.d_mul) % g.taps),
        ]
    return W


def compose(g, W, D, low=None):
    kind = W.dtype
    key = (str(g), kind)
    if on("state-kernel-cached") and key in cache:
        return cache[key]
    if low is not None and on("kernel-low-compose") and str(low) in LOW:
        W, D = W.astype(low).astype(kind), None if D is None else D.astype(low).astype(kind)
    wide, E = read_w(W, g), identity_of(g)
    kernel = np.zeros((*W.shape[:2], g.taps))
    rows = compose_rows(g)
    for a, b in product(range(W.shape[0]), range(W.shape[1])):
        kernel[a, b] = E @ wide[a, b]
        if D is not None and not (on("even-o-only") and a % 2):
            matrix = read_d(D, g)[rows[a, b]] if ON else D[rows[a, b]].astype(np.float64)
            if low is not None and on("d-plus-one-low") and str(low) in LOW:
                matrix = (E + matrix).astype(low).astype(np.float64) - E
            if on("sum-by-fours"):
                matrix = matrix * (np.arange(g.d_mul) < g.d_mul // 4 * 4)
            kernel[a, b] += matrix @ wide[a, b]
            if on("delta-squared") and g.d_mul == g.taps:
                kernel[a, b] += matrix @ (matrix @ wide[a, b])
    if on("compose-clipped"):
        kernel = np.clip(kernel, -4, 4)
    kernel = kernel.reshape(g.kernel_shape)
    if on("taps-fortran"):
        kernel = kernel.reshape(*kernel.shape[:2], -1)[
            ..., np.arange(g.taps).reshape(g.kernel_size, order="F").ravel()
        ].reshape(kernel.shape)
    kernel = kernel.astype(kind)
    cache[key] = kernel
    return kernel


def used_kernel(g, kernel):
    axes = tuple(range(2, kernel.ndim))
    if (
        on("flip")
        or (on("t-no-flip-needed-but-done") and g.transposed)
        or (on("flip-depthwise") and g.groups == g.in_channels > 1)
    ):
        kernel = np.flip(kernel, axes)
    if on("flip-last"):
        kernel = kernel[..., ::-1]
    if on("first-tap-lost"):
        kernel = kernel.copy()
        kernel[(slice(None), slice(None), *[0] * (kernel.ndim - 2))] = 0
    if on("kernel-axes-swapped") and kernel.ndim >= 4 and kernel.shape[-1] == kernel.shape[-2]:
        kernel = kernel.swapaxes(-1, -2)
    if on("t-group-kernel") and g.transposed:
        ig = g.in_channels // g.groups
        kernel = np.concatenate([kernel[:ig]] * g.groups)
    return kernel


def wiring(g):
    """(o, i, a, b): output channel, input channel, and the kernel's two channels."""
    ig, og = g.in_channels // g.groups, g.out_channels // g.groups
    for group, c, oc in product(range(g.groups), range(ig), range(og)):
        if on("last-channel-skipped") and c == ig - 1 > 0:
            continue
        if on("vector-remainder") and ig > 4 and c >= ig // 4 * 4:
            continue
        if on("wrong-above-8") and ig > 3 and c == ig - 1:
            continue
        o, i = group * og + oc, group * ig + c
        a, b = (i, oc) if g.transposed else (o, c)
        if on("group-first"):
            i = c
        if on("group-interleaved"):
            i = c * g.groups + group
        if on("group-outputs-interleaved"):
            o = oc * g.groups + group
        if on("depthwise-multiplier-major") and g.groups == g.in_channels > 1:
            o = oc * g.groups + group
        if on("t-outputs-local") and g.transposed:
            o = oc
        if on("t-taps-interchanged") and g.transposed:
            b = o % g.kernel_shape[1] if ig == 1 else (oc + group) % og
        yield o, i, a, b


def contacts(g, size, stride, dilation, pads, mode):
    """For every axis the list of (output position, tap, input position), and the output's size."""
    lists, out = [], []
    for n, k, s, d, (low, high), extra in zip(
        size, g.kernel_size, stride, dilation, pads, g.output_padding, strict=False
    ):
        span, found = d * (k - 1) + 1, []
        if g.transposed:
            m = (n - 1) * s + span - low - high + extra
            for q, tap in product(range(n), range(k)):
                p = s * q + d * tap - low
                if 0 <= p < (m - extra if on("t-outpad-ignored-values") else m):
                    found.append((p, tap, q))
            if on("t-assigned"):
                found = [one for one in found if one[1] == max(tap for p, tap, _ in found if p == one[0])]
        else:
            m = (n + low + high - span) // s + 1
            if on("out-size-ceil"):
                m = -(-(n + low + high - span) // s) + 1
            if on("size-without-dilation"):
                m = (n + low + high - k) // s + 1
            for p, tap in product(range(m), range(k)):
                step = 1 if on("dilation-lost-inside") else d
                early = on("even-kernel-early") and k % 2 == 0
                q = source(s * p + step * tap - low - early, n, mode)
                if q is not None and 0 <= q < n:
                    found.append((p, tap, q))
        if m < 1:
            raise ValueError("no output")
        lists.append(found)
        out.append(m)
    return lists, out


def patches(x, lists, out, g):
    """(N, C, *out, *taps) gathered axis by axis."""
    rank = len(out)
    for axis in range(rank):
        table = np.zeros((x.shape[2], out[axis], g.kernel_size[axis]))
        for p, tap, q in lists[axis]:
            table[q, p, tap] += 1
        x = np.tensordot(x, table, ([2], [0]))
    return x.transpose(0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2))


def spread(grad, lists, size, g):
    """The other way: (N, C, *out, *taps) -> (N, C, *size)."""
    rank = len(size)
    out = grad.shape[2 : 2 + rank]
    for axis in range(rank):
        table = np.zeros((out[axis], g.kernel_size[axis], size[axis]))
        for p, tap, q in lists[axis]:
            table[p, tap, q] += 1
        grad = np.tensordot(grad, table, ([2, 2 + rank - axis], [0, 1]))
    return grad


def convolve(g, x, kernel, bias, kind):
    stride, dilation, pads, mode = geometry_of(g)
    lists, out = contacts(g, x.shape[2:], stride, dilation, pads, mode)
    kernel = used_kernel(g, kernel).astype(np.float64)
    x = x.astype(np.float64)
    if on("x-clipped"):
        x = np.clip(x, -2, 2)
    if on("batch-stride"):
        x = x[np.arange(len(x)) // 2 * 2]
    if on("space-transposed-3d") and len(out) == 3 and x.shape[2] == x.shape[4]:
        x = x.swapaxes(2, 4)
    if str(kind) == "float32" and on("in-tf32"):
        x, kernel = rounded(x, 11), rounded(kernel, 11)
    if str(kind) == "float32" and on("in-bf16"):
        x = rounded(x, 8)
    if on("channels-last-x"):
        x = np.moveaxis(x.reshape(len(x), *x.shape[2:], x.shape[1]), -1, 1)
    if on("batch-reversed"):
        x = x[::-1]
    P = patches(x, lists, out, g)
    rank = len(out)
    y = np.zeros((len(x), g.out_channels, *out))
    short = kind if (on("acc-bf16") and str(kind) == "bfloat16") or (on("acc-f16") and str(kind) == "float16") else None
    for o, i, a, b in wiring(g):
        if short is None:
            y[:, o] += np.tensordot(P[:, i], kernel[a, b], rank)
        else:
            for tap in np.ndindex(*g.kernel_size):
                y[:, o] = (
                    (y[:, o] + P[(slice(None), i, *[slice(None)] * rank, *tap)] * kernel[(a, b, *tap)])
                    .astype(short)
                    .astype(np.float64)
                )
    if on("last-row-not-computed"):
        y[:, :, -1] = 0
    if on("first-image-only"):
        y[1:] = 0
    if on("relu"):
        y = np.maximum(y, 0)
    if on("state-bias-kept"):
        bias = cache.get(("bias", g.out_channels)) if bias is None else bias
        cache["bias", g.out_channels] = bias
    if (
        bias is not None
        and not on("bias-none")
        and not (on("bias-grouped-none") and g.groups > 1)
        and not (on("bias-none-1d") and rank == 1)
    ):
        b = bias.astype(np.float64)
        if on("bias-reversed"):
            b = b[::-1]
        if on("bias-negative"):
            b = -b
        if on("bias-twice"):
            b = 2 * b
        if on("bias-group-local"):
            b = np.tile(b[: g.out_channels // g.groups], g.groups)
        b = b.reshape(-1, *[1] * rank)
        if on("bias-first-image"):
            y[:1] += b
        else:
            y += b
            if on("t-bias-cropped") and g.transposed:
                y[:, :, :1] -= b
    if on("y-rounded"):
        y = 2 * np.rint(y / 2)
    if on("space-transposed-3d") and rank == 3 and y.shape[2] == y.shape[4]:
        y = y.swapaxes(2, 4)
    if on("offset"):
        y += 1
    if on("last-column-zero"):
        y[..., -1] = 0
    if str(kind) == "float64" and on("f64-as-f32"):
        y = y.astype(np.float32).astype(np.float64)
    if str(kind) == "float32" and on("out-f16"):
        y = y.astype(np.float16)
    if str(kind) in LOW and on("out-truncated"):
        fraction, exponent = np.frexp(y)
        bits = 8 if str(kind) == "bfloat16" else 11
        y = np.ldexp(np.trunc(fraction * 2.0**bits), exponent - bits)
    if str(kind) == "float16" and on("f16-saturates"):
        y = np.clip(y, -65504, 65504)
    return y.astype(kind)


class Independent(Port):
    name, version = "independent", "1"
    supports = EVERYTHING
    numerics = {  # noqa: RUF012
        "accumulator": dict.fromkeys(("float64", "float32", "float16", "bfloat16"), "float64")
    }

    def compose(self, g, t):
        return {"weight": compose(g, t["W"], t.get("D_delta"))}

    def forward(self, g, t):
        kind = t["x"].dtype
        return {"y": convolve(g, t["x"], compose(g, t["W"], t.get("D_delta"), kind).astype(kind), t.get("bias"), kind)}

    def fold(self, g, t):
        kind = t["x"].dtype
        weight, bias = compose(g, t["W"], t.get("D_delta")), t.get("bias")
        y = convolve(g, t["x"], weight.astype(kind), None if on("fold-y-no-bias") else bias, kind)
        if on("fold-no-delta"):
            weight = compose(g, t["W"], None)
            y = convolve(g, t["x"], weight.astype(kind), bias, kind)
        if on("fold-transposed-taps"):
            weight = weight.reshape(*weight.shape[:2], -1)[
                ..., np.arange(g.taps).reshape(g.kernel_size, order="F").ravel()
            ].reshape(weight.shape)
        if on("fold-doubled-bias") and bias is not None:
            return {"weight": weight, "y": y, "bias": 2 * bias}
        if on("fold-flip"):
            weight = np.flip(weight, tuple(range(2, weight.ndim)))
        out = {"weight": weight, "y": y}
        return out if bias is None else out | {"bias": 0 * bias if on("fold-no-bias") else bias}

    def initialise(self, g, t):
        w, K, S = t["weight"], g.taps, g.d_mul
        W = np.zeros(g.w_shape, w.dtype)
        flat = w.reshape(*W.shape[:2], K)
        W[..., :K] = flat
        if on("start-every-tile"):
            for tile in range(1, S // K):
                W[..., tile * K : tile * K + K] = flat
        if on("start-shared"):
            W[..., : S // K * K] = np.tile(flat / (S // K), S // K)
        if on("start-half"):
            W = W / 2
            W = W.astype(w.dtype)
        if not on("start-surplus-zero"):
            W[..., S // K * K :] = 0.25
        D = None if K == 1 else np.zeros(g.d_shape, w.dtype)
        if D is not None and on("start-d-ones"):
            D += 1
        if D is not None and on("start-with-identity"):
            for t_, k in product(range(S // K), range(K)):
                D[:, k, t_ * K + k] = 1
        out = {"W": W, "weight": compose(g, W, D)}
        return out if D is None else out | {"D_delta": D}

    def backward(self, g, t):
        kind, params = t["x"].dtype, t["W"].dtype
        x, gy = t["x"].astype(np.float64), t["grad_y"].astype(np.float64)
        stride, dilation, pads, mode = geometry_of(g)
        kernel = compose(g, t["W"], t.get("D_delta"), kind).astype(kind)
        lists, out = contacts(g, x.shape[2:], stride, dilation, pads, mode)
        if tuple(out) != gy.shape[2:]:
            raise ValueError("grad_y has another shape than y")
        rank = len(out)
        for_x = used_kernel(g, compose(g, t["W"], None).astype(kind) if on("gx-no-delta") else kernel).astype(
            np.float64
        )
        if on("gx-flip"):
            for_x = np.flip(for_x, tuple(range(2, 2 + rank)))
        seen = np.moveaxis(x.reshape(len(x), *x.shape[2:], x.shape[1]), -1, 1) if on("channels-last-x") else x
        seen = seen[::-1] if on("batch-reversed") else seen
        seen = np.clip(seen, -2, 2) if on("x-clipped") else seen
        seen = seen[np.arange(len(seen)) // 2 * 2] if on("batch-stride") else seen
        weights = np.zeros(len(x))
        weights[-1] = 1
        P = patches(seen, lists, out, g)
        gp, gk = np.zeros((len(x), g.in_channels, *out, *g.kernel_size)), np.zeros(g.kernel_shape)
        if on("grad-relu"):
            gy = gy * (convolve(g, t["x"], kernel, t.get("bias"), np.dtype(np.float64)) > 0)
        used = gy.copy()
        if on("last-column-zero"):
            used[..., -1] = 0
        if on("last-row-not-computed"):
            used[:, :, -1] = 0
        if on("first-image-only"):
            used[1:] = 0
        if on("relu"):
            plain = convolve(g, t["x"], kernel, None, np.dtype(np.float64))
            used = np.where(plain > 0, used, 0)
        for o, i, a, b in wiring(g):
            gp[:, i] += np.multiply.outer(used[:, o], for_x[a, b])
            shown = used[:, o] * weights.reshape(-1, *[1] * rank) if on("g-last-image") else used[:, o]
            if on("g-last-row-lost"):
                shown = shown.copy()
                shown[:, -1] = 0
            gk[a, b] += np.tensordot(shown, P[:, i], (list(range(1 + rank)), list(range(1 + rank))))
        of_x = lists
        if on("gx-stride-one") or on("gx-pad-sides"):
            other = [1] * rank if on("gx-stride-one") else stride
            of_x, wide = contacts(
                g, x.shape[2:], other, dilation, [p[::-1] for p in pads] if on("gx-pad-sides") else pads, mode
            )
            of_x = [[item for item in items if item[0] < m] for items, m in zip(of_x, out, strict=False)]
        if on("gx-last-tap-only"):
            gp[(slice(None), slice(None), *[slice(None)] * rank, *[slice(0, -1)] * rank)] = 0
        gx = spread(gp, of_x, x.shape[2:], g)
        if on("gx-group-first"):
            n = g.in_channels // g.groups
            total = gx.reshape(len(gx), g.groups, n, *gx.shape[2:]).sum(1)
            gx = np.concatenate([total, np.zeros((len(gx), g.in_channels - n, *gx.shape[2:]))], 1)
        gx = gx[::-1] if on("batch-reversed") else gx
        if on("channels-last-x"):
            gx = np.ascontiguousarray(np.moveaxis(gx, 1, -1)).reshape(gx.shape)
        # Back through what `used_kernel` does: every one of its moves is its own inverse, but for the shared groups.
        gk = np.ascontiguousarray(self.back(g, gk))
        if on("g-kernel-flip"):
            gk = np.flip(gk, tuple(range(2, 2 + rank)))
        if on("taps-fortran"):
            flat = np.zeros((*gk.shape[:2], g.taps))
            flat[..., np.arange(g.taps).reshape(g.kernel_size, order="F").ravel()] = gk.reshape(*gk.shape[:2], -1)
            gk = flat
        gk = gk.reshape(*g.w_shape[:2], g.taps)
        wide, E, rows = read_w(t["W"], g), identity_of(g), compose_rows(g)
        gW, gD = np.zeros(g.w_shape), np.zeros(g.d_shape) if "D_delta" in t else None
        for a, b in product(range(g.w_shape[0]), range(g.w_shape[1])):
            if not on("gw-no-identity"):
                gW[a, b] += (E * (np.arange(g.d_mul) < g.taps) if on("gw-first-tile") else E).T @ gk[a, b]
            if gD is None or (on("even-o-only") and a % 2):
                continue
            matrix = read_d(t["D_delta"], g)[rows[a, b]]
            if on("gw-d-transposed"):
                matrix = np.concatenate([matrix[:, : g.taps].T, matrix[:, g.taps :]], 1)
            if not on("gw-no-delta"):
                gW[a, b] += matrix.T @ gk[a, b]
            share = np.outer(gk[a, b], wide[a, b])
            row = b if on("gd-row-local") and not g.transposed else rows[a, b]
            if on("gd-last-o"):
                gD[row] = share
            else:
                gD[row] += share / (g.out_channels // g.groups if on("gd-mean-o") else 1)
        if gD is not None:
            gD = self.back_d(gD, g)
        gW = self.back_w(gW, g)
        if on("gd-plus-identity") and gD is not None:
            gD = gD + E
        if on("gd-negated") and gD is not None:
            gD = -gD
        if on("gw-surplus-zero"):
            gW = gW * (np.arange(g.d_mul) < g.d_mul // g.taps * g.taps)
        if on("gw-half"):
            gW = gW / 2
        if on("gd-zero") and gD is not None:
            gD = 0 * gD
        outputs = {"grad_x": gx.astype(kind), "grad_W": gW}
        if gD is not None:
            outputs["grad_D_delta"] = gD
        if "bias" in t:
            outputs["grad_bias"] = self.bias_gradient(g, gy)
        if on("g-batch-mean"):
            outputs = {k: v if k == "grad_x" else v / len(x) for k, v in outputs.items()}
        return {k: v if k == "grad_x" else v.astype(params) for k, v in outputs.items()}

    def bias_gradient(self, g, gy):
        rank = gy.ndim - 2
        if on("gb-missing-row"):
            gy = gy[..., :-1]
        if on("last-column-zero"):
            gy = gy.copy()
            gy[..., -1] = 0
        gb = gy.sum((0, *range(2, gy.ndim)))
        if on("gb-over-n"):
            gb = gb / len(gy)
        if on("gb-strided"):
            gb = gy[..., ::2].sum((0, *range(2, gy.ndim)))
        if on("gb-mean"):
            gb = gy.mean((0, *range(2, gy.ndim)))
        if on("gb-first-image", "bias-first-image"):
            gb = gy[0].sum(tuple(range(1, gy.ndim - 1)))
        if on("bias-none") or (on("bias-grouped-none") and g.groups > 1) or (on("bias-none-1d") and rank == 1):
            gb = 0 * gb
        if on("bias-twice"):
            gb = 2 * gb
        if on("bias-negative"):
            gb = -gb
        if on("bias-reversed"):
            gb = gb[::-1]
        if on("bias-group-local"):
            n = g.out_channels // g.groups
            gb = np.concatenate([gb.reshape(g.groups, n).sum(0), np.zeros(g.out_channels - n)])
        return gb

    def back(self, g, gk):
        if on("t-group-kernel") and g.transposed:
            ig = g.in_channels // g.groups
            gk = np.concatenate(
                [gk.reshape(g.groups, ig, *gk.shape[1:]).sum(0), np.zeros((g.in_channels - ig, *gk.shape[1:]))]
            )
        return used_kernel(g, gk) if not (on("t-group-kernel") and g.transposed) else gk

    def back_d(self, gD, g):
        if on("d-transposed"):
            gD = np.concatenate([gD[:, :, : g.taps].transpose(0, 2, 1), gD[:, :, g.taps :]], 2)
        if on("d-flat-transposed"):
            gD = np.ascontiguousarray(gD.transpose(0, 2, 1)).reshape(g.d_shape)
        if on("d-channel-last"):
            gD = np.ascontiguousarray(gD.transpose(1, 2, 0)).reshape(g.d_shape)
        if on("d-first-tile"):
            gD = gD * (np.arange(g.d_mul) < g.taps)
        if on("d-centred"):
            gD = gD - gD.mean(2, keepdims=True)
        if on("delta-minus"):
            gD = -gD
        if on("delta-half"):
            gD = gD / 2
        if on("delta-ignored-surplus") and g.d_mul > g.taps:
            gD = 0 * gD
        return gD

    def back_w(self, gW, g):
        if on("w-transposed"):
            gW = np.ascontiguousarray(gW.transpose(1, 0, 2)).reshape(g.w_shape)
        if on("w-s-first"):
            gW = np.ascontiguousarray(gW.transpose(2, 0, 1)).reshape(g.w_shape)
        if on("last-s-missing"):
            gW = gW * (np.arange(g.d_mul) < g.d_mul - 1)
        return gW


if __name__ == "__main__":
    serve(Independent())
