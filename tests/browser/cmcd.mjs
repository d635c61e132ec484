// Judges the CMCD that a page really sent: version 1 on requests by Montevideo Tech's validator, version 2 event
// reports by the Common Media Library's.

import { webcrypto } from "node:crypto";

import { validateCmcdEventReport } from "@svta/cml-cmcd";

// Debian 12's Node.js has no global of this name yet, which the validator reads when it is loaded.
globalThis.crypto ??= webcrypto;
const { default: validator } = await import("@montevideo-tech/cmcd-validator");

/** The validator's own logging is meant for people. */
function quietly(work) {
  const { log, info, warn, error, debug } = console;
  Object.assign(console, { log() {}, info() {}, warn() {}, error() {}, debug() {} });
  try {
    return work();
  } finally {
    Object.assign(console, { log, info, warn, error, debug });
  }
}

/** Listens to a page; `result()` says what was sent and what was wrong with it. */
export function listen(page) {
  const found = { requests: 0, reports: 0, states: [], keys: [], invalid: [] };
  const keys = new Set();
  const fault = (what) => { if (found.invalid.length < 20) found.invalid.push(what); };
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.pathname.endsWith("/cmcd") && request.method() === "POST") {
      found.reports += 1;
      const body = request.postData() ?? "";
      const verdict = validateCmcdEventReport({ url: request.url(), method: "POST", headers: { "Content-Type": request.headers()["content-type"] ?? "" }, body });
      for (const issue of verdict.issues ?? []) if (issue.severity === "error") fault(`report: ${issue.message}`);
      for (const event of verdict.data ?? []) {
        Object.keys(event).forEach((key) => keys.add(key));
        if (event.e === "ps") found.states.push(String(event.sta));
      }
      return;
    }
    if (!url.searchParams.has("CMCD")) return;
    found.requests += 1;
    const verdict = quietly(() => validator.CMCDQueryValidator(request.url()));
    for (const error of verdict.errors ?? []) fault(`request: ${error.key ?? ""} ${error.description}`);
  });
  return { result: () => ({ ...found, keys: [...keys].sort() }) };
}
