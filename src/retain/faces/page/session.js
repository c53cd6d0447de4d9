// Who is here: the link with a token in it, the dialog that asks for one, and going again.

import { closeSession, get, openSession, whenSignInIsNeeded } from "./api.js";
import { button, dialog, h, sentence } from "./dom.js";
import { attempt } from "./notices.js";
import { refresh, state } from "./state.js";

let asking = null;

/** Start the session: trade the token in the address for a cookie, or see who is here already. */
export async function begin() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", `${location.pathname}#/`);
    await openSession(token).catch(() => null);
  }
  state.session = await get("session");
  whenSignInIsNeeded(askForToken);
  const who = document.getElementById("who");
  who.addEventListener("click", () => (named() ? leave(who) : askForToken("")));
  showWho();
}

function named() {
  return state.session?.role && state.session.actor !== "anonymous";
}

function showWho() {
  const who = document.getElementById("who");
  who.hidden = false;
  who.textContent = named() ? `${state.session.actor} · leave` : "Sign in to teach";
  document.getElementById("name").textContent = state.session?.name ?? "retain";
  document.title = state.session?.name ? `${state.session.name} · retain` : "retain";
}

async function leave(who) {
  await attempt(async () => {
    await closeSession();
    state.session = await get("session");
    showWho();
    if (state.session.role) await refresh("session");
    else location.reload();
  }, who);
}

/** Ask for a token; resolves to whether one was given that opens something. */
export function askForToken(reason) {
  asking ??= new Promise((done) => {
    let opened = false;
    const field = h("input", {
      id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false",
    });
    const problem = h("p", { class: "problem", role: "alert" });
    const submit = async (event) => {
      event.preventDefault();
      try {
        await openSession(field.value.trim());
        state.session = await get("session");
        showWho();
        opened = true;
        box.close();
        refresh("session");
      } catch (error) {
        problem.textContent = sentence(error.message);
        field.select();
      }
    };
    const box = dialog("Who teaches?", [
      h("p", null, reason ? `${sentence(reason)} ` : "",
        "Everybody may ask; whoever changes what it knows says who they are, and the history remembers it."),
      h("form", { onsubmit: submit },
        h("label", { for: "token" }, "Your token"), field, problem,
        h("div", { class: "row" }, h("button", { class: "primary" }, "Sign in"))),
      h("p", { class: "note" }, "Whoever started the server has one: it was printed there, as was a link that ",
        "signs you in by itself. Another is made by ", h("code", null, "retain serve NAME --add-token you:teacher"), "."),
    ], { onclose: () => { asking = null; done(opened); } });
    field.focus();
  });
  return asking;
}

/** What somebody sees who may not even ask. */
export function shut(main) {
  main.replaceChildren(h("section", { class: "narrow" },
    h("h1", null, "This one is shared with a few"),
    h("p", { class: "lead" }, "To ask it anything you need a token, or the link that the owner was given."),
    button("Sign in", async () => (await askForToken("")) && location.reload(), { class: "primary" })));
}
