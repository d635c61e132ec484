// How playback feels, in CMCD version 2 event reports (CTA-5004-B) to the edge: start-up and rebuffering come from the
// order and times of the play states, `msd` is the start-up itself. hls.js has an event mode of its own, but it calls
// the wait after a seek rebuffering and follows neither a change of edge nor a renewed token. On segment requests
// hls.js sends CMCD version 1 in the query, where it costs no preflight.

import { CmcdEventType, CmcdPlayerState, CmcdReporter, CmcdStreamType, CmcdStreamingFormat } from "@svta/cml-cmcd";

/** Seconds between the regular reports. */
const INTERVAL = 10;
/** After so many failed sends in a row what waits is thrown away: reports must not pile up in a page left open. */
const GIVE_UP = 8;

const KEYS = [
  "bg", "bl", "br", "bsa", "bsd", "bsda", "cid", "dfa", "e", "ec", "msd", "mtp", "pr", "pt", "sf", "sid", "sn", "st", "sta", "tb",
  "ts", "v",
] as const;

export interface Facts {
  /** Position in the film and media ahead of it, seconds. */
  position: number;
  ahead: number;
  /** Bits per second: what plays, the best there is, what the line gives; 0 where unknown. */
  bitrate: number;
  topBitrate: number;
  throughput: number;
  dropped: number;
  live: boolean;
}

/** What the states add up to, for the page's own eyes. */
export interface Tally {
  state: string;
  startupMs: number | null;
  stalls: number;
  stallMs: number;
}

export interface QualityOptions {
  session: string;
  content: string;
  /** Where reports go at this moment: the edge may change while the page plays. */
  target: () => string;
  /** A report found nobody there. */
  unreachable: (target: string) => void;
  facts: () => Facts;
}

/** Follows one video element and reports what its viewer sees. */
export class Quality {
  private readonly reporter: CmcdReporter;
  private state: CmcdPlayerState = CmcdPlayerState.PRELOADING;
  private wantedAt: number | null = null;
  private startup: number | null = null;
  private stalledAt: number | null = null;
  private stalls = 0;
  private stalled = 0;
  /** Milliseconds of a stall that has just ended and was not reported yet. */
  private ended: number | null = null;
  private failures = 0;
  private closed = false;
  private readonly off = new AbortController();

  constructor(private readonly video: HTMLVideoElement, private readonly options: QualityOptions) {
    this.reporter = new CmcdReporter(
      {
        sid: options.session,
        cid: options.content || undefined,
        version: 2,
        enabledKeys: [],
        eventTargets: [{
          // Only a place-holder: each send asks where to.
          url: options.target(),
          version: 2,
          events: [
            CmcdEventType.PLAY_STATE, CmcdEventType.TIME_INTERVAL, CmcdEventType.BITRATE_CHANGE, CmcdEventType.PLAYBACK_RATE,
            CmcdEventType.ERROR, CmcdEventType.BACKGROUNDED_MODE,
          ],
          interval: INTERVAL,
          batchSize: 1,
          enabledKeys: [...KEYS],
        }],
      },
      (request) => this.send(request.headers ?? {}, String(request.body ?? "")),
    );
    this.listen();
    // Nothing is sent before somebody wants to watch: the first report is the start.
    this.reporter.update({ sf: CmcdStreamingFormat.HLS });
  }

  /** The viewer wants to see something: the start-up time runs from the first call. */
  wanted(): void {
    if (this.startup !== null || this.state !== CmcdPlayerState.PRELOADING) return;
    this.wantedAt ??= performance.now();
    this.enter(CmcdPlayerState.STARTING);
  }

  /** The browser would not play without a click: the time until then is not the network's. */
  notWanted(): void {
    if (this.startup !== null) return;
    this.wantedAt = null;
    this.enter(CmcdPlayerState.PRELOADING);
  }

  /** Another rendition plays. */
  switched(): void {
    this.refresh();
  }

  /** Playback can't go on. */
  failed(code: string): void {
    this.endStall();
    this.enter(CmcdPlayerState.FATAL_ERROR);
    this.reporter.recordEvent(CmcdEventType.ERROR, { ec: [code] });
  }

  get tally(): Tally {
    const running = this.stalledAt === null ? 0 : performance.now() - this.stalledAt;
    return { state: this.state, startupMs: this.startup, stalls: this.stalls, stallMs: this.stalled + running };
  }

  close(): void {
    if (this.closed) return;
    this.endStall();
    this.enter(CmcdPlayerState.QUIT);
    this.closed = true;
    this.off.abort();
    this.reporter.stop(true);
  }

  private listen(): void {
    const on = (name: keyof HTMLMediaElementEventMap, act: () => void) =>
      this.video.addEventListener(name, act, { signal: this.off.signal });
    on("play", () => {
      if (this.startup === null) this.wanted();
    });
    on("playing", () => {
      if (this.startup === null) {
        this.startup = performance.now() - (this.wantedAt ?? performance.now());
        this.enter(CmcdPlayerState.PLAYING, Math.round(this.startup));
        this.reporter.start();
        return;
      }
      this.endStall();
      this.enter(CmcdPlayerState.PLAYING);
    });
    on("seeking", () => {
      if (this.startup === null) return;
      this.endStall();
      this.enter(CmcdPlayerState.SEEKING);
    });
    on("seeked", () => {
      if (this.state !== CmcdPlayerState.SEEKING) return;
      if (this.video.paused) this.enter(CmcdPlayerState.PAUSED);
      else if (this.video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA) this.enter(CmcdPlayerState.PLAYING);
    });
    on("waiting", () => {
      // Waiting at the start is start-up, waiting after a seek is the seek's.
      if (this.startup === null || this.video.seeking || this.video.paused) return;
      if (this.state !== CmcdPlayerState.PLAYING && this.state !== CmcdPlayerState.PAUSED) return;
      this.stalls += 1;
      this.stalledAt = performance.now();
      this.enter(CmcdPlayerState.REBUFFERING);
    });
    on("pause", () => {
      if (this.video.ended || this.startup === null || this.state === CmcdPlayerState.FATAL_ERROR) return;
      this.endStall();
      this.enter(CmcdPlayerState.PAUSED);
    });
    on("ended", () => {
      this.endStall();
      this.enter(CmcdPlayerState.ENDED);
    });
    on("ratechange", () => {
      if (this.startup !== null) this.reporter.update({ pr: this.video.playbackRate });
    });
    document.addEventListener("visibilitychange", () => {
      if (this.startup !== null) this.reporter.update({ bg: document.hidden });
    }, { signal: this.off.signal });
    addEventListener("pagehide", (event) => {
      // A page kept for the back button may come back: it has not quit.
      if (event.persisted) this.reporter.flush();
      else this.close();
    }, { signal: this.off.signal });
  }

  private endStall(): void {
    if (this.stalledAt === null) return;
    this.ended = Math.round(performance.now() - this.stalledAt);
    this.stalled += this.ended;
    this.stalledAt = null;
  }

  private enter(state: CmcdPlayerState, startup?: number): void {
    if (this.closed || state === this.state) return;
    this.state = state;
    this.refresh();
    if (startup !== undefined) this.reporter.update({ msd: startup });
    // The length of a stall belongs to the one report that ends it.
    this.reporter.recordEvent(CmcdEventType.PLAY_STATE, this.ended === null ? { sta: state } : { sta: state, bsd: [this.ended] });
    this.ended = null;
  }

  private refresh(): void {
    if (this.startup === null) return;
    const { position, ahead, bitrate, topBitrate, throughput, dropped, live } = this.options.facts();
    const kbps = (bits: number) => (bits > 0 ? [Math.round(bits / 1000)] : undefined);
    this.reporter.update({
      bl: [Math.round(ahead * 1000)],
      bsa: [this.stalls],
      bsda: [Math.round(this.stalled)],
      br: kbps(bitrate),
      dfa: dropped,
      mtp: kbps(throughput),
      pt: Math.round(position * 1000),
      st: live ? CmcdStreamType.LIVE : CmcdStreamType.VOD,
      tb: kbps(topBitrate),
    });
  }

  /** Sends one report; the answer's status tells the reporter whether to try again (5xx) or never more (410). */
  private async send(headers: Record<string, string>, body: string): Promise<{ status: number }> {
    const target = this.options.target();
    let status = 0;
    try {
      ({ status } = await fetch(target, { method: "POST", headers, body, keepalive: true, credentials: "omit", cache: "no-store" }));
    } catch {
      this.options.unreachable(target);
    }
    if (status === 0 || status === 429 || status >= 500) {
      this.failures += 1;
      return { status: this.failures > GIVE_UP ? 204 : 503 };
    }
    this.failures = 0;
    // A token that never let anything play will not let reports in either.
    if ((status === 401 || status === 403) && this.startup === null) return { status: 410 };
    return { status };
  }

  /** Called by the page now and then, so that the regular reports carry fresh figures. */
  tick(): void {
    if (!this.closed) this.refresh();
  }
}
