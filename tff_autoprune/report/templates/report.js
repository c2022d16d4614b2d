(function () {
  "use strict";
  const root = document.documentElement;
  const button = document.querySelector("button.theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const config = {
    responsive: true,
    displaylogo: false,
    // Without a pointer that hovers, the bar would always cover a corner; fingers zoom anyway.
    displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "zoomIn2d", "zoomOut2d"],
  };
  let chosen = null;

  // Replaces "var(--name)" by what the current theme gives it, through a whole figure.
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

  function draw() {
    const dark = chosen ? chosen === "dark" : system.matches;
    root.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
    const styles = getComputedStyle(root);
    for (const [name, figure] of Object.entries(charts)) {
      const { data, layout } = themed(figure, styles);
      Plotly.react(name, data, layout, config);
    }
  }

  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    draw();
  });
  system.addEventListener("change", draw);
  draw();
})();
