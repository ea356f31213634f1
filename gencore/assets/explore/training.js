/** Scrub through a training run: samples of fixed noise, and where the step is on the curves. */
FIGURES.training = (root, spec, change) => {
  const { count, steps, terms } = spec, last = steps.length - 1;
  const board = canvas(root, "samples"), curves = root.querySelector('[data-name="curves"]');
  const marker = make("span", { class: "marker" });
  let state, timer = null;
  const samples = spec.strip ? tiles(board, spec, () => samples(state.frame)) : cloud(root, board, spec);
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

  return (next) => {
    state = next;
    const { frame } = state, step = grouped(steps[frame]);
    at.show(frame, step);
    marker.style.left = `${spec.marks[frame]}%`;
    samples(frame);
    board.setAttribute("aria-label", `${count} samples of fixed noise after ${step} steps.`);
    say(`Step ${step}: ${terms[frame]}.`);
  };
};

/** Snapshots of images come as one picture: a row for each frame, in it one image beside the other. */
function tiles(board, { strip, columns, count, shape: [, height, width] }, loaded) {
  const picture = new Image(), across = width + 1, down = height + 1;
  picture.addEventListener("load", loaded);
  picture.src = strip;
  return (frame) => {
    if (!picture.complete) return;
    Object.assign(board, { width: columns * across - 1, height: Math.ceil(count / columns) * down - 1 });
    for (let k = 0; k < count; k++) {
      board.getContext("2d").drawImage(picture, k * width, frame * height, width, height,
        (k % columns) * across, Math.floor(k / columns) * down, width, height);
    }
  };
}

/** Snapshots of points in the plane: those of the data, and on them those of the frame. */
function cloud(root, board, { points, data, count, middle, reach, colours }) {
  const { place } = view(middle, reach), drawn = unpack(points), real = unpack(data);
  return (frame) => {
    const [context, size] = sharp(board);
    context.fillStyle = colour(root, "--live-paper");
    context.fillRect(0, 0, size, size);
    [real, drawn.subarray(2 * frame * count, 2 * (frame + 1) * count)].forEach((xy, layer) => {
      context.fillStyle = colours[layer];
      for (let i = 0; i < xy.length; i += 2) {
        circle(context, place(xy[i], 0) * size, place(xy[i + 1], 1) * size, Math.max(1.2, size / 200));
        context.fill();
      }
    });
  };
}
