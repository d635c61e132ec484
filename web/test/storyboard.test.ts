import assert from "node:assert/strict";
import { test } from "node:test";
import { tileAt, tiles } from "../src/watch/storyboard";

const INDEX = [
  "WEBVTT", "", "00:00:00.000 --> 00:00:02.000", "storyboard-0.jpg#xywh=0,0,192,108", "",
  "00:00:02.000 --> 00:00:04.000", "storyboard-0.jpg#xywh=192,0,192,108", "",
  "01:00:04.000 --> 01:00:05.500", "storyboard-1.jpg#xywh=0,0,192,108", "",
].join("\n");

test("an index names each picture's span and place", () => {
  const all = tiles(INDEX);
  assert.equal(all.length, 3);
  assert.deepEqual(all[1], { from: 2, to: 4, sheet: "storyboard-0.jpg", x: 192, y: 0, width: 192, height: 108 });
  assert.deepEqual([all[2]?.from, all[2]?.to], [3604, 3605.5]);
});

test("what is no picture's cue is left out, and no address but a name beside the index is taken", () => {
  const of = (line: string) => tiles(`WEBVTT\n\n00:00.000 --> 00:01.000\n${line}\n`).length;
  for (const line of ["words", "a.jpg", "https://elsewhere/a.jpg#xywh=0,0,1,1", "../a.jpg#xywh=0,0,1,1", "a.jpg#xywh=0,0,1", ""]) assert.equal(of(line), 0, line);
  assert.equal(of("a.jpg#xywh=0,0,1,1"), 1);
});

test("an instant has the picture that it lies in, else the one before", () => {
  const all = tiles(INDEX);
  const x = (instant: number) => tileAt(all, instant)?.x;
  assert.deepEqual([x(-1), x(0), x(1.99), x(2), x(100)], [0, 0, 0, 192, 192]);
  assert.equal(tileAt(all, 9999)?.sheet, "storyboard-1.jpg");
  assert.equal(tileAt([], 1), null);
});
