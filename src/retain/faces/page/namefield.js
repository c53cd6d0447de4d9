// A field to type a class into: the known ones are offered, any other becomes a new one.

import { h } from "./dom.js";
import { isClass, state } from "./state.js";

let count = 0;

/** A small form; `onname(label)` is called with what was typed. */
export function nameField({ label, action = "Correct", value = "", onname }) {
  const id = `name-${(count += 1)}`;
  const input = h("input", {
    list: "classes", autocomplete: "off", autocapitalize: "off", spellcheck: "false", required: true, maxlength: 200,
    "aria-label": label, "aria-describedby": id, placeholder: label, value,
  });
  const note = h("p", { class: "note", id });
  const tell = () => {
    const name = input.value.trim();
    const same = state.classes.find((each) => each.label.toLowerCase() === name.toLowerCase());
    if (!name || isClass(name)) note.textContent = "";
    else if (same) note.textContent = `There is “${same.label}” already; this would be another class.`;
    else note.textContent = `“${name}” will be a new class.`;
  };
  input.addEventListener("input", tell);
  const submit = (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name) onname(name, event.submitter ?? form.querySelector("button"));
  };
  const form = h("form", { class: "name-field", onsubmit: submit },
    h("div", { class: "joined" }, input, h("button", null, action)), note);
  return form;
}
