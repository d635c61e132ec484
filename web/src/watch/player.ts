// hls.js, made to go on: requests follow the source to another edge or a newer token, network errors are waited out,
// decoding errors recovered, and only what nobody can mend ends in a message.

import Hls, {
  type ErrorData, type HlsConfig, type Loader, type LoaderCallbacks, type LoaderConfiguration, type LoaderContext,
  type LoaderResponse, type RetryConfig,
} from "hls.js";
import { problemFrom, Problem } from "../common/api";
import { expected } from "./line";
import type { Source } from "./source";

declare const HLS_WORKER: string;

/** Recoveries from decoding errors within this time (milliseconds) count together, and so many are tried. */
const MEDIA_ERRORS = { within: 30_000, most: 3 };
/** Pauses before loading is taken up again after hls.js gave up, in milliseconds; the last one repeats. */
const PAUSES = [100, 1000, 2000, 4000, 8000];
/** Longest wait with nothing arriving before the viewer is told that the connection is gone, in milliseconds. */
const PATIENCE = 12_000;
/** How many errors the page remembers. */
const REMEMBERED = 50;

/** Refusals that a fresh token must not get around: somebody ended this viewing, or has to end another one first. */
const FINAL: ReadonlySet<string> = new Set(["token_revoked", "too_many_streams", "token_out_of_scope", "token_wrong_client"]);

export interface Noted {
  /** Seconds since the page opened. */
  at: number;
  type: string;
  details: string;
  fatal: boolean;
  code: string;
}

export interface PlayerEvents {
  /** Renditions are known or the playing one changed. */
  levels: () => void;
  /** Playback can't go on without the viewer. */
  failed: (problem: Problem) => void;
  /** Nothing arrives at the moment, or arrives again. */
  connection: (up: boolean) => void;
}

export class Player {
  readonly hls: Hls;
  readonly errors: Noted[] = [];
  private mediaErrors: number[] = [];
  private attempts = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private downSince: number | null = null;
  private refusal: Problem | null = null;
  private ended = false;

  constructor(
    readonly video: HTMLVideoElement,
    private readonly source: Source,
    private readonly events: PlayerEvents,
    start: number,
    session: string,
    content: string,
  ) {
    this.hls = new Hls(this.config(start, session, content));
    this.hls.on(Hls.Events.ERROR, (_, data) => this.onError(data));
    this.hls.on(Hls.Events.MANIFEST_PARSED, () => events.levels());
    this.hls.on(Hls.Events.LEVEL_SWITCHED, () => events.levels());
    this.hls.on(Hls.Events.FRAG_BUFFERED, () => this.arrived());
    addEventListener("online", this.onOnline);
    this.hls.attachMedia(video);
    this.hls.loadSource(source.url);
  }

  static get supported(): boolean {
    return Hls.isSupported();
  }

  /** Whether anything of the film was seen. */
  get played(): boolean {
    return this.video.played.length > 0;
  }

  /** Takes loading up again at once, for a viewer who asks. */
  retry(): void {
    this.attempts = 0;
    this.refusal = null;
    this.resume();
  }

  close(): void {
    this.ended = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.onOnline);
    this.hls.destroy();
  }

  private readonly onOnline = (): void => {
    if (this.downSince !== null) this.retry();
  };

  private config(start: number, session: string, content: string): Partial<HlsConfig> {
    const shouldRetry = (policy: RetryConfig | null | undefined, count: number, timeout: boolean, response: LoaderResponse | undefined): boolean => {
      if (!policy || count >= policy.maxNumRetry) return false;
      const code = response?.code ?? 0;
      // A refused token is asked for anew while this request waits.
      if (code === 401 || code === 403) return this.source.renewable && this.refusal === null && count < 3;
      return timeout || code === 0 || code === 408 || code === 429 || code >= 500;
    };
    const retry = (maxNumRetry: number): RetryConfig =>
      ({ maxNumRetry, retryDelayMs: 500, maxRetryDelayMs: 4000, backoff: "exponential", shouldRetry: (...of) => shouldRetry(of[0], of[1], of[2], of[3]) });
    const policy = (firstByte: number, whole: number, tries: number) =>
      ({ default: { maxTimeToFirstByteMs: firstByte, maxLoadTimeMs: whole, timeoutRetry: { ...retry(tries), retryDelayMs: 0 }, errorRetry: retry(tries) } });
    return {
      // A lesson that is still growing starts at its beginning, not at its newest end.
      startPosition: start,
      lowLatencyMode: false,
      // The first segment is chosen like any other, by what the line is expected to give.
      startLevel: -1,
      testBandwidth: false,
      abrEwmaDefaultEstimate: expected(),
      enableWorker: true,
      workerPath: HLS_WORKER,
      backBufferLength: 60,
      maxBufferLength: 30,
      maxMaxBufferLength: 60,
      capLevelToPlayerSize: true,
      // Playlists name paths of Lyceum alone; keys and segments come from the same edge.
      loader: this.loader(),
      manifestLoadPolicy: policy(6000, 20_000, 4),
      playlistLoadPolicy: policy(6000, 20_000, 6),
      fragLoadPolicy: policy(6000, 60_000, 6),
      // Version 1, in the query: the header form would cost a preflight for each segment.
      cmcd: { sessionId: session, contentId: content, useHeaders: false, version: 1 },
    };
  }

  /** hls.js's own loader, with each request sent to where the source says, and each failure told to it. */
  private loader(): HlsConfig["loader"] {
    const source = this.source;
    const refused = (problem: Problem) => this.onRefused(problem);
    const Base = Hls.DefaultConfig.loader;
    class SourceLoader extends Base {
      override load(context: LoaderContext, config: LoaderConfiguration, callbacks: LoaderCallbacks<LoaderContext>): void {
        context.url = source.address(context.url);
        const url = context.url;
        // Retries are made above, where each one asks again where to go: the loader's own would stay with a dead edge.
        const once = { ...config, loadPolicy: { ...config.loadPolicy, errorRetry: null, timeoutRetry: null } };
        super.load(context, once, {
          ...callbacks,
          onError: (error, of, details, stats) => {
            if (error.code === 401 || error.code === 403) refused(problemFrom(error.code, bodyOf(details)));
            else if (error.code === 0 || error.code >= 500) source.failed(url);
            callbacks.onError(error, of, details, stats);
          },
          onTimeout: (stats, of, details) => {
            source.failed(url);
            callbacks.onTimeout(stats, of, details);
          },
        });
      }
    }
    return SourceLoader as unknown as { new (config: HlsConfig): Loader<LoaderContext> };
  }

  private onRefused(problem: Problem): void {
    if (!this.source.renewable || FINAL.has(problem.code)) {
      this.refusal = problem;
      return;
    }
    void this.source.renew().then((renewed) => {
      if (!renewed && this.source.problem?.transient !== true) this.refusal = this.source.problem ?? problem;
    });
  }

  private arrived(): void {
    this.attempts = 0;
    if (this.downSince !== null) {
      this.downSince = null;
      this.events.connection(true);
    }
  }

  private onError(data: ErrorData): void {
    this.note(data);
    if (!data.fatal || this.ended) return;
    if (this.refusal && !this.refusal.transient) return this.fail(this.refusal);
    if (data.details === Hls.ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR) return this.fail(new Problem(0, "media", data.details));
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR) return this.onMediaError();
    if (data.type === Hls.ErrorTypes.NETWORK_ERROR) {
      const code = data.response?.code ?? 0;
      const answered = (code >= 400 && code < 500 && code !== 408 && code !== 429) || data.details === Hls.ErrorDetails.MANIFEST_PARSING_ERROR;
      // Before anything played, a plain no is final; in mid-play another edge may know better.
      if (answered && (this.hls.levels.length === 0 || this.attempts >= PAUSES.length)) {
        return this.fail(problemFrom(code, bodyOf(data.networkDetails)));
      }
      return this.onDown();
    }
    this.fail(new Problem(0, "media", `hls.js: ${data.details}`));
  }

  private onMediaError(): void {
    const now = performance.now();
    this.mediaErrors = this.mediaErrors.filter((at) => at > now - MEDIA_ERRORS.within);
    if (this.mediaErrors.length >= MEDIA_ERRORS.most) return this.fail(new Problem(0, "media", "The video can't be decoded."));
    this.mediaErrors.push(now);
    this.hls.recoverMediaError();
  }

  /** hls.js has used up its tries: what is buffered plays on, and loading starts again after a pause. */
  private onDown(): void {
    const now = performance.now();
    this.downSince ??= now;
    if (now - this.downSince > PATIENCE || (this.attempts >= 2 && this.source.allFailed)) this.events.connection(false);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.resume(), PAUSES[Math.min(this.attempts, PAUSES.length - 1)]);
    this.attempts += 1;
  }

  private resume(): void {
    if (this.ended) return;
    clearTimeout(this.timer);
    if (this.hls.levels.length === 0) this.hls.loadSource(this.source.url);
    else this.hls.startLoad(this.video.currentTime > 0 ? this.video.currentTime : -1);
  }

  private fail(problem: Problem): void {
    this.ended = true;
    clearTimeout(this.timer);
    this.hls.stopLoad();
    this.events.failed(problem);
  }

  private note(data: ErrorData): void {
    if (this.errors.length >= REMEMBERED) this.errors.shift();
    this.errors.push({
      at: Math.round(performance.now()) / 1000,
      type: data.type,
      details: data.details,
      fatal: data.fatal,
      code: this.refusal?.code ?? (data.response?.code ? `http_${data.response.code}` : ""),
    });
  }
}

/** The body of a refusal, from the XMLHttpRequest that hls.js hands along. */
function bodyOf(details: unknown): string {
  if (!(details instanceof XMLHttpRequest)) return "";
  try {
    if (details.responseType === "arraybuffer") {
      return details.response instanceof ArrayBuffer ? new TextDecoder().decode(details.response.slice(0, 65_536)) : "";
    }
    return details.responseText;
  } catch {
    return "";
  }
}
