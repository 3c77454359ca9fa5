// safetensors files, read to arrays of numbers and written in any of the four types.
//
// A file: eight bytes N (little-endian), N bytes of JSON, then the tensors, little-endian and row-major.

import { readFileSync, writeFileSync } from 'node:fs';

const NAMES = { float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16' };
const WIDTHS = { F64: 8, F32: 4, F16: 2, BF16: 2 };

/** Reads a file to `{ name: { shape, data } }`; `data` is a Float64Array, which holds every value of every type. */
export function load(path) {
  const file = readFileSync(path);
  const header = Number(file.readBigUInt64LE(0));
  const entries = JSON.parse(file.toString('utf8', 8, 8 + header));
  delete entries.__metadata__;
  const bytes = new DataView(file.buffer, file.byteOffset + 8 + header);
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin] }] of Object.entries(entries)) {
    const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) data[i] = decode(bytes, begin + i * WIDTHS[dtype], dtype);
    tensors[name] = { shape, data };
  }
  return tensors;
}

/** Writes `{ name: { dtype, shape, data } }`, with dtypes named as in the protocol. */
export function save(path, tensors) {
  const entries = {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    const begin = end;
    end += data.length * WIDTHS[NAMES[dtype]];
    entries[name] = { dtype: NAMES[dtype], shape, data_offsets: [begin, end] };
  }
  const text = JSON.stringify(entries);
  const header = text.padEnd(Math.ceil(text.length / 8) * 8); // so that the tensors are aligned
  const file = Buffer.alloc(8 + header.length + end);
  file.writeBigUInt64LE(BigInt(header.length), 0);
  file.write(header, 8);
  const bytes = new DataView(file.buffer, file.byteOffset + 8 + header.length);
  for (const [name, { data }] of Object.entries(tensors)) {
    const { dtype, data_offsets: [begin] } = entries[name];
    for (let i = 0; i < data.length; i++) encode(bytes, begin + i * WIDTHS[dtype], dtype, data[i]);
  }
  writeFileSync(path, file);
}

/** Rounds a number to a type: to the nearest, ties to even. */
export function round(value, dtype) {
  if (dtype === 'float64') return value;
  if (dtype === 'float32') return Math.fround(value);
  if (dtype === 'bfloat16') return Math.fround(keepDigits(value, 8, -126)); // overflows as a float32 does
  const kept = keepDigits(value, 11, -14);
  return Math.abs(kept) > 65504 ? Math.sign(kept) * Infinity : kept;
}

/** Keeps `digits` binary digits; numbers below 2 ** lowest have fewer (subnormals). */
function keepDigits(value, digits, lowest) {
  if (!Number.isFinite(value) || value === 0) return value;
  const unit = 2 ** (Math.max(exponentOf(value), lowest) + 1 - digits);
  const scaled = value / unit; // a power of two: exact
  const down = Math.floor(scaled);
  const rest = scaled - down;
  return (rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down) * unit;
}

const scratch = new DataView(new ArrayBuffer(8));

/** The e of 2 ** e <= |value| < 2 ** (e + 1), as a float64 stores it. */
function exponentOf(value) {
  scratch.setFloat64(0, value);
  return ((scratch.getUint16(0) >> 4) & 2047) - 1023;
}

function encode(bytes, at, dtype, value) {
  if (dtype === 'F64') bytes.setFloat64(at, value, true);
  else if (dtype === 'F32') bytes.setFloat32(at, value, true);
  else if (dtype === 'BF16') {
    scratch.setFloat32(0, round(value, 'bfloat16')); // bfloat16 is the upper half of a float32
    bytes.setUint16(at, scratch.getUint16(0), true);
  } else bytes.setUint16(at, halfBits(round(value, 'float16')), true);
}

function halfBits(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size === Infinity) return sign | 0x7c00;
  const exponent = exponentOf(size);
  if (exponent < -14) return sign | (size * 2 ** 24); // subnormal, or zero
  return sign | ((exponent + 15) << 10) | ((size / 2 ** exponent - 1) * 1024);
}

function decode(bytes, at, dtype) {
  if (dtype === 'F64') return bytes.getFloat64(at, true);
  if (dtype === 'F32') return bytes.getFloat32(at, true);
  const bits = bytes.getUint16(at, true);
  if (dtype === 'BF16') {
    scratch.setUint32(0, bits << 16);
    return scratch.getFloat32(0);
  }
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}
