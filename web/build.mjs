// Builds the pages into dist/: one folder with an index.html per page, everything else under assets/ with a hash of
// its content in its name, so that the origin can let browsers keep it for ever.
//
//   node build.mjs            a build for serving
//   node build.mjs --watch    rebuilds on each change, with source maps

import { build, context } from "esbuild";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, posix, relative, resolve } from "node:path";
import { brotliCompress, constants, gzip } from "node:zlib";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const out = join(root, "dist");
const pages = [
  { html: "src/home/index.html", to: "index.html" },
  { html: "src/studio/index.html", to: "studio/index.html" },
  { html: "src/watch/index.html", to: "watch/index.html" },
];
const watching = process.argv.includes("--watch");

/** hls.js parses segments off the main thread in a worker, which has to be a file of its own: the pages' CSP has no
 *  inline scripts. The page learns its name through the constant HLS_WORKER. */
async function worker() {
  const from = join(root, "node_modules/hls.js/dist/hls.worker.js");
  const hash = createHash("sha256").update(await readFile(from)).digest("hex").slice(0, 8).toUpperCase();
  const name = `assets/hls.worker-${hash}.js`;
  await mkdir(join(out, "assets"), { recursive: true });
  await copyFile(from, join(out, name));
  return `/${name}`;
}

/** A page's HTML names its scripts and styles as they lie in the source tree; here they get their built names. */
async function writePages(metafile) {
  const built = new Map();
  for (const [file, output] of Object.entries(metafile.outputs)) {
    if (output.entryPoint) built.set(resolve(root, output.entryPoint), "/" + relative(out, resolve(root, file)).split("\\").join("/"));
  }
  for (const page of pages) {
    const from = join(root, page.html);
    const early = new Set();
    const html = (await readFile(from, "utf8")).replace(/(src|href)="(\.[^"]+)"/g, (_, attribute, name) => {
      const url = built.get(resolve(dirname(from), name));
      if (!url) throw new Error(`${page.html} names ${name}, which no build step makes`);
      for (const { path } of metafile.outputs[relative(root, join(out, url))]?.imports ?? []) early.add("/" + relative(out, resolve(root, path)));
      return `${attribute}="${url}"`;
    // What a script will import is fetched beside it, not after it.
    }).replace("</head>", [...early].filter((url) => url.endsWith(".js")).map((url) => `  <link rel="modulepreload" href="${url}">\n`).join("") + "</head>");
    await mkdir(dirname(join(out, page.to)), { recursive: true });
    await writeFile(join(out, page.to), html);
  }
}

/** Beside each file that shrinks lie its compressed forms, `.br` and `.gz`, which the origin serves to whoever takes
 *  them: hls.js comes over a phone's line in a third of the time. */
async function compress() {
  const forms = {
    br: (bytes) => promisify(brotliCompress)(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } }),
    gz: (bytes) => promisify(gzip)(bytes, { level: 9 }),
  };
  for (const name of await readdir(join(out, "assets"))) {
    if (!/\.(js|css|svg)$/.test(name)) continue;
    const bytes = await readFile(join(out, "assets", name));
    for (const [ending, form] of Object.entries(forms)) {
      const small = await form(bytes);
      if (small.length < bytes.length * 0.9) await writeFile(join(out, "assets", `${name}.${ending}`), small);
    }
  }
}

async function main() {
  await rm(out, { recursive: true, force: true });
  const options = {
    absWorkingDir: root,
    entryPoints: [
      "src/home/main.ts", "src/studio/main.ts", "src/watch/main.ts",
      "src/style/base.css", "src/style/home.css", "src/style/studio.css", "src/style/watch.css", "src/style/icon.svg",
    ],
    entryNames: "assets/[dir]-[name]-[hash]",
    outbase: "src",
    outdir: out,
    chunkNames: "assets/[name]-[hash]",
    bundle: true,
    splitting: true,
    format: "esm",
    target: ["es2022", "chrome105", "firefox110", "safari16"],
    minify: !watching,
    sourcemap: watching,
    legalComments: "linked",
    charset: "utf8",
    loader: { ".svg": "copy" },
    define: { HLS_WORKER: JSON.stringify(await worker()) },
    metafile: true,
    logLevel: "warning",
    plugins: [{
      name: "pages",
      setup: (it) => it.onEnd(async (result) => { if (result.metafile) await writePages(result.metafile); }),
    }],
  };
  if (watching) {
    await (await context(options)).watch();
    return;
  }
  const { metafile } = await build(options);
  await compress();
  for (const [file, { bytes }] of Object.entries(metafile.outputs)) {
    if (!file.endsWith(".txt")) console.log(`${(bytes / 1024).toFixed(1).padStart(8)} KiB  ${posix.join("assets", basename(file))}`);
  }
}

main().catch((error) => {
  console.error(`web build: ${error.message}`);
  process.exit(1);
});
