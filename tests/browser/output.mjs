// Plays what `lyceum-transcoder run` made in Chromium, through hls.js or dash.js as their packages ship them, and says
// what a viewer would have seen and heard.
//
//   node output.mjs --out DIR --with hls|dash [--entry master.m3u8] [--subtitles en] [--speed 2] [--seek 5] [--within 120]
//
// DIR is served with byte ranges. The last line of stdout: {"played", "duration", "ended", "stalls", "errors", "frames",
// "heard", "size", "cues", "languages", "position"}. `heard` is whether sound was decoded.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { options, story, until } from "./chromium.mjs";

const given = options({ out: "", with: "hls", entry: "", subtitles: "", speed: "1", seek: "", within: "120" });
if (!given.out || !["hls", "dash"].includes(given.with)) {
  console.error("--out, and --with hls or dash, are needed");
  process.exit(2);
}
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const LIBRARIES = {
  "/lib/hls.js": here("../../web/node_modules/hls.js/dist/hls.min.js"),
  "/lib/dash.js": here("node_modules/dashjs/dist/modern/umd/dash.all.min.js"),
};
const TYPES = {
  ".html": "text/html", ".js": "text/javascript", ".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml",
  ".mp4": "video/mp4", ".m4s": "video/mp4", ".vtt": "text/vtt", ".jpg": "image/jpeg", ".json": "application/json",
};
const PAGE = "<!doctype html><title>output</title><link rel=icon href=data:,><video muted playsinline></video>"
  + "<script src=/lib/hls.js></script><script src=/lib/dash.js></script>";

/** Serves the output at /out/, the players at /lib/, and the page. */
const server = createServer(async (request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  if (path === "/") return response.writeHead(200, { "Content-Type": "text/html" }).end(PAGE);
  const file = LIBRARIES[path] ?? join(given.out, normalize(path).replace(/^\/out\//, ""));
  const size = (await stat(file).catch(() => null))?.size;
  if (size === undefined || (!LIBRARIES[path] && !path.startsWith("/out/"))) return response.writeHead(404).end();
  const head = { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Accept-Ranges": "bytes" };
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  if (!range) {
    response.writeHead(200, { ...head, "Content-Length": size });
    return createReadStream(file).pipe(response);
  }
  const [from, to] = [Number(range[1]), Math.min(range[2] ? Number(range[2]) : size - 1, size - 1)];
  response.writeHead(206, { ...head, "Content-Length": to - from + 1, "Content-Range": `bytes ${from}-${to}/${size}` });
  return createReadStream(file, { start: from, end: to }).pipe(response);
});
await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
const address = `http://127.0.0.1:${server.address().port}`;

/** In the page: starts the player and counts what goes wrong. */
const start = ({ kind, url, subtitles, speed }) => {
  const video = document.querySelector("video");
  const seen = { stalls: 0, errors: [], cues: [], languages: [], begun: false };
  window.seen = seen;
  video.defaultPlaybackRate = speed;
  video.addEventListener("playing", () => { seen.begun = true; });
  video.addEventListener("waiting", () => { if (seen.begun && !video.seeking && !video.ended) seen.stalls += 1; });
  video.addEventListener("error", () => seen.errors.push(`video: ${video.error?.message}`));
  const watch = (track) => {
    track.addEventListener("cuechange", () => {
      for (const cue of track.activeCues ?? []) if (!seen.cues.includes(cue.text)) seen.cues.push(cue.text);
    });
  };
  video.textTracks.addEventListener("addtrack", (event) => {
    watch(event.track);
    // As a viewer does in the menu, when the player has its tracks together.
    if (kind === "hls" && subtitles && event.track.language === subtitles) setTimeout(() => { event.track.mode = "showing"; }, 200);
  });
  if (kind === "hls") {
    const player = new window.Hls({ enableWorker: true });
    player.on(window.Hls.Events.ERROR, (_, data) => { if (data.fatal || data.details.includes("Stalled")) seen.errors.push(`${data.type} ${data.details}`); });
    player.on(window.Hls.Events.SUBTITLE_TRACKS_UPDATED, (_, data) => {
      seen.languages = data.subtitleTracks.map((track) => track.lang);
    });
    player.on(window.Hls.Events.MANIFEST_PARSED, () => video.play().catch((error) => seen.errors.push(String(error))));
    player.loadSource(url);
    player.attachMedia(video);
  } else {
    const player = window.dashjs.MediaPlayer().create();
    player.updateSettings({ debug: { logLevel: window.dashjs.Debug.LOG_LEVEL_NONE }, streaming: { text: { defaultEnabled: Boolean(subtitles) } } });
    player.on(window.dashjs.MediaPlayer.events.ERROR, (event) => seen.errors.push(event.error?.message ?? "unknown"));
    player.on(window.dashjs.MediaPlayer.events.STREAM_INITIALIZED, () => { seen.languages = player.getTracksFor("text").map((track) => track.lang); });
    player.initialize(video, null, true);
    if (subtitles) player.setInitialMediaSettingsFor("text", { lang: subtitles });
    player.attachSource(url);
  }
  video.playbackRate = speed;
};

const look = () => {
  const video = document.querySelector("video");
  let played = 0;
  for (let i = 0; i < video.played.length; i += 1) played += video.played.end(i) - video.played.start(i);
  return {
    ...window.seen, played, duration: video.duration, ended: video.ended, position: video.currentTime,
    frames: video.getVideoPlaybackQuality().totalVideoFrames, heard: video.webkitAudioDecodedByteCount > 0, size: [video.videoWidth, video.videoHeight],
  };
};

await story({}, async (page) => {
  await page.goto(address);
  const url = `${address}/out/${given.entry || (given.with === "hls" ? "master.m3u8" : "manifest.mpd")}`;
  const within = Number(given.within) * 1000;
  await page.evaluate(start, { kind: given.with, url, subtitles: given.subtitles, speed: Number(given.speed) });
  try {
    if (given.seek) {
      await until("the first second", within, async () => (await page.evaluate(look)).played > 0.5);
      await page.evaluate((to) => { document.querySelector("video").currentTime = to; }, Number(given.seek));
    }
    await until("the end", within, async () => { const now = await page.evaluate(look); return now.ended || now.errors.length > 0; });
  } catch (error) {
    throw new Error(`${error.message}: ${JSON.stringify(await page.evaluate(look))}`);
  }
  return page.evaluate(look);
});
