//! What `gpuspan check` says of a real server, as far as it does not change with every version: which libraries it
//! finds, what they are to it, which cost classes and reasons occur. Compared with `golden/`; `UPDATE=1` renews it.

use std::collections::BTreeSet;
use std::path::Path;

use e2e::program::run;
use serde_json::Value;

/// Compares with the golden file of this name.
pub fn check(pid: u32, name: &str) {
    let ended = run(&["check", "--json", "--pid", &pid.to_string()]).unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let sections: Value = serde_json::from_str(&ended.stdout).unwrap();
    let libraries = sections.as_array().unwrap().iter().filter_map(|section| section["libraries"].as_array());
    let lines: BTreeSet<String> = libraries.flatten().map(line).collect();
    let text: String = lines.into_iter().collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "run the tests with UPDATE=1 to renew {}", path.display());
}

/// Without versions, counts and ids.
fn line(library: &Value) -> String {
    let texts = |list: &Value, of: &str| -> BTreeSet<String> {
        let all = list.as_array().into_iter().flatten();
        all.filter_map(|entry| if of.is_empty() { entry.as_str() } else { entry[of].as_str() })
            .map(str::to_owned)
            .collect()
    };
    let joined = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>().join(", ");
    let path = library["path"].as_str().unwrap();
    let file = path.rsplit('/').next().unwrap();
    let stem = file.split_once(".so").map_or(file, |(stem, _)| stem);
    let roles = joined(texts(&library["roles"], ""));
    let costs = joined(texts(&library["symbols"], "cost"));
    let missing = joined(texts(&library["missing"], "group"));
    format!("{stem}: {roles}; probed: [{costs}]; not: [{missing}]\n")
}
