// A test on a folder of folders: how often it is right, and, one click further, where it is not.

import { formOf, get, post } from "./api.js";
import { button, counted, h, percent } from "./dom.js";
import { chooser } from "./intake.js";
import { matrix } from "./matrix.js";
import { attempt, say } from "./notices.js";
import { tally } from "./tally.js";
import { inWords } from "./teach.js";
import { teachFiles } from "./teachfiles.js";

const AT_ONCE = 50;
const BYTES = 24e6;
const SHOWN = 60;

let last = null;
let taking = null;

/** Draw `#/test`; the last result stays until there is another. */
export async function show(main) {
  const out = h("div", { class: "result" });
  const bar = h("progress", { hidden: true, "aria-label": "How far the test is" });
  const told = h("p", { class: "note", role: "status" });
  const version = h("select", { "aria-label": "Which version" }, h("option", { value: "" }, "as it is now"));
  get("versions").then((found) => version.append(...found.versions.slice(-31, -1).reverse().map((each) =>
    h("option", { value: each.event }, `version ${each.event}${each.aliases.length ? ` (${each.aliases.join(", ")})` : ""}`))), () => null);
  let stop = null;
  const halt = button("Stop", () => stop?.abort(), { hidden: true });

  taking = async (files) => {
    const labelled = files.map((file) => ({ file, label: (file.path ?? "").split("/").at(-2) })).filter((each) => each.label);
    if (!labelled.length) {
      say("Choose a folder that has a folder for each class, such as test/mug/1.jpg", { bad: true });
      return;
    }
    stop = new AbortController();
    halt.hidden = bar.hidden = false;
    bar.max = labelled.length;
    const result = tally(labelled);
    await attempt(async () => {
      for (const some of batches(labelled)) {
        const form = formOf(some.map((each) => [each.file, `${each.number}~${each.file.name}`]), some.map((each) => each.label));
        const query = version.value ? `?version=${encodeURIComponent(version.value)}` : "";
        result.add(some, await post(`evaluate${query}`, form, { signal: stop.signal }));
        bar.value = result.done;
        told.textContent = `${result.done} of ${labelled.length} judged`;
      }
    });
    halt.hidden = bar.hidden = true;
    told.textContent = "";
    if (result.n) last = result;
    draw(out);
  };
  main.replaceChildren(h("h1", null, "How good is it?"),
    h("p", { class: "lead" }, "Give it a folder that has a folder for each class. It is tested on all of them; nothing is learned, and nothing is kept."),
    h("div", { class: "drop small" }, h("p", { class: "drop-words wide-only" }, "Drop the folder here"),
      h("div", { class: "row" }, chooser("Choose a folder", taking, { class: "primary", folder: true }), h("label", { class: "inline" }, "Test it ", version), halt), bar, told),
    out);
  draw(out);
  return () => stop?.abort();
}

/** What is dropped while this view is shown. */
export function take(files) {
  return taking?.(files);
}

function* batches(labelled) {
  let some = [];
  let bytes = 0;
  for (const [number, each] of labelled.entries()) {
    each.number = number;
    if (some.length && (some.length === AT_ONCE || bytes + each.file.size > BYTES)) {
      yield some;
      [some, bytes] = [[], 0];
    }
    some.push(each);
    bytes += each.file.size;
  }
  if (some.length) yield some;
}

function draw(out) {
  if (!last) return out.replaceChildren();
  const found = last;
  const inside = h("section", { class: "inside", "aria-live": "polite" });
  const open = (truth, answer) => {
    inside.replaceChildren(...cell(found, truth, answer));
    inside.scrollIntoView({ block: "nearest" });
  };
  const wrong = found.n - found.right;
  const figure = (value, what) => h("li", null, h("b", null, value), h("span", null, what));
  return out.replaceChildren(
    h("ul", { class: "figures" }, figure(percent(found.right / found.n), `right, of ${counted(found.n, "picture")}`),
      figure(percent(found.balanced()), "right on average over the classes"), figure(String(wrong), wrong === 1 ? "mistake" : "mistakes")),
    found.remembered ? h("p", { class: "problem" }, `${counted(found.remembered, "of these pictures was", "of these pictures were")} taught to it, which flatters it.`) : "",
    found.skipped.length ? h("p", { class: "note" }, `${counted(found.skipped.length, "file")} could not be read.`) : "",
    wrong ? button("Show all mistakes, the surest first", () => open(null, null), { class: "plain" }) : "",
    matrix(found.confusion, open), inside);
}

function cell(found, truth, answer) {
  const rows = found.of(truth, answer);
  const wrong = truth !== answer || truth === null;
  const title = truth === null ? "All mistakes" : wrong ? `${truth}, answered ${answer}` : `${truth}, answered right`;
  const list = h("ul", { class: "tiles" }, rows.slice(0, SHOWN).map((each) => h("li", null,
    h("img", { src: each.url(), alt: each.file.name, loading: "lazy" }),
    each.answer?.probability ? h("span", { class: "note" }, each.answer.unknown ? "unknown" : `${truth === null ? `${each.answer.label}, ` : ""}${percent(each.answer.probability)}`) : null,
    wrong ? button(`It is ${each.label}`, (event) => attempt(async () => {
      const update = await teachFiles("correct", [each.file], each.label);
      if (update) say(inWords(update));
      if (update) event.target.closest("li").classList.add("fixed");
    }, event.currentTarget)) : null)));
  return [
    h("h2", null, title),
    wrong ? h("p", { class: "note" }, "What is taught here is a test no longer. If the folder names it wrong, mend the folder instead.") : "",
    list, rows.length > SHOWN ? h("p", { class: "note" }, `and ${rows.length - SHOWN} more`) : "",
  ];
}
