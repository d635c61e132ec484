// What came of the suite of cache-tests.fyi, as Markdown: cache-tests.mjs SUITE RESULTS COMMIT
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, file, commit] = process.argv.slice(2)
const load = name => import(pathToFileURL(path.join(suite, name)))
const { default: tests } = await load('tests/index.mjs')
const { determineTestResult, resultTypes } = await load('test-engine/lib/results.mjs')
const results = JSON.parse(fs.readFileSync(file))

// Why tests don't pass that are required of a cache or make an optimal one.
const reasons = [
  [/^interim-/, '1xx answers are not passed on, as RFC 9110, section 15.2, asks of proxies: the HTTP server below has no way to send them'],
  [/^heuristic-/, 'nothing is stored without explicit freshness, unless `default_freshness` says so'],
  [/^headers-store-Set-Cookie$|^other-set-cookie$/, 'what sets a cookie is for one user'],
  [/^headers-store-Content-Encoding$/, 'no coding is asked for; an origin that codes all the same is passed on to those alone who take that coding'],
  [/^partial-store-partial-/, 'the scripted part is not the one that was asked for (`-5` of 10 is 5 to 9): refused. Sound parts are kept as slices, which `tests/edge/slices.rs` shows'],
  [/^method-POST$/, 'answers to POST are not stored'],
  [/^vary-normalise-lang-(order|select)$/, 'the order of `Accept-Language` is kept: many origins read it as a preference'],
  [/^conditional-lm-fresh-no-lm$/, 'without `Last-Modified` the stored `Date` counts, which lies behind the condition (RFC 9111, section 4.3.2)']
]

const rows = []
const count = {}
let unknown = 0
for (const { tests: cases } of tests) {
  for (const test of cases) {
    if (test.browser_only) continue
    const kind = test.kind ?? 'required'
    const result = determineTestResult(tests, test.id, results, false)
    const passed = result === resultTypes.pass || result === resultTypes.yes
    count[kind] ??= { passed: 0, all: 0 }
    count[kind].all += 1
    count[kind].passed += passed ? 1 : 0
    if (passed || kind === 'check') continue
    const known = reasons.find(([id]) => id.test(test.id))
    if (!known && kind === 'required') unknown += 1
    rows.push(`| \`${test.id}\` | ${kind} | ${known ? known[1] : '**not known**'} |`)
  }
}

console.log(`# cache-tests.fyi

\`load-tests/cache-tests DIR\`: all tests for shared caches of http-tests/cache-tests at ${commit}, asked of an edge whose one
route is \`auth = "none"\`, with the defaults of everything else. Each test counts by itself, whatever those that it builds on came to.

| kind | passed | of |
|---|--:|--:|`)
for (const [kind, { passed, all }] of Object.entries(count)) {
  const names = { required: 'required', optimal: 'optimal', check: 'check (what a cache does, neither right nor wrong: "yes")' }
  console.log(`| ${names[kind]} | ${passed} | ${all} |`)
}
console.log(`
| not passed | kind | why |
|---|---|---|
${rows.join('\n')}`)
process.exitCode = unknown ? 1 : 0
