// One picture that was asked about: what it is answered, what it resembles, and how to correct it.

import { picture } from "./api.js";
import { changes } from "./changes.js";
import { button, h, meter, percent } from "./dom.js";
import { hintList } from "./hints.js";
import { look } from "./look.js";
import { nameField } from "./namefield.js";
import { attempt } from "./notices.js";
import { state } from "./state.js";
import { teach, undo } from "./teach.js";

let count = 0;

/** A card for `item`: {name, url, prediction, resend}; has .element, .draw(), .item. */
export class Card {
  constructor(item, { onselect, onclose, ask }) {
    this.item = item;
    this.ask = ask;
    this.id = `card-${(count += 1)}`;
    this.box = h("input", { type: "checkbox", onchange: () => onselect(this) });
    this.answer = h("div", { class: "answer" });
    this.element = h("article", { class: "card", "aria-labelledby": this.id, tabindex: "-1", onkeydown: (event) => this.key(event) },
      h("div", { class: "shot" },
        h("img", { src: item.url, alt: item.name }),
        h("label", { class: "pick" }, this.box, h("span", null, "Select"), h("span", { class: "visually-hidden" }, ` ${item.name}`)),
        button("×", () => onclose(this), { class: "remove", "aria-label": `Put ${item.name} away` })),
      this.answer);
    this.draw();
  }

  get selected() {
    return this.box.checked;
  }

  set selected(value) {
    this.box.checked = value;
  }

  /** Draw what is known about the picture. */
  draw() {
    const { prediction, update, hints, reason } = this.item;
    this.element.classList.toggle("unknown", Boolean(prediction?.unknown && !update));
    this.element.classList.toggle("fixed", Boolean(update));
    if (reason) this.answer.replaceChildren(h("h2", { id: this.id }, "Not a picture"), h("p", { class: "note" }, reason));
    else if (!prediction) this.answer.replaceChildren(h("h2", { id: this.id, class: "waiting" }, "Looking…"));
    else {
      const parts = update ? [this.outcome(), hintList(hints)] : [...this.said(), this.choices(), this.naming(), hintList(hints), this.resembles()];
      this.answer.replaceChildren(...parts.filter(Boolean));
    }
  }

  said() {
    const { prediction } = this.item;
    const nearest = prediction.top?.[0];
    if (!nearest) return [h("h2", { id: this.id }, "What is this?"), h("p", { class: "sure" }, "It knows no classes yet. Type what this is, and it begins.")];
    if (prediction.unknown) {
      return [
        h("h2", { id: this.id }, "Unknown"),
        h("p", { class: "sure" }, "It is unlike everything taught. If anything, it is ", h("b", null, nearest.label), `, ${percent(nearest.probability)}.`),
      ];
    }
    return [
      h("h2", { id: this.id }, prediction.label),
      h("p", { class: "sure" }, `${percent(prediction.probability)} sure`,
        prediction.remembered ? h("span", { class: "tag" }, "taught already") : null,
        state.classes.length === 1 ? ", but it is the only name it knows. Teach it a second." : null),
    ];
  }

  choices() {
    const { prediction } = this.item;
    if (!prediction.top?.length) return null;
    const rows = prediction.top.map((score, i) => {
      const right = i === 0 && !prediction.unknown;
      return h("li", null, h("button", {
        type: "button", class: right ? "choice right" : "choice", "data-label": score.label,
        onclick: (event) => this.say(score.label, right ? "learn" : "correct", event.currentTarget),
      }, h("span", { class: "label" }, score.label), meter(score.probability), h("span", { class: "number" }, percent(score.probability)),
      h("span", { class: "visually-hidden" }, right ? ", yes, that is right" : ", that is what it is")));
    });
    return h("div", null, h("p", { class: "prompt" }, prediction.unknown ? "What is it? Click, or type a name." : "Wrong? Click what it is, or type a name."),
      h("ol", { class: "choices" }, rows));
  }

  naming() {
    return nameField({ label: "Something else…", action: "Teach", onname: (label, pressed) => this.say(label, "correct", pressed) });
  }

  resembles() {
    const similar = this.item.prediction.similar ?? [];
    if (!similar.length) return null;
    return h("div", { class: "resembles" }, h("p", { class: "prompt" }, "It resembles these, which it was taught:"),
      h("ul", { class: "strip" }, similar.map((each) => h("li", null,
        button([h("img", { src: picture(each.image, 128), alt: "", loading: "lazy" }), h("span", null, each.label)],
          () => look(each.image), { class: "bare", title: `${percent(each.similarity)} alike` })))));
  }

  outcome() {
    const { prediction, update } = this.item;
    const one = update.corrected?.find((each) => each.image === prediction.image);
    const label = one?.label ?? this.item.taught ?? prediction.label;
    // What was learned with others may still be answered otherwise, which is known once it was asked anew.
    const still = !one && prediction.label !== label && prediction !== this.item.before;
    const held = one ? one.after === one.label : !still;
    const how = [
      one && one.before && one.before !== label ? `It was ${one.before} before.` : null,
      update.new_classes?.length ? `“${update.new_classes.join("”, “")}” is a new class.` : null,
      one?.exception ? "It is an exception: only pictures very like it are answered by it." : null,
    ].filter(Boolean).join(" ");
    const title = update.kind === "learn" ? "Learned" : held ? "Fixed" : "Not yet";
    const again = button("Undo", (event) => this.takeBack(event.currentTarget), { class: "undo", "data-undo": "" });
    return h("div", { class: "outcome", role: "status" },
      h("p", { class: "over" }, h("span", { "aria-hidden": "true" }, held ? "✓ " : ""), title, update.event ? again : null),
      h("h2", { id: this.id }, still ? `Taught as ${label}` : `It is ${label} now`),
      still ? h("p", { class: "sure" }, "It is still answered ", h("b", null, prediction.label), ". ",
        button(`Correct it to ${label}`, (event) => this.say(label, "correct", event.currentTarget))) : null,
      h("p", { class: "sure" }, prediction.label === label ? `${percent(prediction.probability)} sure. ` : null, how),
      changes(update));
  }

  /** Teach the server that this is `label`. */
  async say(label, verb, pressed) {
    const { item } = this;
    // What it contradicts is what it did before.
    const { contradicts } = item.prediction;
    const given = [{ image: item.prediction.image, file: item.file, label }];
    const update = await attempt(() => teach(verb, given, { resend: item.resend }), pressed);
    if (!update) return;
    // Before the first lesson there was no answer, and so no name for the picture.
    if (!item.prediction.image) await attempt(item.resend);
    this.settle(update, label, contradicts && contradicts.unless !== label ? [contradicts] : []);
  }

  /** Show what came of teaching it. */
  settle(update, label, hints) {
    Object.assign(this.item, { update, hints, taught: label, before: this.item.prediction });
    this.selected = false;
    this.draw();
    this.element.focus({ preventScroll: true });
    this.ask();
  }

  async takeBack(pressed) {
    const done = await attempt(() => undo(this.item.update.event), pressed);
    if (!done) return;
    this.item.update = null;
    this.draw();
    this.ask();
  }

  key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[1-9]$/.test(event.key)) this.answer.querySelectorAll(".choice")[event.key - 1]?.click();
    else if (event.key === "x") this.box.click();
    else if (event.key === "u") this.answer.querySelector("[data-undo]")?.click();
    else if (event.key === "t" || event.key === "/") this.answer.querySelector("input")?.focus();
    else return;
    event.preventDefault();
  }
}
