// The learner's page. `/watch/#<playback URL>`: the token stays in the fragment, which is never sent to a server.
// `/watch/?lesson=ID`: for someone who is logged in; the page asks the origin for a token and renews it.

import { byId, h, icon } from "../common/dom";
import { clock } from "../common/format";
import { call, Problem } from "../common/api";
import { parse, reportsTo } from "./address";
import { chapters, contents } from "./chapters";
import { chooseLevel, keys, showLevels, speeds } from "./controls";
import { measured } from "./line";
import { explain, type Message } from "./messages";
import type { Player } from "./player";
import { Quality } from "./quality";
import { recall, remember } from "./resume";
import { Source } from "./source";
import { Storyboard, tiles } from "./storyboard";
import { ahead, expose, summary } from "./support";

/** How often positions are kept and reports get fresh figures, in milliseconds. */
const TICK = 2000;
/** How often a lesson that is still being made is asked for its storyboard, in milliseconds. */
const MADE = 15_000;

const video = byId("video", HTMLVideoElement);
const screen = byId("screen", HTMLDivElement);
const curtain = byId("curtain", HTMLDivElement);
const start = byId("start", HTMLButtonElement);
const whisper = byId("whisper", HTMLDivElement);
const quality = byId("quality", HTMLSelectElement);

/** A version 4 UUID; `crypto.randomUUID` is missing on plain http. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

async function find(): Promise<Source> {
  const query = new URLSearchParams(location.search);
  const lesson = query.get("lesson");
  if (lesson) return Source.lesson(lesson, query.get("user"));
  const link = decodeFragment(location.hash.slice(1));
  if (!link) throw new Problem(0, "no_link", "The page's address holds no playback link.");
  if (!parse(link)) throw new Problem(0, "bad_link", "This is no playback link.");
  return Source.link(link);
}

/** Some programs percent-encode a fragment that they put into a link. */
function decodeFragment(text: string): string {
  if (!/^https?%3A/i.test(text)) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function tell(text: string, seconds: number, action?: { label: string; act: () => void }): void {
  whisper.replaceChildren(text);
  if (action) {
    whisper.append(h("button", { type: "button", onclick: () => { action.act(); whisper.hidden = true; } }, action.label));
  }
  whisper.hidden = false;
  if (seconds > 0) setTimeout(() => { if (whisper.firstChild?.textContent === text) whisper.hidden = true; }, seconds * 1000);
}

function lower(message: Message, code: string, again: () => void): void {
  const actions = h("div", { class: "actions" });
  if (message.action === "retry") actions.append(h("button", { type: "button", class: "button", onclick: again }, "Try again"));
  if (message.action === "login") {
    const to = `/studio/?next=${encodeURIComponent(location.pathname + location.search)}`;
    actions.append(h("a", { class: "button", href: to }, "Log in"));
  }
  curtain.replaceChildren(h("h2", {}, message.title), h("p", {}, message.text), actions, h("code", {}, code));
  curtain.hidden = false;
  start.hidden = true;
}

function run(source: Source, kind: typeof Player, waits: () => void): void {
  const { lesson } = source.current;
  const session = uuid();
  const from = recall(lesson);
  let fatal: string | null = null;

  const player: Player = new kind(video, source, {
    levels: () => showLevels(quality, player.hls),
    failed: (problem) => {
      fatal = problem.code;
      watcher.failed(problem.code);
      lower(explain(problem), problem.code, () => location.reload());
    },
    connection: (up) => {
      if (up) {
        whisper.hidden = true;
        curtain.hidden = true;
      } else if (player.played) tell("The connection is gone. Trying again …", 0, { label: "Now", act: () => player.retry() });
      else lower(explain(new Problem(0, "network", "")), "network", () => player.retry());
    },
  }, from, session, lesson);

  const watcher = new Quality(video, {
    session,
    content: lesson,
    target: () => reportsTo(source.current.base),
    unreachable: (target) => source.failed(target),
    facts: () => {
      const { hls } = player;
      return {
        position: video.currentTime,
        ahead: ahead(video.buffered, video.currentTime),
        bitrate: hls.levels[hls.currentLevel]?.bitrate ?? 0,
        topBitrate: Math.max(0, ...hls.levels.map((level) => level.bitrate)),
        throughput: hls.bandwidthEstimate || 0,
        dropped: video.getVideoPlaybackQuality().droppedVideoFrames,
        live: hls.latestLevelDetails?.live ?? false,
      };
    },
  });

  expose(player, watcher, source, () => fatal);
  keys(video, screen);
  speeds(byId("speed", HTMLSelectElement), video);
  quality.addEventListener("change", () => chooseLevel(player.hls, quality.value));
  follow(player, watcher, lesson);
  if (from > 0) {
    tell(`Going on at ${clock(from)}`, 8, { label: "Start over", act: () => { video.currentTime = 0; } });
  }
  begin(watcher, waits);
}

/** Plays at once where the browser lets a page do that; else the viewer's click starts it. */
function begin(watcher: Quality, waits: () => void): void {
  watcher.wanted();
  void video.play().catch((error: unknown) => {
    if (!(error instanceof DOMException) || error.name !== "NotAllowedError") return;
    watcher.notWanted();
    waits();
    start.prepend(icon("play"));
    start.hidden = false;
    start.addEventListener("click", () => {
      void video.play().catch(() => {});
      video.focus();
    });
    video.addEventListener("play", () => { start.hidden = true; }, { once: true });
  });
}

function follow(player: Player, watcher: Quality, lesson: string): void {
  const growing = byId("growing", HTMLParagraphElement);
  const details = byId("help", HTMLDetailsElement);
  const line = byId("summary", HTMLParagraphElement);
  const keep = () => {
    if (video.readyState > 0) remember(lesson, video.currentTime, growing.hidden ? video.duration : NaN, video.ended);
  };
  setInterval(() => {
    watcher.tick();
    growing.hidden = !(player.hls.latestLevelDetails?.live ?? false);
    if (!video.paused) keep();
    if (details.open && window.lyceumPlayer) line.textContent = summary(window.lyceumPlayer);
  }, TICK);
  const end = () => {
    keep();
    if (video.played.length > 0) measured(player.hls.bandwidthEstimate);
  };
  video.addEventListener("pause", end);
  video.addEventListener("ended", keep);
  video.addEventListener("seeked", keep);
  addEventListener("pagehide", end);
}

/** The lesson's name, from the origin for who is logged in; a film plays well without. */
async function name(source: Source): Promise<void> {
  const { lesson } = source.current;
  if (!lesson || !source.renewable) return;
  try {
    const { title } = await call<{ title?: unknown }>("GET", `/v1/lessons/${lesson}`);
    if (typeof title !== "string" || !title) return;
    byId("title", HTMLHeadingElement).textContent = title;
    document.title = `${title} · Lyceum`;
    video.setAttribute("aria-label", title);
  } catch {
    // The heading keeps its neutral word.
  }
}

/** What `lesson.json` says of what is beside the film; paths are relative to it. */
interface Pictures {
  chapters?: unknown;
  poster?: string | null;
  storyboard?: string | null;
  complete?: boolean;
}

/** The poster at once, the storyboard once it is made. Nobody misses them. */
async function pictures(source: Source): Promise<void> {
  const { base, lesson } = source.current;
  if (!lesson) return;
  const at = (path: string) => source.address(`${base}/v/${lesson}/${path}`);
  const told = await open(at("lesson.json")).then((response) => response?.json() as Promise<Pictures> | undefined);
  if (!told) return;
  const named = chapters(told.chapters);
  if (named.length > 0 && !document.querySelector(".chapters")) screen.after(contents(video, named));
  if (told.poster && !video.poster) video.poster = at(told.poster);
  if (told.storyboard && !document.querySelector(".board")) {
    const [version] = told.storyboard.split("/");
    const index = await open(at(told.storyboard)).then((response) => response?.text());
    const all = index ? tiles(index) : [];
    if (all.length > 0) screen.after(new Storyboard(video, all, (sheet) => at(`${version}/${sheet}`)).element);
  } else if (!told.storyboard && !told.complete) {
    setTimeout(() => void pictures(source).catch(() => {}), MADE);
  }
}

async function open(url: string): Promise<Response | null> {
  const response = await fetch(url, { credentials: "omit" });
  return response.ok ? response : null;
}

async function main(): Promise<void> {
  // The token is asked for while hls.js is still on its way.
  const [source, { Player: kind }] = await Promise.all([find(), import("./player")]);
  if (!kind.supported) throw new Problem(0, "unsupported", "No Media Source Extensions.");
  // Pictures must not hold the film up: they come once it plays, or while it waits for a click.
  const idle = () => void pictures(source).catch(() => {});
  video.addEventListener("playing", idle, { once: true });
  run(source, kind, idle);
  await name(source);
}

// A link pasted into the address bar of an open page changes only the fragment.
addEventListener("hashchange", () => location.reload());

main().catch((error: unknown) => {
  const problem = error instanceof Problem ? error : new Problem(0, "page", error instanceof Error ? error.message : String(error));
  lower(explain(problem), problem.code, () => location.reload());
});
