//! What shows that a candidate is a server, and which process stands above all of it.
//!
//! In: the topmost process with evidence of its own. Out: the root of the target, and why it is one or what it lacks. A
//! process with a GPU may leave listening to its parent, as workers do, or share a socket with its siblings.

use super::kind::Kind;
use super::procfs::Processes;
use super::table::Table;
use crate::target::Address;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// How far above a worker that does not listen one is looked for that does.
const HIGHEST: usize = 3;
/// Addresses that are told.
const MOST_TOLD: usize = 3;

/// What a candidate comes to.
#[derive(Debug)]
pub struct Evidence {
    /// The topmost process of it.
    pub root: u32,
    /// The server that it, or one of its processes, is recognised as.
    pub server: Option<&'static str>,
    /// Why it is a server; none if it is not.
    pub why: Option<String>,
    /// What it lacks if it is none.
    pub lacks: String,
}

/// Looks at a candidate and what is under it. `on_gpu` is what drivers say.
pub fn evidence(
    table: &mut Table,
    processes: &mut dyn Processes,
    candidate: u32,
    now: Instant,
    on_gpu: &BTreeSet<u32>,
) -> Evidence {
    let members = table.descendants(candidate);
    let recognised = members.iter().find_map(|pid| match table.get(*pid)?.kind {
        Kind::Server(server) => Some((*pid, server)),
        _ => None,
    });
    if let Some((pid, server)) = recognised {
        let which = if pid == candidate { String::new() } else { format!(" of process {pid}") };
        let why = Some(format!("{server} by name or command line{which}"));
        return Evidence { root: candidate, server: Some(server), why, lacks: String::new() };
    }
    let gpu = members.iter().find_map(|pid| {
        let listed = || on_gpu.contains(pid).then(|| "a driver lists it as on its GPU".to_owned());
        Some((*pid, table.get(*pid)?.gpu.clone().or_else(listed)?))
    });
    let Some((pid, gpu)) = gpu else {
        let lacks = "it has nothing to do with a GPU".to_owned();
        return Evidence { root: candidate, server: None, why: None, lacks };
    };
    let gpu = if pid == candidate { gpu } else { format!("{gpu} in process {pid}") };
    let (root, sockets) = listening_root(table, processes, candidate, &members, now);
    let addresses: BTreeSet<&Address> = sockets.values().collect();
    let told: Vec<String> =
        addresses.into_iter().take(MOST_TOLD).map(|address| address.clone().into()).collect();
    let why = (!told.is_empty()).then(|| format!("{gpu}, and it listens on {}", told.join(", ")));
    let lacks =
        format!("{gpu}, but neither it nor another of its group listens: no server, as far as can be told");
    Evidence { root, server: None, why, lacks }
}

/// The process that stands above a candidate and listens with it or for it, and what is listened on.
fn listening_root(
    table: &mut Table,
    processes: &mut dyn Processes,
    candidate: u32,
    members: &[u32],
    now: Instant,
) -> (u32, BTreeMap<u64, Address>) {
    let mut sockets = BTreeMap::new();
    for pid in members {
        sockets.extend(table.listens(*pid, now, processes).iter().cloned());
    }
    let mut root = candidate;
    let mut silent = 0;
    for above in table.ancestors(candidate) {
        let (Some(parent), Some(child)) = (table.get(above), table.get(root)) else { break };
        let same_place = parent.program.cgroup == child.program.cgroup;
        // A worker that a multiprocessing library made runs its parent's program.
        let same_program = parent.program.executable == child.program.executable;
        // The first process starts everything and serves nothing.
        if above == 1 || !same_place || parent.kind.is_outside() {
            break;
        }
        let theirs = table.listens(above, now, processes).to_vec();
        let shared = theirs.iter().any(|(inode, _)| sockets.contains_key(inode));
        if !theirs.is_empty() && (sockets.is_empty() || shared || same_program) {
            sockets.extend(theirs);
            root = above;
            silent = 0;
        } else {
            silent += 1;
        }
        if silent == HIGHEST || silent > 0 && !sockets.is_empty() {
            break;
        }
    }
    (root, sockets)
}
