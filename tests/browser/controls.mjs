// What a creator sets on a lesson: encryption, subtitles, another try at what failed. What a viewer sees beside the film:
// its poster, and a picture of the instant under the pointer.
//
//   node controls.mjs --studio URL --key API_KEY --lesson ID --failed ID --player URL --url PLAYBACK_URL [--shots DIR]
//
// --failed is a lesson that failed. Last line of stdout: {"encrypted", "subtitles", "removed", "retried", "poster", "tile",
// "seek", "complaints"}

import { join } from "node:path";
import { bare, options, story, until } from "./chromium.mjs";

const given = options({ studio: "", key: "", lesson: "", failed: "", player: "", url: "", shots: "", viewport: "1280x800", dark: false });
if (!given.studio || !given.key || !given.lesson || !given.failed || !given.player || !given.url) {
  console.error("--studio, --key, --lesson, --failed, --player and --url are needed");
  process.exit(2);
}

await story({ viewport: given.viewport, dark: given.dark }, async (page) => {
  const shot = async (name) => { if (given.shots) await page.screenshot({ path: join(given.shots, `${name}.png`) }); };
  await page.goto(`${bare(given.studio)}/#key=${encodeURIComponent(given.key)}`);
  const card = page.locator(`.lesson[data-lesson="${given.lesson}"]`);
  await card.waitFor();

  await card.locator("[data-action=settings]").click();
  await page.check("dialog #field-encrypt");
  await shot("settings");
  await page.click("dialog button[type=submit]");
  await page.waitForSelector("dialog", { state: "detached" });
  const encrypted = await card.locator(".facts").innerText();
  await card.locator("[data-action=settings]").click();
  await page.uncheck("dialog #field-encrypt");
  await page.click("dialog button[type=submit]");
  await page.waitForSelector("dialog", { state: "detached" });

  await card.locator("[data-action=subtitles]").click();
  const add = async (language, text) => {
    await page.fill("dialog [name=language]", language);
    await page.setInputFiles("dialog [name=file]", { name: "words.srt", mimeType: "application/x-subrip", buffer: Buffer.from(text) });
    await page.click("dialog button[type=submit]");
  };
  await add("pt-BR", "no subtitles at all");
  const refused = await page.locator("dialog [role=alert]:not([hidden])").innerText();
  await add("pt-BR", "1\n00:00:01,000 --> 00:00:03,000\nBom dia\n");
  await page.waitForSelector("dialog [data-language]");
  const subtitles = await page.$$eval("dialog [data-language]", (rows) => rows.map((row) => row.dataset.language));
  await shot("subtitles");
  await page.click("dialog [data-language] .danger");
  await page.waitForSelector("dialog [data-language]", { state: "detached" });
  const removed = await page.locator("dialog ul").innerText();
  await page.keyboard.press("Escape");

  const failed = page.locator(`.lesson[data-lesson="${given.failed}"]`);
  await failed.scrollIntoViewIfNeeded();
  const reason = await failed.locator("code").innerText();
  await shot("failed");
  const asked = page.waitForResponse((response) => response.url().endsWith(`/v1/lessons/${given.failed}/retry`));
  await failed.locator("[data-action=retry]").click();
  const retried = (await asked).status();
  // It comes to the same end, since the file is what it was.
  await until("the second failure", 60_000, async () => (await failed.getAttribute("data-state")) === "failed" && (await failed.locator("[data-action=retry]").isVisible()));

  await page.goto(`${bare(given.player)}/#${given.url}`);
  const line = page.locator(".board input");
  await line.waitFor({ timeout: 60_000 });
  const poster = await page.evaluate(async () => {
    const image = new Image();
    image.src = document.querySelector("video").poster;
    await image.decode();
    return image.naturalWidth;
  });
  const box = await line.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.waitForSelector(".preview:not([hidden])");
  const tile = await page.evaluate(async () => {
    const { backgroundImage, width, height } = document.querySelector(".tile").style;
    const image = new Image();
    image.src = /^url\("(.*)"\)$/.exec(backgroundImage)[1];
    await image.decode();
    return { width, height, sheet: image.naturalWidth };
  });
  await shot("storyboard");
  await page.mouse.down();
  await page.mouse.up();
  const seek = await until("the film to go there", 15_000, async () => page.evaluate(() => {
    const video = document.querySelector("video");
    const part = video.currentTime / video.duration;
    return Math.abs(part - 0.5) < 0.15 && part;
  }));
  await line.focus();
  const named = await line.getAttribute("aria-valuetext");
  return { encrypted, refused, subtitles, removed, reason, retried, poster, tile, seek, named };
});
