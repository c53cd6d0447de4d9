// What a change did to the remembered pictures: before and now side by side, worse first.

import { picture } from "./api.js";
import { button, counted, h } from "./dom.js";
import { look } from "./look.js";

const FIRST = 6;
const KINDS = [
  ["worse", "answered wrong now", "would be answered wrong", "bad"],
  ["better", "answered right now", "would be answered right", "good"],
  ["changed", "answered otherwise, wrong before and now", "would be answered otherwise, wrong before and then", ""],
];

/** The changes of an update as a list, or a line that says there are none. `would`: it was only tried. */
export function changes(update, { would = false } = {}) {
  const groups = KINDS.map(([key, words, then, tone]) => [update[key] ?? [], would ? then : words, tone]).filter(([rows]) => rows.length);
  if (!groups.length) {
    const judged = update.verdict?.judged;
    const all = judged ? `all ${counted(judged, "remembered picture")}` : "every remembered picture";
    return h("p", { class: "nothing" }, `Nothing else ${would ? "would change" : "changed"}: ${all} ${would ? "would be" : "are"} answered as before.`
      .replace("every remembered picture are", "every remembered picture is"));
  }
  return h("div", { class: "changes" }, groups.map(([rows, words, tone]) => group(rows, words, tone, would)));
}

function group(rows, words, tone, would) {
  const list = h("ul", null, rows.slice(0, FIRST).map((each) => row(each, would)));
  const rest = rows.slice(FIRST);
  const more = rest.length
    ? button(`Show ${counted(rest.length, "more", "more")}`, () => {
      list.append(...rest.map((each) => row(each, would)));
      more.remove();
    }, { class: "plain" })
    : null;
  return h("section", { class: tone }, h("h3", null, `${counted(rows.length, "remembered picture")} ${words}`), list, more);
}

function row(change, would) {
  const side = (title, label) => h("span", { class: label === change.label ? "right" : "wrong" },
    h("span", { class: "note" }, title), h("b", null, label ?? "not there"),
    h("span", { class: "visually-hidden" }, label === change.label ? " (right)" : " (wrong)"));
  return h("li", null,
    button(h("img", { src: picture(change.image, 128), alt: `Look at this ${change.label}`, loading: "lazy" }), () => look(change.image), { class: "bare" }),
    side("before", change.before), h("span", { class: "arrow", "aria-hidden": "true" }, "→"), side(would ? "then" : "now", change.after));
}
