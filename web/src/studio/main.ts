// The creator's page: log in, courses at the side, one course in the middle.

import { call, LOGIN_ENDED, Problem, words, type Course } from "../common/api";
import { byId, h, icon } from "../common/dom";
import { CourseView } from "./course";
import { all } from "./lists";
import { keyFromAddress, login, loginView } from "./login";
import { Quota } from "./quota";
import { ask, busy, complain, field } from "./shell";
import { Uploads } from "./uploads";

const app = byId("app", HTMLDivElement);
const logout = byId("logout", HTMLButtonElement);

let courses: Course[] = [];
let view: CourseView | null = null;
const quota = new Quota();
const uploads = new Uploads((upload) => view?.uploadChanged(upload.lesson));

/** `#/courses/{id}` names the course in view, so that reload and the back button work. */
function wanted(): string | null {
  return /^#\/courses\/([a-z0-9]{1,32})$/.exec(location.hash)?.[1] ?? null;
}

function show(): void {
  const course = courses.find(({ id }) => id === wanted()) ?? courses[0];
  view?.close();
  view = null;
  const side = h("nav", { class: "side", "aria-label": "Courses" },
    h("div", { class: "row" }, h("h2", { class: "grow" }, "Courses"),
      h("button", { type: "button", class: "button quiet", "data-action": "new-course", onclick: create }, icon("plus"), "New")),
    h("ul", {}, ...courses.map((it) => h("li", {},
      h("a", { href: `#/courses/${it.id}`, "aria-current": it.id === course?.id ? "page" : null }, it.title)))),
    quota.element);
  quota.look();
  if (!course) {
    app.replaceChildren(h("main", { id: "main", class: "center" }, h("div", { class: "login card stack" },
      h("h1", {}, "Your first course"),
      h("p", { class: "soft" }, "A course holds lessons; learners get access to a whole course."),
      h("button", { type: "button", class: "button main", "data-action": "new-course", onclick: create }, icon("plus"), "Create a course"))));
    return;
  }
  view = new CourseView(course, uploads, {
    renamed: (it) => {
      courses = courses.map((other) => (other.id === it.id ? it : other));
      side.querySelector(`a[href="#/courses/${it.id}"]`)?.replaceChildren(it.title);
    },
    removed: (it) => {
      courses = courses.filter((other) => other.id !== it.id);
      location.hash = courses[0] ? `#/courses/${courses[0].id}` : "";
      show();
    },
    stored: () => quota.look(),
  });
  app.replaceChildren(h("div", { class: "desk" }, side, view.element));
}

function create(): void {
  ask("New course", "You can rename it at any time.", [field("Title", "title", { required: true, maxlength: "200" })], "Create", async (form, dialog) => {
    const course = await call<Course>("POST", "/v1/courses", { title: String(form.get("title")).trim() });
    courses = [...courses, course];
    dialog.close();
    if (wanted() === course.id) show();
    else location.hash = `#/courses/${course.id}`;
  });
}

function showLogin(problem: string | null): void {
  view?.close();
  view = null;
  logout.hidden = true;
  app.replaceChildren(loginView(problem, () => void enter()));
  app.querySelector("input")?.focus();
}

/** The page that sent someone here to log in, if it is one of ours. */
function next(): string | null {
  const to = new URLSearchParams(location.search).get("next");
  return to && /^\/watch\/\?[\w=&%.-]*$/.test(to) ? to : null;
}

async function enter(): Promise<void> {
  try {
    courses = await all<Course>("/v1/courses");
  } catch (error) {
    if (error instanceof Problem && (error.status === 401 || error.status === 403)) showLogin(error.status === 403 ? words(error) : null);
    else {
      app.replaceChildren(h("main", { id: "main", class: "center" }, h("div", { class: "login card stack" },
        h("p", { class: "notice bad", role: "alert" }, words(error)),
        h("button", { type: "button", class: "button", onclick: () => void enter() }, "Try again"))));
    }
    return;
  }
  const to = next();
  if (to) {
    location.replace(to);
    return;
  }
  logout.hidden = false;
  show();
}

async function main(): Promise<void> {
  const key = keyFromAddress();
  if (key) {
    try {
      await login(key);
    } catch (error) {
      showLogin(words(error));
      return;
    }
  }
  await enter();
}

addEventListener("hashchange", () => {
  if (location.hash.startsWith("#key=")) location.reload();
  else if (view || courses.length > 0) show();
});
// In mid-work the login may end; what is uploading is kept and waits.
addEventListener(LOGIN_ENDED, () => { if (view) showLogin("Your login has ended. Log in again to go on."); });
logout.addEventListener("click", () => void busy(logout, async () => {
  await call("POST", "/v1/logout");
  courses = [];
  showLogin(null);
}));
// Files dropped beside a place for them must not replace the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());

main().catch(complain);
