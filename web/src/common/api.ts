// The origin's JSON API as the pages use it. Requests carry the HttpOnly cookie that logging in set; the page itself
// never keeps a key. Errors are RFC 9457 problems and keep their code and words.

/** Why a request failed: the origin's own problem+json, or what stood in its way. */
export class Problem extends Error {
  override readonly name = "Problem";

  constructor(
    /** The HTTP status; 0 when no answer came. */
    readonly status: number,
    /** The stable code of the design (`not_entitled`, `token_expired` …); `network` when no answer came. */
    readonly code: string,
    /** One sentence for the person in front of the page. */
    readonly detail: string,
  ) {
    super(detail);
  }

  /** Whether the same request may succeed later without anybody changing anything. */
  get transient(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Reads a refusal's body into a problem, whatever the body is. */
export function problemFrom(status: number, body: string): Problem {
  let code = `http_${status}`;
  let detail = "";
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === "object" && json !== null) {
      const fields = json as Record<string, unknown>;
      if (typeof fields["code"] === "string") code = fields["code"];
      if (typeof fields["detail"] === "string") detail = fields["detail"];
      else if (typeof fields["title"] === "string") detail = fields["title"];
    }
  } catch {
    // A proxy's HTML or nothing at all: the status has to do.
  }
  return new Problem(status, code, detail || `The server answered ${status} without saying why.`);
}

/** Sent to the window when the origin no longer knows who asks. */
export const LOGIN_ENDED = "lyceum:login-ended";

/** Longest wait for an answer of the API, in milliseconds. */
const ANSWER_WITHIN = 20_000;

/** Calls the origin that served this page. A file goes as it is, anything else as JSON. A 204 answers undefined. */
export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json, application/problem+json" };
  const init: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN) };
  if (body instanceof Blob) {
    init.body = body;
  } else if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, init);
    text = await response.text();
  } catch {
    throw new Problem(0, "network", "The server can't be reached. Check the connection and try again.");
  }
  if (!response.ok) {
    if (response.status === 401) dispatchEvent(new Event(LOGIN_ENDED));
    throw problemFrom(response.status, text);
  }
  if (text === "") return undefined as T;
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new Problem(response.status, "bad_answer", "The server's answer could not be read.");
  }
}

/** What an error says to the person who sees it. */
export function words(error: unknown): string {
  return error instanceof Problem ? error.detail : error instanceof Error ? error.message : String(error);
}

export interface Course {
  id: string;
  title: string;
  /** Whether its new lessons are encrypted. */
  encrypt: boolean;
}

/** Who is logged in, and what they may upload. */
export interface Me {
  uploads: { quota: number | null; used: number | null };
}

export interface Subtitles {
  language: string;
  title: string;
  /** Part of the recording, and not to be taken away. */
  embedded: boolean;
}

export type LessonState = "awaiting_upload" | "uploading" | "queued" | "transcoding" | "ready" | "failed";

export interface Rendition {
  height: number;
  codec: string;
  bandwidth: number;
}

export interface Lesson {
  id: string;
  course: string;
  title: string;
  state: LessonState;
  playable: boolean;
  progress: number;
  duration: number | null;
  renditions: Rendition[];
  error: { code: string; detail: string } | null;
  /** What the creator should know of a recording that plays all the same. */
  warnings: { code: string; detail: string }[];
  /** Whether what is uploaded from now on is encrypted. */
  encrypt: boolean;
}

export interface Playback {
  url: string;
  urls: string[];
  token: string;
  session: string;
  /** RFC 3339, or seconds since 1970. */
  expires_at: string | number;
}
