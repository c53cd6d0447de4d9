// The first screen: give it pictures, see what it says, correct it.

import { formOf, post } from "./api.js";
import { Bulk } from "./bulk.js";
import { Card } from "./card.js";
import { button, counted, h } from "./dom.js";
import { advised, hintsFor } from "./hints.js";
import { chooser, photographer } from "./intake.js";
import { attempt, complain, say } from "./notices.js";
import { onChange, refresh, state } from "./state.js";
import { inWords, teachMany, undoMany } from "./teach.js";

const NOTHING = { label: null, top: [], image: null };
const SOME = 24;
const AT_ONCE = 12;
const BYTES = 24e6;
const WORTH_SAYING = new Set(["small", "blurry", "burst", "duplicate"]);

let cards = [];
let view;

/** Draw the view; what was asked stays while one looks at other parts of the page. */
export function show(main) {
  view ??= build();
  main.replaceChildren(view.root);
  invite();
}

/** Ask about files. */
export async function take(files) {
  if (location.hash.length > 2) location.hash = "#/";
  view ??= build();
  const fresh = files.map((file) => {
    const item = { file, name: file.name, url: URL.createObjectURL(file) };
    item.resend = () => predict([card]);
    const card = new Card(item, { onselect: count, onclose: remove, ask: askAgain });
    return card;
  });
  cards = [...fresh, ...cards];
  view.list.prepend(...fresh.map((card) => card.element));
  invite();
  await attempt(async () => {
    for (const some of batches(fresh)) {
      await predict(some);
      progress(fresh);
    }
  });
  progress([]);
  fresh[0]?.element.focus({ preventScroll: true });
  refresh("asked").catch(() => null);
  advise(fresh);
}

function build() {
  const bulk = new Bulk({ onname: nameSelected, onall: () => select(true), onnone: () => select(false) });
  const parts = {
    bulk,
    title: h("h1"),
    lead: h("p", { class: "lead" }),
    list: h("div", { class: "cards" }),
    known: h("p", { class: "note known" }),
    progress: h("p", { class: "note", role: "status" }),
    tools: h("div", { class: "row tools" }),
  };
  parts.drop = h("div", { class: "drop" },
    h("p", { class: "drop-words" }, h("span", { class: "wide-only" }, "Drop or paste pictures here"), h("span", { class: "phone-only" }, "Give it a picture")),
    h("div", { class: "row" }, chooser("Choose pictures", take, { class: "primary" }), photographer("Take a photo", take, {})),
    h("p", { class: "note" }, "They go to this server and nowhere else."));
  parts.root = h("div", { class: "ask" }, h("header", { class: "hello" }, parts.title, parts.lead), parts.drop, parts.known, parts.progress, parts.tools, parts.list, bulk.element);
  onChange((reason) => {
    invite();
    if (reason === "elsewhere") askAgain();
  });
  return { ...parts };
}

function invite() {
  if (!view) return;
  const known = state.classes.length;
  view.root.classList.toggle("begun", cards.length > 0);
  view.title.textContent = cards.length ? "What it sees" : known ? "What is in your picture?" : "Show it the first picture";
  view.lead.textContent = known
    ? "It says what it sees. Where it is wrong, one click on the right name corrects it, at once and for good, and shows what else changed."
    : "It knows nothing yet. Give it a picture and type what that is; two names, and it begins to tell them apart.";
  view.known.hidden = cards.length > 0 || !known;
  view.known.replaceChildren(`It knows ${counted(known, "name")}: `, state.classes.slice(0, SOME).map((each) => each.label).join(", "), known > SOME ? " and more." : ".");
  view.list.classList.toggle("one", cards.length === 1);
  const doubtful = cards.length > 2 ? button("Doubtful first", sortByDoubt, { class: "plain" }) : null;
  const away = cards.length > 1 ? button("Put all away", () => [...cards].forEach(remove), { class: "plain" }) : null;
  const all = cards.length > 1 ? button("Select all", () => select(true), { class: "plain" }) : null;
  const words = cards.length > 1 ? h("span", { class: "note" }, counted(cards.length, "picture")) : null;
  view.tools.replaceChildren(...[words, all, doubtful, away].filter(Boolean));
}

function progress(fresh) {
  const done = fresh.filter((card) => card.item.prediction || card.item.reason).length;
  view.progress.textContent = fresh.length > AT_ONCE && done < fresh.length ? `${done} of ${fresh.length} answered` : "";
}

function* batches(fresh) {
  let some = [];
  let bytes = 0;
  for (const card of fresh) {
    if (some.length && (some.length === AT_ONCE || bytes + card.item.file.size > BYTES)) {
      yield some;
      [some, bytes] = [[], 0];
    }
    some.push(card);
    bytes += card.item.file.size;
  }
  if (some.length) yield some;
}

/** Ask the server about the files of some cards. */
async function predict(some) {
  const names = some.map((card, i) => `${i}~${card.item.name}`);
  let found;
  try {
    found = await post("predict?similar=4", formOf(some.map((card, i) => [card.item.file, names[i]])));
  } catch (error) {
    if (state.classes.length) throw error;
    // Nothing is known yet: there is no answer, but whatever it is can be taught.
    for (const card of some) card.item.prediction = NOTHING;
    some.forEach((card) => card.draw());
    return;
  }
  const place = new Map(names.map((name, i) => [name, some[i]]));
  for (const prediction of found.predictions) put(place.get(prediction.path), prediction);
  for (const skipped of found.skipped) {
    const card = place.get(skipped.path);
    if (card) Object.assign(card.item, { reason: skipped.reason });
    card?.draw();
  }
}

function put(card, prediction) {
  if (!card) return;
  card.item.prediction = prediction;
  card.draw();
}

/** Ask again about everything that is shown: a correction may have changed other answers, too. */
async function askAgain() {
  const shown = cards.filter((card) => card.item.prediction?.image).slice(0, 60);
  if (!shown.length) return;
  if (!state.classes.length) {
    shown.forEach((card) => put(card, { ...NOTHING, image: card.item.prediction.image }));
    return;
  }
  try {
    const found = await post("predict?similar=4", { pictures: shown.map((card) => ({ image: card.item.prediction.image })) });
    const answers = new Map(found.predictions.map((each) => [each.image, each]));
    for (const card of shown) {
      const prediction = answers.get(card.item.prediction.image);
      if (prediction && !card.element.contains(document.activeElement?.closest?.("form"))) put(card, prediction);
      else if (prediction) card.item.prediction = prediction;
    }
  } catch (error) {
    if (error.kind !== "UnknownImage") complain(error);
    // Taken back, or put away long ago: the server has it no longer, but this page does.
    else for (const some of batches(shown)) await attempt(() => predict(some));
  }
}

/** Quiet hints beside what was just given. */
async function advise(fresh) {
  const asked = fresh.filter((card) => card.item.prediction?.image);
  if (!asked.length) return;
  const hints = await hintsFor(asked.map((card) => ({ image: card.item.prediction.image })));
  asked.forEach((card, i) => {
    card.item.hints = hints[i].filter((hint) => WORTH_SAYING.has(hint.kind) && !(hint.kind === "duplicate" && card.item.prediction.remembered));
    if (card.item.hints.length && !card.item.update && !card.element.contains(document.activeElement?.closest?.("form"))) card.draw();
  });
}

function remove(card) {
  URL.revokeObjectURL(card.item.url);
  card.element.remove();
  cards = cards.filter((each) => each !== card);
  invite();
  count();
}

function sortByDoubt() {
  const doubt = ({ item }) => (item.update ? 2 : item.prediction?.unknown ? -1 : item.prediction?.probability ?? 3);
  cards.sort((a, b) => doubt(a) - doubt(b));
  view.list.append(...cards.map((card) => card.element));
}

function select(value) {
  for (const card of cards) card.selected = value && Boolean(card.item.prediction);
  count();
}

function count() {
  view.bulk.show(cards.filter((card) => card.selected).length, cards.length);
}

async function nameSelected(label, pressed) {
  const chosen = cards.filter((card) => card.selected && card.item.prediction);
  await attempt(async () => {
    const items = await advised(chosen.map(({ item }) => ({ image: item.prediction.image, file: item.file, remembered: item.prediction.remembered, label })));
    if (!items) return;
    const updates = await teachMany(items, { resend: () => predict(chosen) });
    if (!updates) return;
    const taught = new Map(updates.flatMap((update) => update.taught.map((item) => [item.file, update])));
    const nameless = chosen.filter((card) => !card.item.prediction.image);
    if (nameless.length) await predict(nameless);
    for (const card of chosen) {
      card.selected = false;
      if (taught.has(card.item.file)) {
        Object.assign(card.item, { update: taught.get(card.item.file), taught: label, before: card.item.prediction });
        card.draw();
      }
    }
    count();
    view.list.querySelector(".card.fixed")?.focus({ preventScroll: true });
    askAgain();
    const back = () => attempt(async () => {
      if (!(await undoMany(updates))) return;
      for (const card of chosen) card.item.update = null;
      askAgain();
    });
    say(updates.map(inWords).join("; "), updates.some((update) => update.event) ? { action: ["Undo", back] } : {});
  }, pressed);
}
