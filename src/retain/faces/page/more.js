// What one needs seldom: taking it along, what a change may cost, whether all is well, the keys.

import { get, post } from "./api.js";
import { button, counted, h, percent, sentence } from "./dom.js";
import { attempt, say } from "./notices.js";
import { may, onChange, state } from "./state.js";
import { change } from "./teach.js";

const BUDGETS = {
  regressions: "remembered pictures that may be answered wrong after a change, as a share of all",
  class_regressions: "the same within one class",
  new_class_accuracy: "how often a new class must be right at least",
  calibration: "how much worse the probabilities may become, in nats",
  agreement: "for adopted classifiers: reference pictures that may be answered otherwise",
  correction: "remembered pictures that one correction's edit may cost",
  wrong_labels: "labels of a lesson that may be doubtful",
};

/** Draw `#/more`. */
export async function show(main) {
  const title = h("h1", null, "More");
  main.replaceChildren(title);
  const draw = async () => {
    const [gate, { versions }] = await Promise.all([get("gate"), get("versions")]);
    // Another part may have been opened meanwhile.
    if (title.parentNode === main) main.replaceChildren(title, facts(), taking(versions), budgets(gate), checking(), keys());
  };
  await draw();
  return onChange((reason) => reason === "session" && draw().catch(() => null));
}

function facts() {
  const { status } = state;
  return h("ul", { class: "figures" },
    [[status.images.toLocaleString("en"), "pictures remembered"], [String(status.classes), "classes"], [String(status.pinned), "corrected by hand"],
      [status.leave_one_out_accuracy === null || status.leave_one_out_accuracy === undefined ? "–" : percent(status.leave_one_out_accuracy), "right on pictures left out in turn"]]
      .map(([value, what]) => h("li", null, h("b", null, value), h("span", null, what))));
}

function taking(versions) {
  const owner = may("owner");
  const choice = h("select", { id: "export-version" }, versions.slice(-50).reverse().map((each, i) =>
    h("option", { value: i ? each.event : "" }, `${i ? `version ${each.event}` : `the latest (${each.event})`}${each.aliases.length ? `, ${each.aliases.join(", ")}` : ""}`)));
  const link = h("a", { class: "button", href: "export", download: "" }, "Download the classifier (.onnx)");
  choice.addEventListener("change", () => link.setAttribute("href", choice.value ? `export?version=${choice.value}` : "export"));
  return h("section", null, h("h2", null, "Take it along"),
    h("p", { class: "note" }, "As one ONNX file it runs anywhere; packed whole, with its pictures and history, it can be taught further elsewhere."),
    owner
      ? [h("div", { class: "row" }, h("label", { for: "export-version" }, "Version"), choice),
        h("div", { class: "row" }, link, h("a", { class: "button", href: "pack", download: "" }, "Download all of it (.retain)")),
        h("div", { class: "row" }, button("Put this version into production", (event) => attempt(async () => {
          const update = await change("promote", choice.value ? { version: Number(choice.value) } : {},
            () => get("diff", { a: "production", b: choice.value || versions.at(-1).event }));
          if (update) say(update.summary);
        }, event.currentTarget)))]
      : h("p", null, "For the owner only. Sign in with the owner's token to download it."));
}

function budgets(gate) {
  const owner = may("owner");
  const fields = Object.entries(gate).filter(([, value]) => typeof value === "number").map(([name, value]) => {
    const id = `budget-${name}`;
    return [h("label", { for: id }, h("b", null, name.replaceAll("_", " ")), h("span", { class: "note" }, BUDGETS[name] ?? "")),
      h("input", { id, name, type: "number", step: "any", min: 0, value: String(value), disabled: !owner })];
  });
  const submit = (event) => {
    event.preventDefault();
    const given = [...event.target.querySelectorAll("input")].filter((each) => Number(each.value) !== gate[each.name]);
    attempt(async () => {
      if (!given.length) return;
      await post("gate", Object.fromEntries(given.map((each) => [each.name, Number(each.value)])));
      for (const each of given) gate[each.name] = Number(each.value);
      say("The budgets are set");
    });
  };
  return h("section", null, h("h2", null, "What a change may cost"),
    h("p", { class: "note" }, "Before every change the remembered pictures are asked again. A change that costs more than this is refused, and says so."),
    h("form", { class: "budgets", onsubmit: submit }, fields, owner ? h("button", null, "Set them") : null));
}

function checking() {
  const told = h("p", { role: "status" });
  return h("section", null, h("h2", null, "Is all well?"),
    h("p", { class: "note" }, "Everything it knows is derived again from its history and compared."),
    h("div", { class: "row" }, button("Check everything", (event) => attempt(async () => {
      const found = await get("verify");
      told.textContent = found.ok
        ? `All is well: ${counted(found.images, "picture")} and ${counted(found.events, "event")} agree.`
        : `Not well: ${found.problems.map(sentence).join(" ")}`;
    }, event.currentTarget))), told);
}

function keys() {
  const rows = [["Tab", "from one thing to the next"], ["1 … 5", "on a card: it is the first, second, … of the answers"], ["T", "on a card: type a name"],
    ["X", "on a card: select it"], ["U", "on a card: undo its correction"], ["Ctrl Z", "undo the last change"], ["Ctrl V", "paste a picture"], ["Esc", "close what is open"]];
  return h("section", null, h("h2", null, "By keyboard"), h("dl", { class: "keys" }, rows.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])));
}
