// A creator's afternoon: logs in, makes a lesson, uploads a recording with visible progress, waits until it is
// playable, presses Play and watches the film run.
//
//   node studio.mjs --studio http://127.0.0.1:8080/studio --key API_KEY --file recording.mp4 --seconds 5
//   --course TITLE       makes a course of that name; else the first one there is
//   --expect failed      waits for the lesson to fail and gives back what the creator reads
//   --reload             reloads the page in the middle of the upload and chooses the file again
//   --offline            takes the line away in the middle of the upload, for some seconds
//   --slow BYTES         a line that uploads so many bytes a second
//   --until-end          watches the film to its end
//   --shots DIR          pictures of the stages: login, uploading, transcoding, playable, playing
//   --viewport 390x844  --dark
//
// Last line of stdout: {"lesson", "states", "uploadFigures", "resumedAt", "playableAfter", "played", "message", "warnings", …}

import { join } from "node:path";
import { bare, options, story, until } from "./chromium.mjs";

const given = options({
  studio: "", key: "", file: "", seconds: "5", course: "", expect: "ready", reload: false, shots: "", viewport: "1280x800", dark: false, within: "180",
  slow: "", "until-end": false, offline: false,
});
if (!given.studio || !given.key || !given.file) {
  console.error("--studio, --key and --file are needed");
  process.exit(2);
}
const within = Number(given.within) * 1000;
const studio = bare(given.studio);

await story({ viewport: given.viewport, dark: given.dark }, async (page, context) => {
  const shot = async (name, of = page) => { if (given.shots) await of.screenshot({ path: join(given.shots, `${name}.png`) }); };

  // The form first, with a key that is wrong by one letter, as it happens to people.
  await page.goto(`${studio}/`);
  await page.fill("#key", `${given.key}x`);
  await page.press("#key", "Enter");
  await page.waitForSelector("form [role=alert]:not([hidden])");
  const refused = await page.textContent("form [role=alert]");
  await shot("login");
  // Then by the link that the demo prints; the key must not stay in the address.
  await page.goto("about:blank");
  await page.goto(`${studio}/#key=${encodeURIComponent(given.key)}`);
  await page.waitForSelector("[data-action=new-course]");
  const address = page.url();

  if (given.course) {
    await page.click("[data-action=new-course] >> nth=0");
    await page.fill("dialog [name=title]", given.course);
    await page.press("dialog [name=title]", "Enter");
    await page.waitForSelector(`h1:has-text("${given.course}")`);
  }
  const line = await context.newCDPSession(page);
  await line.send("Network.enable");
  const connected = (yes) => line.send("Network.emulateNetworkConditions", {
    offline: !yes, latency: given.slow ? 5 : 0, downloadThroughput: -1, uploadThroughput: given.slow ? Number(given.slow) : -1,
  });
  if (given.slow) await connected(true);
  await page.waitForSelector("#recordings", { state: "attached" });
  const before = await page.$$eval(".lesson", (cards) => cards.map((card) => card.dataset.lesson));
  const began = performance.now();
  await page.setInputFiles("#recordings", given.file);
  const lesson = await until("a card for the new lesson", 20_000, async () =>
    (await page.$$eval(".lesson", (cards) => cards.map((card) => card.dataset.lesson))).find((id) => !before.includes(id)));
  const card = page.locator(`.lesson[data-lesson="${lesson}"]`);
  await card.scrollIntoViewIfNeeded();

  const states = [];
  const uploadFigures = [];
  let resumedAt = null;
  let playableAfter = null;
  let cuts = given.offline ? 1 : 0;
  let offline = null;
  let reloads = given.reload ? 1 : 0;
  const shots = new Set();
  const once = async (name) => {
    if (shots.has(name)) return;
    shots.add(name);
    await shot(name);
  };
  await until(`lesson ${lesson} ${given.expect}`, within, async () => {
    const now = await card.evaluate((it) => ({
      state: it.dataset.state,
      playable: it.dataset.playable === "true",
      play: it.querySelector("[data-action=play]") !== null,
      line: it.querySelector("[data-line]")?.textContent ?? "",
      value: it.querySelector("progress")?.value ?? null,
      hint: it.querySelector(".drop")?.textContent ?? "",
    }));
    if (states.at(-1) !== now.state) states.push(now.state);
    if (now.state === "uploading" && now.line && uploadFigures.at(-1) !== now.line) uploadFigures.push(now.line);
    if (now.state === "uploading" && now.value > 0.2 && now.value < 0.9) await once("uploading");
    if (now.state === "transcoding" && now.value > 0.1) await once("transcoding");
    if (cuts > 0 && now.state === "uploading" && now.value > 0.3) {
      cuts -= 1;
      await connected(false);
      const notice = card.locator(".notice.warn");
      await notice.waitFor({ timeout: 30_000 });
      offline = await notice.innerText();
      await shot("offline");
      const waited = await card.evaluate((it) => it.querySelector("progress").value);
      await connected(true);
      await until("the upload to go on by itself", 40_000, async () => (await card.evaluate((it) => it.querySelector("progress")?.value ?? 1)) > waited + 0.02);
    }
    if (reloads > 0 && now.state === "uploading" && now.value > 0.3) {
      reloads -= 1;
      page.once("dialog", (dialog) => void dialog.accept());
      await page.reload();
      await card.waitFor();
      await until("the hint to go on", 20_000, async () => /Choose the same file/.test(await card.innerText()));
      await shot("interrupted");
      await card.locator("input[type=file]").setInputFiles(given.file);
      resumedAt = await until("figures after the reload", 20_000, async () => {
        const value = await card.evaluate((it) => it.querySelector("progress")?.value ?? 0);
        return value > 0 ? value : null;
      });
    }
    if (now.play && playableAfter === null) playableAfter = Math.round(performance.now() - began) / 1000;
    return given.expect === "playable" ? now.play : now.state === given.expect;
  });
  await once("playable");

  const message = (await card.locator("[role=alert]").allInnerTexts()).join(" ");
  const warnings = await card.locator("[data-warning]").allInnerTexts();
  const result = { warnings, lesson, refused, address, states, uploadFigures: uploadFigures.slice(-200), resumedAt, offline, playableAfter, message };
  if (given.expect === "failed") return result;

  const [player] = await Promise.all([context.waitForEvent("page"), card.locator("[data-action=play]").click()]);
  const look = () => player.evaluate(() => {
    const { playedSeconds, position, duration, live, ended, stalls, startupMs, level, errors } = window.lyceumPlayer ?? {};
    return { played: playedSeconds ?? 0, position, duration, live, ended, stalls, startupMs, height: level?.height ?? null, errors };
  }).catch(() => ({ played: 0 }));
  let growing = false;
  const seen = await until(`${given.seconds} s played`, within, async () => {
    const curtain = player.locator("#curtain");
    if (await curtain.isVisible()) throw new Error(`the player says: ${await curtain.innerText()}`);
    const now = await look();
    growing ||= now.live === true;
    return (given["until-end"] ? now.ended : now.played >= Number(given.seconds)) && now;
  });
  await shot("playing", player);
  return { ...result, ...seen, growing };
});
