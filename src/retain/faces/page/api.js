// Talking to the server: JSON in, JSON out, errors as sentences; see docs/serving.md.

/** What the server refused or could not do. */
export class Refusal extends Error {
  constructor(body, status) {
    super(body?.message ?? `the server answered with ${status}`);
    this.kind = body?.error ?? "Broken";
    this.status = status;
    this.body = body ?? {};
  }
}

let signIn = async () => false;

/** Who asks for a token where one is needed: a function that resolves to whether it was given. */
export function whenSignInIsNeeded(ask) {
  signIn = ask;
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(path, options, { tries = 4, again = true } = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({ error: "Away", message: "the server does not answer; is it still running?" }, 0);
  }
  if (response.ok) return response.json();
  const refusal = new Refusal(await response.json().catch(() => null), response.status);
  const wait = Number(response.headers.get("Retry-After"));
  if ((response.status === 429 || response.status === 503) && wait && tries > 1) {
    await pause(wait);
    return ask(path, options, { tries: tries - 1, again });
  }
  const mayNot = response.status === 401 || (response.status === 403 && refusal.kind === "Forbidden");
  if (again && mayNot && (await signIn(refusal.message))) return ask(path, options, { tries, again: false });
  throw refusal;
}

/** GET some JSON; `query` without its empty values. */
export function get(path, query = {}, options = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(given).toString();
  return ask(search ? `${path}?${search}` : path, options);
}

/** POST an object as JSON, or a form with files. */
export function post(path, body, options = {}) {
  const form = body instanceof FormData;
  const headers = { "X-Retain": "1", ...(form ? {} : { "Content-Type": "application/json" }) };
  return ask(path, { method: "POST", headers, body: form ? body : JSON.stringify(body ?? {}), ...options });
}

/** Trade a token for a cookie; never asks for another. */
export function openSession(token) {
  const headers = { "X-Retain": "1", Authorization: `Bearer ${token}` };
  return ask("session", { method: "POST", headers }, { again: false });
}

/** Take the cookie away. */
export function closeSession() {
  return ask("session", { method: "DELETE", headers: { "X-Retain": "1" } }, { again: false });
}

/** The address of a picture that the server knows. */
export function picture(hash, side = 256) {
  return `image/${encodeURIComponent(hash)}?side=${side}`;
}

/** A form with files in it, and a label for each. */
export function formOf(files, labels = [], fields = {}) {
  const form = new FormData();
  for (const [file, name] of files) form.append("files", file, name);
  for (const label of labels) form.append("labels", label);
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return form;
}
