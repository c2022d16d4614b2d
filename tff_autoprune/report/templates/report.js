(function () {
  "use strict";
  const root = document.documentElement;
  const button = document.querySelector("button.theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const charts = JSON.parse(document.getElementById("charts").textContent);
  let chosen = null;

  // Replaces "var(--name)" by what the current theme gives it, through a whole specification.
  function themed(value, styles) {
    if (typeof value === "string") {
      const match = /^var\((--[\w-]+)\)$/.exec(value);
      return match ? styles.getPropertyValue(match[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, styles));
    if (value && typeof value === "object") {
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, themed(item, styles)])
      );
    }
    return value;
  }

  // What the labels of a vertical axis take beside the plot, in a column of plots.
  const labels = 60;

  function sized(spec, width) {
    if (spec.vconcat) for (const panel of spec.vconcat) panel.width = width - labels - 8;
    else spec.width = width;
    spec.config.legend.columns = Math.max(1, Math.floor(width / 170));
    spec.config.axisX = { tickCount: Math.max(3, Math.floor(width / 90)) };
    return spec;
  }

  function draw() {
    const dark = chosen ? chosen === "dark" : system.matches;
    root.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
    const styles = getComputedStyle(root);
    for (const [name, spec] of Object.entries(charts)) {
      const element = document.getElementById(name);
      const width = Math.max(element.clientWidth, 240);
      vegaEmbed(element, sized(themed(spec, styles), width), {
        actions: false,
        renderer: "svg",
        tooltip: { theme: dark ? "dark" : "light" },
      });
    }
  }

  // Tables that are wider than the window say so, and can be scrolled by keyboard.
  function hint() {
    for (const box of document.querySelectorAll(".scroll")) {
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide", wide);
      box.classList.toggle("end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
      if (wide) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      if (wide && box.querySelector("table") && !box.hinted) {
        box.hinted = true;
        const words = document.createElement("p");
        words.className = "scroll-hint";
        words.textContent = "Scroll sideways for more columns \u2192";
        box.after(words);
      }
    }
  }

  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    draw();
  });
  for (const box of document.querySelectorAll(".scroll")) box.addEventListener("scroll", hint);
  for (const box of document.querySelectorAll("details")) box.addEventListener("toggle", hint);
  system.addEventListener("change", draw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    hint();
    // A phone's address bar changes the height only.
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    draw();
  });
  draw();
  hint();
})();
