// What is set once of a course or a lesson: whether its video is encrypted.

import { call, type Course, type Lesson } from "../common/api";
import { h } from "../common/dom";
import { ask, toast } from "./shell";

function encryption(label: string, checked: boolean, hint: string): HTMLElement {
  return h("div", { class: "field" },
    h("label", { class: "check", for: "field-encrypt" },
      h("input", { type: "checkbox", id: "field-encrypt", name: "encrypt", checked, "aria-describedby": "encrypt-help" }), label),
    h("p", { class: "soft small", id: "encrypt-help" }, hint));
}

export function courseSettings(course: Course, changed: (course: Course) => void): void {
  ask("Course settings", `What new lessons of “${course.title}” begin with.`,
    [encryption("Encrypt new lessons", course.encrypt, "Segments are encrypted, and players get the key with their token alone. Lessons that are there stay as they are.")],
    "Save", async (form, dialog) => {
      changed(await call<Course>("PATCH", `/v1/courses/${course.id}`, { encrypt: form.get("encrypt") !== null }));
      dialog.close();
      toast("The settings are saved.");
    });
}

export function lessonSettings(lesson: Lesson, changed: (lesson: Lesson) => void): void {
  ask("Lesson settings", `What the next recording of “${lesson.title}” is made with.`,
    [encryption("Encrypt the video", lesson.encrypt, "Counts for what is uploaded from now on: to encrypt a recording that is here, upload it again.")],
    "Save", async (form, dialog) => {
      changed(await call<Lesson>("PATCH", `/v1/lessons/${lesson.id}`, { encrypt: form.get("encrypt") !== null }));
      dialog.close();
      toast("The settings are saved.");
    });
}
