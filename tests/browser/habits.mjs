// What viewers do: keys, menus, coming back later.
//
//   node habits.mjs --player URL --url PLAYBACK_URL [--screenshot FILE]
//
// Last line of stdout: {"done": [...]}; a habit that the page doesn't honour ends the story with its name.

import { bare, options, story, until } from "./chromium.mjs";

const given = options({ player: "", url: "", screenshot: "", viewport: "1280x800", dark: false });
if (!given.player || !given.url) {
  console.error("--player and --url are needed");
  process.exit(2);
}

await story({ viewport: given.viewport, dark: given.dark }, async (page) => {
  const done = [];
  const look = () => page.evaluate(() => {
    const video = document.querySelector("video") ?? document.createElement("video");
    const { playedSeconds = 0, level = null, automatic = true, fatal = null } = window.lyceumPlayer ?? {};
    return { at: video.currentTime, duration: video.duration, paused: video.paused, rate: video.playbackRate, muted: video.muted, playedSeconds, height: level?.height, automatic, fatal };
  });
  const habit = async (name, act, holds) => {
    const before = await look();
    await act();
    await until(name, 15_000, async () => holds(await look(), before));
    done.push(name);
  };
  const open = async () => {
    await page.goto("about:blank");
    await page.goto(`${bare(given.player)}/#${given.url}`);
  };
  const near = (a, b, by = 2.5) => Math.abs(a - b) < by;

  await habit("plays by itself", open, (now) => now.playedSeconds > 1);
  await habit("K pauses", () => page.keyboard.press("k"), (now) => now.paused);
  await habit("space plays", () => page.keyboard.press(" "), (now) => !now.paused);
  await page.keyboard.press("k");
  await habit("L goes ten seconds on", () => page.keyboard.press("l"), (now, before) => near(now.at, before.at + 10, 0.5));
  await habit("left goes five seconds back", () => page.keyboard.press("ArrowLeft"), (now, before) => near(now.at, before.at - 5, 0.5));
  await habit("5 goes to the middle", () => page.keyboard.press("5"), (now) => near(now.at, now.duration / 2, 0.5));
  await habit("M mutes", () => page.keyboard.press("m"), (now, before) => now.muted !== before.muted);
  await habit("> is faster", () => page.keyboard.press(">"), (now) => now.rate === 1.25);
  await habit("the menu sets the speed", () => page.selectOption("#speed", "1.5"), (now) => now.rate === 1.5);
  await habit("keys rest while a menu has the focus", () => page.focus("#speed").then(() => page.keyboard.press("k")), (now) => now.paused);
  await page.evaluate(() => document.activeElement?.blur());
  const lowest = await page.evaluate(() => window.lyceumPlayer.levels.indexOf(Math.min(...window.lyceumPlayer.levels)));
  await habit("the menu sets the quality", async () => {
    await page.selectOption("#quality", String(lowest));
    await page.evaluate(() => document.querySelector("video").play());
  }, (now) => !now.automatic);
  const least = await page.evaluate(() => Math.min(...window.lyceumPlayer.levels));
  await until(`${least}p plays`, 20_000, async () => (await look()).height === least);
  await habit("and back to automatic", () => page.selectOption("#quality", "-1"), (now) => now.automatic);
  // Long enough for the page to keep the position.
  await page.waitForTimeout(2500);
  const left = (await look()).at;
  await habit("a second visit goes on where the first one stopped", open, (now) => now.playedSeconds > 0.2 && now.at > left - 4 && now.at < left + 6);
  const rate = (await look()).rate;
  if (rate !== 1.5) throw new Error(`the speed is ${rate} after a reload`);
  done.push("the speed is remembered");
  if (given.screenshot) await page.screenshot({ path: given.screenshot });
  await habit("start over does", () => page.click("#whisper button"), (now) => now.at < 5);
  const { fatal } = await look();
  return { done, fatal };
});
