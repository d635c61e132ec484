// What the viewer's line gave last time, so that a film starts neither blurred on a good line nor late on a poor one.

const KEY = "lyceum.line";
/** A measure older than this (milliseconds) says little: the viewer may be elsewhere. */
const FRESH = 12 * 3600_000;
/** Of what the line gave, so much is counted on. */
const CAUTION = 0.8;
/** For a line that nobody has measured yet, bits per second; and the least and most that is believed. */
const UNKNOWN = 1_000_000;
const BOUNDS = { least: 200_000, most: 100_000_000 };

/** Bits per second to expect. */
export function expected(): number {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "null");
    if (typeof stored !== "object" || stored === null) return UNKNOWN;
    const { bits, at } = stored as Record<string, unknown>;
    if (typeof bits !== "number" || typeof at !== "number" || !(Date.now() - at < FRESH)) return UNKNOWN;
    return Math.min(BOUNDS.most, Math.max(BOUNDS.least, bits * CAUTION));
  } catch {
    return UNKNOWN;
  }
}

/** Keeps what the line gave, bits per second. */
export function measured(bits: number): void {
  if (!Number.isFinite(bits) || bits <= 0) return;
  try {
    localStorage.setItem(KEY, JSON.stringify({ bits: Math.round(bits), at: Date.now() }));
  } catch {
    // Without storage each film starts carefully.
  }
}
