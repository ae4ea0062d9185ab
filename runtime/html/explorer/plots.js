"use strict";
// The plots, each drawn when it is scrolled to. plotly is large: it is read once the page stands.
const shown = new Set();
const watcher = new IntersectionObserver(
  seen =>
    seen.forEach(({isIntersecting, target}) => {
      if (!isIntersecting || shown.has(target.id)) return;
      shown.add(target.id);
      watcher.unobserve(target);
      const {data: traces, layout} = data.plots[target.id];
      Plotly.newPlot(target, traces, layout, {
        responsive: true,
        displaylogo: false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      }).then(() => {
        document.body.dataset.drawn = [...shown].sort().join(" ");
      });
    }),
  {rootMargin: "300px"},
);
const places = Object.keys(data.plots).map(byId).filter(Boolean);
for (const place of places) place.style.minHeight = (data.plots[place.id].layout.height || 300) + "px";
setTimeout(() => {
  const library = make("script", byId("plotly").textContent);
  document.body.append(library);
  library.remove();
  for (const place of places) watcher.observe(place);
  document.body.dataset.plotly = Math.round(performance.now());
}, 50);
