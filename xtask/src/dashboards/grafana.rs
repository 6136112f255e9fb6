//! Boards as Grafana reads them. In: boards, rows, panels and queries as values. Out: JSON of its dashboards, version 41
//! of the schema (Grafana 12). Absent: what is shown, which `boards` says.

use serde_json::{Value, json};

/// The version of Grafana's schema that is written.
const SCHEMA: u64 = 41;
/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;
/// Fixed in `deploy/compose`, so that links work in both directions.
const TEMPO: &str = "tempo";

/// One dashboard.
#[derive(Debug)]
pub struct Board {
    /// Its address.
    pub uid: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What question it answers.
    pub help: &'static str,
    /// What can be chosen, beside the data source.
    pub variables: Vec<Variable>,
    /// Panels under headings, from the top.
    pub rows: Vec<Row>,
    /// From when to now it shows.
    pub since: &'static str,
    /// How often it asks again.
    pub refresh: &'static str,
}

/// A choice of a label's values.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// By which queries name it.
    pub name: &'static str,
    /// As it is shown.
    pub label: &'static str,
    /// Whose values it has.
    pub query: &'static str,
}

/// Panels under a heading.
#[derive(Debug)]
pub struct Row {
    /// The heading; none for a board without rows.
    pub title: &'static str,
    /// From left to right, from above.
    pub panels: Vec<Panel>,
}

/// How a panel shows its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Lines over time.
    Lines,
    /// Areas that add up.
    Stack,
    /// The newest value.
    Stat,
    /// The newest value on a scale.
    Gauge,
    /// Newest values as bars.
    Bars,
    /// Counts by range of values over time, from a histogram's buckets.
    Heat,
}

/// One panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// What it says, and what to do about it.
    pub help: &'static str,
    /// Its queries.
    pub queries: Vec<Query>,
    /// Why it may have nothing to show although all is well.
    pub quiet: Option<&'static str>,
    look: Look,
    unit: &'static str,
    width: u64,
    height: u64,
    most: Option<f64>,
    steps: Vec<(f64, &'static str)>,
}

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// In PromQL, with Grafana's variables.
    pub expression: String,
    /// Name of its lines.
    pub legend: &'static str,
}

impl Panel {
    /// A panel of half the width.
    pub fn new(look: Look, title: &'static str, unit: &'static str, help: &'static str) -> Self {
        let (width, height) = if look == Look::Stat { (4, 4) } else { (12, 8) };
        let (queries, steps) = (Vec::new(), Vec::new());
        Self { title, help, queries, quiet: None, look, unit, width, height, most: None, steps }
    }

    /// Adds a query.
    pub fn ask(mut self, expression: impl Into<String>, legend: &'static str) -> Self {
        self.queries.push(Query { expression: expression.into(), legend });
        self
    }

    /// In columns of 24, and lines.
    pub fn size(mut self, width: u64, height: u64) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// May have nothing to show.
    pub fn quiet(mut self, reason: &'static str) -> Self {
        self.quiet = Some(reason);
        self
    }

    /// The end of the scale.
    pub fn most(mut self, most: f64) -> Self {
        self.most = Some(most);
        self
    }

    /// From a value on in another colour.
    pub fn from(mut self, value: f64, colour: &'static str) -> Self {
        self.steps.push((value, colour));
        self
    }

    fn json(&self, id: u64, x: u64, y: u64) -> Value {
        let targets: Vec<Value> = self.queries.iter().zip('A'..).map(|(q, id)| self.target(q, id)).collect();
        json!({
            "id": id,
            "type": self.kind(),
            "title": self.title,
            "description": self.help,
            "datasource": source(),
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": self.defaults(), "overrides": []},
            "options": self.options(),
            "targets": targets,
        })
    }

    fn kind(&self) -> &'static str {
        match self.look {
            Look::Lines | Look::Stack => "timeseries",
            Look::Stat => "stat",
            Look::Gauge => "gauge",
            Look::Bars => "bargauge",
            Look::Heat => "heatmap",
        }
    }

    fn target(&self, query: &Query, id: char) -> Value {
        let newest = matches!(self.look, Look::Stat | Look::Gauge | Look::Bars);
        let format = if self.look == Look::Heat { "heatmap" } else { "time_series" };
        // Exemplars are points beside the lines of histograms; nothing else has any.
        let exemplar = query.expression.contains("_bucket") && !newest;
        json!({
            "refId": id.to_string(),
            "datasource": source(),
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend,
            "format": format,
            "range": true,
            "instant": false,
            "exemplar": exemplar,
        })
    }

    fn defaults(&self) -> Value {
        let mut steps = vec![json!({"color": "green", "value": null})];
        steps.extend(self.steps.iter().map(|(value, colour)| json!({"color": colour, "value": value})));
        let mut defaults = json!({
            "unit": self.unit,
            "color": {"mode": if self.steps.is_empty() { "palette-classic" } else { "thresholds" }},
            "thresholds": {"mode": "absolute", "steps": steps},
            "mappings": [],
            "custom": self.custom(),
        });
        // Everything shown here counts or lasts, so nothing is below zero.
        let bounds = [("min", (self.look != Look::Heat).then_some(0.0)), ("max", self.most)];
        if let Some(fields) = defaults.as_object_mut() {
            let given = bounds.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
            fields.extend(given);
        }
        defaults
    }

    fn custom(&self) -> Value {
        let stacked = self.look == Look::Stack;
        match self.look {
            Look::Lines | Look::Stack => json!({
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": if stacked { 40 } else { 8 },
                "showPoints": "never",
                "spanNulls": false,
                "stacking": {"mode": if stacked { "normal" } else { "none" }, "group": "A"},
                "thresholdsStyle": {"mode": if self.steps.is_empty() { "off" } else { "line" }},
            }),
            _ => json!({}),
        }
    }

    fn options(&self) -> Value {
        let reduce = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        match self.look {
            Look::Lines | Look::Stack => json!({
                "legend": {"showLegend": true, "displayMode": "list", "placement": "bottom", "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Look::Stat => json!({
                "reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "justifyMode": "auto",
                "orientation": "auto", "textMode": "auto", "wideLayout": true, "showPercentChange": false,
                "percentChangeColorMode": "standard",
            }),
            Look::Gauge => json!({
                "reduceOptions": reduce, "orientation": "auto", "showThresholdLabels": false,
                "showThresholdMarkers": true, "sizing": "auto", "minVizHeight": 75, "minVizWidth": 75,
                "shape": "gauge", "barShape": "flat", "barWidthFactor": 0.5, "segmentCount": 1, "segmentSpacing": 0.3,
                "effects": {},
            }),
            Look::Bars => json!({
                "reduceOptions": reduce, "orientation": "horizontal", "displayMode": "gradient",
                "valueMode": "color", "namePlacement": "auto", "showUnfilled": true, "sizing": "auto",
                "minVizHeight": 16, "minVizWidth": 8, "maxVizHeight": 300,
                "legend": {"showLegend": false, "displayMode": "list", "placement": "bottom", "calcs": []},
            }),
            Look::Heat => json!({
                "calculate": false,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5,
                          "fill": "dark-orange", "reverse": false, "scale": "exponential"},
                "exemplars": {"color": "rgba(50,115,217,0.9)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": true},
                "rowsFrame": {"layout": "auto"},
                "showValue": "never",
                "tooltip": {"mode": "single", "yHistogram": false, "showColorScale": false},
                "yAxis": {"axisPlacement": "left", "reverse": false, "unit": self.unit},
            }),
        }
    }
}

impl Board {
    /// Every panel, row by row.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// What Grafana reads.
    pub fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.help,
            "tags": ["gpuspan"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": self.since, "to": "now"},
            "timezone": "browser",
            "timepicker": {},
            "fiscalYearStartMonth": 0,
            "annotations": {"list": []},
            "links": self.links(),
            "templating": {"list": self.templating()},
            "panels": self.layout(),
        })
    }

    /// Panels flow from left to right below their row's heading.
    fn layout(&self) -> Vec<Value> {
        let (mut out, mut y) = (Vec::new(), 0);
        for row in &self.rows {
            if !row.title.is_empty() {
                out.push(heading(row.title, out.len() as u64 + 1, y));
                y += 1;
            }
            let (mut x, mut tallest) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    (x, y, tallest) = (0, y + tallest, 0);
                }
                out.push(panel.json(out.len() as u64 + 1, x, y));
                x += panel.width;
                tallest = tallest.max(panel.height);
            }
            y += tallest;
        }
        out
    }

    fn templating(&self) -> Vec<Value> {
        let source = json!({
            "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
            "regex": "", "hide": 0, "refresh": 1, "multi": false, "includeAll": false, "options": [],
        });
        std::iter::once(source).chain(self.variables.iter().map(variable)).collect()
    }

    /// To the other boards, and to the traces of the servers that are chosen.
    fn links(&self) -> Vec<Value> {
        let boards = json!({
            "type": "dashboards", "title": "gpuspan", "tags": ["gpuspan"], "asDropdown": true, "icon": "external link",
            "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
        });
        if !self.variables.iter().any(|variable| variable.name == "service") {
            return vec![boards];
        }
        let traces = json!({
            "type": "link", "title": "Traces", "url": explore(), "icon": "doc", "tags": [], "asDropdown": false,
            "includeVars": false, "keepTime": false, "targetBlank": true, "tooltip": "Requests of these servers in Tempo",
        });
        vec![boards, traces]
    }
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn heading(title: &str, id: u64, y: u64) -> Value {
    let place = json!({"x": 0, "y": y, "w": COLUMNS, "h": 1});
    json!({"id": id, "type": "row", "title": title, "gridPos": place, "collapsed": false, "panels": []})
}

fn variable(variable: &Variable) -> Value {
    json!({
        "type": "query", "name": variable.name, "label": variable.label, "datasource": source(),
        "query": {"qryType": 1, "query": variable.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": "", "sort": 1, "hide": 0, "refresh": 2, "multi": true, "includeAll": true, "allValue": ".*",
        "options": [], "current": {"text": ["All"], "value": ["$__all"]},
    })
}

/// Grafana's page of queries, asking Tempo for the requests of the chosen servers.
fn explore() -> String {
    let query = r#"{ resource.service.name =~ "${service:pipe}" && span:kind = server }"#;
    let tempo = json!({"type": "tempo", "uid": TEMPO});
    let query = json!({"refId": "A", "datasource": tempo, "queryType": "traceql", "query": query});
    let panes = json!({"t": {
        "datasource": TEMPO, "queries": [query], "range": {"from": "${__from}", "to": "${__to}"},
    }});
    format!("/explore?schemaVersion=1&panes={}", encode(&panes.to_string()))
}

/// For a URL, with Grafana's variables left for it to replace.
fn encode(text: &str) -> String {
    let escape = |text: &str| -> String {
        let keep = |c: char| c.is_ascii_alphanumeric() || "_.~-".contains(c);
        text.chars().map(|c| if keep(c) { c.to_string() } else { format!("%{:02X}", u32::from(c)) }).collect()
    };
    VARIABLES.iter().fold(escape(text), |url, variable| url.replace(&escape(variable), variable))
}

/// Those in links.
const VARIABLES: [&str; 3] = ["${service:pipe}", "${__from}", "${__to}"];
