// Holds dashboards to schemas made of types.ts: `node check.mjs FILE...`. Prints a JSON array with, for each file, its
// name and what is wrong with it. Exit code 0 whenever it could judge.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const here = dirname(fileURLToPath(import.meta.url));
const generator = createGenerator({
  path: join(here, 'types.ts'),
  tsconfig: join(here, 'tsconfig.json'),
  skipTypeCheck: true,
  additionalProperties: false,
  expose: 'none', // two types of one name (DataQuery) can't both have a definition
  jsDoc: 'none',
});
const ajv = new Ajv({ allErrors: true, strict: false });
const checks = new Map();

/** What is wrong with `value` as a `type` of types.ts, each as a path and a sentence. */
function wrong(type, value, path) {
  if (!checks.has(type)) checks.set(type, ajv.compile(generator.createSchema(type)));
  const check = checks.get(type);
  if (check(value)) return [];
  return check.errors.map((error) => {
    const { additionalProperty, missingProperty, allowedValues } = error.params;
    const more = additionalProperty ?? missingProperty ?? (allowedValues ? allowedValues.join(', ') : '');
    return `${path}${error.instancePath}: ${error.message} ${more}`.trim();
  });
}

// A union's errors are those of all its members: so each panel is held to the type that it says it is.
const panelTypes = { timeseries: 'TimeSeries', stat: 'Stat', heatmap: 'Heatmap', table: 'Table', text: 'Text', row: 'Row' };

function errorsOf({ panels, ...frame }) {
  const errors = wrong('Frame', frame, '');
  if (!Array.isArray(panels) || panels.length === 0) return [...errors, '/panels: a dashboard has panels'];
  const of = (panel, index) => {
    const type = Object.hasOwn(panelTypes, panel?.type) && panelTypes[panel.type];
    const path = `/panels/${index} ${JSON.stringify(panel?.title)}`;
    return type ? wrong(type, panel, path) : [`${path}: a panel of the type ${panel?.type} is not expected`];
  };
  return [...errors, ...panels.flatMap(of)];
}

const judged = (file) => ({ file, errors: errorsOf(JSON.parse(readFileSync(file, 'utf8'))) });
console.log(JSON.stringify(process.argv.slice(2).map(judged)));
