// Plays a lesson on the player page and says what a viewer would have seen.
//
//   node play.mjs --player http://127.0.0.1:8080/watch --url PLAYBACK_URL --seconds 20
//   node play.mjs --player … --lesson ID --key API_KEY [--user NAME] --seconds 20
//   --midway N      after N played seconds prints {"midway": …}, and goes on counting once a line came on stdin
//   --screenshot F  takes a picture at the end;  --viewport 390x844  --dark
//   --expect CODE   the page should refuse with this code instead of playing
//   --speed 2       plays faster, by the page's own menu
//   --line 1500000  a line of so many bits a second, so that the film isn't all there after a moment
//   --until-end     plays to the end, whatever --seconds says
//
// The last line of stdout: {"played", "wall", "stalls", "stallMs", "startupMs", "fatal", "errors", "decodedFrames",
// "height", "edge", "ended", "refusal", "cmcd", "complaints"}. `played` comes from `video.played`.

import { listen } from "./cmcd.mjs";
import { bare, line, options, story, until } from "./chromium.mjs";

const given = options({
  player: "", url: "", lesson: "", user: "", key: "", seconds: "10", midway: "", within: "", screenshot: "", viewport: "1280x800", dark: false,
  expect: "", speed: "1", from: "", line: "", "until-end": false,
});
if (!given.player || (!given.url && !given.lesson)) {
  console.error("--player and one of --url, --lesson are needed");
  process.exit(2);
}
const seconds = Number(given.seconds);
const within = Number(given.within || seconds / Number(given.speed) + 60) * 1000;

/** What the page says of itself, beside the video element's own figures. */
const look = () => {
  const video = document.querySelector("video");
  const state = window.lyceumPlayer;
  const curtain = document.querySelector("#curtain");
  let played = 0;
  for (let i = 0; i < video.played.length; i += 1) played += video.played.end(i) - video.played.start(i);
  return {
    played,
    position: video.currentTime,
    duration: Number.isFinite(video.duration) ? video.duration : null,
    ended: video.ended,
    decodedFrames: video.getVideoPlaybackQuality().totalVideoFrames,
    droppedFrames: video.getVideoPlaybackQuality().droppedVideoFrames,
    stalls: state?.stalls ?? 0,
    stallMs: Math.round(state?.stallMs ?? 0),
    startupMs: state?.startupMs == null ? null : Math.round(state.startupMs),
    fatal: state?.fatal ?? null,
    errors: state?.errors ?? [],
    height: state?.level?.height ?? null,
    levels: state?.levels ?? [],
    edge: state?.edge ?? null,
    session: state?.session ?? null,
    buffered: state?.buffered ?? 0,
    refusal: curtain.hidden ? null : { title: curtain.querySelector("h2")?.textContent, code: curtain.querySelector("code")?.textContent },
  };
};

await story({ viewport: given.viewport, dark: given.dark }, async (page, context) => {
  const cmcd = listen(page);
  const media = { requests: 0, refused: 0, bytes: 0, hosts: {} };
  page.on("response", async (response) => {
    const url = new URL(response.url());
    if (!/\.(m4s|mp4|m3u8)$/.test(url.pathname)) return;
    media.requests += 1;
    media.hosts[url.host] = (media.hosts[url.host] ?? 0) + 1;
    if (response.status() >= 400) media.refused += 1;
    else media.bytes += Number(response.headers()["content-length"] ?? 0);
  });
  const player = bare(given.player);
  if (given.lesson) {
    const origin = new URL(player).origin;
    const answer = await context.request.post(`${origin}/v1/login`, { data: { key: given.key }, headers: { Origin: origin } });
    if (!answer.ok()) throw new Error(`login answered ${answer.status()}: ${await answer.text()}`);
  }
  if (given.line) {
    const network = await context.newCDPSession(page);
    await network.send("Network.enable");
    await network.send("Network.emulateNetworkConditions", { offline: false, latency: 20, downloadThroughput: Number(given.line) / 8, uploadThroughput: -1 });
  }
  const began = performance.now();
  await page.goto(given.lesson ? `${player}/?lesson=${given.lesson}${given.user ? `&user=${encodeURIComponent(given.user)}` : ""}` : `${player}/#${given.url}`);

  if (given.expect) {
    await until(`refusal ${given.expect}`, within, async () => (await page.evaluate(look)).refusal);
    const state = await page.evaluate(look);
    if (given.screenshot) await page.screenshot({ path: given.screenshot });
    return { ...state, media, cmcd: cmcd.result() };
  }

  if (given.speed !== "1") await page.selectOption("#speed", given.speed);
  if (given.from) {
    await until("metadata", within, async () => (await page.evaluate(look)).duration);
    await page.evaluate((at) => { document.querySelector("video").currentTime = at; }, Number(given.from));
  }
  if (given.midway) {
    await until(`${given.midway} s played before midway`, within, async () => (await page.evaluate(look)).played >= Number(given.midway));
    console.log(JSON.stringify({ midway: { ...(await page.evaluate(look)), media: { ...media, hosts: { ...media.hosts } } } }));
    await line();
  }
  try {
    await until(`${seconds} s played`, within, async () => {
      const state = await page.evaluate(look);
      return (state.played >= seconds && !given["until-end"]) || state.ended || state.refusal;
    });
  } catch (error) {
    throw new Error(`${error.message}; ${JSON.stringify(await page.evaluate(look))}; CMCD ${JSON.stringify(cmcd.result())}`);
  }
  const state = await page.evaluate(look);
  if (given.screenshot) await page.screenshot({ path: given.screenshot });
  return { ...state, wall: Math.round(performance.now() - began) / 1000, media, cmcd: cmcd.result() };
});
