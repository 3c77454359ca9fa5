// DO-Conv: composition and convolution, with their gradients, in float64. A geometry is the protocol's, as it comes.

const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/** What follows from a geometry: K, S, and the two channel axes of W and of the kernel. */
export function sizes(g) {
  const [first, second] = g.transposed ? [g.in_channels, g.out_channels] : [g.out_channels, g.in_channels];
  return { K: product(g.kernel_size), S: g.d_mul, first, second: second / g.groups };
}

export function outputSize(g, input) {
  return input.map((size, axis) => {
    const [low, high] = g.padding[axis];
    const span = g.dilation[axis] * (g.kernel_size[axis] - 1) + 1;
    return g.transposed
      ? (size - 1) * g.stride[axis] + span - low - high + g.output_padding[axis]
      : Math.floor((size + low + high - span) / g.stride[axis]) + 1;
  });
}

/** The row of D that composes kernel (a, b): the real input channel. */
function rowOf(g, a, b) {
  return g.transposed ? a : Math.floor(a / (g.out_channels / g.groups)) * (g.in_channels / g.groups) + b;
}

/** Calls `visit(kernel index, index of W, index of D, entry of E)` for every product of the composition. */
function eachProduct(g, visit) {
  const { K, S, first, second } = sizes(g);
  const tiled = K * Math.floor(S / K);
  for (let a = 0; a < first; a++) {
    for (let b = 0; b < second; b++) {
      for (let k = 0; k < K; k++) {
        for (let s = 0; s < S; s++) {
          const identity = s < tiled && s % K === k ? 1 : 0;
          visit((a * second + b) * K + k, (a * second + b) * S + s, (rowOf(g, a, b) * K + k) * S + s, identity);
        }
      }
    }
  }
}

/** W'[a, b, k] = sum over s of (E + D_delta)[row, k, s] * W[a, b, s]; `D` is undefined where the kernel has one tap. */
export function compose(g, W, D) {
  const { K, first, second } = sizes(g);
  const kernel = new Float64Array(first * second * K);
  eachProduct(g, (k, w, d, identity) => {
    kernel[k] += identity * W[w];
    if (D) kernel[k] += D[d] * W[w];
  });
  return kernel;
}

/** From the gradient of the kernel to those of W and D_delta. */
export function composeGradients(g, W, D, gradKernel) {
  const gradW = new Float64Array(W.length);
  const gradD = D && new Float64Array(D.length);
  eachProduct(g, (k, w, d, identity) => {
    gradW[w] += identity * gradKernel[k];
    if (!D) return;
    gradW[w] += D[d] * gradKernel[k];
    gradD[d] += W[w] * gradKernel[k];
  });
  return { gradW, gradD };
}

/** Calls `visit(x index, y index, kernel index)` for every product of the convolution. */
function eachTerm(g, batch, xSize, visit) {
  const { K, first, second } = sizes(g);
  const ySize = outputSize(g, xSize);
  const [walked, met] = g.transposed ? [xSize, ySize] : [ySize, xSize];
  const [xSpace, ySpace] = [product(xSize), product(ySize)];
  const perGroup = first / g.groups;
  for (let at = 0; at < product(walked); at++) {
    for (let tap = 0; tap < K; tap++) {
      const other = meet(g, unravel(at, walked), unravel(tap, g.kernel_size), met);
      if (other < 0) continue;
      const [xAt, yAt] = g.transposed ? [at, other] : [other, at];
      for (let n = 0; n < batch; n++) {
        for (let a = 0; a < first; a++) {
          for (let b = 0; b < second; b++) {
            const partner = Math.floor(a / perGroup) * second + b;
            const [i, o] = g.transposed ? [a, partner] : [partner, a];
            visit((n * g.in_channels + i) * xSpace + xAt, (n * g.out_channels + o) * ySpace + yAt, (a * second + b) * K + tap);
          }
        }
      }
    }
  }
}

/** The element that position p and tap t meet on the other side, stride * p + dilation * t - low; -1 outside. */
function meet(g, p, t, met) {
  let index = 0;
  for (let axis = 0; axis < met.length; axis++) {
    const position = g.stride[axis] * p[axis] + g.dilation[axis] * t[axis] - g.padding[axis][0];
    const found = inside(position, met[axis], g.padding_mode);
    if (found < 0) return -1;
    index = index * met[axis] + found;
  }
  return index;
}

function inside(position, size, mode) {
  if (position >= 0 && position < size) return position;
  if (mode === 'replicate') return position < 0 ? 0 : size - 1;
  if (mode === 'circular') return (position + size) % size;
  if (mode === 'reflect') return position < 0 ? -position : 2 * (size - 1) - position;
  return -1;
}

function unravel(index, shape) {
  const position = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    position[axis] = index % shape[axis];
    index = Math.floor(index / shape[axis]);
  }
  return position;
}

export function convolve(g, x, kernel, bias) {
  const [batch, , ...xSize] = x.shape;
  const shape = [batch, g.out_channels, ...outputSize(g, xSize)];
  const space = product(shape.slice(2));
  const data = new Float64Array(product(shape));
  eachTerm(g, batch, xSize, (xi, yi, k) => { data[yi] += kernel[k] * x.data[xi]; });
  if (bias) data.forEach((_, i) => { data[i] += bias[Math.floor(i / space) % g.out_channels]; });
  return { shape, data };
}

export function convolveGradients(g, x, kernel, gradY) {
  const [batch, , ...xSize] = x.shape;
  const space = product(gradY.shape.slice(2));
  const gradX = new Float64Array(x.data.length);
  const gradKernel = new Float64Array(kernel.length);
  const gradBias = new Float64Array(g.out_channels);
  eachTerm(g, batch, xSize, (xi, yi, k) => {
    gradX[xi] += kernel[k] * gradY.data[yi];
    gradKernel[k] += x.data[xi] * gradY.data[yi];
  });
  gradY.data.forEach((value, i) => { gradBias[Math.floor(i / space) % g.out_channels] += value; });
  return { gradX, gradKernel, gradBias };
}
