// -------------------------------------------------------------------------- tools for the page

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

/** Show pixels in [0, 1], [C, H, W] with 1 or 3 channels, on a canvas (it rounds), and say what they are. */
export function paint(node, { data, shape: [channels, height, width] }, label) {
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
  const inputs = names.map((_, i) =>
    make("input", { type: "radio", name: group, onchange: () => onchange(i) }));
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
    const write = () => { if (node.textContent !== words) node.textContent = words; };
    timer = setTimeout(write, node.textContent ? 150 : 0);
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

/** A square window on a plane: from values to places in [0, 1], from the left (k = 0) or from the top
    (k = 1), and back; `middle` is shown in its middle and `reach` away from it at its edges. */
const view = (middle, reach) => ({
  place: (value, k) => 0.5 + ((k ? -1 : 1) * (value - middle[k])) / (2 * reach),
  value: (at, k) => middle[k] + (k ? -1 : 1) * (2 * at - 1) * reach,
});

/** A circle as the path of a canvas, to be filled or stroked. */
function circle(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
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
function dragged(node, move) {
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
  for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, () => { held = false; });
}
