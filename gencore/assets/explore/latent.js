/** Drag a code through the latent plane; sliders for its numbers; real image, reconstruction, sample. */
FIGURES.latent = (root, spec, change) => {
  const models = spec.models.map((m) => ({ ...m, decode: network(m.decoder), codes: unpack(m.codes),
    labels: unpack(m.labels), means: unpack(m.means), ...view(m.axes.map((i) => m.middle[i]), m.reach) }));
  const images = { ...spec.examples, pixels: unpack(spec.examples) }, background = make("canvas");
  const plane = canvas(root, "plane"), parts = ["x", "rec", "z"].map((name) => canvas(root, name));
  let state, model;
  const meanOf = (k) => Array.from(model.means.slice(k * model.dim, (k + 1) * model.dim));
  const moved = (patch) => change({ z: state.z.map((v, i) => patch[i] ?? v) });

  const sizes = choice("Latent dimensions", models.map((m) => String(m.dim)), (i) => change({ model: i }));
  const sliders = make("div", { class: "sliders" });
  dragged(plane, (...at) => moved(Object.fromEntries(model.axes.map((i, k) => [i, model.value(at[k], k)]))));
  root.querySelector(".controls").append(...(models.length > 1 ? [sizes.node] : []), sliders,
    make("div", { class: "buttons" }, button(spec.drawn, () => change({ z: sample() })),
      button("Next test image", () => change({ example: (state.example + 1) % images.count })),
      button("Go to its code", () => moved(meanOf(state.example)))));
  const say = reading(root);

  /** A code from N(0, I), or from the Gaussian that was fitted to the codes of an autoencoder. */
  function sample() {
    const noise = Array.from(state.z, () => normal()), { dim, spread } = model;
    if (!spread) return noise;
    return model.middle.map((middle, i) =>
      noise.slice(0, dim).reduce((sum, e, j) => sum + spread[i * dim + j] * e, middle));
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

  /** Codes, axes and radii of the prior change only with the model and the page: drawn once. */
  function drawBackground() {
    const [context, size] = sharp(plane), at = (value, k) => model.place(value, k) * size;
    const code = (n, axis) => model.codes[n * model.dim + axis], [i, j] = model.axes;
    const dot = Math.max(1.2, size / 220);
    const paper = colour(root, "--live-paper");
    context.fillStyle = paper;
    context.fillRect(0, 0, size, size);
    context.globalAlpha = 0.75;
    model.labels.forEach((label, n) => {
      context.fillStyle = spec.colours[label];
      circle(context, at(code(n, i), 0), at(code(n, j), 1), dot);
      context.fill();
    });
    Object.assign(context, { globalAlpha: 1, strokeStyle: spec.ink, fillStyle: spec.ink });
    context.font = "italic 15px serif";
    context.setLineDash([4, 3]);
    for (const radius of spec.radii) {
      circle(context, at(0, 0), at(0, 1), (radius / model.reach) * size / 2);
      context.stroke();
    }
    context.setLineDash([]);
    context.fillText(`z${subscript(i + 1)}`, size - 22, size / 2 - 6);
    context.fillText(`z${subscript(j + 1)}`, size / 2 + 6, 16);
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
    const [x, y] = model.axes.map((axis, k) => model.place(state.z[axis], k) * size);
    for (const [lineWidth, strokeStyle] of [[5, "#fff"], [2, spec.ink]]) {
      Object.assign(context, { lineWidth, strokeStyle });
      circle(context, x, y, 8);
      context.moveTo(x - 14, y); context.lineTo(x + 14, y);
      context.moveTo(x, y - 14); context.lineTo(x, y + 14); context.stroke();
    }
  }

  function choose(index) {
    model = models[index];
    model.inputs = model.middle.map((middle, i) => slider(`z${subscript(i + 1)}`,
      [middle - model.reach, middle + model.reach, 0.05], (v) => moved({ [i]: v })));
    sliders.replaceChildren(...model.inputs.map((input) => input.node));
    sizes.show(index);
  }

  return (next, anew) => {
    const other = state?.model !== next.model;
    state = { ...next, z: Array.from({ length: spec.longest }, (_, i) => next.z[i] ?? 0) };
    if (other) choose(state.model);
    if (other || anew) drawBackground();
    const z = state.z.slice(0, model.dim), said = z.map((v) => text(v)).join(", ");
    model.inputs.forEach((input, i) => input.show(z[i]));
    drawCross();
    paint(parts[0], imageAt(images, state.example), `Test image: ${spec.examples.names[state.example]}.`);
    paint(parts[1], model.decode(meanOf(state.example)), `Its reconstruction with ${model.dim} latents.`);
    paint(parts[2], model.decode(z), `Image decoded from the code ${said}.`);
    const where = model.axes.map((i) => text(z[i])).join(", ");
    plane.setAttribute("aria-label", `${spec.described} The code is at ${where}.`);
    say(`z = (${said}), length ${text(norm(z))}. Nearest test image: ${nearest(z)}.`);
  };
};
