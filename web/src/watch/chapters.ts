// The chapters of a lesson: a list under the film that goes there, and a track of the kind that browsers know.

import { h } from "../common/dom";
import { clock } from "../common/format";

/** Start and end in seconds. */
export interface Chapter {
  start: number;
  end: number;
  title: string;
}

/** The most chapters that are shown. */
const MOST = 1000;

/** The chapters that `lesson.json` tells, in order; what is none is left out. */
export function chapters(told: unknown): Chapter[] {
  const all: unknown[] = Array.isArray(told) ? told.slice(0, MOST) : [];
  const found = all.flatMap((one): Chapter[] => {
    if (typeof one !== "object" || one === null) return [];
    const { start, end, title } = one as Record<string, unknown>;
    if (typeof start !== "number" || typeof end !== "number" || typeof title !== "string") return [];
    return start >= 0 && end > start && title !== "" ? [{ start, end, title }] : [];
  });
  return found.sort((one, other) => one.start - other.start);
}

/** The index of the chapter at an instant, or -1 before the first. */
export function chapterAt(all: readonly Chapter[], instant: number): number {
  return all.filter((chapter) => chapter.start <= instant).length - 1;
}

/** Adds the track to the film and returns the list. */
export function contents(video: HTMLVideoElement, all: readonly Chapter[]): HTMLElement {
  const track = video.addTextTrack("chapters", "Chapters");
  for (const { start, end, title } of all) track.addCue(new VTTCue(start, end, title));
  const items = all.map(({ start, title }) => {
    const go = () => { video.currentTime = start; };
    return h("li", {}, h("button", { type: "button", onclick: go }, h("span", { class: "number" }, clock(start)), ` ${title}`));
  });
  const follow = () => {
    const now = chapterAt(all, video.currentTime);
    items.forEach((item, n) => (n === now ? item.setAttribute("aria-current", "true") : item.removeAttribute("aria-current")));
  };
  video.addEventListener("timeupdate", follow);
  follow();
  return h("nav", { class: "chapters", "aria-label": "Chapters" }, h("ol", {}, ...items));
}
