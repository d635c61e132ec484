// Where the film comes from: the edges' addresses, the token in them, and when it has to be renewed. Either a playback
// link from the page's fragment, which is what it is, or a session that the origin gives to someone who is logged in.

import { call, Problem, type Playback } from "../common/api";
import { carry, host, parse, type Address } from "./address";

/** How long an edge that failed is passed over while another one is there, in milliseconds. */
const REST = 30_000;
/** How many former addresses are remembered, so that requests made from older playlists still find their way. */
const FORMER = 64;
/** How many edges of one answer are used. */
const EDGES = 16;
/** Renewal comes when a tenth of the token's life is left, within these bounds (milliseconds). */
const MARGIN = { least: 20_000, most: 15 * 60_000 };
/** Pause between attempts to renew, in milliseconds. */
const AGAIN = 15_000;

export interface Edge extends Address {
  /** When it failed last, in milliseconds of the page's clock; -Infinity: never. */
  failed: number;
}

/** Reads `expires_at`, a date or seconds since 1970, as milliseconds since 1970. */
export function expiry(value: string | number): number {
  return typeof value === "number" ? value * 1000 : Date.parse(value);
}

/** How long before its end a token of this remaining life is renewed, in milliseconds. */
export function margin(life: number): number {
  return Math.min(MARGIN.most, Math.max(MARGIN.least, life / 10), life / 2);
}

export class Source {
  private edges: Edge[] = [];
  private at = 0;
  private former: string[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private renewing: Promise<boolean> | undefined;
  private renewed = -Infinity;
  /** The origin's name for this viewing; "" for a plain link. */
  session = "";
  /** Why the last renewal failed. */
  problem: Problem | null = null;
  /** Milliseconds since 1970; NaN where it isn't known. */
  expires = NaN;
  /** Called when requests begin to go to another edge. */
  onMove: (to: string) => void = () => {};

  private constructor(private readonly ask: ((session: string) => Promise<Playback>) | null) {}

  /** A playback link, good for as long as its token. */
  static link(url: string): Source {
    const source = new Source(null);
    source.take([url]);
    return source;
  }

  /** A lesson for the person who is logged in; a user may be named by those whose role lets them. */
  static async lesson(lesson: string, user: string | null): Promise<Source> {
    const source = new Source((session) =>
      call<Playback>("POST", "/v1/playback", { lesson, ...(user ? { user } : {}), ...(session ? { session } : {}) }));
    await source.start();
    return source;
  }

  get current(): Edge {
    const edge = this.edges[this.at] ?? this.edges[0];
    if (!edge) throw new Problem(0, "no_edge", "There is no address to play from.");
    return edge;
  }

  /** The hosts that this lesson can come from, for people. */
  get hosts(): string[] {
    return this.edges.map((edge) => host(edge.base));
  }

  get url(): string {
    return this.current.base + this.current.path;
  }

  get renewable(): boolean {
    return this.ask !== null;
  }

  /** The address that a request should use now, whatever edge and token it was written for. */
  address(url: string): string {
    return carry(url, this.former, this.current.base);
  }

  /** An edge did not answer, or answered that it can't: the next requests go to the one that failed longest ago. */
  failed(url: string): void {
    const now = performance.now();
    const bad = this.edges.find((edge) => url.startsWith(`${edge.base}/`));
    if (!bad) return;
    bad.failed = now;
    if (bad !== this.current || this.edges.length < 2) return;
    let best = this.at;
    for (const [index, edge] of this.edges.entries()) {
      const over = this.edges[best];
      if (edge !== bad && (best === this.at || (over && edge.failed < over.failed))) best = index;
    }
    const next = this.edges[best];
    // Both failed a moment ago: staying is as good, and the requests' own pauses keep them from flapping.
    if (!next || (next.failed > now - 1000 && next.failed > -Infinity)) return;
    this.at = best;
    this.onMove(host(next.base));
  }

  /** Whether every edge has failed within the last half minute. */
  get allFailed(): boolean {
    const now = performance.now();
    return this.edges.every((edge) => edge.failed > now - REST);
  }

  /** Gets a fresh token; the requests that follow use it. False when there is none to be had. */
  renew(): Promise<boolean> {
    if (!this.ask) return Promise.resolve(false);
    // Several segments may be refused at once: one renewal answers them all.
    if (performance.now() - this.renewed < 2000) return Promise.resolve(true);
    return this.again();
  }

  private again(): Promise<boolean> {
    this.renewing ??= this.start()
      .then(() => true, () => false)
      .finally(() => { this.renewing = undefined; });
    return this.renewing;
  }

  close(): void {
    clearTimeout(this.timer);
  }

  private async start(): Promise<void> {
    if (!this.ask) return;
    try {
      // Renewed, the session goes on under its id: a new one would count as a second stream of the same viewer.
      const over = this.session !== "" && Date.now() >= this.expires;
      const answer = await this.ask(over ? "" : this.session);
      this.problem = null;
      this.take([answer.url, ...answer.urls]);
      this.session = answer.session;
      this.expires = expiry(answer.expires_at);
      this.renewed = performance.now();
      const life = this.expires - Date.now();
      if (Number.isFinite(life)) this.plan(life - margin(Math.max(0, life)));
    } catch (error) {
      this.problem = error instanceof Problem ? error : null;
      if (this.edges.length > 0 && error instanceof Problem && error.transient) this.plan(AGAIN);
      throw error;
    }
  }

  private plan(delay: number): void {
    clearTimeout(this.timer);
    // Timers hold 31 bits; a token of more than 24 days is simply looked at again then.
    this.timer = setTimeout(() => void this.again(), Math.min(Math.max(delay, 1000), 2 ** 31 - 1));
  }

  private take(urls: string[]): void {
    const addresses = [...new Set(urls)].slice(0, EDGES).map(parse).filter((address): address is Address => address !== null);
    if (addresses.length === 0) throw new Problem(0, "bad_link", "This is no playback link.");
    const before = this.edges[this.at];
    const old = new Map(this.edges.map((edge) => [new URL(edge.base).origin, edge.failed]));
    this.edges = addresses.map((address) => ({ ...address, failed: old.get(new URL(address.base).origin) ?? -Infinity }));
    // A renewal keeps to the edge that plays now, whose memory is warm.
    const same = before ? this.edges.findIndex((edge) => new URL(edge.base).origin === new URL(before.base).origin) : 0;
    this.at = Math.max(0, same);
    for (const edge of this.edges) {
      if (!this.former.includes(edge.base)) this.former.push(edge.base);
    }
    this.former = this.former.slice(-FORMER);
  }
}
