// The storyboard: small pictures of a film's instants, shown above a line that is its length. The index is WebVTT whose
// cues name a place on a sheet by a media fragment (`sheet.jpg#xywh=x,y,w,h`, W3C Media Fragments 1.0).

import { h } from "../common/dom";
import { clock } from "../common/format";

/** A picture's span in seconds and its place on a sheet in pixels. */
export interface Tile {
  from: number;
  to: number;
  sheet: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

/** The most pictures that are read of one index. */
const MOST = 10_000;

function seconds(text: string): number {
  return text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** The pictures that an index names; what is no such cue is left out. */
export function tiles(index: string): Tile[] {
  const found: Tile[] = [];
  const lines = index.split(/\r?\n/);
  for (let at = 0; at + 1 < lines.length && found.length < MOST; at += 1) {
    const span = /^((?:\d+:)?\d+:\d+\.\d+)\s+-->\s+((?:\d+:)?\d+:\d+\.\d+)/.exec(lines[at] ?? "");
    const place = /^([\w.-]+)#xywh=(\d+),(\d+),(\d+),(\d+)$/.exec((lines[at + 1] ?? "").trim());
    if (!span || !place) continue;
    found.push({
      from: seconds(span[1] ?? ""), to: seconds(span[2] ?? ""), sheet: place[1] ?? "",
      x: Number(place[2]), y: Number(place[3]), width: Number(place[4]), height: Number(place[5]),
    });
  }
  return found;
}

/** The picture of an instant, or the last one before it. */
export function tileAt(all: readonly Tile[], instant: number): Tile | null {
  let [low, high] = [0, all.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((all[middle]?.from ?? Infinity) <= instant) low = middle + 1;
    else high = middle;
  }
  return all[Math.max(0, low - 1)] ?? null;
}

/** A line under the film that shows what is at an instant before it goes there. */
export class Storyboard {
  private readonly picture = h("div", { class: "tile", "aria-hidden": "true" });
  private readonly words = h("span", { class: "number", "aria-hidden": "true" });
  private readonly preview = h("div", { class: "preview", hidden: true }, this.picture, this.words);
  private readonly line = h("input", { type: "range", min: 0, max: 1000, value: 0, step: "any", "aria-label": "Position in the lesson" });
  readonly element = h("div", { class: "board" }, this.preview, this.line);
  private held = false;

  /** `address` says where a sheet lies now: edges and tokens change. */
  constructor(private readonly video: HTMLVideoElement, private readonly all: readonly Tile[], private readonly address: (sheet: string) => string) {
    const { line } = this;
    line.addEventListener("pointermove", (event) => this.show(this.under(event)));
    line.addEventListener("pointerleave", () => { this.preview.hidden = true; });
    line.addEventListener("pointerdown", () => { this.held = true; });
    for (const end of ["pointerup", "pointercancel", "change"] as const) line.addEventListener(end, () => { this.held = false; });
    line.addEventListener("input", () => {
      this.video.currentTime = (Number(line.value) / 1000) * this.length;
      this.tell();
    });
    video.addEventListener("timeupdate", () => this.follow());
    this.follow();
  }

  private get length(): number {
    return Number.isFinite(this.video.duration) && this.video.duration > 0 ? this.video.duration : this.all[this.all.length - 1]?.to ?? 1;
  }

  /** The instant under the pointer. */
  private under(event: PointerEvent): number {
    const { left, width } = this.line.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - left) / Math.max(1, width))) * this.length;
  }

  private show(instant: number): void {
    const tile = tileAt(this.all, instant);
    if (!tile) return;
    const { style } = this.picture;
    style.width = `${tile.width}px`;
    style.height = `${tile.height}px`;
    style.backgroundImage = `url(${JSON.stringify(this.address(tile.sheet))})`;
    style.backgroundPosition = `-${tile.x}px -${tile.y}px`;
    this.words.textContent = clock(instant);
    this.preview.hidden = false;
    const room = this.element.clientWidth;
    const middle = (instant / this.length) * room;
    this.preview.style.left = `${Math.min(Math.max(0, middle - tile.width / 2), Math.max(0, room - tile.width))}px`;
  }

  private follow(): void {
    if (!this.held) this.line.value = String((this.video.currentTime / this.length) * 1000);
    this.tell();
  }

  private tell(): void {
    this.line.setAttribute("aria-valuetext", `${clock(this.video.currentTime)} of ${clock(this.length)}`);
  }
}
