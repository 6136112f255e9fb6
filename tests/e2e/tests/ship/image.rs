//! The image is the same each time, has what the program needs and no more, and `gpuspan check` runs in it with the
//! capabilities of the manifest on a read-only root file system.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::program;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::ship::image;
use xtask::ship::tools::Tool;

use crate::had;

#[test]
fn check_runs_in_the_image() {
    e2e::or_skip!();
    let folder = TempDir::new().unwrap();
    let binary = program::gpuspan().unwrap();
    let Some(image) = had(image::build(&binary, folder.path())) else { return };
    let again = image::build(&binary, &folder.path().join("again")).unwrap();
    assert_eq!(image.digest, again.digest);
    assert_eq!(fs::read(&image.archive).unwrap(), fs::read(&again.archive).unwrap());
    for line in ["deb libc6 ", "deb ca-certificates ", "crate aya ", "crate profiler "] {
        assert!(image.contents.iter().any(|have| have.starts_with(line)), "{line}");
    }

    let bundle = folder.path().join("bundle");
    let mut unpack = Tool::Umoci.command().unwrap();
    unpack.args(["unpack", "--image", &format!("{}:{}", image.layout.display(), xtask::ship::VERSION)]);
    done(unpack.arg(&bundle));
    let programs: Vec<_> = fs::read_dir(bundle.join("rootfs/usr/bin")).unwrap().flatten().collect();
    assert_eq!(programs.len(), 1, "{programs:?}");
    as_the_manifest_says(&bundle.join("config.json"), &["/usr/bin/gpuspan", "check"]);
    let state = folder.path().join("runc");
    let mut run = Tool::Runc.command().unwrap();
    run.arg("--root").arg(&state).args(["run", "--bundle"]).arg(&bundle);
    let name = format!("gpuspan-test-{}", std::process::id());
    let said = done(run.arg(&name));
    for line in ["ok    kernel", "ok    system call hook", "ok    process hooks", "ok    cost of a probe"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // All but one, which the manifest leaves out on purpose.
    assert!(said.contains("CAP_SYS_ADMIN is missing") && !said.contains("CAP_BPF is missing"), "{said}");
}

/// Changes a runtime's configuration as kubelet would after the DaemonSet.
fn as_the_manifest_says(path: &Path, arguments: &[&str]) {
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let capabilities = json!(["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    let process = &mut config["process"];
    assert_eq!(process["args"][0], "/usr/bin/gpuspan", "the image's entry point");
    process["args"] = json!(arguments);
    process["terminal"] = json!(false);
    process["noNewPrivileges"] = json!(true);
    for set in ["bounding", "effective", "permitted", "inheritable"] {
        process["capabilities"][set] = capabilities.clone();
    }
    config["root"]["readonly"] = json!(true);
    config["linux"]["resources"] = json!({});
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "cgroup");
    let options = ["ro", "nosuid", "nodev", "noexec"];
    mounts.push(json!({ "destination": "/sys/kernel/tracing", "type": "tracefs", "source": "tracefs", "options": options }));
    fs::write(path, config.to_string()).unwrap();
}

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}
