// The history as a timeline: what was done, when and by whom; undo, and back to any point.

import { get, picture } from "./api.js";
import { button, counted, day, dialog, h, when } from "./dom.js";
import { look } from "./look.js";
import { attempt, say } from "./notices.js";
import { onChange, refresh } from "./state.js";
import { change, undo } from "./teach.js";

const PAGE = 50;

/** Draw `#/history`. */
export async function show(main) {
  const list = h("div", { class: "timeline" });
  const lead = h("p", { class: "lead" });
  const more = button("Older ones", (event) => attempt(() => load(false), event.currentTarget), { class: "plain" });
  main.replaceChildren(h("h1", null, "What was done"), lead, list, h("div", { class: "row" }, more));
  let last = null;
  let shown = 0;

  async function load(anew) {
    const found = await get("log", { limit: anew ? Math.max(PAGE, shown) : PAGE, before: anew ? null : last });
    if (anew) {
      list.replaceChildren();
      shown = 0;
    }
    for (const event of found.events) place(list, event, () => load(true), anew && event === found.events[0]);
    shown += found.events.length;
    last = found.events.at(-1)?.event ?? last;
    more.hidden = shown >= found.total;
    lead.textContent = found.total
      ? "Everything can be taken back but forgetting, and taking back can be taken back."
      : "Nothing yet. What is taught and corrected will be listed here, and can be taken back.";
    if (!more.hidden || !found.total || list.querySelector("[data-event='0']")) return;
    place(list, { event: 0, kind: "begin", summary: "it was made, and knew nothing", at: found.events.at(-1).at, images: 0 }, () => load(true));
  }
  await load(true);
  return onChange((reason) => reason !== "asked" && load(true).catch(() => null));
}

function place(list, event, again, newest = false) {
  const title = day(event.at);
  let rows = list.lastElementChild?.querySelector("ol");
  if (list.lastElementChild?.dataset.day !== title) {
    rows = h("ol");
    list.append(h("section", { "data-day": title }, h("h2", null, title), rows));
  }
  rows.append(row(event, again, newest));
}

function row(event, again, newest) {
  const gone = event.undone !== null && event.undone !== undefined;
  const details = h("div", { class: "shown" });
  const begin = event.event === 0;
  const actions = h("div", { class: "actions" },
    event.images && event.kind !== "forget" ? button("Look", (press) => attempt(() => toggle(details, event), press.currentTarget), { class: "plain" }) : null,
    gone || begin || event.kind === "forget" ? null
      : button(event.kind === "undo" ? "Redo" : "Undo", (press) => attempt(() => undo(event.event), press.currentTarget), { class: "plain", "aria-label": `Undo event ${event.event}: ${event.summary}` }),
    newest ? null : button("Back to here", () => restore(event, again), { class: "plain", "aria-label": `Back to how it was after event ${event.event}` }));
  const item = h("li", { class: gone ? "undone" : event.kind, "data-event": event.event },
    h("span", { class: "kind" }, event.kind),
    h("div", { class: "what" }, h("p", { class: "summary" }, gone ? h("del", null, event.summary) : event.summary, gone ? h("span", { class: "note" }, ` taken back by ${event.undone}`) : null),
      h("p", { class: "note" }, begin ? null : [when(event.at), ` · version ${event.event}`, event.actor ? ` · ${event.actor}` : ""])),
    actions, details);
  return item;
}

async function toggle(details, event) {
  if (details.childElementCount) return details.replaceChildren();
  const { samples } = await get(`show/${event.event}`);
  const rows = samples.slice(0, 40).map((sample) => h("li", null,
    button([h("img", { src: picture(sample.image, 128), alt: "", loading: "lazy" }), h("span", null, sample.label || "no label")], () => look(sample.image), { class: "bare" })));
  return details.replaceChildren(rows.length ? h("ul", { class: "strip" }, rows) : h("p", { class: "note" }, "None of its pictures is remembered any more."),
    samples.length > rows.length ? h("p", { class: "note" }, `and ${counted(samples.length - rows.length, "more", "more")}`) : "");
}

function restore(event, again) {
  const box = dialog("Back to here?", [
    h("p", null, `Everything after ${event.event ? `“${event.summary}”` : "the beginning"} is taken back. What was forgotten since stays forgotten. Each step can be redone.`),
    h("div", { class: "row" },
      button("Take it all back", (press) => attempt(async () => {
        const found = await change("restore", { event: event.event });
        if (!found) return;
        box.close();
        await refresh();
        await again();
        say(found.undone.length ? `${found.summary}: ${counted(found.undone.length, "event")} taken back` : "Nothing was to be taken back");
      }, press.currentTarget), { class: "primary" }),
      button("Leave it", () => box.close(), { class: "quiet" }))]);
}
