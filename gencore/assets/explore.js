/* gencore.explore: live figures in plain JavaScript, without a framework, a build step or a network.

   The same text drives a static page and a widget. In a page, the module looks for every
   <div class="gencore-live"> and brings it to life from the JSON inside it; under a kernel,
   anywidget calls the default export. Python (gencore/explore.py) writes the first frame as
   ordinary images and packs networks, codes and pictures into the JSON, the `spec`.

   Contents: 1 numbers, 2 networks, 3 small tools for the page, 4 the four figures, 5 mounting. */

// ---------------------------------------------------------------------------------- 1 numbers

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
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

const norm = (z) => Math.hypot(...z);
const mix = (a, b, t) => Float32Array.from(a, (v, i) => (1 - t) * v + t * b[i]);

/** From a to b on a sphere: the direction turns evenly, the length changes evenly. */
export function turn(a, b, t) {
  const la = norm(a), lb = norm(b);
  const cosine = a.reduce((sum, v, i) => sum + v * b[i], 0) / (la * lb);
  const angle = Math.acos(Math.min(1 - 1e-6, Math.max(-1 + 1e-6, cosine)));
  const length = ((1 - t) * la + t * lb) / Math.sin(angle);
  return Float32Array.from(a, (v, i) =>
    length * ((Math.sin((1 - t) * angle) * v) / la + (Math.sin(t * angle) * b[i]) / lb));
}

/** A number as the book prints it, with a true minus sign and no minus before zero. */
const text = (value, digits = 2) => value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");

const grouped = (whole) => whole.toLocaleString("en-US");

// --------------------------------------------------------------------------------- 2 networks

/* A tensor is {data: Float32Array, shape}, one example without a batch axis; images are [C, H, W].
   Each operation takes a tensor and its layer and gives a tensor, as PyTorch's module does. */
const each = (f) => (x, layer) => ({ data: x.data.map((v) => f(v, layer)), shape: x.shape });

const OPERATIONS = {
  linear, conv, deconv,
  reshape: (x, { shape }) => ({ data: x.data, shape }),
  flatten: (x) => ({ data: x.data, shape: [x.data.length] }),
  relu: each((v) => (v > 0 ? v : 0)),
  leaky: each((v, { slope }) => (v > 0 ? v : slope * v)),
  tanh: each(Math.tanh),
  sigmoid: each((v) => 1 / (1 + Math.exp(-v))),
};

/** y = W x + b with W (out, in), row by row. */
function linear(x, { weight, bias, out }) {
  const size = x.data.length, y = new Float32Array(out);
  for (let o = 0; o < out; o++) {
    let sum = bias[o];
    for (let i = 0, w = o * size; i < size; i++) sum += weight[w + i] * x.data[i];
    y[o] = sum;
  }
  return { data: y, shape: [out] };
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
  const y = { data: Float32Array.from({ length: out * area }, (_, i) => bias[Math.floor(i / area)]), shape };
  const [small, big] = spreads ? [x, y] : [y, x], [channels, h, w] = small.shape, [many, H, W] = big.shape;
  const fits = (k, n, N) => [Math.max(0, Math.ceil((padding - k) / stride)), // first and last on the plane
    Math.min(n - 1, Math.floor((N - 1 + padding - k) / stride))];
  const s = small.data, b = big.data;
  for (let c = 0, index = 0; c < channels; c++) {
    for (let C = 0; C < many; C++) {
      for (let ky = 0; ky < kernel; ky++) {
        const [top, bottom] = fits(ky, h, H);
        for (let kx = 0; kx < kernel; kx++) {
          const [left, right] = fits(kx, w, W), value = weight[index++];
          for (let row = top; row <= bottom; row++) {
            let i = (c * h + row) * w + left, j = (C * H + row * stride + ky - padding) * W + left * stride + kx - padding;
            for (const end = i + right - left; i <= end; i++, j += stride) {
              if (spreads) b[j] += value * s[i]; else s[i] += value * b[j];
            }
          }
        }
      }
    }
  }
  return y;
}

/** A network of the spec, its weights unpacked: a function from numbers to a tensor. */
export function network({ layers }) {
  const ready = layers.map((layer) =>
    layer.weight ? { ...layer, weight: unpack(layer.weight), bias: unpack(layer.bias) } : layer);
  return (x) => ready.reduce((tensor, layer) => OPERATIONS[layer.op](tensor, layer),
    { data: Float32Array.from(x), shape: [x.length] });
}

// ---------------------------------------------------------------------- 3 tools for the page

/** An element with attributes (`on...` are listeners, true and false are bare or absent). */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** The first frame's image `name` gives its place to a canvas, which takes over its description. */
function canvas(root, name) {
  const image = root.querySelector(`[data-name="${name}"] img`);
  const node = make("canvas", { class: image.className, role: "img", "aria-label": image.alt,
    width: image.getAttribute("width"), height: image.getAttribute("height") });
  image.replaceWith(node);
  return node;
}

/** Show pixels in [0, 1] of shape [C, H, W] (C is 1 or 3) on a canvas, which rounds, and say what they are. */
function paint(node, { data, shape: [channels, height, width] }, label) {
  if (node.width !== width || node.height !== height) Object.assign(node, { width, height });
  const context = node.getContext("2d"), image = context.createImageData(width, height), n = width * height;
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * data[(channels === 3 ? c * n : 0) + i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  if (label) node.setAttribute("aria-label", label);
}

/** The i-th of some images packed as bytes, as a tensor in [0, 1]. */
function imageAt({ shape, pixels }, i) {
  const size = shape[0] * shape[1] * shape[2];
  return { data: pixels.slice(i * size, (i + 1) * size).map((v) => v / 255), shape };
}

/** A range input with its name and value: {node, show(value)}. */
function slider(name, [min, max, step], oninput, digits = 2) {
  const value = make("span", { class: "value", "aria-hidden": "true" });
  const input = make("input", { type: "range", min, max, step, "aria-label": name,
    oninput: () => oninput(Number(input.value)) });
  const show = (now, said = text(now, digits)) => {
    input.value = now;
    input.setAttribute("aria-valuetext", said);
    value.textContent = said;
  };
  const caption = make("span", { class: "name", "aria-hidden": "true" }, name);
  return { node: make("label", { class: "slider" }, caption, input, value), show };
}

const button = (name, onclick) => make("button", { type: "button", onclick }, name);

/** One of a few names: {node, show(index)}. */
function choice(legend, names, onchange) {
  const group = `choice-${Math.random().toString(36).slice(2)}`;
  const inputs = names.map((_, i) => make("input", { type: "radio", name: group, onchange: () => onchange(i) }));
  const labels = names.map((name, i) => make("label", {}, inputs[i], name));
  return { node: make("fieldset", {}, make("legend", {}, legend), ...labels),
    show: (i) => inputs[i] && (inputs[i].checked = true) };
}

/** The line under a figure that says in words what is to be seen; read out when it has settled. */
function reading(root) {
  const node = make("p", { class: "reading", role: "status" });
  root.querySelector(".controls").append(node);
  let timer;
  return (words) => {
    clearTimeout(timer);
    timer = setTimeout(() => { node.textContent = words; }, node.textContent ? 150 : 0);
  };
}

const colour = (node, name) => getComputedStyle(node).getPropertyValue(name).trim();

/** Call `draw` now, when the figure's width changes, and when the page turns dark or light. */
function redrawn(root, draw) {
  let asked = 0;
  const soon = () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(draw); };
  const size = new ResizeObserver(soon), page = new MutationObserver(soon);
  size.observe(root);
  for (const node of [document.documentElement, document.body]) page.observe(node, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  draw();
}

/** Make a canvas as fine as the screen and give its context in CSS pixels: [context, width, height]. */
function sharp(node, aspect = 1) {
  const width = node.clientWidth || 280, height = width / aspect, ratio = Math.min(3, devicePixelRatio || 1);
  Object.assign(node, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const context = node.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, width, height];
}

/** Call `move(x, y, first)` with places in [0, 1] while a pointer is held down on a node. */
function dragged(node, move, end = () => {}) {
  const place = (event, first) => {
    const box = node.getBoundingClientRect(), clip = (at) => Math.max(0, Math.min(1, at));
    move(clip((event.clientX - box.left) / box.width), clip((event.clientY - box.top) / box.height), first);
  };
  let held = false;
  node.addEventListener("pointerdown", (event) => {
    held = true;
    try { node.setPointerCapture(event.pointerId); } catch { /* a pointer that a script made up */ }
    event.preventDefault();
    place(event, true);
  });
  node.addEventListener("pointermove", (event) => held && place(event, false));
  for (const name of ["pointerup", "pointercancel"]) {
    node.addEventListener(name, () => { if (held) { held = false; end(); } });
  }
}

// ------------------------------------------------------------------------------ 4 the figures

/* Each figure is a function of (root, spec, change) that builds its controls once and returns
   show(state), which brings everything in line with a state. Controls never draw: they call
   change(patch), and whoever holds the state calls show. */

const FIGURES = { latent, interpolate, training, draw };

/** Drag a code through the latent plane; sliders for its numbers; real image, reconstruction, sample. */
function latent(root, spec, change) {
  const models = spec.models.map((m) => ({ ...m, decode: network(m.decoder), codes: unpack(m.codes),
    labels: unpack(m.labels), means: unpack(m.means) }));
  const images = { ...spec.examples, pixels: unpack(spec.examples) }, background = make("canvas");
  const plane = canvas(root, "plane"), parts = ["x", "rec", "z"].map((name) => canvas(root, name));
  let state, model;
  const meanOf = (k) => Array.from(model.means.slice(k * model.dim, (k + 1) * model.dim));
  /* From unit k of a code to a place on the plane, 0 to 1 from the left or from the top, and back. */
  const place = (value, k) => 0.5 + ((k ? -1 : 1) * (value - model.middle[model.axes[k]])) / (2 * model.reach);
  const valueAt = (at, k) => model.middle[model.axes[k]] + (k ? -1 : 1) * (2 * at - 1) * model.reach;
  const moved = (patch) => change({ z: state.z.map((v, i) => patch[i] ?? v) });

  const sizes = choice("Latent dimensions", models.map((m) => String(m.dim)), (i) => change({ model: i }));
  const sliders = make("div", { class: "sliders" });
  dragged(plane, (...at) => moved(Object.fromEntries(model.axes.map((i, k) => [i, valueAt(at[k], k)]))));
  root.querySelector(".controls").append(...(models.length > 1 ? [sizes.node] : []), sliders,
    make("div", { class: "buttons" }, button(spec.drawn, () => change({ z: sample() })),
      button("Next test image", () => change({ example: (state.example + 1) % images.count })),
      button("Go to its code", () => moved(meanOf(state.example)))));
  const say = reading(root);

  /** A code from N(0, I), or from the Gaussian that was fitted to the codes of an autoencoder. */
  function sample() {
    const noise = Array.from(state.z, normal), { dim, spread } = model;
    if (!spread) return noise;
    return model.centre.map((c, i) => noise.slice(0, dim).reduce((sum, e, j) => sum + spread[i * dim + j] * e, c));
  }

  /** The class of the test image whose code is nearest to z. */
  function nearest(z) {
    let best = Infinity, found = 0;
    for (let n = 0; n < model.labels.length; n++) {
      let distance = 0;
      for (let i = 0; i < model.dim; i++) distance += (model.codes[n * model.dim + i] - z[i]) ** 2;
      if (distance < best) [best, found] = [distance, model.labels[n]];
    }
    return spec.names[found];
  }

  /** Codes, axes and radii of the prior change only with the model and the size: drawn once. */
  function drawBackground() {
    const [context, size] = sharp(plane), at = (value, k) => place(value, k) * size, [i, j] = model.axes;
    const circle = (x, y, radius) => { context.beginPath(); context.arc(x, y, radius, 0, 7); };
    const paper = colour(root, "--live-paper");
    context.fillStyle = paper;
    context.fillRect(0, 0, size, size);
    context.globalAlpha = 0.75;
    model.labels.forEach((label, n) => {
      context.fillStyle = spec.colours[label];
      circle(at(model.codes[n * model.dim + i], 0), at(model.codes[n * model.dim + j], 1), Math.max(1.2, size / 220));
      context.fill();
    });
    Object.assign(context, { globalAlpha: 1, strokeStyle: spec.ink, fillStyle: spec.ink, font: "italic 15px serif" });
    context.setLineDash([4, 3]);
    for (const radius of spec.radii) {
      circle(at(0, 0), at(0, 1), (radius / model.reach) * size / 2); context.stroke();
    }
    context.setLineDash([]);
    context.fillText(`z${sub(i)}`, size - 22, size / 2 - 6);
    context.fillText(`z${sub(j)}`, size / 2 + 6, 16);
    Object.assign(context, { font: "bold 15px sans-serif", textAlign: "center", textBaseline: "middle",
      lineWidth: 4, strokeStyle: paper });
    for (const [name, median] of Object.entries(model.medians)) {
      context.strokeText(name, ...median.map(at));
      context.fillText(name, ...median.map(at));
    }
    Object.assign(background, { width: plane.width, height: plane.height });
    background.getContext("2d").drawImage(plane, 0, 0);
  }

  function drawCross() {
    const context = plane.getContext("2d"), size = plane.clientWidth || 280;
    context.drawImage(background, 0, 0, size, size);
    const [x, y] = model.axes.map((axis, k) => place(state.z[axis], k) * size);
    for (const [lineWidth, strokeStyle] of [[5, "#fff"], [2, spec.ink]]) {
      Object.assign(context, { lineWidth, strokeStyle });
      context.beginPath(); context.arc(x, y, 8, 0, 7);
      context.moveTo(x - 14, y); context.lineTo(x + 14, y);
      context.moveTo(x, y - 14); context.lineTo(x, y + 14); context.stroke();
    }
  }

  function choose(index) {
    model = models[index];
    model.inputs = model.middle.map((middle, i) => slider(`z${sub(i)}`,
      [middle - model.reach, middle + model.reach, 0.05], (v) => moved({ [i]: v })));
    sliders.replaceChildren(...model.inputs.map((input) => input.node));
    sizes.show(index); drawBackground();
  }

  function show(next) {
    const before = state;
    state = { ...next, z: Array.from({ length: spec.longest }, (_, i) => next.z[i] ?? 0) };
    if (before?.model !== state.model) choose(state.model);
    const z = state.z.slice(0, model.dim), said = z.map((v) => text(v)).join(", ");
    model.inputs.forEach((input, i) => input.show(z[i]));
    drawCross();
    paint(parts[0], imageAt(images, state.example), `Test image: ${spec.examples.names[state.example]}.`);
    paint(parts[1], model.decode(meanOf(state.example)), `Its reconstruction with ${model.dim} latents.`);
    paint(parts[2], model.decode(z), `Image decoded from the code ${said}.`);
    plane.setAttribute("aria-label", `${spec.described} The code is at ${model.axes.map((i) => text(z[i])).join(", ")}.`);
    say(`z = (${said}), length ${text(norm(z))}. Nearest test image: ${nearest(z)}.`);
    if (!before) redrawn(root, () => { drawBackground(); drawCross(); });
  }
  return show;
}

const sub = (i) => String(i + 1).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);

/** Two real images and a slider: a straight line of codes, an arc of codes, a straight line of pixels. */
function interpolate(root, spec, change) {
  const decode = network(spec.decoder), means = unpack(spec.means);
  const images = { ...spec.examples, pixels: unpack(spec.examples) };
  const parts = ["from", "line", "sphere", "pixels", "to"].map((name) => canvas(root, name));
  const code = (k) => means.slice(k * spec.dim, (k + 1) * spec.dim);
  const pick = (name, key) => {
    const options = spec.examples.names.map((n, k) => make("option", { value: k }, n));
    const node = make("select", { onchange: () => change({ [key]: Number(node.value) }) }, ...options);
    return { node: make("label", { class: "pick" }, name, node), show: (k) => { node.value = k; } };
  };
  const picks = [pick("From", "a"), pick("to", "b")];
  const way = slider("t", [0, 1, 0.02], (t) => change({ t }));
  root.querySelector(".controls").append(
    make("div", { class: "buttons" }, ...picks.map((p) => p.node)), make("div", { class: "sliders" }, way.node));
  const say = reading(root);

  return ({ a, b, t }) => {
    const [za, zb, xa, xb] = [code(a), code(b), imageAt(images, a), imageAt(images, b)];
    const line = mix(za, zb, t), sphere = turn(za, zb, t), names = spec.examples.names;
    const at = `${Math.round(100 * t)} % of the way from ${names[a]} to ${names[b]}`;
    picks[0].show(a); picks[1].show(b); way.show(t);
    paint(parts[0], xa, `Test image: ${names[a]}.`);
    paint(parts[4], xb, `Test image: ${names[b]}.`);
    paint(parts[1], decode(line), `Straight line between the codes, ${at}.`);
    paint(parts[2], decode(sphere), `Arc between the codes, ${at}.`);
    paint(parts[3], { data: mix(xa.data, xb.data, t), shape: xa.shape }, `Mixture of the pixels, ${at}.`);
    say(`t = ${text(t)}. Length of the code: ${text(norm(line))} on the straight line, ${text(norm(sphere))} ` +
      `on the sphere; most draws from N(0, I) are near √${spec.dim} = ${text(Math.sqrt(spec.dim))}.`);
  };
}

/** Scrub through a training run: samples of fixed noise, and where the step is on the curves. */
function training(root, spec, change) {
  const { columns, count, shape: [, height, width], steps, terms } = spec, last = steps.length - 1;
  const board = canvas(root, "samples"), curves = root.querySelector('[data-name="curves"]');
  const film = new Image(), marker = make("span", { class: "marker" });
  let state, timer = null;
  const at = slider("step", [0, last, 1], (frame) => { stop(); change({ frame }); }, 0);
  const play = button("Play", () => (timer ? stop() : start()));
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches; // then the slider is all there is
  root.querySelector(".controls").append(make("div", { class: "sliders" }, at.node),
    ...(still ? [] : [make("div", { class: "buttons" }, play)]));
  curves.append(marker);
  const say = reading(root);

  function stop() { timer = clearInterval(timer) ?? null; play.textContent = "Play"; }
  function start() {
    play.textContent = "Pause";
    if (state.frame === last) change({ frame: 0 });
    timer = setInterval(() => (state.frame < last ? change({ frame: state.frame + 1 }) : stop()), 350);
  }

  /** The film is one picture: a row for each frame, in it one image beside the other. */
  function samples(frame) {
    const across = width + 1, down = height + 1;
    Object.assign(board, { width: columns * across - 1, height: Math.ceil(count / columns) * down - 1 });
    for (let k = 0; k < count; k++) {
      board.getContext("2d").drawImage(film, k * width, frame * height, width, height,
        (k % columns) * across, Math.floor(k / columns) * down, width, height);
    }
  }

  function show(next) {
    state = next;
    const { frame } = state, step = grouped(steps[frame]);
    at.show(frame, step); marker.style.left = `${spec.marks[frame]}%`;
    if (film.complete) samples(frame);
    board.setAttribute("aria-label", `${count} samples of fixed noise after ${step} steps.`);
    say(`Step ${step}: ${terms[frame]}.`);
  }
  film.addEventListener("load", () => samples(state.frame));
  film.src = spec.film;
  return show;
}

/** Draw a digit; see what the encoder makes of it and what each decoder gives back. */
function draw(root, spec, change) {
  const models = spec.models.map((m) => ({ ...m, encode: network(m.encoder), decode: network(m.decoder) }));
  const images = { ...spec.examples, pixels: unpack(spec.examples) };
  const pad = canvas(root, "pad"), seen = canvas(root, "seen");
  const outputs = models.map((m) => canvas(root, `rec-${m.dim}`));
  const codes = models.map((m) => canvas(root, `code-${m.dim}`));
  const ink = make("canvas", { width: 280, height: 280 }), pen = ink.getContext("2d", { willReadFrequently: true });
  let state, own = null, place = [140, 140], down = false; // `own` are the pixels of this drawing

  const finish = () => { own = digit(); change({ pixels: own, example: -1 }); };
  const wipe = () => pen.clearRect(0, 0, 280, 280);
  function begin(at) {
    if (state.pixels !== own) wipe(); // what is shown was not drawn here
    place = at; line(at);
  }
  function line(to) {
    Object.assign(pen, { lineWidth: 22, lineCap: "round", strokeStyle: "#fff" });
    pen.beginPath(); pen.moveTo(...place); pen.lineTo(...to); pen.stroke();
    place = to;
  }

  /** The drawing as the digits of MNIST are made: fitted into 20 x 20, its centre of mass in the middle. */
  function digit() {
    const grey = pen.getImageData(0, 0, 280, 280).data;
    let [left, right, top, bottom, mass, mx, my] = [280, -1, 280, -1, 0, 0, 0];
    for (let y = 0; y < 280; y++) {
      for (let x = 0; x < 280; x++) {
        const value = grey[4 * (y * 280 + x) + 3];
        if (!value) continue;
        [left, right] = [Math.min(left, x), Math.max(right, x)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
        mass += value; mx += value * x; my += value * y;
      }
    }
    if (!mass) return new Array(784).fill(0);
    const scale = 20 / Math.max(right - left + 1, bottom - top + 1);
    const small = make("canvas", { width: 28, height: 28 }), context = small.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(ink, 14 - scale * (mx / mass + 0.5), 14 - scale * (my / mass + 0.5), 280 * scale, 280 * scale);
    const { data } = context.getImageData(0, 0, 28, 28);
    return Array.from({ length: 784 }, (_, i) => data[4 * i + 3]);
  }

  pad.setAttribute("role", "application");
  pad.tabIndex = 0;
  pad.ariaLabel = "Drawing area. Arrow keys move the pen, the space bar lowers and lifts it, Delete clears.";
  dragged(pad, (u, v, first) => { (first ? begin : line)([280 * u, 280 * v]); finish(); });
  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  pad.addEventListener("keydown", (event) => {
    if (KEYS[event.key]) {
      const to = place.map((v, i) => Math.max(12, Math.min(268, v + 14 * KEYS[event.key][i])));
      if (down) line(to); else place = to;
    } else if (event.key === " ") { down = !down; if (down) begin(place); }
    else if (event.key === "Delete" || event.key === "Backspace") { down = false; wipe(); }
    else return;
    event.preventDefault();
    if (down || !KEYS[event.key]) finish(); else drawPad();
  });
  root.querySelector(".controls").append(make("div", { class: "buttons" },
    button("Clear", () => { wipe(); finish(); }), button("Next test image", () => {
      const next = (state.example + 1) % images.count;
      change({ example: next, pixels: Array.from(imageAt(images, next).data, (v) => Math.round(255 * v)) });
    })));
  const say = reading(root);

  /** Mean and two standard deviations of each number of a code, beside those of the prior. */
  function drawCode(node, mu, deviation) {
    const [context, wide, high] = sharp(node), y = (v) => high / 2 - (v / 4) * (high / 2);
    const blue = colour(root, "--live-vae"), grey = colour(root, "--live-line");
    context.fillStyle = grey;
    context.fillRect(0, y(2), wide, y(-2) - y(2));
    context.fillStyle = context.strokeStyle = blue;
    mu.forEach((m, i) => {
      const x = ((i + 0.5) / mu.length) * wide, reach = 2 * deviation[i];
      context.fillRect(x - 1, y(m + reach), 2, Math.max(1, y(m - reach) - y(m + reach)));
      context.beginPath(); context.arc(x, y(m), 2.2, 0, 7); context.fill();
    });
    const said = mu.map((m, i) => `${text(m, 1)} ± ${text(2 * deviation[i], 1)}`).join(", ");
    node.setAttribute("aria-label", `Code of ${mu.length} numbers: ${said}.`);
  }

  function drawPad() {
    const [context, size] = sharp(pad);
    context.fillStyle = "#000";
    context.fillRect(0, 0, size, size);
    context.imageSmoothingEnabled = state.pixels === own;
    context.drawImage(state.pixels === own ? ink : seen, 0, 0, size, size);
    if (document.activeElement === pad) {
      context.fillStyle = down ? "#fff" : "#8cf";
      context.beginPath(); context.arc(...place.map((v) => (v / 280) * size), down ? 7 : 5, 0, 7); context.fill();
    }
  }

  function show(next) {
    state = next;
    const x = { data: Float32Array.from(state.pixels, (v) => v / 255), shape: [1, 28, 28] };
    paint(seen, x, state.example >= 0 ? `Test image: ${spec.examples.names[state.example]}.` :
      "The drawing as the encoder sees it: 28 by 28 pixels, centred.");
    drawPad();
    const errors = models.map((m, i) => {
      const { data } = m.encode(x.data), mu = Array.from(data.slice(0, m.dim));
      const rec = m.decode(mu), error = rec.data.reduce((sum, v, k) => sum + (v - x.data[k]) ** 2, 0) / 784;
      paint(outputs[i], rec, `Reconstruction from ${m.dim} numbers, squared error ${text(error, 3)} per pixel.`);
      drawCode(codes[i], mu, Array.from(data.slice(m.dim), (v) => Math.exp(v / 2)));
      return `${text(error, 3)} with ${m.dim}`;
    });
    say(`Squared error per pixel: ${errors.join(", ")} numbers.`);
  }
  requestAnimationFrame(() => redrawn(root, () => state && show(state)));
  return show;
}

// --------------------------------------------------------------------------------- 5 mounting

/** Bring one figure to life. `link` couples its state to a kernel; without one the page holds it. */
export function mount(root, spec, link = null) {
  let state = link ? link.get() : spec.state, frame = 0;
  root.dataset.mounted = "";
  const show = FIGURES[spec.figure](root, spec, (patch) => {
    state = { ...state, ...patch };
    link?.set(state);
    cancelAnimationFrame(frame); // several moves of a pointer between two frames are drawn once
    frame = requestAnimationFrame(() => show(state));
  });
  link?.listen((next) => { state = next; show(state); });
  show(state);
}

/** The widget's face: anywidget calls it with the traits `spec`, `html` and `state`. */
export default {
  render({ model, el }) {
    const root = make("div", { class: "gencore-live", role: "group", "aria-label": model.get("label") });
    root.innerHTML = model.get("html");
    el.append(root);
    mount(root, model.get("spec"), {
      get: () => model.get("state"),
      set: (state) => { model.set("state", state); model.save_changes(); },
      listen: (hear) => model.on("change:state", () => hear(model.get("state"))),
    });
  },
};

/** The spec of a figure in a page; a big one may lie in a script of its own, which writes it there. */
async function specOf(root) {
  const place = root.querySelector('script[type="application/json"]'), src = place.dataset.src;
  if (src) await new Promise((onload, onerror) => place.after(make("script", { src, onload, onerror })));
  return JSON.parse(place.textContent);
}

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    specOf(target).then((spec) => mount(target, spec), () => target.querySelector(".controls").append(
      "The data of this live figure could not be loaded. Load the page again."));
  }
}, { rootMargin: "800px" });
for (const root of document.querySelectorAll(".gencore-live:not([data-mounted])")) near.observe(root);
