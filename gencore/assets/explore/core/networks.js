// ----------------------------------------------------------------------------------- networks

/* A tensor is {data: Float32Array, shape}. The shape is that of one example, images are [C, H, W];
   the data hold one example or several, one after the other. A layer is a plain object, its kind is
   `op`; each operation takes a tensor and its layer and gives a tensor, as PyTorch's module does. */

const OPERATIONS = {
  linear, conv, deconv, layer_norm: normed,
  reshape: (x, { shape }) => ({ data: x.data, shape }),
  flatten: (x) => ({ data: x.data, shape: [sizeOf(x.shape)] }),
};
for (const [op, [f]] of Object.entries(ACTIVATIONS)) {
  OPERATIONS[op] = (x, layer) => ({ data: x.data.map((v) => f(v, layer)), shape: x.shape });
}

const sizeOf = (shape) => shape.reduce((product, n) => product * n, 1);

/** y = W x + b with W (out, in), row by row. */
function linear(x, { weight, bias, out }) {
  const size = weight.length / out, count = x.data.length / size, y = new Float32Array(count * out);
  for (let n = 0; n < count; n++) {
    for (let o = 0; o < out; o++) {
      let sum = bias[o];
      for (let i = 0, w = o * size, v = n * size; i < size; i++) sum += weight[w + i] * x.data[v + i];
      y[n * out + o] = sum;
    }
  }
  return { data: y, shape: [out] };
}

/* Each example with mean 0 and variance 1, then scaled and shifted unit by unit. */
function normed(x, { weight, bias, eps }) {
  const size = weight.length, y = new Float32Array(x.data.length);
  for (let at = 0; at < y.length; at += size) {
    const one = x.data.subarray(at, at + size), { mean, sd } = moments(one, eps);
    one.forEach((v, i) => { y[at + i] = ((v - mean) / sd) * weight[i] + bias[i]; });
  }
  return { data: y, shape: x.shape };
}

/** Mean of numbers, and the root of their variance plus eps. */
function moments(values, eps) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  return { mean, sd: Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length + eps) };
}

/* A convolution and its transpose pair a small plane with a big one: position (row, column) of the
   small plane meets (row * stride + ky - padding, ...) of the big one. A convolution gathers from
   the big plane into the small one, with weights (out, in, k, k); a transposed one spreads the
   small plane over the big one, with weights (in, out, k, k). The first axis is the small plane's. */
function conv(x, layer) {
  const size = (n) => Math.floor((n + 2 * layer.padding - layer.kernel) / layer.stride) + 1;
  return slide(layer, x, size, false);
}

function deconv(x, layer) {
  const size = (n) => (n - 1) * layer.stride - 2 * layer.padding + layer.kernel;
  return slide(layer, x, size, true);
}

function slide({ weight, bias, out, kernel, stride, padding }, x, size, spreads) {
  const shape = [out, size(x.shape[1]), size(x.shape[2])], area = shape[1] * shape[2];
  const inputs = sizeOf(x.shape), outputs = out * area, count = x.data.length / inputs;
  const data = Float32Array.from({ length: count * outputs }, (_, i) => bias[Math.floor(i / area) % out]);
  const [[channels, h, w], [many, H, W]] = spreads ? [x.shape, shape] : [shape, x.shape];
  const fits = (k, n, N) => [Math.max(0, Math.ceil((padding - k) / stride)), // first and last on the plane
    Math.min(n - 1, Math.floor((N - 1 + padding - k) / stride))];
  for (let n = 0; n < count; n++) {
    const input = x.data.subarray(n * inputs, (n + 1) * inputs);
    const output = data.subarray(n * outputs, (n + 1) * outputs);
    const [s, b] = spreads ? [input, output] : [output, input];
    for (let c = 0, index = 0; c < channels; c++) {
      for (let C = 0; C < many; C++) {
        for (let ky = 0; ky < kernel; ky++) {
          const [top, bottom] = fits(ky, h, H);
          for (let kx = 0; kx < kernel; kx++) {
            const [left, right] = fits(kx, w, W), value = weight[index++];
            for (let row = top; row <= bottom; row++) {
              let i = (c * h + row) * w + left;
              let j = (C * H + row * stride + ky - padding) * W + left * stride + kx - padding;
              for (const end = i + right - left; i <= end; i++, j += stride) {
                if (spreads) b[j] += value * s[i]; else s[i] += value * b[j];
              }
            }
          }
        }
      }
    }
  }
  return { data, shape };
}

/** The layers of a network of the spec, their weights unpacked: they can be trained in place. */
export const layersOf = ({ layers }) => layers.map((layer) =>
  layer.weight ? { ...layer, weight: unpack(layer.weight), bias: unpack(layer.bias) } : layer);

/** What each layer in turn makes of x, one example or several as numbers: [x, ..., y], tensors. */
export function forward(layers, x) {
  const passed = [{ data: Float32Array.from(x), shape: [x.length] }]; // the first layer knows the shape
  for (const layer of layers) passed.push(OPERATIONS[layer.op](passed.at(-1), layer));
  return passed;
}

/** A network of the spec as a function from numbers to a tensor. */
export function network(spec) {
  const layers = layersOf(spec);
  return (x) => forward(layers, x).at(-1);
}
