// One lesson as its creator sees it: from an empty place for a recording to a film that plays.

import { call, type Lesson } from "../common/api";
import { h, icon } from "../common/dom";
import { bytes, clock, percent, remaining } from "../common/format";
import { playbackLink } from "./access";
import { lessonSettings } from "./settings";
import { busy, confirmed, toast } from "./shell";
import { subtitles } from "./subtitles";
import { unfinished, type Upload, type Uploads } from "./uploads";

const WORDS: Record<Lesson["state"], string> = {
  awaiting_upload: "No recording yet",
  uploading: "Uploading",
  queued: "Waiting for a transcoder",
  transcoding: "Preparing",
  ready: "Ready",
  failed: "Failed",
};

export interface CardEvents {
  /** The creator chose a recording for this lesson. */
  chosen: (lesson: Lesson, file: File) => void;
  changed: (lesson: Lesson) => void;
  removed: (lesson: Lesson) => void;
}

export class LessonCard {
  readonly element = h("li", { class: "lesson card" });
  private readonly title = h("h3", { class: "lesson-title" });
  private readonly state = h("span", { class: "chip" });
  private readonly facts = h("p", { class: "soft small facts" });
  private readonly body = h("div", { class: "lesson-body" });
  private readonly actions = h("div", { class: "row lesson-actions" });
  private readonly picker = h("input", { type: "file", class: "unseen", accept: "video/*,audio/*,.mkv,.mov,.mp4,.webm,.avi,.ts,.m4v,.flv,.mpg", tabindex: "-1" });
  private shown = "";

  constructor(private lesson: Lesson, private readonly uploads: Uploads, private readonly events: CardEvents) {
    this.element.dataset["lesson"] = lesson.id;
    this.picker.setAttribute("aria-label", `Recording for ${lesson.title}`);
    this.picker.addEventListener("change", () => {
      const file = this.picker.files?.[0];
      if (file) events.chosen(this.lesson, file);
      this.picker.value = "";
    });
    this.element.append(
      h("div", { class: "row lesson-head" }, h("div", { class: "grow" }, this.title, this.facts), this.state),
      this.body, this.actions, this.picker);
    this.droppable();
    this.render();
  }

  get id(): string {
    return this.lesson.id;
  }

  update(lesson: Lesson): void {
    this.lesson = lesson;
    this.render();
  }

  /** Draws what changed. The parts stay the same elements while their kind stays, so that focus is not lost. */
  render(): void {
    const { lesson } = this;
    const upload = this.uploads.of(lesson.id);
    const sending = upload !== undefined && upload.state !== "done";
    const state = sending && upload.state !== "failed" ? "uploading" : lesson.state;
    this.element.dataset["state"] = state;
    this.element.dataset["playable"] = String(lesson.playable);
    this.title.textContent = lesson.title;
    this.state.textContent = sending && upload.state === "paused" ? "Paused" : sending && upload.state === "failed" ? WORDS.failed : WORDS[state];
    this.state.className = `chip ${sending && upload.state === "failed" ? "failed" : state}`;
    this.facts.textContent = this.describe();
    this.facts.hidden = this.facts.textContent === "";

    const kind = sending ? `upload-${upload.state}` : `${lesson.state}-${lesson.playable}-${lesson.warnings.map(({ code }) => code).join()}`;
    if (kind !== this.shown) {
      this.shown = kind;
      this.body.replaceChildren(...(sending ? this.uploadParts(upload) : this.stateParts()));
      this.actions.replaceChildren(...this.buttons(sending ? upload : undefined));
    }
    this.refresh(sending ? upload : undefined);
  }

  private describe(): string {
    const parts: string[] = [];
    if (this.lesson.duration) parts.push(clock(this.lesson.duration));
    const heights = [...new Set(this.lesson.renditions.map(({ height }) => height))].sort((a, b) => b - a);
    if (heights.length > 0) parts.push(heights.map((height) => `${height}p`).join(" "));
    if (this.lesson.encrypt) parts.push("new recordings are encrypted");
    return parts.join(" · ");
  }

  /** Figures that change several times a second. */
  private refresh(upload: Upload | undefined): void {
    const bar = this.body.querySelector("progress");
    const line = this.body.querySelector<HTMLElement>("[data-line]");
    if (!bar || !line) return;
    if (upload) {
      const part = upload.file.size > 0 ? upload.sent / upload.file.size : 0;
      bar.value = part;
      bar.setAttribute("aria-valuetext", percent(part));
      const figures = [percent(part), `${bytes(upload.sent)} of ${bytes(upload.file.size)}`];
      if (upload.state === "running" && part >= 1) figures.push("the server is finishing it");
      else if (upload.state === "running" && upload.speed > 0) figures.push(`${bytes(upload.speed)}/s`, remaining(upload.left));
      if (upload.state === "waiting") figures.push("waits for its turn");
      if (upload.state === "paused") figures.push("paused");
      line.textContent = figures.join(" · ");
      return;
    }
    if (this.lesson.state === "queued") bar.removeAttribute("value");
    else bar.value = this.lesson.progress;
    bar.setAttribute("aria-valuetext", percent(this.lesson.progress));
    line.textContent = this.lesson.state === "queued" ? "The recording is here. Preparing starts in a moment."
      : `${percent(this.lesson.progress)} prepared${this.lesson.playable ? ". You can play it already" : ""}`;
  }

  private uploadParts(upload: Upload): HTMLElement[] {
    const parts: HTMLElement[] = [this.bar(`Upload of ${upload.file.name}`)];
    if (upload.state === "offline") {
      parts.push(h("p", { class: "notice warn" }, `${upload.problem?.detail ?? "The connection is lost."} The upload goes on by itself where it stopped.`));
    }
    if (upload.state === "paused" && upload.problem) parts.push(h("p", { class: "notice warn" }, upload.problem.detail));
    if (upload.state === "failed") parts.push(h("p", { class: "notice bad", role: "alert" }, upload.problem?.detail ?? "The upload failed."));
    return parts;
  }

  private stateParts(): HTMLElement[] {
    const { lesson } = this;
    if (lesson.state === "failed") {
      const parts: HTMLElement[] = [h("p", { class: "notice bad", role: "alert" }, lesson.error?.detail ?? "This recording could not be prepared.")];
      // For whoever the creator asks for help.
      if (lesson.error) parts.push(h("p", { class: "soft small" }, "Reason: ", h("code", {}, lesson.error.code)));
      return parts;
    }
    const warnings = lesson.warnings.map(({ detail, code }) => h("p", { class: "notice warn", "data-warning": code }, detail));
    if (lesson.state === "queued" || lesson.state === "transcoding") return [this.bar(`Preparing ${lesson.title}`), ...warnings];
    if (lesson.state === "ready") return warnings;
    const before = unfinished(lesson.id);
    const hint = before
      ? `The upload of ${before.name} stopped at ${percent(before.sent / Math.max(1, before.size))}. Choose the same file and it goes on from there.`
      : lesson.state === "uploading" ? "An upload was begun elsewhere. Choose a recording to upload from here."
      : "Drop a recording here, of any size and nearly any format.";
    return [h("p", { class: "drop soft" }, hint)];
  }

  private bar(label: string): HTMLElement {
    return h("div", { class: "stack tight" },
      h("progress", { max: 1, value: 0, "aria-label": label }), h("p", { class: "small soft number", "data-line": "" }));
  }

  private buttons(upload: Upload | undefined): HTMLElement[] {
    const { lesson } = this;
    const list: HTMLElement[] = [];
    const button = (label: string, kind: string, act: (button: HTMLButtonElement) => void, drawing?: Parameters<typeof icon>[0], name?: string) => {
      const element: HTMLButtonElement = h("button", { type: "button", class: `button ${kind}`, "data-action": name ?? label.toLowerCase() }, drawing ? icon(drawing) : null, label);
      element.addEventListener("click", () => act(element));
      list.push(element);
    };
    if (lesson.playable) {
      list.push(h("a", { class: "button main", "data-action": "play", href: `/watch/?lesson=${lesson.id}`, target: "_blank", rel: "noopener" }, icon("play"), "Play"));
    }
    if (upload) {
      if (upload.state === "running" || upload.state === "offline") button("Pause", "", () => upload.pause(), "pause");
      if (upload.state === "paused") button("Resume", "main", () => void upload.start(), "play");
      if (upload.state === "failed") button("Choose another file", "main", () => this.picker.click(), "upload", "choose");
      button(upload.state === "failed" ? "Dismiss" : "Cancel", "quiet", (it) => void busy(it, () => this.stop(upload)), undefined, "cancel");
      return list;
    }
    if (lesson.state === "awaiting_upload" || lesson.state === "uploading") button("Choose a recording", "main", () => this.picker.click(), "upload", "choose");
    if (lesson.state === "failed" && !["media_empty", "upload_lost"].includes(lesson.error?.code ?? "")) button("Try again", "", (it) => void busy(it, () => this.retry()), undefined, "retry");
    if (lesson.state === "failed") button("Try another recording", lesson.playable ? "" : "main", () => this.picker.click(), "upload", "choose");
    if (lesson.playable) button("Playback link", "", () => playbackLink(lesson), "link", "link");
    if (lesson.state === "ready") button("Replace", "quiet", () => this.picker.click(), undefined, "choose");
    if (lesson.state === "transcoding" || lesson.state === "ready") button("Subtitles", "quiet", () => subtitles(lesson));
    button("Rename", "quiet", () => this.rename());
    button("Settings", "quiet", () => lessonSettings(this.lesson, (it) => this.events.changed(it)));
    button("Delete", "quiet danger", (it) => void busy(it, () => this.remove()));
    return list;
  }

  private async stop(upload: Upload): Promise<void> {
    if (upload.state !== "failed" && upload.sent > 0 && !(await confirmed("Cancel this upload?", "What was sent so far is thrown away.", "Cancel upload"))) return;
    await this.uploads.cancel(this.lesson.id);
    this.events.changed(await call<Lesson>("GET", `/v1/lessons/${this.lesson.id}`));
    this.shown = "";
    this.render();
  }

  /** Goes on where preparing stopped; what is there stays. */
  private async retry(): Promise<void> {
    this.events.changed(await call<Lesson>("POST", `/v1/lessons/${this.lesson.id}/retry`));
    toast(`“${this.lesson.title}” is tried again.`);
  }

  private rename(): void {
    const input = h("input", { class: "input", type: "text", value: this.lesson.title, "aria-label": "Title of the lesson", maxlength: "200", required: true });
    const form = h("form", { class: "row" }, input, h("button", { class: "button main", type: "submit" }, "Save"),
      h("button", { class: "button quiet", type: "button", onclick: () => form.replaceWith(this.title) }, "Cancel"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void busy(null, async () => {
        const title = input.value.trim();
        if (title && title !== this.lesson.title) {
          await call("PATCH", `/v1/lessons/${this.lesson.id}`, { title });
          this.events.changed({ ...this.lesson, title });
        }
        form.replaceWith(this.title);
      });
    });
    this.title.replaceWith(form);
    input.focus();
    input.select();
  }

  private async remove(): Promise<void> {
    if (!(await confirmed(`Delete “${this.lesson.title}”?`, "Its recording and everything made from it are removed, and it stops for whoever is watching it.", "Delete lesson"))) return;
    await this.uploads.cancel(this.lesson.id);
    await call("DELETE", `/v1/lessons/${this.lesson.id}`);
    this.events.removed(this.lesson);
    toast(`“${this.lesson.title}” is deleted.`);
  }

  private droppable(): void {
    const takes = () => !this.uploads.of(this.lesson.id)?.active && this.lesson.state !== "queued" && this.lesson.state !== "transcoding";
    this.element.addEventListener("dragover", (event) => {
      if (!takes() || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.stopPropagation();
      this.element.classList.add("over");
    });
    this.element.addEventListener("dragleave", () => this.element.classList.remove("over"));
    this.element.addEventListener("drop", (event) => {
      this.element.classList.remove("over");
      const file = event.dataTransfer?.files[0];
      if (!takes() || !file) return;
      event.preventDefault();
      event.stopPropagation();
      this.events.chosen(this.lesson, file);
    });
  }
}
