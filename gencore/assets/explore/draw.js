const INK = 280; // pixels of the sheet that is drawn on, ten to each of an image

/** Draw a digit; see what the encoder makes of it and what each decoder gives back. */
FIGURES.draw = (root, spec, change) => {
  const models = spec.models.map((m) => ({ ...m, encode: network(m.encoder), decode: network(m.decoder) }));
  const images = { ...spec.examples, pixels: unpack(spec.examples) };
  const pad = canvas(root, "pad"), seen = canvas(root, "seen");
  const outputs = models.map((m) => canvas(root, `rec-${m.dim}`));
  const codes = models.map((m) => canvas(root, `code-${m.dim}`));
  const ink = make("canvas", { width: INK, height: INK });
  const pen = ink.getContext("2d", { willReadFrequently: true });
  let state, own = null, place = [INK / 2, INK / 2], down = false; // `own` are the pixels of this drawing

  const finish = () => { own = digit(ink); change({ pixels: own, example: -1 }); };
  const wipe = () => pen.clearRect(0, 0, INK, INK);
  function begin(at) {
    if (state.pixels !== own) wipe(); // what is shown was not drawn here
    place = at;
    line(at);
  }
  function line(to) {
    Object.assign(pen, { lineWidth: 22, lineCap: "round", strokeStyle: "#fff" });
    pen.beginPath(); pen.moveTo(...place); pen.lineTo(...to); pen.stroke();
    place = to;
  }

  pad.setAttribute("role", "application");
  pad.tabIndex = 0;
  pad.ariaLabel = "Drawing area. Arrow keys move the pen, the space bar lowers and lifts it, Delete clears.";
  dragged(pad, (u, v, first) => { (first ? begin : line)([INK * u, INK * v]); finish(); });
  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  pad.addEventListener("keydown", (event) => {
    if (KEYS[event.key]) {
      const to = place.map((v, i) => Math.max(12, Math.min(INK - 12, v + 14 * KEYS[event.key][i])));
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

  function drawPad() {
    const [context, size] = sharp(pad);
    context.fillStyle = "#000";
    context.fillRect(0, 0, size, size);
    context.imageSmoothingEnabled = state.pixels === own;
    context.drawImage(state.pixels === own ? ink : seen, 0, 0, size, size);
    if (document.activeElement === pad) {
      context.fillStyle = down ? "#fff" : "#8cf";
      circle(context, ...place.map((v) => (v / INK) * size), down ? 7 : 5);
      context.fill();
    }
  }

  return (next) => {
    state = next;
    const x = { data: Float32Array.from(state.pixels, (v) => v / 255), shape: images.shape };
    paint(seen, x, state.example >= 0 ? `Test image: ${images.names[state.example]}.` :
      "The drawing as the encoder sees it: 28 by 28 pixels, centred.");
    drawPad();
    const errors = models.map((m, i) => {
      const { data } = m.encode(x.data), mu = Array.from(data.slice(0, m.dim)), rec = m.decode(mu);
      const error = rec.data.reduce((sum, v, k) => sum + (v - x.data[k]) ** 2, 0) / x.data.length;
      paint(outputs[i], rec,
        `Reconstruction from ${m.dim} numbers, squared error ${text(error, 3)} per pixel.`);
      drawCode(root, codes[i], mu, Array.from(data.slice(m.dim), (v) => Math.exp(v / 2)));
      return `${text(error, 3)} with ${m.dim}`;
    });
    say(`Squared error per pixel: ${errors.join(", ")} numbers.`);
  };
};

/** A drawing as the digits of MNIST are made: fitted into 20 x 20, its centre of mass in the middle. */
function digit(ink) {
  const grey = ink.getContext("2d").getImageData(0, 0, INK, INK).data;
  let [left, right, top, bottom, mass, mx, my] = [INK, -1, INK, -1, 0, 0, 0];
  for (let y = 0; y < INK; y++) {
    for (let x = 0; x < INK; x++) {
      const value = grey[4 * (y * INK + x) + 3];
      if (!value) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      mass += value; mx += value * x; my += value * y;
    }
  }
  if (!mass) return new Array(784).fill(0);
  const scale = 20 / Math.max(right - left + 1, bottom - top + 1), size = INK * scale;
  const small = make("canvas", { width: 28, height: 28 }), context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(ink, 14 - scale * (mx / mass + 0.5), 14 - scale * (my / mass + 0.5), size, size);
  const { data } = context.getImageData(0, 0, 28, 28);
  return Array.from({ length: 784 }, (_, i) => data[4 * i + 3]);
}

/** Mean and two standard deviations of each number of a code, beside those of the prior. */
function drawCode(root, node, mu, deviation) {
  const [context, wide, high] = sharp(node), y = (v) => high / 2 - (v / 4) * (high / 2);
  context.fillStyle = colour(root, "--live-line");
  context.fillRect(0, y(2), wide, y(-2) - y(2));
  context.fillStyle = colour(root, "--live-vae");
  mu.forEach((m, i) => {
    const x = ((i + 0.5) / mu.length) * wide, reach = 2 * deviation[i];
    context.fillRect(x - 1, y(m + reach), 2, Math.max(1, y(m - reach) - y(m + reach)));
    circle(context, x, y(m), 2.2);
    context.fill();
  });
  const said = mu.map((m, i) => `${text(m, 1)} ± ${text(2 * deviation[i], 1)}`).join(", ");
  node.setAttribute("aria-label", `Code of ${mu.length} numbers: ${said}.`);
}
