// Keeps lessons fresh: by server-sent events for the few that matter most, by asking now and then for the rest. A
// browser has about six connections to a server over HTTP/1.1, and uploads need some of them.

import { call, type Lesson } from "../common/api";

/** Event streams open at once. */
const STREAMS = 2;
/** How often the other lessons in work are asked for, in milliseconds. */
const EVERY = 5000;

export function settled(lesson: Lesson): boolean {
  return lesson.state === "ready" || lesson.state === "failed" || lesson.state === "awaiting_upload";
}

export class Follower {
  private readonly streams = new Map<string, EventSource>();
  private readonly wanted = new Map<string, number>();
  private readonly timer: ReturnType<typeof setInterval>;

  constructor(private readonly changed: (lesson: Lesson) => void) {
    this.timer = setInterval(() => void this.poll(), EVERY);
  }

  /** Follows a lesson until it is settled; the newest wish gets a stream first. */
  follow(id: string): void {
    if (this.wanted.has(id)) return;
    this.wanted.set(id, performance.now());
    this.arrange();
  }

  leave(id: string): void {
    this.wanted.delete(id);
    this.streams.get(id)?.close();
    this.streams.delete(id);
    this.arrange();
  }

  close(): void {
    clearInterval(this.timer);
    for (const stream of this.streams.values()) stream.close();
    this.streams.clear();
    this.wanted.clear();
  }

  private arrange(): void {
    for (const id of this.wanted.keys()) {
      if (this.streams.size >= STREAMS) return;
      if (!this.streams.has(id)) this.open(id);
    }
  }

  private open(id: string): void {
    const stream = new EventSource(`/v1/lessons/${id}/events`);
    this.streams.set(id, stream);
    stream.addEventListener("lesson", (event: MessageEvent<string>) => {
      try {
        this.take(JSON.parse(event.data) as Lesson);
      } catch {
        // One unreadable event is no reason to stop; the next one or a poll will do.
      }
    });
    stream.addEventListener("error", () => {
      // EventSource reconnects by itself unless the server refused; polling goes on in both cases.
      if (stream.readyState === EventSource.CLOSED) this.streams.delete(id);
    });
  }

  private take(lesson: Lesson): void {
    if (!this.wanted.has(lesson.id)) return;
    if (settled(lesson)) this.leave(lesson.id);
    this.changed(lesson);
  }

  private async poll(): Promise<void> {
    for (const id of [...this.wanted.keys()]) {
      if (this.streams.get(id)?.readyState === EventSource.OPEN) continue;
      try {
        this.take(await call<Lesson>("GET", `/v1/lessons/${id}`));
      } catch {
        // The next round tries again.
      }
    }
    this.arrange();
  }
}
