// DO-Conv in JavaScript (Node 20) as a port of the doconv conformance suite: every operation, every dtype, no package.
//
//     doconv check -- node port.mjs
//
// This file is the protocol: one JSON object per line in, one a line out. doconv.mjs is the mathematics, safetensors.mjs the
// files. All sums are formed in float64 and rounded once.

import { createInterface } from 'node:readline';

import { compose, composeGradients, convolve, convolveGradients, sizes } from './doconv.mjs';
import { load, round, save } from './safetensors.mjs';

const HELLO = {
  type: 'hello',
  protocol: [1],
  name: 'example-javascript',
  version: '1',
  language: 'javascript',
  device: 'cpu',
  supports: {
    operations: ['compose', 'forward', 'backward', 'fold', 'initialise'],
    dtypes: {
      float32: ['float32'],
      float64: ['float64'],
      bfloat16: ['float32', 'bfloat16'],
      float16: ['float32', 'float16'],
    },
    spatial_ranks: [1, 2, 3],
    transposed: true,
    groups: true,
    padding_modes: ['zeros', 'reflect', 'replicate', 'circular'],
  },
  numerics: {
    algorithm: 'direct',
    accumulator: { float32: 'float64', float64: 'float64', bfloat16: 'float64', float16: 'float64' },
  },
  environment: { node: process.version },
};

/** The outputs of one operation, as `{ name: { dtype, shape, data } }`. */
function run({ operation, geometry: g, dtype, param_dtype: paramDtype, inputs }) {
  const { x, W, D_delta: D, bias, grad_y: gradY, weight: plain } = load(inputs);
  const { K, S, first, second } = sizes(g);
  const parameter = (shape, data) => ({ dtype: paramDtype, shape, data });
  const activation = (shape, data) => ({ dtype, shape, data });
  const kernelShape = [first, second, ...g.kernel_size];
  const wShape = [first, second, S];
  const dShape = [g.in_channels, K, S];

  if (operation === 'initialise') { // W[..., :K] is the plain kernel, then zeros; surplus columns are random
    const bound = 1 / Math.sqrt(second * S); // 1 / sqrt(fan_in)
    const tiled = K * Math.floor(S / K);
    const data = new Float64Array(first * second * S);
    data.forEach((_, i) => { if (i % S >= tiled) data[i] = bound * (2 * Math.random() - 1); });
    plain.data.forEach((value, i) => { data[Math.floor(i / K) * S + (i % K)] = value; });
    const outputs = { W: parameter(wShape, data), weight: parameter(kernelShape, compose(g, data)) };
    if (K > 1) outputs.D_delta = parameter(dShape, new Float64Array(g.in_channels * K * S));
    return outputs;
  }

  // Composed and rounded in the parameters' type; what convolves is rounded to the activations' type, once.
  const weight = compose(g, W.data, D?.data).map((value) => round(value, paramDtype));
  const kernel = weight.map((value) => round(value, dtype));
  if (operation === 'compose') return { weight: parameter(kernelShape, weight) };
  if (operation === 'backward') {
    const { gradX, gradKernel, gradBias } = convolveGradients(g, x, kernel, gradY);
    const { gradW, gradD } = composeGradients(g, W.data, D?.data, gradKernel);
    const outputs = { grad_x: activation(x.shape, gradX), grad_W: parameter(wShape, gradW) };
    if (D) outputs.grad_D_delta = parameter(dShape, gradD);
    if (bias) outputs.grad_bias = parameter(bias.shape, gradBias);
    return outputs;
  }
  const y = convolve(g, x, kernel, bias?.data);
  const outputs = { y: activation(y.shape, y.data) };
  if (operation === 'forward') return outputs;
  outputs.weight = parameter(kernelShape, weight);
  if (bias) outputs.bias = parameter(bias.shape, bias.data);
  return outputs;
}

function answer(request) {
  if (request.type === 'hello') return HELLO;
  try {
    save(request.outputs, run(request));
    return { type: 'result', id: request.id, status: 'ok' };
  } catch (error) {
    return { type: 'result', id: request.id, status: 'error', reason: String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
}
