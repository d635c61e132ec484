// Lists of the API come in pages; the studio shows them whole, up to a bound.

import { call } from "../common/api";

/** Pages that are fetched of one list. */
const PAGES = 50;

interface Page<T> {
  items: T[];
  next?: string | null;
}

/** Everything under a list's path. */
export async function all<T>(path: string): Promise<T[]> {
  const found: T[] = [];
  let after: string | null | undefined = null;
  for (let page = 0; page < PAGES; page += 1) {
    const answer: Page<T> = await call<Page<T>>("GET", after ? `${path}?after=${encodeURIComponent(after)}` : path);
    found.push(...answer.items);
    after = answer.next;
    if (!after) break;
  }
  return found;
}
