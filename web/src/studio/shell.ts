// What the studio's views share: short notices, questions, copying.

import { words } from "../common/api";
import { byId, h } from "../common/dom";

/** A short notice at the page's foot, read out by screen readers. */
export function toast(text: string, kind: "" | "bad" = ""): void {
  const box = byId("toasts", HTMLDivElement);
  const notice = h("div", { class: `toast ${kind}` }, text);
  box.append(notice);
  while (box.children.length > 3) box.firstElementChild?.remove();
  setTimeout(() => notice.remove(), kind === "bad" ? 10_000 : 5000);
}

export function complain(error: unknown): void {
  toast(words(error), "bad");
}

/** Runs what a button asks for, with the button resting meanwhile; an error is shown. */
export async function busy(button: HTMLButtonElement | null, work: () => Promise<void>): Promise<void> {
  if (button?.disabled) return;
  if (button) button.disabled = true;
  try {
    await work();
  } catch (error) {
    complain(error);
  } finally {
    if (button) button.disabled = false;
  }
}

/** Asks before something is destroyed. */
export function confirmed(title: string, text: string, yes: string): Promise<boolean> {
  return new Promise((answer) => {
    const dialog = h("dialog", { class: "dialog card", "aria-labelledby": "question" },
      h("h2", { id: "question" }, title),
      h("p", { class: "soft" }, text),
      h("form", { method: "dialog", class: "row end" },
        h("button", { class: "button", value: "no" }, "Keep"),
        h("button", { class: "button danger", value: "yes" }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Shows a form in a dialog; the work runs on submit and closes it unless it fails. */
export function ask(title: string, intro: string, fields: HTMLElement[], action: string, work: (form: FormData, dialog: HTMLDialogElement) => Promise<void>): void {
  const error = h("p", { class: "notice bad", role: "alert", hidden: true });
  const submit = h("button", { class: "button main", type: "submit" }, action);
  const form = h("form", { class: "stack" }, ...fields, error,
    h("div", { class: "row end" }, h("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Close"), submit));
  const dialog: HTMLDialogElement = h("dialog", { class: "dialog card", "aria-labelledby": "dialog-title" },
    h("h2", { id: "dialog-title" }, title), h("p", { class: "soft" }, intro), form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    error.hidden = true;
    submit.disabled = true;
    work(new FormData(form), dialog)
      .catch((reason: unknown) => {
        error.textContent = words(reason);
        error.hidden = false;
      })
      .finally(() => { submit.disabled = false; });
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** A labelled text field. */
export function field(label: string, name: string, attributes: Record<string, string | boolean> = {}): HTMLElement {
  const id = `field-${name}`;
  return h("div", { class: "field" }, h("label", { for: id }, label), h("input", { class: "input", id, name, type: "text", autocomplete: "off", ...attributes }));
}

/** Copies a text; where the browser doesn't let a page do that, false. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
