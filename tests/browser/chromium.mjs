// Debian's Chromium, driven through playwright-core, and the small habits the stories share: options as --name value,
// one JSON object as the last line of stdout, exit code 0 when the story could be told.

import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
  // A page in a headless window counts as watched.
  "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
];

/** The command line's options: strings by name, with defaults. Unknown ones are an error. */
export function options(defaults) {
  const spec = Object.fromEntries(Object.entries(defaults).map(([name, value]) => [name, typeof value === "boolean" ? { type: "boolean", default: value } : { type: "string", default: value }]));
  try {
    return parseArgs({ options: spec, strict: true }).values;
  } catch (error) {
    console.error(error.message);
    process.exit(2);
  }
}

/** Runs a story with a page of its own and always closes the browser. `view`: {viewport: "1280x800", dark, autoplay, insecure: certificates
 *  that nobody knows are taken}. */
export async function story({ viewport = "1280x800", dark = false, autoplay = true, insecure = false } = {}, tell) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) {
    console.error(`${executablePath} is missing: scripts/setup test installs it`);
    process.exit(2);
  }
  const [width, height] = viewport.split("x").map(Number);
  const args = autoplay ? [...FLAGS, "--autoplay-policy=no-user-gesture-required"] : [...FLAGS, "--autoplay-policy=user-gesture-required"];
  const browser = await chromium.launch({ executablePath, headless: true, args });
  let code = 0;
  try {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", ignoreHTTPSErrors: insecure });
    const page = await context.newPage();
    const complaints = [];
    page.on("console", (message) => { if (message.type() === "error") complaints.push(withoutTokens(message.text())); });
    page.on("pageerror", (error) => complaints.push(`uncaught: ${withoutTokens(error.message)}`));
    const result = await tell(page, context);
    console.log(JSON.stringify({ ...result, complaints }));
  } catch (error) {
    console.error(withoutTokens(error.stack ?? String(error)));
    code = 1;
  } finally {
    await browser.close();
  }
  process.exit(code);
}

/** A page's address without a slash at its end and without what a link adds to it. */
export function bare(address) {
  return address.replace(/[#?].*$/, "").replace(/\/$/, "");
}

/** Tokens stay out of what tests print. */
export function withoutTokens(text) {
  return text.replace(/\/t\/[^/\s"]+/g, "/t/…").replace(/([?&#](?:token|key)=)[^&\s"]+/g, "$1…");
}

/** Resolves with the next line on stdin. */
export function line() {
  return new Promise((resolve) => {
    let text = "";
    const take = (chunk) => {
      text += chunk;
      if (!text.includes("\n")) return;
      process.stdin.off("data", take);
      process.stdin.pause();
      resolve(text.split("\n", 1)[0]);
    };
    process.stdin.on("data", take);
    // Paused by the line before, it does not go on by itself.
    process.stdin.resume();
  });
}

/** Asks until the answer is truthy or the time (milliseconds) is over; then throws with the last state. */
export async function until(what, within, ask) {
  const end = performance.now() + within;
  let answer;
  while (performance.now() < end) {
    answer = await ask();
    if (answer) return answer;
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  throw new Error(`not within ${within / 1000} s: ${what}`);
}
