// Playback addresses, `https://edge/t/{token}/v/{lesson}/master.m3u8`, and how one request's address is carried over
// to another edge or a newer token. Pure.

/** The part of a playback URL that changes with edge and token, and the part that does not. */
export interface Address {
  /** `https://edge/t/{token}`: no slash at its end. */
  base: string;
  /** `/v/{lesson}/master.m3u8`, with its query. */
  path: string;
  /** The lesson's id, or "" where the path is not one of Lyceum's. */
  lesson: string;
}

/** Takes a playback URL apart; null when it is not one. Plain URLs without a token have an empty token part. */
export function parse(text: string): Address | null {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  const match = /^(\/t\/[^/]+)?(\/.+)$/.exec(url.pathname);
  if (!match) return null;
  const path = match[2] ?? "";
  // A token in the query takes the form that segments and reports inherit, as the edge's own redirect would do.
  const token = match[1] ? null : url.searchParams.get("token");
  if (token && /^[\w.~-]+$/.test(token)) {
    url.searchParams.delete("token");
    match[1] = `/t/${token}`;
  }
  const lesson = /^\/v\/([a-z0-9]{1,32})\//.exec(path)?.[1] ?? "";
  return { base: url.origin + (match[1] ?? ""), path: path + url.search, lesson };
}

/** Where the edge of this address takes CMCD reports (design §4). */
export function reportsTo(base: string): string {
  return `${base}/cmcd`;
}

/** The host that a person would name, without the token. */
export function host(base: string): string {
  try {
    return new URL(base).host;
  } catch {
    return "";
  }
}

/** Carries a request that begins with any of `known` over to `current`; others stay as they are. */
export function carry(url: string, known: Iterable<string>, current: string): string {
  if (url.startsWith(`${current}/`)) return url;
  for (const base of known) {
    if (url.startsWith(`${base}/`)) return current + url.slice(base.length);
  }
  return url;
}
