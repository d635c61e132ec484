// `window.lyceumPlayer`: what is going on, to be read aloud on the phone to support, and by tests. Read-only.

import { clock } from "../common/format";
import type { Player } from "./player";
import type { Quality } from "./quality";
import type { Source } from "./source";
import { host } from "./address";

export interface PlayerState {
  readonly version: 1;
  /** Seconds of the film that were really played, however often. */
  readonly playedSeconds: number;
  readonly position: number;
  readonly duration: number;
  /** Seconds of media ahead of the position. */
  readonly buffered: number;
  readonly paused: boolean;
  readonly ended: boolean;
  /** CMCD's play state: d preloading, s starting, p playing, k seeking, r rebuffering, a paused, e ended, f failed, q left. */
  readonly state: string;
  readonly startupMs: number | null;
  readonly stalls: number;
  readonly stallMs: number;
  readonly level: { readonly index: number; readonly height: number; readonly bitrate: number } | null;
  readonly levels: readonly number[];
  readonly automatic: boolean;
  readonly decodedFrames: number;
  readonly droppedFrames: number;
  readonly edge: string;
  readonly edges: readonly string[];
  readonly session: string;
  readonly live: boolean;
  readonly fatal: string | null;
  readonly errors: readonly { readonly at: number; readonly details: string; readonly fatal: boolean; readonly code: string }[];
}

declare global {
  interface Window {
    readonly lyceumPlayer?: PlayerState;
  }
}

/** Seconds covered by ranges. */
export function covered(ranges: TimeRanges): number {
  let sum = 0;
  for (let i = 0; i < ranges.length; i += 1) sum += ranges.end(i) - ranges.start(i);
  return sum;
}

/** Seconds from a position to the end of the buffered range that holds it. */
export function ahead(ranges: TimeRanges, position: number): number {
  for (let i = 0; i < ranges.length; i += 1) {
    if (ranges.start(i) <= position + 0.1 && ranges.end(i) > position) return ranges.end(i) - position;
  }
  return 0;
}

/** Makes the state readable. Getters, so that each look is of that moment. */
export function expose(player: Player, quality: Quality, source: Source, fatal: () => string | null): void {
  const { video, hls } = player;
  const state: PlayerState = Object.freeze({
    version: 1 as const,
    get playedSeconds() { return covered(video.played); },
    get position() { return video.currentTime; },
    get duration() { return video.duration; },
    get buffered() { return ahead(video.buffered, video.currentTime); },
    get paused() { return video.paused; },
    get ended() { return video.ended; },
    get state() { return quality.tally.state; },
    get startupMs() { return quality.tally.startupMs; },
    get stalls() { return quality.tally.stalls; },
    get stallMs() { return quality.tally.stallMs; },
    get level() {
      const index = hls.currentLevel;
      const level = hls.levels[index];
      return level ? { index, height: Math.min(level.height, level.width || level.height), bitrate: level.bitrate } : null;
    },
    get levels() { return hls.levels.map((level) => Math.min(level.height, level.width || level.height)); },
    get automatic() { return hls.autoLevelEnabled; },
    get decodedFrames() { return video.getVideoPlaybackQuality().totalVideoFrames; },
    get droppedFrames() { return video.getVideoPlaybackQuality().droppedVideoFrames; },
    get edge() { return host(source.current.base); },
    get edges() { return source.hosts; },
    get session() { return source.session; },
    get live() { return hls.latestLevelDetails?.live ?? false; },
    get fatal() { return fatal(); },
    get errors() { return player.errors.map((error) => ({ ...error })); },
  });
  Object.defineProperty(window, "lyceumPlayer", { value: state, writable: false, configurable: false });
}

/** The same in a line, for the page itself. */
export function summary(state: PlayerState): string {
  const parts = [
    state.level ? `${state.level.height}p at ${(state.level.bitrate / 1e6).toFixed(1)} Mbit/s` : null,
    state.startupMs === null ? null : `started in ${(state.startupMs / 1000).toFixed(1)} s`,
    `${state.stalls} ${state.stalls === 1 ? "stall" : "stalls"}`,
    `${clock(state.buffered)} buffered`,
    `from ${state.edge}`,
  ];
  return parts.filter((part) => part !== null).join(" · ");
}
