/** Two real images and a slider: a straight line of codes, an arc of codes, a straight line of pixels. */
FIGURES.interpolate = (root, spec, change) => {
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
    make("div", { class: "buttons" }, ...picks.map((p) => p.node)),
    make("div", { class: "sliders" }, way.node));
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
    say(`t = ${text(t)}. Length of the code: ${text(norm(line))} on the straight line, ` +
      `${text(norm(sphere))} on the sphere; most draws from N(0, I) are near ` +
      `√${spec.dim} = ${text(Math.sqrt(spec.dim))}.`);
  };
};
