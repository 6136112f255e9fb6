//! The chart is what the manifests are: real Helm renders it to the same objects, for each of its variants.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use xtask::ship::manifests::{helm, render};

use crate::{deploy, had};

/// Values of the chart, and the overlay that is the same.
const VARIANTS: [(&str, &str); 3] = [
    ("{}", "kubernetes/overlays/least-privilege"),
    (r#"{"privileged": true}"#, "kubernetes/overlays/privileged"),
    (r#"{"metadata": false}"#, "kubernetes/overlays/anonymous"),
];

#[test]
fn the_chart_is_the_manifests() {
    let python = match helm() {
        Ok(folder) => folder.join("python"),
        Err(error) => {
            println!("skipped: no Helm: {error:#}");
            return;
        }
    };
    let chart = deploy().join("helm/gpuspan");
    let values = VARIANTS.iter().map(|(values, _)| *values);
    let misspelt = r#"{"privilegd": true}"#;
    let said = script(&python, Some(&chart), values.chain([misspelt]), "");
    let [rendered @ .., refused, linted] = said.as_slice() else { panic!("{said:?}") };
    assert!(refused["refused"].as_str().unwrap().contains("privilegd"), "{refused}");
    assert_eq!(linted["errors"], json!([]));
    assert_eq!(rendered.len(), VARIANTS.len());
    for ((values, overlay), rendered) in VARIANTS.iter().zip(rendered) {
        let Some(manifests) = had(render(overlay)) else { return };
        let manifests = script(&python, None, [], &manifests).remove(0);
        let (chart, manifests) = (comparable(&python, rendered), comparable(&python, &manifests));
        for (one, other) in chart.iter().zip(&manifests) {
            assert_eq!(one, other, "{values}");
        }
        assert_eq!(chart.len(), manifests.len(), "{values}");
    }
}

/// The objects in one order, without what each tool does in a way of its own.
fn comparable(python: &Path, objects: &Value) -> Vec<Value> {
    let mut objects = objects.as_array().unwrap().clone();
    // Helm makes the namespace itself.
    objects.retain(|object| object["kind"] != "Namespace");
    for object in &mut objects {
        match object["kind"].as_str().unwrap() {
            // kustomize ends its name with a hash, and the file has comments.
            "ConfigMap" => {
                object["metadata"]["name"] = json!("gpuspan-agent");
                let file = object["data"]["agent.yaml"].as_str().unwrap();
                object["data"] = script(python, None, [], file).remove(0);
            }
            "DaemonSet" => {
                let template = &mut object["spec"]["template"];
                template["metadata"]["annotations"].as_object_mut().unwrap().remove("checksum/config");
                for volume in template["spec"]["volumes"].as_array_mut().unwrap() {
                    if volume.get("configMap").is_some() {
                        volume["configMap"]["name"] = json!("gpuspan-agent");
                    }
                }
                let variables = template["spec"]["containers"][0]["env"].as_array_mut().unwrap();
                variables.sort_by_key(|variable| variable["name"].to_string());
            }
            _ => (),
        }
    }
    objects.sort_by_key(|object| object["kind"].to_string());
    objects
}

/// `chart.py`, its lines as JSON.
fn script<'a>(
    python: &Path,
    chart: Option<&Path>,
    values: impl IntoIterator<Item = &'a str>,
    input: &str,
) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ship/chart.py");
    let mut command = Command::new(python);
    command.arg(script).args(chart).args(values).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
