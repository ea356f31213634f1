/* gencore.explore: live figures in plain JavaScript, without a framework, a build step or a network.

   The texts of gencore/assets/explore/core, in the order of explore.CORE,
   and then those of the figures make one ES module. The same module drives a static page, where it
   looks for every <div class="gencore-live"> and brings it to life from the JSON inside it, and a
   widget, where anywidget calls the default export. Python (gencore/explore) writes the first frame
   as ordinary images and packs networks, codes and pictures into the JSON, the `spec`. */

// ------------------------------------------------------------------------------------ numbers

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** The float with the 16 bits h (IEEE 754 binary16). */
function half(h) {
  const sign = h >> 15 ? -1 : 1, exponent = (h >> 10) & 31, fraction = (h & 1023) / 1024;
  if (exponent === 0) return sign * 2 ** -14 * fraction;
  return exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * 2 ** (exponent - 15) * (1 + fraction);
}

/** A packed array as Float32Array: {f16}, {u8}, or {i8, scale} with a scale for each equal row. */
export function unpack(packed) {
  if (packed.f16 !== undefined) {
    const view = new DataView(bytes(packed.f16).buffer);
    return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => half(view.getUint16(2 * i, true)));
  }
  if (packed.u8 !== undefined) return Float32Array.from(bytes(packed.u8));
  const steps = new Int8Array(bytes(packed.i8).buffer), scale = unpack(packed.scale);
  const row = steps.length / scale.length;
  return Float32Array.from(steps, (value, i) => value * scale[Math.floor(i / row)]);
}

/** One draw from N(0, 1), by Box and Muller. */
export const normal = (random = Math.random) =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** A generator of numbers in [0, 1) that gives the same ones after the same seed (mulberry32). */
export function seeded(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const norm = (z) => Math.hypot(...z);

/** From a to b on a straight line. */
export const mix = (a, b, t) => Float32Array.from(a, (v, i) => (1 - t) * v + t * b[i]);

/** From a to b on a sphere: the direction turns evenly, the length changes evenly. */
export function turn(a, b, t) {
  const la = norm(a), lb = norm(b);
  const cosine = a.reduce((sum, v, i) => sum + v * b[i], 0) / (la * lb);
  const angle = Math.acos(Math.min(1 - 1e-6, Math.max(-1 + 1e-6, cosine))); // rounding may leave [-1, 1]
  const length = ((1 - t) * la + t * lb) / Math.sin(angle);
  return Float32Array.from(a, (v, i) =>
    length * ((Math.sin((1 - t) * angle) * v) / la + (Math.sin(t * angle) * b[i]) / lb));
}

/** A number as the book prints it, with a true minus sign and no minus before zero. */
export const text = (value, digits = 2) =>
  value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");

const grouped = (whole) => whole.toLocaleString("en-US");

/** 0 as ₀, 12 as ₁₂. */
const subscript = (index) => String(index).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
