// Where a learner stopped, lesson by lesson, kept in this browser alone.

const KEY = "lyceum.positions";
/** Lessons that are remembered; the ones watched longest ago are forgotten first. */
const MOST = 200;
/** Below this a start counts as a start, and so close to the end as the end (seconds). */
const EDGE = { begin: 10, end: 15 };

type Positions = Record<string, { at: number; seen: number }>;

function load(): Positions {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return typeof stored === "object" && stored !== null ? (stored as Positions) : {};
  } catch {
    return {};
  }
}

function save(positions: Positions): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(positions));
  } catch {
    // Storage may be full or forbidden: then the lesson starts at its beginning next time.
  }
}

/** Seconds to go on from; 0 for the beginning. */
export function recall(lesson: string): number {
  const at = lesson ? Number(load()[lesson]?.at) : 0;
  return Number.isFinite(at) && at > EDGE.begin ? at : 0;
}

/** Remembers a position; one at the beginning or the end forgets the lesson. */
export function remember(lesson: string, at: number, duration: number, over: boolean): void {
  if (!lesson || !Number.isFinite(at)) return;
  const positions = load();
  if (over || at <= EDGE.begin || (Number.isFinite(duration) && at >= duration - EDGE.end)) delete positions[lesson];
  else positions[lesson] = { at: Math.round(at * 10) / 10, seen: Date.now() };
  const kept = Object.entries(positions).sort(([, a], [, b]) => b.seen - a.seen).slice(0, MOST);
  save(Object.fromEntries(kept));
}
