//! What must hold of the table, and that the page agrees with it.

use super::super::known;
use super::*;
use std::collections::BTreeSet;

const BEGIN: &str = "<!-- generated from profiler/src/server/visibility: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

#[test]
fn the_page_of_servers_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/servers.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let current = [head, BEGIN, &markdown(), END, tail].concat();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &current).unwrap();
        return;
    }
    assert_eq!(page, current, "run the tests with UPDATE=1 to renew docs/servers.md");
}

#[test]
fn every_server_that_is_recognised_has_a_row() {
    for (comm, executable, command_line) in [
        ("vllm", "/usr/bin/python3", "python3 /opt/bin/vllm serve m"),
        ("python3", "/usr/bin/python3", "python3 -m sglang.launch_server"),
        ("llama-server", "/srv/llama-server", "llama-server"),
        ("ollama", "/usr/bin/ollama", "ollama serve"),
        ("python3", "/usr/bin/python3", "python3 /opt/bin/transformers serve"),
        ("tritonserver", "/opt/tritonserver/bin/tritonserver", "tritonserver"),
        ("text-generation", "/usr/bin/text-generation-router", "text-generation-router"),
        ("python3", "/usr/bin/python3", "python3 /opt/bin/trtllm-serve m"),
        ("python3", "/usr/bin/python3", "python3 app.py"),
    ] {
        let command_line: Vec<_> = command_line.split(' ').map(str::to_owned).collect();
        let name = known::recognise(comm, executable, &command_line);
        assert_eq!(server(name).name, name);
    }
    assert_eq!(server("nobody").name, "generic");
    let names: BTreeSet<_> = SERVERS.iter().map(|server| server.name).collect();
    assert_eq!(names.len(), SERVERS.len());
}

#[test]
fn what_holds_changes_what_is_seen() {
    let sight = |holds: &[Holds], aspect: Aspect| {
        let views = server("vllm").views(holds);
        assert_eq!(views.iter().map(|view| view.aspect).collect::<Vec<_>>(), Aspect::ALL);
        views.iter().find(|view| view.aspect == aspect).unwrap().seen.sight
    };
    assert_eq!(sight(&[], Aspect::QueueStart), Sight::Exact);
    assert_eq!(sight(&[Holds::NoStatistics], Aspect::QueueStart), Sight::Inferred);
    assert_eq!(sight(&[], Aspect::Members), Sight::Inferred);
    assert_eq!(sight(&[Holds::Ring, Holds::NoStatistics], Aspect::Members), Sight::Exact);
    assert_eq!(sight(&[Holds::Ring, Holds::NoStatistics], Aspect::KvUsage), Sight::NotVisible);
    // What belongs to another server changes nothing.
    assert_eq!(sight(&[Holds::Metrics], Aspect::QueueEnd), Sight::Exact);
}

#[test]
fn a_server_that_is_not_heard_is_seen_as_any_other() {
    for server in SERVERS {
        assert_eq!(server.views(&[Holds::Unheard]), table::GENERIC.views(&[]), "{}", server.name);
    }
    // Nothing but what stands in the answer is exact then.
    let exact = table::GENERIC.views(&[]).into_iter().filter(|view| view.seen.sight == Sight::Exact);
    let exact: Vec<_> = exact.map(|view| view.aspect).collect();
    assert_eq!(exact, [Aspect::Arrival, Aspect::End, Aspect::PromptTokens, Aspect::GeneratedTokens]);
}

#[test]
fn every_word_says_how_or_why() {
    for server in SERVERS {
        let changed = server.changes.iter().flat_map(|change| change.seen).map(|(_, seen)| seen);
        for seen in server.usual.iter().chain(changed) {
            assert!(seen.how.len() > 8 && !seen.how.ends_with('.'), "{}: {}", server.name, seen.how);
        }
        let mut holds: Vec<_> = server.changes.iter().map(|change| change.when).collect();
        holds.sort_unstable();
        holds.dedup();
        assert_eq!(holds.len(), server.changes.len(), "{}", server.name);
    }
}
