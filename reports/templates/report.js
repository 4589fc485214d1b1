"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [];

  // Bokeh draws on canvas, which style sheets do not reach: hand the page's colours over
  function recolour() {
    const style = getComputedStyle(document.documentElement);
    const take = (name) => style.getPropertyValue(name).trim();
    const [text, soft, line] = [take("--text"), take("--soft"), take("--line")];
    // for paper the style sheet turns figures that were drawn for dark ground: a canvas cannot be redrawn in time
    document.documentElement.dataset.drawnFor = dark.matches ? "dark" : "light";
    for (const plot of plots) {
      for (const side of [plot.below, plot.left]) {
        for (const axis of side) {
          axis.setv({ axis_label_text_color: soft, major_label_text_color: text, axis_line_color: line, major_tick_line_color: line });
        }
      }
      for (const part of plot.center) {
        if (part.type === "Grid" && part.grid_line_color !== null) part.setv({ grid_line_color: line, grid_line_alpha: 0.7 });
        if (part.type === "Label" && part.name === "hold") part.setv({ text_color: soft });
      }
    }
  }

  async function draw() {
    for (const [name, item] of Object.entries(figures)) {
      const place = document.getElementById("figure-" + name);
      if (place === null) continue;
      try {
        await Bokeh.embed.embed_item(item, place);
      } catch (error) {
        place.textContent = "This figure could not be drawn; its numbers are in the tables.";
        console.error(name, error);
      }
    }
    for (const document_ of Bokeh.documents) plots.push(...document_.roots());
    recolour();
    document.documentElement.dataset.drawn = String(plots.length);
  }

  // without a script there is nothing to press, so the buttons are shown only here
  for (const button of document.querySelectorAll("button.copy")) {
    const source = document.getElementById(button.dataset.copies);
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        // not every browser lets a file write to the clipboard: select it, and leave the keys to the reader
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  if (Object.keys(figures).length > 0) draw();
  dark.addEventListener("change", () => {
    if (!window.matchMedia("print").matches) recolour();
  });
})();
