//! What one library offers: [`Library`] → findings, a table of its functions, JSON.

use super::{Grade, Section};
use crate::attach::{Alias, Code, Cost, Group, Library, Machine, Missing, Point, Role};
use crate::probe;
use crate::target::Mapping;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A GPU or TLS library of the process, with every function.
#[derive(Clone, Debug, Serialize)]
pub struct LibraryReport {
    /// Path as the process sees it.
    pub path: String,
    #[serde(skip)]
    name: String,
    /// The file was replaced or removed; the mapped one is looked at.
    deleted: bool,
    /// What it is.
    pub roles: Vec<Role>,
    /// As far as its name tells.
    version: Option<String>,
    build_id: Option<String>,
    machine: Machine,
    /// Probed functions by cost class.
    probed: BTreeMap<Cost, usize>,
    /// Probed functions.
    symbols: Vec<SymbolReport>,
    /// What is not probed.
    missing: Vec<Missing>,
    /// What is counted under another name.
    aliases: Vec<Alias>,
    /// Where in the file the code of a linked runtime lies, as start and end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runtime_code: Vec<(u64, u64)>,
}

/// A probed function.
#[derive(Clone, Debug, Serialize)]
struct SymbolReport {
    symbol: &'static str,
    /// Virtual address of the function, as linked.
    address: String,
    /// Offset in the file of the probed instruction.
    offset: String,
    /// Bytes between the two.
    distance: u64,
    cost: Cost,
    why: &'static str,
    /// What was looked at, up to the end of the probed instruction.
    code: Code,
}

impl SymbolReport {
    fn new(point: &Point) -> Option<Self> {
        Some(Self {
            symbol: probe::api(point.api)?.symbol,
            address: format!("{:#x}", point.address),
            offset: format!("{:#x}", point.offset),
            distance: point.site.distance,
            cost: point.site.cost,
            why: point.site.why,
            code: point.site.code,
        })
    }
}

impl LibraryReport {
    /// Of the library that is mapped here.
    pub fn new(mapping: &Mapping, library: &Library) -> Self {
        let classes = Cost::ALL.into_iter().map(|cost| (cost, library.count(cost)));
        Self {
            path: mapping.path.clone(),
            name: mapping.name().to_owned(),
            deleted: mapping.deleted,
            roles: library.roles.clone(),
            version: [Some(mapping.name()), library.soname.as_deref()]
                .into_iter()
                .flatten()
                .find_map(version),
            build_id: library.build_id.clone(),
            machine: library.machine,
            probed: classes.collect(),
            symbols: library.points.iter().filter_map(SymbolReport::new).collect(),
            missing: library.missing.clone(),
            aliases: library.aliases.clone(),
            runtime_code: library.runtime_code.clone(),
        }
    }

    /// The file's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has to do with a GPU.
    pub fn is_gpu(&self) -> bool {
        self.roles.iter().any(|role| role.is_gpu())
    }

    /// Whether any function of it is probed.
    pub fn is_probed(&self) -> bool {
        !self.symbols.is_empty()
    }

    /// Whether it has functions that may not be probed.
    fn is_refused(&self) -> bool {
        self.missing.iter().any(|missing| missing.group == Group::Refused)
    }

    /// Lines for people.
    pub fn findings(&self, section: &mut Section) {
        let stripped = self.roles == [Role::StrippedRuntime];
        if !stripped {
            let grade = match (self.is_probed(), self.is_refused()) {
                (true, _) => Grade::Ok,
                // As is libcudart's on aarch64: what it does is seen at the driver.
                (false, true) => Grade::Note,
                (false, false) => Grade::Fail,
            };
            section.add(grade, self.name(), self.coverage());
        }
        let dear = self.symbols.iter().filter(|symbol| symbol.cost == Cost::SingleStepped);
        let dear: Vec<_> = dear.map(|symbol| symbol.symbol).collect();
        if !dear.is_empty() {
            let detail = format!("{} single-stepped, 3 to 14 times dearer: {}", dear.len(), short(&dear));
            section.add(Grade::Note, self.name(), detail);
        }
        for ((group, reason), symbols) in self.by_reason() {
            let what = match group {
                Group::NotInThisVersion => reason.to_owned(),
                Group::Refused | Group::Expensive => format!("refused, {reason}"),
            };
            section.add(Grade::Note, self.name(), format!("{} {what}: {}", symbols.len(), short(&symbols)));
        }
        if let Some(alias) = self.aliases.first() {
            let (count, Alias { symbol, counted_as }) = (self.aliases.len(), alias);
            let detail =
                format!("{count} are other names of probed functions: {symbol} counts as {counted_as}");
            section.add(Grade::Note, self.name(), if count > 1 { detail + ", …" } else { detail });
        }
        if self.deleted {
            section.add(Grade::Note, self.name(), "the file was replaced on disk; the mapped one is probed");
        }
    }

    /// Every function, one a line.
    pub fn table(&self) -> String {
        let mut text = format!("  {}\n", self.path);
        for symbol in &self.symbols {
            let SymbolReport { symbol, address, distance, cost, why, code, .. } = symbol;
            let place = format!("{address}+{distance}");
            let _ = writeln!(text, "    {symbol:<44} {place:<14} {:<15} {why} [{code}]", cost.name());
        }
        for Alias { symbol, counted_as } in &self.aliases {
            let _ = writeln!(text, "    {symbol:<44} counted as {counted_as}");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "    {:<44} not probed: {}", missing.symbol, missing.reason);
        }
        text
    }

    fn coverage(&self) -> String {
        let roles = self.roles.iter().filter(|role| **role != Role::StrippedRuntime);
        let roles: Vec<_> = roles.map(|role| role.name()).collect();
        let classes = self.probed.iter().filter(|(_, count)| **count > 0);
        let classes: Vec<_> = classes.map(|(cost, count)| format!("{count} {}", cost.name())).collect();
        let classes = if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
        let mut text =
            format!("{}, {} functions can be probed{classes}", roles.join(" and "), self.symbols.len());
        if let Some(version) = &self.version {
            let _ = write!(text, ", version {version}");
        }
        if let Some(id) = &self.build_id {
            let _ = write!(text, ", build id {id}");
        }
        text
    }

    fn by_reason(&self) -> BTreeMap<(Group, &'static str), Vec<&'static str>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for missing in &self.missing {
            groups.entry((missing.group, missing.reason)).or_default().push(missing.symbol);
        }
        groups
    }
}

/// What follows `.so.` in a library's name, where it tells anything: every driver is called `libcuda.so.1`.
fn version(name: &str) -> Option<String> {
    let (_, version) = name.split_once(".so.")?;
    let is_version = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_version && !version.is_empty() && version != "1").then(|| version.to_owned())
}

/// The first few names.
pub fn short<T: AsRef<str>>(names: &[T]) -> String {
    const FEW: usize = 6;
    let shown = names.iter().take(FEW).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if names.len() > FEW { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_names() {
        for (name, expected) in [
            ("libcuda.so.550.163.01", Some("550.163.01")),
            ("libcudart-d0da41ae.so.11.0", Some("11.0")),
            ("libcuda.so.1", None),
            ("libcudart.so", None),
            ("libcudart.so.", None),
            ("libcudart.so.old", None),
            ("python3.11", None),
        ] {
            assert_eq!(version(name).as_deref(), expected, "{name}");
        }
    }
}
