// A creator with a quota sees how much of it is used: nothing at first, a recording's bytes once it is there, in words why
// a file that is too large is refused, and room again after a deletion.
//
//   node quota.mjs --studio http://127.0.0.1:8080/studio --key API_KEY --file recording.mp4 --large large.mp4
//
// Last line of stdout: {"meters": [{"value", "line"}, …] at first, with the recording, after the refusal, after the
// deletion, "refused": the page's words, …}

import { bare, options, story, until } from "./chromium.mjs";

const given = options({ studio: "", key: "", file: "", large: "" });
if (!given.studio || !given.key || !given.file || !given.large) {
  console.error("--studio, --key, --file and --large are needed");
  process.exit(2);
}

await story({}, async (page) => {
  await page.goto(`${bare(given.studio)}/#key=${encodeURIComponent(given.key)}`);
  await page.click("[data-action=new-course] >> nth=0");
  await page.fill("dialog [name=title]", "Under a quota");
  await page.press("dialog [name=title]", "Enter");
  await page.waitForSelector('h1:has-text("Under a quota")');
  await page.waitForSelector("#recordings", { state: "attached" });

  const meter = () => page.evaluate(() => {
    const shown = document.querySelector(".quota:not([hidden])");
    return shown && { value: shown.querySelector("meter").value, line: shown.querySelector("p").textContent };
  });
  const cards = () => page.$$eval(".lesson", (all) => all.map((card) => card.dataset.lesson));
  const add = async (file) => {
    const before = await cards();
    await page.setInputFiles("#recordings", file);
    const lesson = await until("a card for the new lesson", 20_000, async () => (await cards()).find((id) => !before.includes(id)));
    return page.locator(`.lesson[data-lesson="${lesson}"]`);
  };
  const meters = [await until("a meter", 20_000, async () => (await meter()) ?? undefined)];

  const kept = await add(given.file);
  meters.push(await until("the recording to be counted", 60_000, async () => {
    const now = await meter();
    return now && now.value > 0 ? now : undefined;
  }));

  const large = await add(given.large);
  const alert = large.locator("[role=alert]");
  await alert.waitFor({ timeout: 60_000 });
  const refused = await alert.innerText();
  meters.push(await meter());

  await kept.locator("[data-action=delete]").click();
  await page.click('dialog button:has-text("Delete lesson")');
  meters.push(await until("room again", 60_000, async () => {
    const now = await meter();
    return now && now.value === 0 ? now : undefined;
  }));
  return { meters, refused };
});
