import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, clock, percent, remaining, titleOf } from "../src/common/format";
import { problemFrom } from "../src/common/api";
import { explain } from "../src/watch/messages";
import { expiry, margin } from "../src/watch/source";

test("sizes, clocks, shares and waits read as people write them", () => {
  assert.deepEqual([0, 999, 1500, 12_345_678, 10_737_418_240, -1].map(bytes), ["0 bytes", "999 bytes", "1.50 KB", "12.3 MB", "10.7 GB", "–"]);
  assert.deepEqual([0, 65.9, 3725, NaN].map(clock), ["0:00", "1:05", "1:02:05", "–"]);
  assert.deepEqual([0, 0.4267, 0.9999, 1, NaN].map(percent), ["0 %", "42 %", "99 %", "100 %", "0 %"]);
  assert.deepEqual([2, 23, 61, 3600, 3700, NaN].map(remaining), ["a few seconds left", "25 s left", "2 min left", "1 h left", "1 h 2 min left", ""]);
});

test("a refusal keeps its code and words, whatever its body is", () => {
  const problem = problemFrom(403, '{"type":"about:blank","title":"Forbidden","code":"not_entitled","detail":"ada has no access."}');
  assert.deepEqual([problem.code, problem.detail, problem.transient], ["not_entitled", "ada has no access.", false]);
  for (const body of ["", "<html>", "null", "[]", '{"code":1}']) assert.equal(problemFrom(502, body).code, "http_502", body);
  assert.equal(problemFrom(502, "").transient, true);
});

test("each code of the design has words of its own", () => {
  const codes = [
    "token_missing", "token_malformed", "token_bad_signature", "token_unknown_key", "token_expired", "token_not_yet_valid", "token_wrong_issuer",
    "token_wrong_audience", "token_wrong_client", "token_unsupported_claim", "token_out_of_scope", "token_revoked", "too_many_streams", "not_entitled",
    "not_playable", "not_ready",
  ];
  for (const code of codes) {
    const message = explain(problemFrom(403, JSON.stringify({ code, detail: "machine words" })));
    assert.ok(message.title.length > 8 && !message.text.includes("machine words"), code);
  }
  assert.equal(explain(problemFrom(403, '{"code":"new_one","detail":"The server\'s own sentence."}')).text, "The server's own sentence.");
  assert.equal(explain(problemFrom(401, '{"code":"unauthenticated"}')).action, "login");
});

test("a token is renewed well before its end, however short it lives", () => {
  assert.equal(expiry(1_700_000_000), 1_700_000_000_000);
  assert.equal(expiry("2026-01-01T00:00:00Z"), Date.UTC(2026, 0, 1));
  assert.equal(margin(12 * 3600_000), 15 * 60_000);
  assert.equal(margin(10 * 60_000), 60_000);
  assert.equal(margin(10_000), 5000);
});

test("a file's name becomes a title", () => {
  assert.equal(titleOf("03_lights and-shadows.final.mp4"), "03 lights and-shadows.final");
  assert.equal(titleOf(".mp4"), "Lesson");
});
