// Judges the pages' accessibility with axe-core, WCAG 2.1 A and AA: front page, login, studio with a dialog, player.
//
//   node access.mjs --studio URL --player URL --key API_KEY --url PLAYBACK_URL [--dark] [--viewport 390x844]
//
// Last line of stdout: {"pages": [{"page", "violations": [{"id", "impact", "where"}]}], "complaints"}

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { bare, options, story } from "./chromium.mjs";

const given = options({ studio: "", player: "", key: "", url: "", viewport: "1280x800", dark: false });
if (!given.studio || !given.player || !given.key || !given.url) {
  console.error("--studio, --player, --key and --url are needed");
  process.exit(2);
}
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

await story({ viewport: given.viewport, dark: given.dark }, async (page) => {
  const pages = [];
  const judge = async (name) => {
    // Evaluated by the debugger, not by the page: the pages' CSP would not let a foreign script in.
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
    pages.push({
      page: name,
      checked: found.passes.length,
      violations: found.violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.slice(0, 4).map((node) => node.html.slice(0, 160)) })),
    });
  };
  const studio = bare(given.studio);
  await page.goto(`${new URL(studio).origin}/`);
  await judge("front");
  await page.goto(`${studio}/`);
  await page.waitForSelector("#key");
  await judge("login");
  await page.goto("about:blank");
  await page.goto(`${studio}/#key=${encodeURIComponent(given.key)}`);
  await page.waitForSelector(".lesson");
  await judge("studio");
  await page.click("[data-action=give-access]");
  await page.waitForSelector("dialog[open]");
  await judge("dialog");
  await page.goto(`${bare(given.player)}/#${given.url}`);
  await page.waitForFunction(() => (window.lyceumPlayer?.playedSeconds ?? 0) > 0.5, undefined, { timeout: 30_000 });
  await page.click("#help summary");
  await judge("player");
  await page.goto("about:blank");
  await page.goto(`${bare(given.player)}/`);
  await page.waitForSelector("#curtain:not([hidden])");
  await judge("nothing to play");
  return { pages };
});
