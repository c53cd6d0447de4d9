// Advice before something is taught: too small, blurred, near-duplicates, adds nothing, contradicts.

import { picture, post } from "./api.js";
import { button, counted, dialog, h, sentence } from "./dom.js";
import { look } from "./look.js";

/** The hints for items {image, label?}, one list each; none where the server cannot tell. */
export async function hintsFor(items) {
  if (items.some((each) => !each.image)) return items.map(() => []);
  try {
    return (await post("hints", { items: items.map(({ image, label }) => ({ image, label })) })).hints;
  } catch {
    return items.map(() => []);
  }
}

/** Hints as a list, with the pictures they speak of. */
export function hintList(hints) {
  if (!hints?.length) return null;
  return h("ul", { class: "hints" }, hints.map((hint) => h("li", { "data-kind": hint.kind }, h("p", null, sentence(hint.sentence)),
    hint.images?.length && hint.kind !== "burst"
      ? h("div", { class: "strip" }, hint.images.slice(0, 4).map((image) =>
        button(h("img", { src: picture(image, 96), alt: "Look at this one", loading: "lazy" }), () => look(image), { class: "bare" })))
      : null)));
}

/**
 * Ask before many pictures are taught, where there is something to say.
 * Resolves to the items to teach, or to null where nothing shall be.
 */
export async function advised(items) {
  const hints = await hintsFor(items);
  const kinds = new Map();
  hints.forEach((list, i) => list.forEach((hint) => kinds.set(hint.kind, [...(kinds.get(hint.kind) ?? []), [items[i], hint]])));
  if (!kinds.size) return items;
  return new Promise((done) => {
    let outcome = null;
    const clean = items.filter((_, i) => !hints[i].length);
    const end = (found) => { outcome = found; box.close(); };
    const box = dialog("Before this is taught", [
      [...kinds].map(([kind, found]) => h("section", { class: "hint-group", "data-kind": kind },
        h("h3", null, `${counted(found.length, "picture")}: ${WORDS[kind] ?? kind}`),
        h("div", { class: "strip" }, found.slice(0, 8).map(([item]) => h("img", { src: picture(item.image, 96), alt: "", loading: "lazy" }))),
        kind === "contradicts" ? h("p", { class: "note" }, sentence(found[0][1].sentence)) : null)),
      h("div", { class: "row" },
        clean.length ? button(`Teach the other ${clean.length}`, () => end(clean), { class: "primary" }) : null,
        button(items.length === 1 ? "Teach it all the same" : `Teach all ${items.length}`, () => end(items)),
        button("Not now", () => end(null), { class: "quiet" })),
    ], { onclose: () => done(outcome) });
  });
}

const WORDS = {
  small: "very small",
  blurry: "blurred",
  burst: "nearly the same as another one of these; one is enough",
  duplicate: "taught already, or nearly the same as one that was",
  sure: "adds nothing, for it is sure already",
  contradicts: "contradicts pictures that look the same and have another name",
  unreadable: "cannot be read",
};
