// Uploads by tus 1.0: visible, pausable, and hard to kill. A lost line is waited out for as long as it takes; after a
// reload the same file goes on where the server's acknowledged bytes end.

import * as tus from "tus-js-client";
import { LOGIN_ENDED, Problem, problemFrom } from "../common/api";

/** Uploads that run at the same time; the others wait their turn. */
const AT_ONCE = 2;
/** Pauses before an upload that lost its line is taken up again, in milliseconds; the last one repeats, progress
 *  starts them anew. The line's return ends a pause at once. */
const PAUSES = [500, 1000, 2000, 4000, 8000, 15_000];
/** Without a byte sent for this long (milliseconds) a connection counts as dead, though nobody said so. */
const SILENCE = 20_000;
/** The same once everything is sent and the server has only to finish. */
const FINISH = 300_000;
/** The speed shown is that of the last so many milliseconds. */
const WINDOW = 8000;
const KEY = "lyceum.uploads";
/** Unfinished uploads that this browser remembers. */
const REMEMBERED = 50;

export type UploadState = "waiting" | "running" | "paused" | "offline" | "done" | "failed";

/** What is left of an upload whose page was closed. */
export interface Unfinished {
  name: string;
  size: number;
  modified: number;
  sent: number;
}

export class Upload {
  state: UploadState = "waiting";
  sent = 0;
  problem: Problem | null = null;
  private samples: { at: number; sent: number }[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private attempts = 0;
  private readonly tus: tus.Upload;
  private begun = false;

  constructor(readonly lesson: string, readonly file: File, private readonly changed: (upload: Upload) => void) {
    this.tus = new tus.Upload(file, {
      endpoint: "/v1/uploads",
      metadata: { lesson, filename: file.name, filetype: file.type || "application/octet-stream" },
      // Made here, where the creator can be told.
      retryDelays: null,
      removeFingerprintOnSuccess: true,
      // The lesson belongs to it: one recording may go to two lessons.
      fingerprint: () => Promise.resolve(["lyceum", lesson, file.name, file.size, file.lastModified].join("-")),
      onProgress: (sent) => this.onProgress(sent),
      onSuccess: () => this.onSuccess(),
      onError: (error) => this.onError(error),
    });
  }

  /** Bytes a second over the last seconds; 0 while nothing is known. */
  get speed(): number {
    const first = this.samples[0];
    const last = this.samples[this.samples.length - 1];
    if (!first || !last || last.at - first.at < 500) return 0;
    return ((last.sent - first.sent) * 1000) / (last.at - first.at);
  }

  /** Seconds until done at that speed; NaN while unknown. */
  get left(): number {
    return this.speed > 0 ? (this.file.size - this.sent) / this.speed : NaN;
  }

  get active(): boolean {
    return this.state === "running" || this.state === "offline";
  }

  async start(): Promise<void> {
    this.set("running");
    this.samples = [];
    if (!this.begun) {
      this.begun = true;
      const before = await this.tus.findPreviousUploads().catch(() => []);
      const newest = before.sort((a, b) => b.creationTime.localeCompare(a.creationTime))[0];
      if (newest) this.tus.resumeFromPreviousUpload(newest);
      if (this.state !== "running") return;
    }
    this.watch();
    this.tus.start();
  }

  pause(): void {
    clearTimeout(this.timer);
    this.set("paused");
    void this.tus.abort().catch(() => {});
  }

  /** Ends it and has the server throw away what it has. */
  async cancel(): Promise<void> {
    clearTimeout(this.timer);
    this.state = "failed";
    forget(this.lesson);
    await this.tus.abort(true).catch(() => {});
  }

  /** The line is back: no need to wait for the next round. */
  online(): void {
    if (this.state !== "offline") return;
    clearTimeout(this.timer);
    void this.start();
  }

  /** The browser says that there is no line. */
  offline(): void {
    if (this.state === "running") this.lost(new Problem(0, "network", "The connection is lost."));
  }

  private watch(): void {
    clearTimeout(this.timer);
    const quiet = this.sent >= this.file.size ? FINISH : SILENCE;
    this.timer = setTimeout(() => this.lost(new Problem(0, "network", "Nothing gets through at the moment.")), quiet);
  }

  private lost(problem: Problem): void {
    clearTimeout(this.timer);
    void this.tus.abort().catch(() => {});
    this.problem = problem;
    this.set("offline");
    this.timer = setTimeout(() => void this.start(), PAUSES[Math.min(this.attempts, PAUSES.length - 1)]);
    this.attempts += 1;
  }

  private onProgress(sent: number): void {
    if (this.state !== "running") return;
    const now = performance.now();
    if (sent > this.sent) {
      this.attempts = 0;
      this.sent = sent;
      this.watch();
    }
    this.sent = sent;
    this.samples = [...this.samples.filter(({ at }) => at > now - WINDOW), { at: now, sent }];
    keep(this.lesson, { name: this.file.name, size: this.file.size, modified: this.file.lastModified, sent });
    this.changed(this);
  }

  private onSuccess(): void {
    clearTimeout(this.timer);
    this.sent = this.file.size;
    forget(this.lesson);
    this.set("done");
  }

  private onError(error: Error | tus.DetailedError): void {
    if (this.state !== "running") return;
    const response = error instanceof tus.DetailedError ? error.originalResponse : null;
    const status = response?.getStatus() ?? 0;
    const problem = status === 0 ? new Problem(0, "network", "The connection is lost.") : problemFrom(status, response?.getBody() ?? "");
    // 409 and 423: the server still holds the connection that was lost; it lets go of it.
    if (problem.transient || status === 409 || status === 423) return this.lost(problem);
    clearTimeout(this.timer);
    this.problem = problem;
    if (status === 401) {
      // The login ended before the upload did: what was sent is kept, and it goes on after the next login.
      this.set("paused");
      dispatchEvent(new Event(LOGIN_ENDED));
      return;
    }
    forget(this.lesson);
    this.set("failed");
  }

  private set(state: UploadState): void {
    this.state = state;
    if (state === "running" || state === "done") this.problem = null;
    this.changed(this);
  }
}

/** All uploads of this page. */
export class Uploads {
  private readonly all = new Map<string, Upload>();

  constructor(private readonly changed: (upload: Upload) => void) {
    addEventListener("online", () => { for (const upload of this.all.values()) upload.online(); });
    addEventListener("offline", () => { for (const upload of this.all.values()) upload.offline(); });
    addEventListener("beforeunload", (event) => {
      if ([...this.all.values()].some((upload) => upload.active || upload.state === "waiting")) event.preventDefault();
    });
  }

  of(lesson: string): Upload | undefined {
    return this.all.get(lesson);
  }

  add(lesson: string, file: File): Upload {
    const upload = new Upload(lesson, file, (it) => {
      this.changed(it);
      if (!it.active) this.next();
    });
    this.all.set(lesson, upload);
    this.changed(upload);
    this.next();
    return upload;
  }

  async cancel(lesson: string): Promise<void> {
    const upload = this.all.get(lesson);
    this.all.delete(lesson);
    await upload?.cancel();
    this.next();
  }

  private next(): void {
    const running = [...this.all.values()].filter((upload) => upload.active).length;
    const waiting = [...this.all.values()].filter((upload) => upload.state === "waiting");
    for (const upload of waiting.slice(0, Math.max(0, AT_ONCE - running))) void upload.start();
  }
}

function stored(): Record<string, Unfinished> {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return typeof value === "object" && value !== null ? (value as Record<string, Unfinished>) : {};
  } catch {
    return {};
  }
}

function store(all: Record<string, Unfinished>): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(Object.entries(all).slice(-REMEMBERED))));
  } catch {
    // Without storage an upload can't be taken up after a reload; while the page is open it can.
  }
}

/** What is known of an upload that an earlier page began for this lesson. */
export function unfinished(lesson: string): Unfinished | undefined {
  return stored()[lesson];
}

let kept = 0;

function keep(lesson: string, upload: Unfinished): void {
  if (performance.now() - kept < 1000) return;
  kept = performance.now();
  store({ ...stored(), [lesson]: upload });
}

function forget(lesson: string): void {
  const all = stored();
  delete all[lesson];
  store(all);
}
