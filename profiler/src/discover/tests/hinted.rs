//! Looks at those that something happened to, and at nobody else.

use super::made_up::Story;
use super::{GPU, S};
use crate::receive::Happened::{Executed, Listens};
use crate::target::Address;
use std::time::Duration;

#[test]
fn a_server_is_found_at_its_exec_and_nothing_else_is_asked() {
    let mut story = Story::new("[]");
    (100..600).for_each(|pid| story.start(pid, 1, "/usr/bin/sleep", "sleep 60"));
    story.look();
    story.start(20, 1, "/srv/llama-server", "llama-server -m m");
    let before = story.made().counts;
    story.discovery.hint(20, Executed, story.now);
    let look = story.look_hinted().unwrap();
    assert_eq!(story.roots(&look), [(20, "llama.cpp")]);
    let after = story.made().counts;
    assert_eq!((after.status - before.status, after.examined - before.examined), (1, 1));
    // A process that was known becomes one.
    story.change(100, |of| {
        (of.comm, of.executable, of.line) = ("llama-server", "/srv/llama-server", "llama-server -m n")
    });
    story.discovery.hint(100, Executed, story.now);
    let look = story.look_hinted().unwrap();
    assert_eq!(story.roots(&look), [(20, "llama.cpp"), (100, "llama.cpp")]);
    // And one that was a server is none any more.
    story.change(20, |of| (of.comm, of.executable, of.line) = ("true", "/bin/true", "true"));
    story.discovery.hint(20, Executed, story.now);
    let look = story.look_hinted().unwrap();
    assert_eq!(story.roots(&look), [(100, "llama.cpp")]);
}

#[test]
fn a_socket_that_listens_late_is_seen_at_once_though_its_table_was_read() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/srv/app", "app");
    story.start(21, 20, "/srv/app", "app");
    story.change(21, |of| of.gpu = GPU);
    (0..6).for_each(|_| assert!(story.look().found.is_empty()));
    // A second look within the time for which sockets are not read again.
    story.change(20, |of| of.listens.push((7, Address::Tcp(80))));
    story.discovery.hint(20, Listens, story.now);
    let look = story.look_hinted().unwrap();
    assert_eq!(story.roots(&look), [(20, "generic")], "it listens for its child, which has the GPU");
}

#[test]
fn what_happens_to_others_changes_nothing() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/srv/llama-server", "llama-server -m m");
    story.look();
    story.start(30, 1, "/bin/true", "true");
    story.discovery.hint(30, Executed, story.now);
    assert_eq!(story.look_hinted(), None);
    // Gone before it was looked at, as most programs are.
    story.discovery.hint(31, Executed, story.now);
    assert_eq!(story.look_hinted(), None);
    story.end(20);
    story.discovery.hint(20, Executed, story.now);
    assert!(story.look_hinted().unwrap().found.is_empty(), "a target that is gone matters");
}

#[test]
fn a_program_that_loads_its_library_within_a_second_is_looked_at_again() {
    let mut story = Story::new("[]");
    story.look();
    story.start(20, 1, "/srv/app", "app");
    story.discovery.hint(20, Executed, story.now);
    assert_eq!(story.look_hinted(), None);
    story.change(20, |of| {
        (of.gpu, of.pages, of.code_kb) = (GPU, of.pages + 1, of.code_kb + 1);
        of.listens.push((7, Address::Tcp(80)));
    });
    let start = story.now;
    let next = story.discovery.next_hinted().unwrap();
    assert!(next > start && next < start + Duration::from_millis(200));
    story.now = next;
    let look = story.look_hinted().unwrap();
    assert_eq!(story.roots(&look), [(20, "generic")]);
    assert!(story.discovery.next_hinted().is_some_and(|next| next < start + S));
}

#[test]
fn looks_may_be_rare_where_nothing_is_young_and_nothing_may_begin_to_listen() {
    let mut story = Story::new("[]");
    let quiet = |story: &mut Story, looks: u32| {
        (0..looks).for_each(|_| drop(story.look()));
        story.discovery.is_quiet()
    };
    assert!(quiet(&mut story, 1), "what was there before is old");
    story.start(20, 1, "/bin/sleep", "sleep 600");
    story.discovery.hint(20, Executed, story.now);
    story.look_hinted();
    assert!(story.discovery.is_quiet(), "most programs end at once");
    story.now += Duration::from_millis(700);
    story.look_hinted();
    assert!(!story.discovery.is_quiet());
    assert!(!quiet(&mut story, 50) && quiet(&mut story, 20), "it is old after a minute");
    story.change(20, |of| (of.gpu, of.pages, of.code_kb) = (GPU, of.pages + 1, of.code_kb + 1));
    assert!(
        !quiet(&mut story, 800) && quiet(&mut story, 200),
        "it may listen as long as a model takes to load"
    );
}
