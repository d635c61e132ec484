// What a dashboard of ours may be, from Grafana's own types: the whole of a dashboard, with each panel's options by its
// type. Schemas are made of this file, in which no property is allowed that is not named here.
import type * as grafana from '@grafana/schema';
import type * as heatmap from './node_modules/@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import type * as stat from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as table from './node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as text from './node_modules/@grafana/schema/dist/types/raw/composable/text/panelcfg/x/types.gen';
import type * as timeseries from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';

/** Every panel takes the data source that the viewer chose, never one of the author's. */
interface DataSource {
  type: 'prometheus';
  uid: '${datasource}';
}

/** A query as Grafana's Prometheus data source keeps it. Its types are in no package; these are its documented fields. */
interface Query {
  refId: string;
  datasource: DataSource;
  expr: string;
  legendFormat: string;
  editorMode?: 'code' | 'builder';
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
  interval?: string;
}

interface FieldConfigSource<Custom> {
  defaults: Omit<grafana.FieldConfig, 'custom'> & { custom?: Custom };
  overrides: {
    matcher: { id: 'byName' | 'byRegexp'; options: string };
    properties: { id: string; value: unknown }[];
  }[];
}

interface Shown<Type extends string, Options, Custom>
  extends Omit<grafana.Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource' | 'title' | 'description' | 'gridPos' | 'id'> {
  id: number;
  type: Type;
  title: string;
  /** What it shows and when to worry: a panel that does not say so is left alone at three in the morning. */
  description: string;
  gridPos: grafana.GridPos;
  datasource: DataSource;
  targets: [Query, ...Query[]];
  options: Options;
  fieldConfig: FieldConfigSource<Custom>;
}

type None = Record<string, never>;

export type TimeSeries = Shown<'timeseries', timeseries.Options, timeseries.FieldConfig>;
export type Stat = Shown<'stat', stat.Options, None>;
export type Heatmap = Shown<'heatmap', heatmap.Options, heatmap.FieldConfig>;
export type Table = Shown<'table', table.Options, table.FieldConfig>;

export interface Text extends Pick<grafana.Panel, 'transparent'> {
  id: number;
  type: 'text';
  title: string;
  gridPos: grafana.GridPos;
  options: text.Options;
}

export interface Row {
  id: number;
  type: 'row';
  title: string;
  collapsed: false;
  gridPos: grafana.GridPos;
  panels: [];
}

interface Variable extends Omit<grafana.VariableModel, 'type' | 'datasource' | 'query'> {
  type: 'datasource' | 'query';
  datasource?: DataSource;
  query: string | { query: string; refId: string };
  allValue?: string;
}

/** A dashboard without its panels. */
export interface Frame
  extends Omit<grafana.Dashboard, 'panels' | 'templating' | 'id' | 'uid' | 'title' | 'description' | 'time' | 'refresh' | 'tags'> {
  id: null;
  uid: string;
  title: string;
  description: string;
  tags: string[];
  refresh: string;
  time: { from: string; to: string };
  templating: { list: Variable[] };
}
