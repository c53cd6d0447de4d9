// Teaching files that the server has not been asked about: it is asked first, so that a refusal can name them.

import { formOf, post } from "./api.js";
import { teach } from "./teach.js";

/** Teach files one label; resolves to the update, or null. */
export async function teachFiles(verb, files, label) {
  const { predictions } = await post("predict", formOf(files.map((file) => [file, file.name])));
  return teach(verb, predictions.map((each) => ({ image: each.image, label })));
}
