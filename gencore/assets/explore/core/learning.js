// ----------------------------------------------------------------------------------- learning

/* Backpropagation for dense networks: linear layers (with a bias, also those that came without one),
   activations and reshapings, on a batch. Each rule takes the gradient of a loss with respect to a
   layer's output, and gives that with respect to its input and, if it has some, its weight and bias. */

const RULES = {
  linear(dy, x, { weight, out }) {
    const size = weight.length / out, count = x.data.length / size;
    const input = new Float32Array(x.data.length);
    const dw = new Float64Array(weight.length), db = new Float64Array(out);
    for (let n = 0; n < count; n++) {
      for (let o = 0; o < out; o++) {
        const d = dy[n * out + o];
        db[o] += d;
        for (let i = 0, w = o * size, v = n * size; i < size; i++) {
          dw[w + i] += d * x.data[v + i];
          input[v + i] += d * weight[w + i];
        }
      }
    }
    return { input, weight: dw, bias: db };
  },
  layer_norm(dy, x, { weight, eps }) {
    const size = weight.length, input = new Float32Array(dy.length);
    const dw = new Float64Array(size), db = new Float64Array(size);
    for (let at = 0; at < dy.length; at += size) {
      const one = x.data.subarray(at, at + size), { mean, sd } = moments(one, eps);
      const unit = Array.from(one, (v) => (v - mean) / sd); // what the scale has multiplied
      const scaled = unit.map((u, i) => dy[at + i] * weight[i]);
      const even = scaled.reduce((sum, d) => sum + d, 0) / size;
      const along = scaled.reduce((sum, d, i) => sum + d * unit[i], 0) / size;
      unit.forEach((u, i) => {
        dw[i] += dy[at + i] * u;
        db[i] += dy[at + i];
        input[at + i] = (scaled[i] - even - u * along) / sd;
      });
    }
    return { input, weight: dw, bias: db };
  },
  reshape: (dy) => ({ input: dy }),
  flatten: (dy) => ({ input: dy }),
};
for (const [op, [, slope]] of Object.entries(ACTIVATIONS)) {
  RULES[op] = (dy, x, layer, y) => ({ input: dy.map((d, i) => d * slope(x.data[i], y.data[i], layer)) });
}

/** The gradients of a loss: {input, layers: [{weight, bias}, or {} of a layer without weights, ...]}.

    passed: what `forward` gave. dy: the gradient with respect to the network's output. The gradient
    of the input goes on into the network before this one, as from a discriminator to a generator. */
export function backward(layers, passed, dy) {
  const gradients = Array(layers.length);
  let input = Float32Array.from(dy);
  for (let k = layers.length - 1; k >= 0; k--) {
    const rule = RULES[layers[k].op];
    if (!rule) throw new Error(`There are no gradients of a layer ${layers[k].op} in a page.`);
    const { input: before, ...own } = rule(input, passed[k], layers[k], passed[k + 1]);
    [input, gradients[k]] = [before, own];
  }
  return { input, layers: gradients };
}

/** Adam with PyTorch's formulas (Kingma & Ba 2015): a function of the `layers` of `backward`'s answer
    that changes the network in place. It takes a learning rate too, such as that of a slider. */
export function adam(layers, { lr = 1e-3, betas: [b1, b2] = [0.9, 0.999], eps = 1e-8 } = {}) {
  const zeros = (values) => new Float64Array(values.length);
  const state = layers.map((layer) => ["weight", "bias"].filter((name) => layer[name]).map((name) =>
    ({ name, values: layer[name], m: zeros(layer[name]), v: zeros(layer[name]) })));
  let steps = 0;
  return (gradients, rate = lr) => {
    steps += 1;
    const unbias1 = 1 - b1 ** steps, unbias2 = Math.sqrt(1 - b2 ** steps);
    state.forEach((arrays, k) => {
      for (const { name, values, m, v } of arrays) {
        gradients[k][name].forEach((g, i) => {
          m[i] += (1 - b1) * (g - m[i]);
          v[i] = b2 * v[i] + (1 - b2) * g * g;
          values[i] -= ((rate / unbias1) * m[i]) / (Math.sqrt(v[i]) / unbias2 + eps);
        });
      }
    });
  };
}

/** log(1 + exp(v)), without overflow. */
export const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));

/** The mean of softplus(-sign * score), and its gradient {loss, dy}: the logistic loss.

    With sign 1 the scores should be high, as a discriminator's of data and a generator's of its own
    images (not saturating); with sign -1 low, as a discriminator's of generated images. */
export function logistic(scores, sign) {
  const count = scores.length;
  return {
    loss: scores.reduce((sum, v) => sum + softplus(-sign * v), 0) / count,
    dy: Float32Array.from(scores, (v) => (-sign * sigmoid(-sign * v)) / count),
  };
}
