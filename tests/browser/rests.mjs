// A page that asks now and then, over a connection that has rested in between.
//
//   node rests.mjs --url URL
//
// Asks twice for each line on stdin and says {"protocol", "opened": how many connections it took}. Ends with stdin's end.

import { bare, line, options, story } from "./chromium.mjs";

const { url } = options({ url: "" });
if (!url) {
  console.error("--url is needed");
  process.exit(2);
}

await story({ insecure: true }, async (page) => {
  await page.goto(`${bare(url)}/page`);
  for (let round = 0; ; round += 1) {
    if ((await line()) !== "ask") return { rounds: round };
    const told = await page.evaluate(async (round) => {
      const texts = [];
      for (const path of [`/a-${round}`, `/b-${round}`]) {
        // A field that header compression learns by heart.
        texts.push(await (await fetch(path, { headers: { "x-by-heart": "the same each time" } })).text());
      }
      const asked = performance.getEntriesByType("resource").slice(-2);
      return { texts, protocol: asked[1].nextHopProtocol, opened: asked.filter((entry) => entry.connectEnd > entry.connectStart).length };
    }, round);
    console.log(JSON.stringify(told));
  }
});
