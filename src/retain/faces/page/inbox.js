// What was called unknown, those that look alike together; and what to label next.

import { get, picture, post } from "./api.js";
import { button, counted, h, percent, sentence } from "./dom.js";
import { advised } from "./hints.js";
import { nameField } from "./namefield.js";
import { attempt, say } from "./notices.js";
import { onChange, refresh } from "./state.js";
import { inWords, teachMany, undoMany } from "./teach.js";

const SHOWN = 24;
const NEXT = 8;

/** Draw `#/inbox`. */
export async function show(main) {
  const groups = h("div", { class: "groups" });
  const next = h("ul", { class: "next" });
  const lead = h("p", { class: "lead" });
  const tools = h("div", { class: "row tools" });
  const nextPart = h("section", null, h("h2", null, "What to label next"),
    h("p", { class: "note" }, "Of everything asked lately, these would teach it most: each stands for others, or is unlike all it knows."), next);
  main.replaceChildren(h("h1", null, "What it did not know"), lead, tools, groups, nextPart);

  async function draw() {
    const [found, suggested] = await Promise.all([get("inbox/clusters"), get("next", { count: NEXT })]);
    lead.textContent = found.total
      ? `${counted(found.total, "picture")} ${found.total === 1 ? "was" : "were"} called unknown. Name those that belong together, in one go.`
      : "Nothing is waiting. Pictures that are unlike everything taught collect here, to be named together.";
    tools.replaceChildren(...(found.total > 1 ? [button("Put all away", (event) => dismiss([], event.currentTarget, draw), { class: "plain" })] : []));
    groups.replaceChildren(...found.clusters.map((cluster) => group(cluster, draw)));
    next.replaceChildren(...suggested.pictures.map((each) => suggestion(each, draw)));
    nextPart.hidden = !suggested.pictures.length;
  }
  await draw();
  return onChange((reason) => (reason === "elsewhere" || reason === "session") && draw().catch(() => null));
}

function group(cluster, draw) {
  const rows = cluster.images.map((image, i) => {
    const box = h("input", { type: "checkbox", checked: true, value: image, onchange: tell });
    return { box, element: h("li", { hidden: i >= SHOWN }, h("label", null, h("img", { src: picture(image, 128), alt: `unknown picture ${i + 1}`, loading: "lazy" }), h("span", { class: "pick" }, box, h("span", null, "Take"))) ) };
  });
  const chosen = () => rows.filter((row) => row.box.checked).map((row) => row.box.value);
  const told = h("p", { class: "note", "aria-live": "polite" });
  function tell() {
    const count = chosen().length;
    told.textContent = count === rows.length ? "Take out what does not belong." : `${count} of ${rows.length} taken.`;
  }
  tell();
  const more = rows.length > SHOWN ? button(`Show ${rows.length - SHOWN} more`, () => {
    rows.forEach((row) => { row.element.hidden = false; });
    more.remove();
  }, { class: "plain" }) : null;
  return h("section", { class: "group" },
    h("h2", null, sentence(cluster.sentence)),
    cluster.nearest ? h("p", { class: "note" }, "Closest to ", h("b", null, cluster.nearest), ", though not close.") : null,
    h("ul", { class: "tiles tiny" }, rows.map((row) => row.element)), more, told,
    h("div", { class: "row" },
      nameField({ label: "They are…", action: "Name them", onname: (label, pressed) => name(chosen(), label, pressed, draw) }),
      button("Put away", (event) => dismiss(chosen(), event.currentTarget, draw), { class: "plain" })));
}

function suggestion(each, draw) {
  return h("li", null,
    h("img", { src: picture(each.image, 192), alt: each.label ? `answered ${each.label}` : "picture to label", loading: "lazy" }),
    h("div", null,
      h("p", null, sentence(each.sentence)),
      each.label ? button(`It is ${each.label}`, (event) => name([each.image], each.label, event.currentTarget, draw)) : null,
      each.label ? h("span", { class: "note" }, ` ${percent(each.probability)} sure`) : null,
      nameField({ label: "It is…", action: "Teach", onname: (label, pressed) => name([each.image], label, pressed, draw) })));
}

function name(images, label, pressed, draw) {
  return attempt(async () => {
    if (!images.length) return;
    const given = images.map((image) => ({ image, label }));
    // Of one that was clicked nothing needs to be asked; of many, what does not belong.
    const items = given.length > 1 ? await advised(given) : given;
    if (!items) return;
    const updates = await teachMany(items);
    if (!updates) return;
    await refresh();
    await draw();
    say(updates.map(inWords).join("; "), updates.some((update) => update.event) ? { action: ["Undo", () => attempt(() => undoMany(updates).then(draw))] } : {});
  }, pressed);
}

function dismiss(images, pressed, draw) {
  return attempt(async () => {
    const { dismissed } = await post("inbox/dismiss", { images });
    await refresh("asked");
    await draw();
    say(`${counted(dismissed, "picture")} put away`);
  }, pressed);
}
