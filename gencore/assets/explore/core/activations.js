// -------------------------------------------------------------------------------- activations

const sigmoid = (v) => 1 / (1 + Math.exp(-v));

/** Φ, the distribution function of N(0, 1), by Marsaglia's series: all digits of a double near zero. */
function gaussian(v) {
  if (!(Math.abs(v) < 8)) return v > 0 ? 1 : 0;
  let sum = v, term = v;
  for (let i = 3, before = 0; sum !== before; i += 2) {
    before = sum;
    term *= (v * v) / i;
    sum += term;
  }
  return 0.5 + sum * density(v);
}

const density = (v) => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI);

/* What torch.nn.GELU(approximate="tanh") takes for Φ: the sigmoid of this. */
const BEND = Math.sqrt(8 / Math.PI), bend = (v) => BEND * (v + 0.044715 * v ** 3);

/** f(v) = v gate(v) and its derivative, from the gate and the gate's derivative. */
const gated = (gate, slope) => [(v) => v * gate(v), (v) => gate(v) + v * slope(v)];
const bump = (v) => sigmoid(v) * sigmoid(-v); // the derivative of sigmoid

/* Of each activation f: y = f(v, layer), and its derivative from v, y and the layer. */
const ACTIVATIONS = {
  relu: [(v) => Math.max(0, v), (v) => (v > 0 ? 1 : 0)],
  leaky: [(v, { slope }) => (v > 0 ? v : slope * v), (v, y, { slope }) => (v > 0 ? 1 : slope)],
  tanh: [Math.tanh, (v, y) => 1 - y * y],
  sigmoid: [sigmoid, (v, y) => y * (1 - y)],
  centre: [(v) => 2 * v - 1, () => 2],
  silu: gated(sigmoid, bump),
  gelu: gated(gaussian, density),
  gelu_tanh: gated((v) => sigmoid(bend(v)), (v) => bump(bend(v)) * BEND * (1 + 3 * 0.044715 * v * v)),
};
