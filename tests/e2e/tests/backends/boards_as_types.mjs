// Dashboards as values of Grafana's own types, for the compiler to check: arguments are their folder and the file to write.
// A literal may have no field that its type lacks, so a misspelt one is an error, too. Queries are left out: the types of
// data sources are not in the schema.
import fs from "node:fs";

const [folder, output] = process.argv.slice(2);
const kinds = { timeseries: "TimeSeries", stat: "Stat", gauge: "Gauge", bargauge: "BarGauge", heatmap: "Heatmap" };
const lines = [
  // Enumerations are written as their words in JSON.
  "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] :",
  "  T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
  'import type { Dashboard, Panel, RowPanel } from "@grafana/schema";',
];
for (const [kind, name] of Object.entries(kinds)) {
  const path = `@grafana/schema/dist/esm/raw/composable/${kind}/panelcfg/x/${name}PanelCfg_types.gen`;
  lines.push(`import type { Options as ${name} } from "${path}";`);
  if (kind === "timeseries") lines.push(`import type { FieldConfig as Lines } from "${path}";`);
}

let count = 0;
const value = (type, json) => lines.push(`export const v${count++}: ${type} = ${JSON.stringify(json)};`);

for (const file of fs.readdirSync(folder)) {
  const { panels, ...board } = JSON.parse(fs.readFileSync(`${folder}/${file}`, "utf8"));
  value("Plain<Dashboard>", board);
  for (const panel of panels) {
    if (panel.type === "row") {
      value("Plain<RowPanel>", panel);
      continue;
    }
    const { options, targets, fieldConfig, ...rest } = panel;
    const { custom, ...defaults } = fieldConfig.defaults;
    value('Plain<Omit<Panel, "options" | "targets">>', { ...rest, fieldConfig: { ...fieldConfig, defaults } });
    value(`Plain<${kinds[panel.type]}>`, options);
    if (panel.type === "timeseries") value("Plain<Lines>", custom);
  }
}
fs.writeFileSync(output, lines.join("\n") + "\n");
