// Formulas without a wait. MathJax, a megabyte of script, is fetched when a formula is less than half
// a screen away, or else when the page has been there for a while. It typesets one formula at a time,
// those in sight first, and gives way to the reader in between: a click, a key or a scroll never
// waits longer than one formula takes. Before printing, the rest is done at once. When all are done,
// the root element has data-maths="done".
"use strict";
{
  const source = document.currentScript.dataset.mathjax;
  const PAUSE = 12; // milliseconds of work after which the page gets its turn
  const QUIET = 3000; // milliseconds after the page is loaded
  let waiting = [];

  const rest = () => new Promise((done) => {
    if (window.requestIdleCallback) requestIdleCallback(done, { timeout: 200 });
    else setTimeout(done, 1);
  });

  function nearest() {
    const middle = innerHeight / 2;
    const away = (element) => Math.abs(element.getBoundingClientRect().top - middle);
    const sorted = waiting.map((element) => [away(element), element]).sort((a, b) => a[0] - b[0]);
    waiting = sorted.map(([, element]) => element);
  }

  async function start() {
    waiting = [...document.querySelectorAll(".math")];
    nearest();
    addEventListener("scroll", nearest, { passive: true });
    addEventListener("beforeprint", () => MathJax.typesetPromise(waiting.splice(0)));
    while (waiting.length) {
      await rest();
      const begin = performance.now();
      while (waiting.length && performance.now() - begin < PAUSE) {
        await MathJax.typesetPromise([waiting.shift()]); // it may have to fetch an extension first
      }
    }
    removeEventListener("scroll", nearest);
    document.documentElement.dataset.maths = "done";
  }

  async function fetch() {
    begun.disconnect();
    await rest();
    if (document.querySelector(`script[src="${source}"]`)) return;
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => MathJax.startup.promise.then(start);
    document.head.append(script);
  }

  const near = (entries) => entries.some((entry) => entry.isIntersecting) && fetch();
  const begun = new IntersectionObserver(near, { rootMargin: "50%" });
  for (const element of document.querySelectorAll(".math")) begun.observe(element);
  const later = () => setTimeout(fetch, QUIET);
  if (document.readyState === "complete") later();
  else addEventListener("load", later);
}
