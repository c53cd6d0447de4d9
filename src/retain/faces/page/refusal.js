// The gate refuses: why, which pictures are in doubt, and what can be done about it.

import { picture } from "./api.js";
import { changes } from "./changes.js";
import { button, counted, dialog, h, percent, sentence } from "./dom.js";
import { may } from "./state.js";

const NAMES = {
  exclude: "Leave out what is in doubt",
  dry_run: "Show what would happen",
  exception: "Make an exception",
  force: "Do it all the same",
  protection: "Protect it no longer",
  gate: "Change the budgets",
  leave: "Leave it as it is",
};

/**
 * Show a refusal of `items`. `send(flags)` tries again with flags; `foresee()` tells what would
 * happen where the refusal itself does not.
 * Resolves to null (left as it is), {update} (done) or {without: images} (to be tried without these).
 */
export function refusal(error, items, send, foresee = null) {
  return new Promise((done) => {
    const { verdict, choices = [], update } = error.body;
    const would = h("div", { class: "would", "aria-live": "polite" });
    let outcome = null;
    const end = (found) => { outcome = found; box.close(); };

    async function take(choice, pressed) {
      if (choice.choice === "leave") return end(null);
      if (choice.choice === "exclude") return end({ without: choice.images });
      if (choice.choice === "gate" || choice.choice === "protection") {
        location.hash = choice.choice === "gate" ? "#/more" : "#/pictures";
        return end(null);
      }
      // Most refusals say already what would happen.
      if (choice.choice === "dry_run" && update && !foresee) return would.replaceChildren(...preview(update));
      pressed.disabled = true;
      try {
        const found = foresee && choice.choice === "dry_run" ? { ...update, ...await foresee() } : await send(choice.set);
        if (choice.choice === "dry_run") would.replaceChildren(...preview(found));
        else end({ update: found });
      } catch (problem) {
        const told = choice.choice === "dry_run" && problem.body?.update;
        would.replaceChildren(...(told ? preview(told) : [h("p", { class: "problem" }, sentence(problem.message))]));
      }
      pressed.disabled = false;
      return undefined;
    }

    const order = Object.keys(NAMES);
    const sorted = [...choices].sort((a, b) => order.indexOf(a.choice) - order.indexOf(b.choice));
    const box = dialog("Nothing has changed", [
      h("p", { class: "lead" }, doubted(verdict)
        ? "Some of these names are probably wrong. The check before every change says why:"
        : "This would have cost more than it may. The check before every change says why:"),
      checks(verdict),
      suspects(verdict, items),
      h("h3", null, "What now?"),
      h("ul", { class: "options" }, sorted.map((choice) => option(choice, take))),
      would,
    ], { onclose: () => done(outcome) });
    if (!choices.length) would.replaceChildren(...preview(update));
  });
}

/** Whether nothing but the names is in doubt. */
function doubted(verdict) {
  const failed = (verdict?.checks ?? []).filter((each) => !each.passed);
  return failed.length > 0 && failed.every((each) => each.name === "labels");
}

function checks(verdict) {
  const failed = (verdict?.checks ?? []).filter((each) => !each.passed);
  const passed = (verdict?.checks ?? []).filter((each) => each.passed);
  const list = (rows) => h("ul", { class: "checks" }, rows.map((each) =>
    h("li", { class: each.passed ? "good" : "bad" }, h("span", { class: "visually-hidden" }, each.passed ? "passed: " : "failed: "),
      sentence(each.sentence))));
  return [
    failed.length ? list(failed) : verdict?.reason ? h("p", null, sentence(verdict.reason)) : null,
    passed.length ? h("details", null, h("summary", null, `${counted(passed.length, "check")} passed`), list(passed)) : null,
  ];
}

function suspects(verdict, items) {
  const found = verdict?.suspects ?? [];
  if (!found.length) return null;
  const given = new Set(items.map((each) => each.image));
  return [
    h("h3", null, `${counted(found.length, "picture")} in doubt`),
    h("ul", { class: "tiles small" }, found.slice(0, 12).map((each) => h("li", null,
      h("img", { src: picture(each.image, 160), alt: `called ${each.label}, looks like ${each.looks_like}`, loading: "lazy" }),
      h("span", null, "called ", h("b", null, each.label)),
      h("span", { class: "note" }, `looks like ${each.looks_like}, ${percent(each.probability).replaceAll(" ", "\u00a0")}${given.has(each.image) ? "" : "; taught before"}`)))),
  ];
}

function option(choice, take) {
  const barred = choice.role && !may(choice.role);
  const id = `option-${choice.choice}`;
  const pressed = button(NAMES[choice.choice] ?? choice.choice, () => take(choice, pressed), {
    disabled: barred, "aria-describedby": id, "data-choice": choice.choice,
    class: choice.choice === "force" ? "danger" : null,
  });
  return h("li", null, pressed, h("span", { id, class: "note" },
    // What the button says already is not said twice.
    sentence(choice.sentence) === `${NAMES[choice.choice]}.` ? null : sentence(choice.sentence), barred ? " For the owner only." : ""));
}

function preview(update) {
  return [h("h3", null, "What would happen"), h("p", null, sentence(update?.summary ?? "")), changes(update ?? {}, { would: true })];
}
