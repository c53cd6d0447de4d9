// A remembered picture from near: what it is answered and why, its history, and what can be done with it.

import { get, picture, post } from "./api.js";
import { base, button, dialog, h, meter, percent, sentence, when } from "./dom.js";
import { nameField } from "./namefield.js";
import { attempt, say } from "./notices.js";
import { may, refresh } from "./state.js";
import { change, inWords, teach, undo } from "./teach.js";

/** Open a picture by its hash; `onchanged` is called when something was done with it. */
export async function look(image, onchanged = () => null) {
  const found = await attempt(() => get(`samples/${encodeURIComponent(image)}`));
  if (!found) return;
  const { sample, prediction, history } = found;
  const told = h("div", { class: "told", "aria-live": "polite" });
  const done = (update) => {
    box.close();
    onchanged(update);
  };
  const rename = nameField({
    label: "It is something else…", action: "Correct",
    onname: (label, pressed) => attempt(async () => {
      const update = await teach("correct", [{ image, label }], { flags: { replace: true } });
      if (!update) return;
      say(inWords(update), update.event ? { action: ["Undo", () => attempt(() => undo(update.event).then(onchanged))] } : {});
      done(update);
    }, pressed),
  });
  const box = dialog(sample.label || "Without a label", h("div", { class: "look" },
    h("div", { class: "shot" }, h("img", { src: picture(image, 640), alt: sample.label })),
    h("div", null,
      h("p", null, prediction.label === sample.label ? "It is answered right" : h("b", { class: "bad" }, `It is answered “${prediction.label}”`),
        `, ${percent(prediction.probability)} sure.`,
        sample.pinned ? h("span", { class: "tag" }, "corrected by hand") : null,
        sample.protected ? h("span", { class: "tag" }, "protected") : null,
        sample.exception ? h("span", { class: "tag" }, "exception") : null),
      h("ol", { class: "bars" }, (prediction.top ?? []).slice(0, 5).map((score) =>
        h("li", null, h("span", { class: "label" }, score.label), meter(score.probability), h("span", { class: "number" }, percent(score.probability))))),
      rename,
      h("div", { class: "row" },
        button("Why?", (event) => attempt(async () => told.replaceChildren(...why(await post("explain", { pictures: [{ image }] }))), event.currentTarget)),
        button(sample.protected ? "Protect no longer" : "Protect", (event) => attempt(async () => {
          await post("protect", { images: [image], off: sample.protected });
          await refresh();
          say(sample.protected ? "It is protected no longer" : "Protected: no change may make its answer wrong");
          done(null);
        }, event.currentTarget)),
        may("owner") ? button("Forget…", () => told.replaceChildren(...forgetting([image], done)), { class: "danger" }) : null),
      told,
      h("h3", null, "Its history"),
      h("ul", { class: "lines" }, history.map((event) => h("li", null, h("span", { class: "kind" }, event.kind), h("span", null, event.summary), when(event.at)))),
      h("p", { class: "note path" }, base(sample.source)))), { wide: true });
}

function why(found) {
  return [
    found.evidence ? h("img", { class: "evidence", src: found.evidence, alt: "What speaks for the answer, in colour" }) : null,
    found.because ? h("p", null, sentence(found.because)) : null,
    found.runner_up ? h("p", null, `The next best would be ${found.runner_up}.`) : null,
    found.remedies?.length ? h("ul", { class: "plain-list" }, found.remedies.map((each) => h("li", null, sentence(each.sentence)))) : null,
    found.note ? h("p", { class: "note" }, sentence(found.note)) : null,
  ].filter(Boolean);
}

/** The question before pictures are forgotten, which cannot be undone. */
export function forgetting(images, done) {
  const one = images.length === 1;
  return [
    h("p", { class: "problem" }, `Forgetting cannot be undone: ${one ? "the picture is" : `${images.length} pictures are`} erased, and everything is as if ${one ? "it" : "they"} had never been seen.`),
    h("div", { class: "row" }, button(one ? "Forget it for good" : `Forget ${images.length} for good`, (event) => attempt(async () => {
      const receipt = await change("forget", { images });
      if (!receipt) return;
      await refresh();
      say(receipt.summary);
      done(receipt);
    }, event.currentTarget), { class: "danger" })),
  ];
}
