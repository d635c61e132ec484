// What stands around the browser's own controls: quality, speed, keys.

import type Hls from "hls.js";

export const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2] as const;
const SPEED_KEY = "lyceum.speed";

/** The shorter side names a rendition, as on the URL; hls.js knows only width and height. */
function name(level: { width: number; height: number; bitrate: number }): string {
  const side = level.width ? Math.min(level.width, level.height) : level.height;
  return side ? `${side}p` : `${Math.round(level.bitrate / 1000)} kbit/s`;
}

/** Fills the quality menu from the renditions at hand, and marks what plays. */
export function showLevels(select: HTMLSelectElement, hls: Hls): void {
  const playing = hls.levels[hls.currentLevel];
  const wanted = [
    { value: "-1", text: hls.autoLevelEnabled && playing ? `Auto (${name(playing)})` : "Auto" },
    ...hls.levels.map((level, index) => ({ value: String(index), text: name(level) })).reverse(),
  ];
  const same = select.options.length === wanted.length && wanted.every((want, i) => select.options[i]?.text === want.text);
  if (!same) select.replaceChildren(...wanted.map(({ value, text }) => new Option(text, value)));
  select.value = hls.autoLevelEnabled ? "-1" : String(hls.nextLevel >= 0 ? hls.nextLevel : hls.loadLevel);
  select.disabled = hls.levels.length < 2;
}

/** The viewer's choice holds for what is loaded from now on; what is buffered plays out. */
export function chooseLevel(hls: Hls, value: string): void {
  hls.nextLevel = Number(value);
}

/** The speed menu; the browser remembers the choice. */
export function speeds(select: HTMLSelectElement, video: HTMLVideoElement): void {
  select.replaceChildren(...SPEEDS.map((speed) => new Option(speed === 1 ? "Normal" : `${speed}×`, String(speed))));
  const apply = (speed: number) => {
    video.defaultPlaybackRate = speed;
    video.playbackRate = speed;
  };
  const stored = Number(stash() ?? 1);
  apply(SPEEDS.find((speed) => speed === stored) ?? 1);
  select.value = String(video.playbackRate);
  select.addEventListener("change", () => apply(Number(select.value)));
  video.addEventListener("ratechange", () => {
    select.value = String(video.playbackRate);
    stash(String(video.playbackRate));
  });
}

function stash(value?: string): string | null {
  try {
    if (value === undefined) return localStorage.getItem(SPEED_KEY);
    localStorage.setItem(SPEED_KEY, value);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  return null;
}

/** One step faster or slower. */
function step(video: HTMLVideoElement, by: 1 | -1): void {
  const at = SPEEDS.findIndex((speed) => speed >= video.playbackRate);
  video.playbackRate = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, (at < 0 ? SPEEDS.length - 1 : at) + by))] ?? 1;
}

function move(video: HTMLVideoElement, to: number): void {
  const end = Number.isFinite(video.duration) ? video.duration : to;
  video.currentTime = Math.min(Math.max(0, to), Math.max(0, end - 0.25));
}

/** Keys that players have in common. They rest while a menu, a field or a button has the focus. */
export function keys(video: HTMLVideoElement, screen: HTMLElement): void {
  const act: Record<string, () => void> = {
    " ": () => void toggle(video),
    k: () => void toggle(video),
    ArrowLeft: () => move(video, video.currentTime - 5),
    ArrowRight: () => move(video, video.currentTime + 5),
    j: () => move(video, video.currentTime - 10),
    l: () => move(video, video.currentTime + 10),
    ArrowUp: () => { video.volume = Math.min(1, video.volume + 0.1); },
    ArrowDown: () => { video.volume = Math.max(0, video.volume - 0.1); },
    m: () => { video.muted = !video.muted; },
    f: () => void (document.fullscreenElement ? document.exitFullscreen() : screen.requestFullscreen()).catch(() => {}),
    "<": () => step(video, -1),
    ">": () => step(video, 1),
    Home: () => move(video, 0),
    End: () => move(video, video.duration),
    c: () => captions(video),
  };
  for (let digit = 0; digit <= 9; digit += 1) {
    act[String(digit)] = () => { if (Number.isFinite(video.duration)) move(video, (video.duration * digit) / 10); };
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("select, input, textarea, button, a, summary")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const does = act[key];
    if (!does) return;
    event.preventDefault();
    does();
  }, { capture: true });
}

async function toggle(video: HTMLVideoElement): Promise<void> {
  if (video.paused) await video.play().catch(() => {});
  else video.pause();
}

function captions(video: HTMLVideoElement): void {
  const tracks = [...video.textTracks].filter((track) => track.kind === "subtitles" || track.kind === "captions");
  const shown = tracks.some((track) => track.mode === "showing");
  tracks.forEach((track, i) => { track.mode = !shown && i === 0 ? "showing" : "disabled"; });
}
