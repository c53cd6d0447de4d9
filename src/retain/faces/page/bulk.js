// The bar that appears where something is selected: many pictures, one label.

import { button, counted, h } from "./dom.js";
import { nameField } from "./namefield.js";

/** A bar; .show(count, total) as the selection changes. `more`: further buttons. */
export class Bulk {
  constructor({ onname, onall, onnone, more = [], action = "Teach" }) {
    this.text = h("span", { class: "how-many", "aria-live": "polite" });
    this.all = button("Select all", onall, { class: "plain" });
    this.element = h("div", { class: "bulk", role: "region", "aria-label": "What is selected", hidden: true },
      h("div", { class: "bulk-head" }, this.text, this.all, button("Select none", onnone, { class: "plain" })),
      h("div", { class: "bulk-do" }, nameField({ label: "These are all…", action, onname }), more));
  }

  show(selected, total) {
    this.element.hidden = selected === 0;
    this.text.textContent = `${counted(selected, "picture")} selected`;
    this.all.hidden = selected === total;
    document.body.classList.toggle("with-bulk", selected > 0);
  }
}
