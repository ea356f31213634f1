// ----------------------------------------------------------------------------------- mounting

/* Each figure is a function of (root, spec, change) that builds its controls once and returns
   show(state, anew), which brings everything in line with a state; `anew` says that the width or the
   colours of the page may be others. Controls never draw: they call change(patch), and whoever holds
   the state calls show. The files of the figures follow and enter themselves: FIGURES.name = ... */
const FIGURES = {};

/** Bring one figure to life. `link` couples its state to a kernel; without one the page holds it. */
export function mount(root, spec, link = null) {
  let state = link ? link.get() : spec.state, frame = 0;
  root.dataset.mounted = "";
  const show = FIGURES[spec.figure](root, spec, (patch) => {
    state = { ...state, ...patch };
    link?.set(state);
    cancelAnimationFrame(frame); // several moves of a pointer between two frames are drawn once
    frame = requestAnimationFrame(() => show(state, false));
  });
  link?.listen((next) => { state = next; show(state, false); });
  redrawn(root, () => show(state, true));
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

/* This runs when the figures have entered themselves. An exported notebook has a module for each of
   its figures: each module takes those that it can draw and that no other has taken. */
queueMicrotask(() => {
  for (const root of document.querySelectorAll(".gencore-live:not([data-taken])")) {
    if (!FIGURES[root.dataset.figure]) continue;
    root.dataset.taken = "";
    near.observe(root);
  }
});
