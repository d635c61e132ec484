// Reads YAML files strictly: `node yaml.mjs FILE...` prints a JSON array of what they hold.
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

console.log(JSON.stringify(process.argv.slice(2).map((file) => parse(readFileSync(file, 'utf8'), { strict: true, uniqueKeys: true }))));
