// The gallery: what it was taught, class by class, a page at a time.

import { get, picture, post } from "./api.js";
import { Bulk } from "./bulk.js";
import { button, counted, dialog, h } from "./dom.js";
import { forgetting, look } from "./look.js";
import { nameField } from "./namefield.js";
import { attempt, say } from "./notices.js";
import { may, onChange, refresh, state } from "./state.js";
import { change, inWords, teach, undo } from "./teach.js";

const PAGE = 48;
const COVERS = 60;

/** Draw `#/pictures` (the classes) or `#/pictures/LABEL?page=2&only=pinned`. */
export async function show(main, [label], query) {
  if (label === undefined) return overview(main);
  return gallery(main, label, Math.max(1, Number(query.get("page")) || 1), query.get("only") === "pinned");
}

async function overview(main) {
  const draw = () => {
    const total = state.classes.reduce((sum, each) => sum + each.images, 0);
    main.replaceChildren(
      h("h1", null, "What it was taught"),
      h("p", { class: "lead" }, total ? `${counted(total, "picture")} of ${counted(state.classes.length, "class", "classes")}. Open one to look through it; wrong names are mended there.` : "Nothing yet. Give it a picture under “Ask”, and type what it is."),
      h("ul", { class: "classes" }, state.classes.map(tile)));
  };
  draw();
  return onChange((reason) => reason !== "asked" && draw());
}

function tile(known, place) {
  const covers = h("span", { class: "covers", "aria-hidden": "true" });
  if (place < COVERS) {
    get("samples", { label: known.label, limit: 4 }).then(({ samples }) => {
      covers.append(...samples.map((each) => h("img", { src: picture(each.image, 128), alt: "", loading: "lazy" })));
    }, () => null);
  }
  return h("li", null, h("a", { href: `#/pictures/${encodeURIComponent(known.label)}` }, covers,
    h("b", null, known.label), h("span", { class: "note" }, counted(known.images, "picture"), known.pinned ? `, ${known.pinned} by hand` : "")));
}

async function gallery(main, label, page, pinned) {
  let boxes = [];
  const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const count = () => bulk.show(chosen().length, boxes.length);
  const select = (value) => { for (const box of boxes) box.checked = value; count(); };
  const bulk = new Bulk({
    action: "Correct", onall: () => select(true), onnone: () => select(false),
    onname: (name, pressed) => attempt(async () => {
      const update = await teach("correct", chosen().map((image) => ({ image, label: name })), { flags: { replace: true } });
      if (!update) return;
      say(inWords(update), update.event ? { action: ["Undo", () => attempt(() => undo(update.event).then(draw))] } : {});
      await draw();
    }, pressed),
    more: may("owner") ? [button("Forget…", () => {
      const images = chosen();
      const box = dialog("Forget for good?", forgetting(images, () => { box.close(); draw(); }));
    }, { class: "danger" })] : [],
  });
  const list = h("ul", { class: "tiles" });
  const pager = h("nav", { class: "row pager", "aria-label": "Pages" });
  const title = h("h1", null, label);
  const lead = h("p", { class: "lead" });
  main.replaceChildren(h("p", { class: "back" }, h("a", { href: "#/pictures" }, "← All classes")), title, lead, tools(label, pinned), list, pager, bulk.element);

  async function draw() {
    const found = await get("samples", { label, offset: (page - 1) * PAGE, limit: PAGE, pinned: pinned || null });
    const pages = Math.max(1, Math.ceil(found.total / PAGE));
    lead.textContent = `${counted(found.total, "picture")}${pinned ? " corrected by hand" : ""}, the latest first.`;
    boxes = [];
    list.replaceChildren(...found.samples.map((sample) => cell(sample, boxes, count, draw)));
    pager.replaceChildren(...(pages > 1 ? [
      page > 1 ? h("a", { href: address(label, page - 1, pinned), rel: "prev" }, "← Newer") : null,
      h("span", { class: "note" }, `page ${page} of ${pages}`),
      page < pages ? h("a", { href: address(label, page + 1, pinned), rel: "next" }, "Older →") : null,
    ].filter(Boolean) : []));
    count();
  }
  await draw();
  const stop = onChange((reason) => reason === "elsewhere" && draw().catch(() => null));
  return () => { stop(); document.body.classList.remove("with-bulk"); };
}

const address = (label, page, pinned) => `#/pictures/${encodeURIComponent(label)}?page=${page}${pinned ? "&only=pinned" : ""}`;

function cell(sample, boxes, count, draw) {
  const box = h("input", { type: "checkbox", value: sample.image, onchange: count });
  boxes.push(box);
  return h("li", null,
    button(h("img", { src: picture(sample.image, 256), alt: `Look at this ${sample.label} from event ${sample.event}`, loading: "lazy" }), () => look(sample.image, draw), { class: "bare" }),
    h("label", { class: "pick" }, box, h("span", null, "Select")),
    sample.pinned ? h("span", { class: "tag" }, "by hand") : null,
    sample.protected ? h("span", { class: "tag" }, "protected") : null);
}

function protecting(label) {
  const set = (off) => (event) => attempt(async () => {
    const update = await post("protect", { labels: [label], off });
    await refresh();
    box.close();
    say(update.event ? update.summary : `Nothing has changed: “${label}” ${off ? "was not" : "is already"} protected`);
  }, event.currentTarget);
  const box = dialog(`Protect “${label}”`, [
    h("p", null, "No change may make it worse, whatever the budgets: one that would is refused."),
    h("div", { class: "row" }, button("Protect it", set(false), { class: "primary" }), button("Protect it no longer", set(true)))]);
}

function tools(label, pinned) {
  const other = pinned ? "All of them" : "Only those corrected by hand";
  const row = h("div", { class: "row tools" }, h("a", { href: address(label, 1, !pinned) }, other));
  if (may("teacher")) row.append(button("Protect the class…", () => protecting(label), { class: "plain" }));
  if (may("owner")) {
    row.append(button("Rename the class…", () => {
      const box = dialog(`Rename “${label}”`, [
        h("p", null, "A name that is there already makes the two classes one. Both can be undone."),
        nameField({ label: "The new name", action: "Rename", onname: (name, pressed) => attempt(async () => {
          const merge = state.classes.some((each) => each.label === name);
          const update = await (merge ? change("merge", { old: label, into: name }) : post("rename", { old: label, new: name }));
          if (!update) return;
          await refresh();
          box.close();
          say(update.summary, { action: ["Undo", () => attempt(() => undo(update.event))] });
          location.hash = `#/pictures/${encodeURIComponent(name)}`;
        }, pressed) })]);
    }, { class: "plain" }));
  }
  return row;
}
