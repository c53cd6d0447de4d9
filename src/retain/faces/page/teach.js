// Changing what it knows: correct, learn, undo; and what to do where the gate refuses.

import { formOf, post } from "./api.js";
import { counted } from "./dom.js";
import { say } from "./notices.js";
import { refusal } from "./refusal.js";
import { refresh } from "./state.js";

const FIELD = { correct: "corrections", learn: "items" };

/**
 * Teach `items`, each {image, label}, or {file, label} where the server has not seen it yet.
 * Resolves to the update, or to null where nobody wanted it in the end.
 * `resend` is called where the server has forgotten the pictures themselves, and gives them again.
 */
export async function teach(verb, items, { resend, flags = {} } = {}) {
  let chosen = items;
  const send = (more) => post(verb, body(verb, chosen, { ...flags, ...more }));
  for (let again = true; ; ) {
    try {
      return await settled(await send({}));
    } catch (error) {
      if (error.kind === "UnknownImage" && resend && again) {
        again = false;
        await resend();
        continue;
      }
      if (error.kind !== "GateRefused") throw error;
      const choice = await refusal(error, chosen, send);
      if (!choice) return null;
      if (choice.update) return settled(choice.update);
      const out = new Set(choice.without);
      chosen = chosen.filter((each) => !out.has(each.image));
      if (!chosen.length) {
        say("Nothing was left to teach, and nothing has changed");
        return null;
      }
    }
  }
}

function body(verb, chosen, flags) {
  if (chosen.some((each) => !each.image)) {
    return formOf(chosen.map((each) => [each.file, each.file.name]), chosen.map((each) => each.label), flags);
  }
  return { [FIELD[verb]]: chosen.map(({ image, label }) => ({ image, label })), ...flags };
}

async function settled(update) {
  // Whoever waits for the answer sees it first; the rest of the page follows.
  setTimeout(() => refresh("here").catch(() => null));
  return update;
}

/**
 * Ask for a change that the gate may refuse; resolves to what the server says of it, or to null
 * where it was left as it is. `foresee`: how to find out which pictures it is about, where the
 * refusal does not say.
 */
export async function change(route, body = {}, foresee = null) {
  const send = (more) => post(route, { ...body, ...more });
  try {
    return await send({});
  } catch (error) {
    if (error.kind !== "GateRefused") throw error;
    return (await refusal(error, [], send, foresee))?.update ?? null;
  }
}

/** Take back one event, and say so; resolves to the update, or to null where it was left. */
export async function undo(event) {
  const update = await change("undo", event ? { event } : {});
  if (!update) return null;
  await refresh("here");
  say(update.summary, update.event ? { action: ["Redo", () => undo(update.event).catch((error) => say(error.message, { bad: true }))] } : {});
  return update;
}

/** What an update did, in a few words. */
export function inWords(update) {
  if (update.corrected?.length > 1) {
    return `${counted(update.corrected.length, "picture")} corrected to “${update.corrected[0].label}”`;
  }
  return update.summary;
}
