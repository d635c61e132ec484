// A course: its lessons, a place to drop recordings, who may watch.

import { call, type Course, type Lesson } from "../common/api";
import { h, icon } from "../common/dom";
import { titleOf } from "../common/format";
import { giveAccess, takeAccess } from "./access";
import { Follower, settled } from "./follow";
import { LessonCard } from "./lesson";
import { all } from "./lists";
import { courseSettings } from "./settings";
import { ask, busy, complain, confirmed, field, toast } from "./shell";
import { Uploads } from "./uploads";

export interface CourseEvents {
  renamed: (course: Course) => void;
  removed: (course: Course) => void;
  /** What is kept under the creator's quota may have changed. */
  stored: () => void;
}

export class CourseView {
  readonly element = h("main", { id: "main", class: "course", tabindex: "-1" });
  private readonly cards = new Map<string, LessonCard>();
  private readonly list = h("ul", { class: "lessons", "aria-label": "Lessons" });
  private readonly empty = h("p", { class: "soft", hidden: true }, "No lessons yet. Each recording you drop above becomes one.");
  private readonly heading = h("h1", {});
  private readonly follower = new Follower((lesson) => this.take(lesson));

  constructor(private course: Course, private readonly uploads: Uploads, private readonly events: CourseEvents) {
    this.element.append(this.head(), this.dropzone(), this.empty, this.list);
    void this.load();
  }

  close(): void {
    this.follower.close();
  }

  /** An upload of any course moved on. */
  uploadChanged(lesson: string): void {
    const card = this.cards.get(lesson);
    if (!card) return;
    card.render();
    if (this.uploads.of(lesson)?.state !== "done") return;
    this.follower.follow(lesson);
    void call<Lesson>("GET", `/v1/lessons/${lesson}`).then((fresh) => this.take(fresh), () => {});
  }

  private head(): HTMLElement {
    this.heading.textContent = this.course.title;
    const button = (label: string, kind: string, act: (it: HTMLButtonElement) => void, name: string) => {
      const it: HTMLButtonElement = h("button", { type: "button", class: `button ${kind}`, "data-action": name }, label);
      it.addEventListener("click", () => act(it));
      return it;
    };
    return h("div", { class: "row course-head" }, this.heading, h("span", { class: "grow" }),
      button("Give access", "", () => giveAccess(this.course), "give-access"),
      button("Take access away", "quiet", () => takeAccess(this.course), "take-access"),
      button("Rename", "quiet", () => this.rename(), "rename-course"),
      button("Settings", "quiet", () => courseSettings(this.course, (it) => { this.course = it; this.events.renamed(it); }), "course-settings"),
      button("Delete", "quiet danger", (it) => void busy(it, () => this.remove()), "delete-course"));
  }

  private dropzone(): HTMLElement {
    const picker = h("input", { type: "file", class: "unseen", id: "recordings", multiple: true, accept: "video/*,audio/*,.mkv,.mov,.mp4,.webm,.avi,.ts,.m4v,.flv,.mpg" });
    const zone = h("section", { class: "dropzone", "aria-label": "Add lessons" },
      h("div", { class: "grow" },
        h("h2", {}, "Add lessons"),
        h("p", { class: "soft" }, "Drop recordings here: each becomes a lesson with the file's name. Any size; a broken upload goes on where it stopped.")),
      h("div", { class: "row" },
        h("label", { class: "button main", for: "recordings" }, icon("upload"), "Choose recordings"),
        h("button", { type: "button", class: "button", "data-action": "new-lesson", onclick: () => this.blank() }, icon("plus"), "Empty lesson")),
      picker);
    picker.addEventListener("change", () => {
      const files = [...(picker.files ?? [])];
      picker.value = "";
      void this.add(files);
    });
    zone.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      zone.classList.remove("over");
      event.preventDefault();
      void this.add([...(event.dataTransfer?.files ?? [])]);
    });
    return zone;
  }

  private async load(): Promise<void> {
    try {
      for (const lesson of await all<Lesson>(`/v1/courses/${this.course.id}/lessons`)) this.take(lesson);
      this.empty.hidden = this.cards.size > 0;
    } catch (error) {
      complain(error);
    }
  }

  private take(lesson: Lesson): void {
    const card = this.cards.get(lesson.id);
    if (card) card.update(lesson);
    else this.insert(lesson);
    if (!settled(lesson)) this.follower.follow(lesson.id);
    this.events.stored();
  }

  private insert(lesson: Lesson): LessonCard {
    const card = new LessonCard(lesson, this.uploads, {
      chosen: (it, file) => this.send(it, file),
      changed: (it) => this.take(it),
      removed: (it) => {
        this.follower.leave(it.id);
        this.cards.get(it.id)?.element.remove();
        this.cards.delete(it.id);
        this.empty.hidden = this.cards.size > 0;
        this.events.stored();
      },
    });
    this.cards.set(lesson.id, card);
    this.list.append(card.element);
    this.empty.hidden = true;
    return card;
  }

  private send(lesson: Lesson, file: File): void {
    if (file.size === 0) {
      toast(`${file.name} is empty: there is nothing to upload.`, "bad");
      return;
    }
    this.uploads.add(lesson.id, file);
  }

  /** One after the other, so that lessons stand in the order of the files. */
  private async add(files: File[]): Promise<void> {
    for (const file of files) {
      try {
        const lesson = await call<Lesson>("POST", `/v1/courses/${this.course.id}/lessons`, { title: titleOf(file.name) });
        this.take(lesson);
        this.send(lesson, file);
      } catch (error) {
        complain(error);
        return;
      }
    }
  }

  private blank(): void {
    ask("New lesson", "Its recording can follow later.", [field("Title", "title", { required: true, maxlength: "200" })], "Add lesson", async (form, dialog) => {
      this.take(await call<Lesson>("POST", `/v1/courses/${this.course.id}/lessons`, { title: String(form.get("title")).trim() }));
      dialog.close();
    });
  }

  private rename(): void {
    ask("Rename the course", "Learners see the new title at once.", [field("Title", "title", { required: true, maxlength: "200", value: this.course.title })], "Save", async (form, dialog) => {
      const title = String(form.get("title")).trim();
      await call("PATCH", `/v1/courses/${this.course.id}`, { title });
      this.course = { ...this.course, title };
      this.heading.textContent = title;
      this.events.renamed(this.course);
      dialog.close();
    });
  }

  private async remove(): Promise<void> {
    if (!(await confirmed(`Delete “${this.course.title}”?`, "All its lessons go with it, and stop for whoever is watching them.", "Delete course"))) return;
    await call("DELETE", `/v1/courses/${this.course.id}`);
    this.events.removed(this.course);
  }
}
