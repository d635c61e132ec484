import assert from "node:assert/strict";
import { test } from "node:test";
import { chapterAt, chapters } from "../src/watch/chapters";

test("chapters are in order, and what is none is left out", () => {
  const all = chapters([
    { start: 60, end: 120.5, title: "Proof" }, { start: 0, end: 60, title: "Claim" }, null, 7,
    { start: 5, end: 5, title: "empty" }, { start: -1, end: 5, title: "early" }, { start: 1, end: 2, title: "" }, { start: "1", end: 2, title: "text" },
  ]);
  assert.deepEqual(all.map(({ title }) => title), ["Claim", "Proof"]);
  assert.deepEqual(chapters(undefined), []);
});

test("an instant lies in the last chapter that has begun", () => {
  const all = chapters([{ start: 2, end: 60, title: "Claim" }, { start: 60, end: 120, title: "Proof" }]);
  assert.deepEqual([0, 2, 59.9, 60, 999].map((instant) => chapterAt(all, instant)), [-1, 0, 0, 1, 1]);
});
