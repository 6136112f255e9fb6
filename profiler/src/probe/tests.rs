//! What must hold of every row.

use super::*;
use profiler_common::cookie::{Cookie, NO_SECOND, NONE, report, shape};
use profiler_common::event::WIDE_WORDS;
use std::collections::BTreeSet;

fn cookies() -> impl Iterator<Item = (&'static Api, Cookie)> {
    CATALOG.iter().map(|api| (api, api.cookie(0, 0, Results::Some)))
}

#[test]
fn no_symbol_stands_twice_in_one_library() {
    for major in [12, 13] {
        let mut names = BTreeSet::new();
        for layer in Layer::ALL {
            for (_, api) in of_library(layer, Some(major)) {
                assert!(names.insert(api.symbol), "{} in CUDA {major}", api.symbol);
            }
        }
        assert!(!names.contains("__cudaLaunchKernel"), "it jumps into cudaLaunchKernel");
    }
    assert!(CATALOG.len() > 300, "{}", CATALOG.len());
}

#[test]
fn per_thread_forms_have_their_suffix() {
    for api in CATALOG {
        let suffix = api.symbol.ends_with("_ptsz") || api.symbol.ends_with("_ptds");
        assert_eq!(api.per_thread, suffix, "{}", api.symbol);
    }
}

#[test]
fn what_hands_back_something_is_reported_at_return() {
    for (api, cookie) in cookies() {
        // What servers' functions hand back is for adapters, and their meanings are only for readers.
        if api.layer.family() == Family::Server {
            assert!(cookie.out == NONE || api.is_paired(), "{}", api.symbol);
            continue;
        }
        let hands_back = match api.meaning {
            Meaning::Allocate { key, .. } => key == KeyAt::Out,
            Meaning::AddNode { node, .. } => node == Node::Kernel,
            Meaning::Create { .. }
            | Meaning::EndCapture { .. }
            | Meaning::Instantiate { .. }
            | Meaning::GraphCreate
            | Meaning::GraphClone { .. }
            | Meaning::MakeContext { .. }
            | Meaning::StreamCreate
            | Meaning::Elapsed
            | Meaning::Named
            | Meaning::Alias { .. } => true,
            _ => false,
        };
        assert_eq!(hands_back, cookie.out != NONE, "{}", api.symbol);
        assert!(cookie.out == NONE && cookie.second == NO_SECOND || api.is_paired(), "{}", api.symbol);
    }
}

/// The highest argument that a meaning looks at.
fn highest(meaning: Meaning) -> u8 {
    let size = |size| match size {
        Size::Arg(a, _) | Size::PitchTimes(a) => a,
        Size::Area(a, b, _) | Size::PitchTimesArea(a, b) => a.max(b),
        Size::Volume(a, b, c) => a.max(b).max(c),
        Size::Summed | Size::In(_) => 0,
    };
    let way = |way| match way {
        Way::Kind(a) => a,
        Way::Addresses(a, b) => a.max(b),
        Way::Fixed(_) | Way::Structure => 0,
    };
    let stream = |stream| if let StreamAt::Arg(a) = stream { a } else { 0 };
    match meaning {
        Meaning::Copy { size: s, way: w, stream: at } => size(s).max(way(w)).max(stream(at)),
        Meaning::Set { size: s, stream: at } => size(s).max(stream(at)),
        Meaning::AddNode { node: Node::Copy { size: s, way: w }, .. } => size(s).max(way(w)),
        Meaning::AddNode { node: Node::Set(s), .. } => size(s),
        Meaning::AddNode { node: Node::Child(a), .. } => a,
        Meaning::Collective { count, stream } => (count + 1).max(stream),
        _ => 0,
    }
}

#[test]
fn arguments_beyond_the_registers_come_in_wide_records() {
    // The shapes of TLS functions are numbers of their own.
    for (api, cookie) in cookies().filter(|(api, _)| api.layer.is_gpu()) {
        let wide = matches!(cookie.shape, shape::WIDE | shape::WIDE_SUM | shape::WIDE_VOLUMES);
        assert!(wide || highest(api.meaning) < 6, "{}", api.symbol);
        assert!(!wide || cookie.report == report::ENTRY, "{}: wide records are sent at entry", api.symbol);
        assert!(usize::from(cookie.words) <= WIDE_WORDS, "{}", api.symbol);
        assert_eq!(Cookie::unpack(cookie.pack()), cookie, "{}", api.symbol);
    }
}

#[test]
fn asking_for_results_adds_return_probes_to_work_alone() {
    for (index, api) in (0..).zip(CATALOG) {
        let (some, all) = (api.cookie(index, 3, Results::Some), api.cookie(index, 3, Results::All));
        assert_eq!((some.api, some.group), (index, 3));
        let adds = !some.has_return() && all.has_return();
        let work = matches!(
            api.meaning,
            Meaning::Launch | Meaning::GraphLaunch { .. } | Meaning::Copy { .. } | Meaning::Set { .. }
        );
        assert!(adds || !work, "{}", api.symbol);
        assert!(!adds || all.report == report::ENTRY_AND_FAILURE, "{}", api.symbol);
    }
}

#[test]
fn the_page_of_probes_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/probes.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, markdown()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(page, markdown(), "run the tests with UPDATE=1 to renew docs/probes.md");
}
