// Making elements, and saying numbers and times. Text goes in as text, never as markup.

/** One element: h("p", {class: "note", onclick: f}, "text", [more], null). */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** A button that does not submit. */
export function button(text, onclick, props) {
  return h("button", { type: "button", onclick, ...props }, text);
}

/** A bar filled to a share of 1; the number stands beside it. */
export function meter(share) {
  const fill = h("span");
  fill.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return h("span", { class: "meter", "aria-hidden": "true" }, fill);
}

/** "93 %"; what is not certain is never called 100 %. */
export function percent(share) {
  const whole = Math.round(100 * share);
  if (whole === 100 && share < 1) return "> 99 %";
  if (whole === 0 && share > 0) return "< 1 %";
  return `${whole} %`;
}

/** "1 picture", "3 pictures". */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** A time of today as its hour, any other with its day. */
export function when(text) {
  const at = new Date(text);
  const hour = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return h("time", { datetime: text, title: at.toLocaleString() }, hour);
}

/** The day of a time, in words. */
export function day(text) {
  const at = new Date(text);
  const today = new Date();
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  if (at.toDateString() === today.toDateString()) return "Today";
  if (at.toDateString() === yesterday.toDateString()) return "Yesterday";
  return at.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}

/** The last part of a path: nobody needs to see the folders of the server. */
export function base(path) {
  return (path ?? "").split(/[\\/]/).pop();
}

/** The first character large. */
export function sentence(text) {
  const whole = text ? text[0].toUpperCase() + text.slice(1) : "";
  return /[.!?]$/.test(whole) || !whole ? whole : `${whole}.`;
}

/** A dialog that closes by Escape, by its buttons, and gives the focus back. */
export function dialog(title, content, { wide = false, onclose } = {}) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const close = button("Close", () => box.close(), { class: "quiet close" });
  const box = h("dialog", { "aria-labelledby": "dialog-title", class: wide ? "wide" : null },
    h("div", { class: "dialog-head" }, heading, close), content);
  box.addEventListener("click", (event) => event.target === box && box.close());
  box.addEventListener("close", () => {
    box.remove();
    onclose?.();
  });
  document.body.append(box);
  box.showModal();
  return box;
}
