//! Every kustomization renders, and every object in it is what three releases of Kubernetes know.

use std::fs;

use e2e::program;
use tempfile::TempDir;
use xtask::ship::manifests::{KUSTOMIZATIONS, complaints, render, schemas};

use crate::{deploy, had};

#[test]
fn kubernetes_knows_every_field() {
    if let Err(error) = schemas() {
        println!("skipped: no schemas of Kubernetes: {error:#}");
        return;
    }
    let folder = TempDir::new().unwrap();
    let all = folder.path().join("all.yaml");
    let mut text = String::new();
    for name in KUSTOMIZATIONS {
        let Some(rendered) = had(render(name)) else { return };
        text.push_str(&format!("---\n{rendered}"));
    }
    fs::write(&all, &text).unwrap();
    let said = complaints(&all).unwrap();
    assert_eq!(said.len(), 3);
    assert!(said.values().all(Vec::is_empty), "{said:#?}");

    // The same judge, on a field and a kind that nobody knows.
    for (right, wrong) in [("hostPID: true", "hostPid: true"), ("kind: DaemonSet", "kind: DemonSet")] {
        let misspelt = folder.path().join("misspelt.yaml");
        fs::write(&misspelt, text.replacen(right, wrong, 1)).unwrap();
        let said = complaints(&misspelt).unwrap();
        assert!(said.values().all(|complaints| complaints.len() == 1), "{wrong}: {said:#?}");
    }
}

#[test]
fn variants_differ_in_what_they_are_for() {
    let Some(least) = had(render("kubernetes/overlays/least-privilege")) else { return };
    let privileged = render("kubernetes/overlays/privileged").unwrap();
    let anonymous = render("kubernetes/overlays/anonymous").unwrap();
    assert!(!least.contains("privileged: true") && least.contains("runtimeClassName: nvidia"));
    for capability in ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"] {
        assert!(least.contains(&format!("- {capability}\n")));
    }
    assert!(!least.contains("SYS_ADMIN"));
    assert!(privileged.contains("privileged: true") && !privileged.contains("runtimeClassName"));
    // Pods are all that is asked for, and nothing where nothing is asked for.
    assert!(least.contains("  - pods\n  verbs:\n  - get\n  - list\n  - watch\n"));
    assert!(least.contains("automountServiceAccountToken: true"));
    assert!(!anonymous.contains("automountServiceAccountToken: true") && !anonymous.contains("ClusterRole"));
    for rendered in [&least, &privileged, &anonymous] {
        assert!(rendered.contains("readOnlyRootFilesystem: true") && rendered.contains("hostPID: true"));
        assert!(!rendered.contains("hostNetwork"));
    }
}

#[test]
fn the_agent_takes_its_configuration() {
    for path in ["kubernetes/base", "kubernetes/components/without-metadata"] {
        let file = deploy().join(path).join("agent.yaml");
        let ended = program::run(&["agent", "--config", file.to_str().unwrap(), "--check-config"]).unwrap();
        assert_eq!(ended.code, Some(0), "{path}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("0.0.0.0:9464"), "{}", ended.stdout);
    }
}
