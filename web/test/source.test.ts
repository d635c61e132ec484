import assert from "node:assert/strict";
import { test } from "node:test";
import { Source } from "../src/watch/source";

/** Answers of `POST /v1/playback` in turn; the last one repeats. */
function origin(...answers: { urls: string[]; life?: number }[]): string[] {
  const asked: string[] = [];
  globalThis.dispatchEvent ??= () => true;
  globalThis.fetch = (_, init) => {
    asked.push(String(init?.body));
    const answer = answers[Math.min(asked.length, answers.length) - 1]!;
    const expires = new Date(Date.now() + (answer.life ?? 3600) * 1000).toISOString();
    return Promise.resolve(new Response(JSON.stringify({ url: answer.urls[0], urls: answer.urls, token: "t", session: `s${asked.length}`, expires_at: expires })));
  };
  return asked;
}

const on = (edge: string, token: string) => `https://${edge}/t/${token}/v/l1/master.m3u8`;

test("an edge that fails is left for the next, and is taken again when that one fails too", async () => {
  origin({ urls: [on("one", "a"), on("two", "a"), on("three", "a")] });
  const source = await Source.lesson("l1", null);
  const moves: string[] = [];
  source.onMove = (to) => moves.push(to);
  source.failed("https://one/t/a/v/l1/1/v720/00001-4000.m4s");
  assert.equal(source.url, on("two", "a"));
  source.failed("https://one/t/a/v/l1/1/v720/00002-8000.m4s");
  assert.equal(source.url, on("two", "a"), "the failure of an edge that is not in use moves nothing");
  source.failed("https://two/t/a/v/l1/1/v720/00001-4000.m4s");
  assert.equal(source.url, on("three", "a"));
  assert.equal(source.allFailed, false);
  source.failed("https://three/t/a/cmcd");
  assert.equal(source.allFailed, true);
  assert.deepEqual(moves, ["two", "three"]);
  source.close();
});

test("a renewal keeps to the edge that plays and carries requests over to the new token", async () => {
  const asked = origin({ urls: [on("one", "a"), on("two", "a")] }, { urls: [on("one", "b"), on("two", "b")] });
  const source = await Source.lesson("l1", "ada");
  assert.deepEqual(asked.map((body) => JSON.parse(body) as unknown), [{ lesson: "l1", user: "ada" }]);
  source.failed(on("one", "a"));
  await new Promise((resolve) => setTimeout(resolve, 2100));
  assert.deepEqual(await Promise.all([source.renew(), source.renew(), source.renew()]), [true, true, true]);
  assert.equal(asked.length, 2, "segments refused at once make one renewal");
  assert.deepEqual(JSON.parse(asked[1]!), { lesson: "l1", user: "ada", session: "s1" }, "the session goes on");
  assert.equal(source.url, on("two", "b"));
  assert.equal(source.address("https://one/t/a/v/l1/1/v720/init.mp4"), "https://two/t/b/v/l1/1/v720/init.mp4");
  source.close();
});

test("a token of short life is renewed by itself before it ends", async () => {
  const asked = origin({ urls: [on("one", "a")], life: 3 }, { urls: [on("one", "b")] });
  const source = await Source.lesson("l1", null);
  await new Promise((resolve) => setTimeout(resolve, 2600));
  assert.equal(asked.length, 2);
  assert.equal(source.url, on("one", "b"));
  source.close();
});

test("a plain link is what it is", async () => {
  const source = Source.link("https://one/v/l1/master.m3u8?token=a");
  assert.equal(source.renewable, false);
  assert.equal(await source.renew(), false);
  assert.equal(source.url, on("one", "a"));
  assert.throws(() => Source.link("ftp://one/x"), /no playback link/);
});
