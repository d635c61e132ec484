// The subtitles of a lesson: those in the recording, and files that are added to it.

import { call, type Lesson, type Subtitles } from "../common/api";
import { h } from "../common/dom";
import { all } from "./lists";
import { ask, busy, complain, field, toast } from "./shell";

/** Shows what there is, takes one away, adds one or puts it in another's place. */
export function subtitles(lesson: Lesson): void {
  const path = `/v1/lessons/${lesson.id}/subtitles`;
  const list = h("ul", { class: "plain stack tight", "aria-label": "Subtitles of this lesson" });
  const show = (found: Subtitles[]) => {
    const row = (it: Subtitles) => h("li", { class: "row", "data-language": it.language },
      h("span", { class: "grow" }, it.title, h("span", { class: "soft small" }, ` ${it.language}${it.embedded ? " · in the recording" : ""}`)),
      it.embedded ? null : removal(it));
    list.replaceChildren(...(found.length > 0 ? found.map(row) : [h("li", { class: "soft" }, "None yet.")]));
  };
  const load = async () => show(await all<Subtitles>(path));
  const removal = (it: Subtitles) => {
    const button: HTMLButtonElement = h("button", { type: "button", class: "button quiet danger", "aria-label": `Remove ${it.title}` }, "Remove");
    button.addEventListener("click", () => void busy(button, async () => {
      await call("DELETE", `${path}/${encodeURIComponent(it.language)}`);
      await load();
      toast(`${it.title} is removed.`);
    }));
    return button;
  };
  const file = h("div", { class: "field" }, h("label", { for: "field-file" }, "File"),
    h("input", { class: "input", type: "file", id: "field-file", name: "file", accept: ".srt,.vtt,text/vtt", required: true }));
  ask("Subtitles", `Files for “${lesson.title}”, as SubRip (.srt) or WebVTT (.vtt). A file of a language takes the place of the one before; another recording begins without.`,
    [list, field("Language", "language", { required: true, maxlength: "35", pattern: "[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*", placeholder: "en, pt-BR …" }),
      field("Name in the player (optional)", "title", { maxlength: "100" }), file],
    "Add", async (form) => {
      const [language, title, chosen] = [String(form.get("language")).trim(), String(form.get("title")).trim(), form.get("file")];
      if (!(chosen instanceof File)) return;
      const query = title ? `?title=${encodeURIComponent(title)}` : "";
      const now = await call<{ items: Subtitles[] }>("PUT", `${path}/${encodeURIComponent(language)}${query}`, new Blob([chosen], { type: "text/plain" }));
      show(now.items);
      toast("The subtitles are there; players get them with their next start.");
    });
  load().catch(complain);
}
