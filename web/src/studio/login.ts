// Logging in with an API key. The key goes to the origin once and comes back as a cookie that scripts can't read.

import { call, Problem, words } from "../common/api";
import { h } from "../common/dom";

/** A key in the fragment (`/studio/#key=…`) logs in by itself; it leaves the address bar and the history first. */
export function keyFromAddress(): string | null {
  const match = /^#key=(.+)$/.exec(location.hash);
  if (!match?.[1]) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}

export async function login(key: string): Promise<void> {
  try {
    await call<void>("POST", "/v1/login", { key: key.trim() });
  } catch (error) {
    if (error instanceof Problem && error.status === 401) {
      throw new Problem(401, error.code, "This key is not known here. Check that it was copied whole, and that it was not taken back.");
    }
    throw error;
  }
}

/** The form; `done` runs once the cookie is there. */
export function loginView(problem: string | null, done: () => void): HTMLElement {
  const error = h("p", { class: "notice bad", role: "alert", hidden: problem === null }, problem ?? "");
  const input = h("input", {
    class: "input", id: "key", name: "key", type: "password", required: true, autocomplete: "current-password", spellcheck: "false",
    "aria-describedby": "key-help",
  });
  const button = h("button", { class: "button main", type: "submit" }, "Log in");
  const form = h("form", { class: "login card stack" },
    h("h1", {}, "Log in to the studio"),
    h("div", { class: "field" },
      h("label", { for: "key" }, "API key"), input,
      h("p", { class: "soft small", id: "key-help" }, "Your administrator gave it to you. It is checked once and not kept in this browser.")),
    error, button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    error.hidden = true;
    button.disabled = true;
    login(input.value)
      .then(done, (reason: unknown) => {
        error.textContent = words(reason);
        error.hidden = false;
        input.focus();
        input.select();
      })
      .finally(() => { button.disabled = false; });
  });
  return h("main", { id: "main", class: "center" }, form);
}
