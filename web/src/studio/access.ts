// Who may watch: giving and taking access, and links that play.

import { call, type Course, type Lesson, type Playback } from "../common/api";
import { h, icon } from "../common/dom";
import { ask, copy, field, toast } from "./shell";

/** Gives a user the whole course, for ever or until a day. */
export function giveAccess(course: Course): void {
  const expires = h("div", { class: "field" },
    h("label", { for: "field-expires" }, "Until (optional)"), h("input", { class: "input", id: "field-expires", name: "expires", type: "date" }));
  ask("Give access", `The learner can watch every lesson of “${course.title}”.`,
    [field("User", "user", { required: true, maxlength: "200", placeholder: "the name or number your shop knows them by" }), expires],
    "Give access",
    async (form, dialog) => {
      const user = String(form.get("user")).trim();
      const day = String(form.get("expires") ?? "");
      // The whole of the last day counts.
      const until = day ? new Date(`${day}T23:59:59`).toISOString() : undefined;
      await call("PUT", "/v1/entitlements", { user, course: course.id, ...(until ? { expires: until } : {}) });
      dialog.close();
      toast(`${user} can watch “${course.title}” now.`);
    });
}

/** Takes it away again; what plays at the moment stops. */
export function takeAccess(course: Course): void {
  ask("Take access away", `The learner can't watch “${course.title}” any more; what plays at the moment stops within seconds.`,
    [field("User", "user", { required: true, maxlength: "200" })], "Take access away",
    async (form, dialog) => {
      const user = String(form.get("user")).trim();
      await call("DELETE", `/v1/entitlements/${encodeURIComponent(user)}/${course.id}`);
      dialog.close();
      toast(`${user} can't watch “${course.title}” any more.`);
    });
}

/** A link for one user: what a shop would hand out, for trying it in any player. */
export function playbackLink(lesson: Lesson): void {
  const result = h("div", { class: "stack tight", hidden: true });
  ask("Playback link", `A link to “${lesson.title}” for one user who has access. It works in any player until its token ends.`,
    [field("User", "user", { required: true, maxlength: "200" }), result], "Make link",
    async (form) => {
      const answer = await call<Playback>("POST", "/v1/playback", { user: String(form.get("user")).trim(), lesson: lesson.id });
      const url = h("input", { class: "input", type: "text", readonly: true, value: answer.url, "aria-label": "Playback link", id: "playback-url" });
      url.addEventListener("focus", () => url.select());
      const button = h("button", { class: "button", type: "button", onclick: () => void put() }, icon("link"), "Copy");
      const put = async () => {
        if (await copy(answer.url)) toast("The link is copied.");
        else url.focus();
      };
      result.replaceChildren(url, h("div", { class: "row" }, button,
        h("a", { class: "button", href: `/watch/#${answer.url}`, target: "_blank", rel: "noopener" }, icon("play"), "Open in the player")));
      result.hidden = false;
      await put();
    });
}
