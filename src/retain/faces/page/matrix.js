// A confusion matrix one can click into: true classes down, answers across.

import { h } from "./dom.js";

/** A table; `open(truth, answer)` is called for the cell that is pressed. */
export function matrix(confusion, open) {
  const truths = Object.keys(confusion).sort();
  const answers = [...new Set([...truths, ...Object.values(confusion).flatMap((row) => Object.keys(row))])].sort();
  const head = h("tr", null, h("td", { class: "corner" }, "is ↓ answered →"), answers.map((answer) => h("th", { scope: "col" }, h("span", null, answer))));
  const rows = truths.map((truth) => {
    const total = Object.values(confusion[truth]).reduce((sum, count) => sum + count, 0);
    return h("tr", null, h("th", { scope: "row" }, truth), answers.map((answer) => cell(truth, answer, confusion[truth][answer] ?? 0, total, open)));
  });
  return h("section", { class: "matrix-part" }, h("h2", null, "Where it errs"), h("p", { class: "note" }, "Press a number to see the pictures."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion matrix" },
      h("table", { class: "matrix" }, h("caption", { class: "visually-hidden" }, "How often a picture of each class is answered as each"),
        h("thead", null, head), h("tbody", null, rows))));
}

function cell(truth, answer, count, total, open) {
  if (!count) return h("td", null, h("span", { class: "zero" }, "·"));
  const right = truth === answer;
  const pressed = h("button", {
    type: "button", class: right ? "right" : "wrong", "aria-label": `${count} of ${total} ${truth} answered ${answer}`,
    onclick: () => {
      pressed.closest("table").querySelectorAll("[aria-pressed]").forEach((each) => each.removeAttribute("aria-pressed"));
      pressed.setAttribute("aria-pressed", "true");
      open(truth, answer);
    },
  }, String(count));
  pressed.style.setProperty("--share", `${Math.round(100 * count / total)}%`);
  pressed.classList.toggle("strong", count / total > 0.5);
  return h("td", null, pressed);
}
