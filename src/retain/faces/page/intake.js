// How pictures come in: dropped, pasted, chosen, photographed; single ones or whole folders.

import { button, dialog, h } from "./dom.js";
import { complain, say } from "./notices.js";

const PICTURE = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|npy)$/i;

const isPicture = (file) => file.type.startsWith("image/") || PICTURE.test(file.name);

/** Let `take(files)` have what is dropped or pasted anywhere; files carry `path`, with their folders. */
export function watch(take) {
  const veil = document.getElementById("veil");
  let depth = 0;
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    depth += 1;
    veil.hidden = false;
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    veil.hidden = depth === 0;
  });
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    if (!holdsFiles(event)) return;
    event.preventDefault();
    // The entries must be asked for before the first await: after it the browser takes them away.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    (entries.length ? walk(entries) : Promise.resolve(plain)).then((files) => hand(files, take), complain);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) hand(files, take);
  });
}

function hand(files, take) {
  const pictures = files.filter(isPicture);
  if (pictures.length) take(pictures);
  else say("No picture was in that. JPEG, PNG, WebP and the like are understood", { bad: true });
}

async function walk(entries, folder = "") {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      file.path = folder + file.name;
      found.push(file);
    } else {
      const reader = entry.createReader();
      for (;;) {
        // A reader gives at most a hundred at a time.
        const some = await new Promise((done, fail) => reader.readEntries(done, fail));
        if (!some.length) break;
        found.push(...await walk(some, `${folder}${entry.name}/`));
      }
    }
  }
  return found;
}

/** A button that opens the chooser; with `folder`, of a whole folder. */
export function chooser(text, take, { folder = false, camera = false, ...props } = {}) {
  const input = h("input", {
    type: "file", accept: "image/*,.npy", multiple: !camera, hidden: true, webkitdirectory: folder,
    capture: camera ? "environment" : null, "aria-label": text, tabindex: "-1",
    onchange: () => {
      const files = [...input.files];
      for (const file of files) file.path = file.webkitRelativePath || file.name;
      input.value = "";
      if (files.length) hand(files, take);
    },
  });
  return [button(text, () => input.click(), props), input];
}

/** A button that takes a photograph: with the telephone's own camera, or this computer's. */
export function photographer(text, take, props) {
  const touch = matchMedia("(pointer: coarse)").matches;
  if (touch || !navigator.mediaDevices?.getUserMedia) return touch ? chooser(text, take, { camera: true, ...props }) : null;
  return button(text, () => photograph(take), props);
}

async function photograph(take) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    say("No camera could be opened; choose a picture instead", { bad: true });
    return;
  }
  const video = h("video", { autoplay: true, playsinline: true, muted: true });
  video.srcObject = stream;
  const snap = async () => {
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    box.close();
    take([new File([blob], "photo.jpg", { type: "image/jpeg" })]);
  };
  const box = dialog("Take a photo", [video, h("div", { class: "row" }, button("Take it", snap, { class: "primary" }))], {
    onclose: () => stream.getTracks().forEach((track) => track.stop()),
  });
}
