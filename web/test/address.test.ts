import assert from "node:assert/strict";
import { test } from "node:test";
import { carry, host, parse, reportsTo } from "../src/watch/address";

test("a playback URL comes apart into what changes and what stays", () => {
  assert.deepEqual(parse("https://edge.example:8443/t/a.b-c/v/l1/master.m3u8?x=1"), {
    base: "https://edge.example:8443/t/a.b-c", path: "/v/l1/master.m3u8?x=1", lesson: "l1",
  });
  assert.equal(parse("https://edge.example/v/l1/master.m3u8")?.base, "https://edge.example");
});

test("a token in the query takes the path's form, so that segments and reports carry it", () => {
  assert.deepEqual(parse("https://edge.example/v/l1/master.m3u8?token=a.b.c"), {
    base: "https://edge.example/t/a.b.c", path: "/v/l1/master.m3u8", lesson: "l1",
  });
});

test("what is no playback URL is none", () => {
  for (const text of ["", "master.m3u8", "javascript:alert(1)", "file:///etc/passwd", "https://", "data:text/plain,x"]) {
    assert.equal(parse(text), null, text);
  }
});

test("requests follow to another edge and a newer token, and strangers stay", () => {
  const known = ["https://one/t/old", "https://two/t/old"];
  const now = "https://two/t/new";
  assert.equal(carry("https://one/t/old/v/l1/1/v720/00003-12000.m4s?CMCD=x", known, now), "https://two/t/new/v/l1/1/v720/00003-12000.m4s?CMCD=x");
  assert.equal(carry("https://two/t/new/v/l1/master.m3u8", known, now), "https://two/t/new/v/l1/master.m3u8");
  assert.equal(carry("https://one/t/older/v/l1/master.m3u8", known, now), "https://one/t/older/v/l1/master.m3u8");
  assert.equal(carry("https://elsewhere/x", known, now), "https://elsewhere/x");
});

test("reports go under the token; people see only the host", () => {
  assert.equal(reportsTo("https://edge/t/abc"), "https://edge/t/abc/cmcd");
  assert.equal(host("https://edge:8443/t/abc"), "edge:8443");
});
