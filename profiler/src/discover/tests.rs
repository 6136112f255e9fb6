//! Discovery on process tables that are made up, with a clock that stands where it is put, and on real processes.

mod hinted;
mod live;
mod made_up;

use super::*;
use crate::target::Address;
use made_up::Story;

const GPU: Option<&str> = Some("libcuda.so.1 is mapped");
const S: Duration = Duration::from_secs(1);

#[test]
fn a_known_server_is_found_at_once_and_a_library_alone_is_no_proof() {
    let mut story = Story::new("[]");
    story.start(10, 1, "bash", "bash");
    story.start(20, 10, "/usr/bin/python3", "python3 /opt/bin/vllm serve m");
    story.start(30, 10, "/usr/bin/python3", "python3 idle.py");
    story.change(30, |of| of.gpu = Some("libcudart.so.12 is mapped"));
    let look = story.look();
    assert_eq!(story.roots(&look), [(20, "vllm")]);
    assert_eq!(look.found[0].why, "vllm by name or command line");
    assert_eq!(look.passed.len(), 1);
    let why = &look.passed[0].why;
    assert!(why.starts_with("libcudart.so.12 is mapped, but neither it nor another"), "{why}");
}

#[test]
fn a_program_becomes_a_server_by_a_late_library_and_a_late_socket() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/srv/app", "app");
    assert!(story.look() == Look::default());
    story.change(20, |of| (of.gpu, of.pages, of.code_kb) = (GPU, 300, 40));
    assert_eq!(story.look().passed.len(), 1);
    story.change(20, |of| (of.descriptors, of.listens) = (4, vec![(7, Address::Tcp(8000))]));
    let look = story.look();
    assert_eq!(look.found[0].why, "libcuda.so.1 is mapped, and it listens on tcp:8000");
    // What it loses for a moment does not matter.
    story.change(20, |of| (of.gpu, of.listens, of.pages, of.code_kb) = (None, Vec::new(), 200, 20));
    for _ in 0..40 {
        assert_eq!(story.look().found, look.found);
    }
    story.end(20);
    assert!(story.look().found.is_empty());
}

#[test]
fn a_socket_that_listens_long_after_it_was_made_is_seen() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/srv/app", "app");
    story.change(20, |of| of.gpu = GPU);
    (0..20).for_each(|_| assert!(story.look().found.is_empty()));
    // The number of descriptors stays the same.
    story.change(20, |of| of.listens.push((7, Address::Tcp(8000))));
    assert!((0..11).any(|_| !story.look().found.is_empty()));
}

#[test]
fn the_root_is_the_topmost_process_that_belongs_to_it() {
    // Two servers of one shell, one with workers of its own that listen to each other.
    let mut story = Story::new("[]");
    story.start(10, 1, "/usr/bin/bash", "bash");
    story.start(20, 10, "/usr/bin/python3", "python3 api.py");
    story.change(20, |of| of.listens.push((1, Address::Tcp(8000))));
    for worker in [21, 22] {
        story.start(worker, 20, "/usr/bin/python3", "python3 -c from multiprocessing.spawn");
        let socket = (u64::from(worker), Address::Tcp(40000));
        story.change(worker, |of| (of.gpu, of.listens) = (GPU, vec![socket]));
    }
    story.start(30, 10, "/srv/llama-server", "llama-server -m x");
    let look = story.look();
    assert_eq!(story.roots(&look), [(20, "generic"), (30, "llama.cpp")]);
    assert!(look.found[0].why.contains("listens on tcp:8000"), "{look:?}");

    // Workers that share their parent's socket; a worker that leaves listening to its parent, another program.
    let mut story = Story::new("[]");
    story.start(10, 1, "/usr/bin/supervisord", "supervisord");
    story.start(20, 10, "/srv/master", "master");
    story.start(21, 20, "/srv/worker", "worker");
    story.start(30, 10, "/srv/front", "front");
    story.start(31, 30, "/srv/between", "between");
    story.start(32, 31, "/srv/engine", "engine");
    for (pid, socket) in [(10, 9), (20, 1), (21, 1), (30, 2)] {
        story.change(pid, |of| of.listens.push((socket, Address::Tcp(8000))));
    }
    [21, 32].into_iter().for_each(|pid| story.change(pid, |of| of.gpu = GPU));
    assert_eq!(story.roots_now(), [(20, "generic"), (30, "generic")]);
    // A server that starts others belongs to them, and what they start later, too.
    let mut story = Story::new("[]");
    story.start(20, 1, "/usr/bin/ollama", "ollama serve");
    story.start(21, 20, "/usr/lib/llama-server", "llama-server --port 1");
    assert_eq!(story.roots_now(), [(20, "ollama")]);
    story.start(22, 20, "/usr/lib/llama-server", "llama-server --port 2");
    assert_eq!(story.roots_now(), [(20, "ollama")]);
}

#[test]
fn a_process_in_another_cgroup_is_no_parent() {
    let mut story = Story::new("[]");
    story.start(10, 1, "/usr/bin/manager", "manager");
    story.change(10, |of| of.listens.push((1, Address::Tcp(80))));
    story.start(20, 10, "/srv/job", "job");
    story.change(20, |of| (of.gpu, of.cgroup) = (GPU, "/docker/x"));
    assert!(story.look().found.is_empty());
}

#[test]
fn what_drivers_list_counts_with_a_socket() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/srv/app", "app");
    story.start(30, 1, "/srv/job", "job");
    story.start(40, 1, "/usr/bin/dcgm-exporter", "dcgm-exporter");
    story.change(20, |of| of.listens.push((1, Address::Unix("/run/app".into()))));
    story.change(40, |of| of.listens.push((2, Address::Tcp(9400))));
    story.on_gpu = BTreeSet::from([20, 30, 40]);
    let look = story.look();
    assert_eq!(look.found[0].why, "a driver lists it as on its GPU, and it listens on unix:/run/app");
    let passed: Vec<_> = look.passed.iter().map(|passed| (passed.pid, passed.why.as_str())).collect();
    assert_eq!((story.roots(&look), passed[0]), (vec![(20, "generic")], (40, "a monitor of GPUs")));
    assert_eq!((passed.len(), passed[1].0), (2, 30));
}

#[test]
fn servers_of_one_container_are_one_target() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/usr/bin/python3", "python3 -m sglang.launch_server");
    story.start(30, 1, "/usr/bin/python3", "python3 -m sglang.launch_server --port 1");
    story.start(40, 1, "/usr/bin/python3", "python3 -m sglang.launch_server --port 2");
    story.made().groups.push(BTreeSet::from([20, 30]));
    assert_eq!(story.roots_now(), [(20, "sglang"), (40, "sglang")]);
    story.end(20);
    assert_eq!(story.roots_now(), [(30, "sglang"), (40, "sglang")], "its partner goes on by itself");
}

#[test]
fn rules_name_include_and_exclude() {
    let rules = "[{match: {command: '*batch.py*'}, name: nightly}, \
        {match: {namespace: dev}, action: exclude}, \
        {match: {namespace: prod}, name: chat, attributes: {team: a}}]";
    let mut story = Story::new(rules);
    story.start(20, 1, "/usr/bin/python3", "python3 batch.py");
    story.start(30, 1, "/usr/bin/python3", "python3 /opt/bin/vllm serve a");
    story.start(40, 1, "/usr/bin/python3", "python3 /opt/bin/vllm serve b");
    story.start(50, 1, "/usr/bin/sleep", "sleep 1");
    for (pid, namespace) in [(30, "dev"), (40, "prod"), (50, "prod")] {
        story.place(pid, Some(namespace));
    }
    let look = story.look();
    assert_eq!(story.roots(&look), [(20, "generic"), (40, "vllm")]);
    assert_eq!(look.found[0].why, "rule 1 includes it (command *batch.py*)");
    assert_eq!(
        (look.found[0].name.as_deref(), look.found[1].name.as_deref()),
        (Some("nightly"), Some("chat"))
    );
    assert_eq!(look.found[1].attributes, [("team".to_owned(), "a".to_owned())]);
    assert_eq!(
        look.passed,
        [Passed { pid: 30, comm: "python3".into(), why: "rule 2 excludes it (namespace dev)".into() }]
    );
    // Other rules take back what only the old ones included, and names.
    story.discovery.set(Rules::default(), Settings::default());
    let look = story.look();
    assert_eq!(story.roots(&look), [(30, "vllm"), (40, "vllm")]);
    assert!(look.found.iter().all(|found| found.name.is_none() && found.attributes.is_empty()));
}

#[test]
fn a_pod_is_waited_for_where_a_rule_asks() {
    let mut story = Story::new("[{match: {namespace: dev}, action: exclude}]");
    story.start(20, 1, "/srv/llama-server", "llama-server");
    story.start(30, 1, "/srv/llama-server", "llama-server --late");
    story.place(20, None);
    story.place(30, None);
    assert_eq!(story.look().passed[0].why, "a rule asks for its pod, which is not known yet");
    story.place(20, Some("dev"));
    let look = story.look();
    assert!(look.found.is_empty() && look.passed[0].why.starts_with("rule 1 excludes"), "{look:?}");
    assert_eq!(story.roots_now(), [(30, "llama.cpp")], "after 2 s it is taken as it is");
    story.place(30, Some("dev"));
    assert!((0..11).any(|_| story.roots_now().is_empty()), "and left alone once its pod is known");
}

#[test]
fn who_crashes_again_and_again_is_left_alone_for_a_while() {
    let mut story = Story::new("[]");
    story.look();
    let mut found = 0;
    for pid in 20..30 {
        // A container that is started again has another id.
        let cgroup = format!("/kubepods/pod1/{pid:064x}").leak();
        story.start(pid, 1, "/srv/llama-server", "llama-server");
        story.change(pid, |of| of.cgroup = cgroup);
        let look = story.look();
        found += look.found.len();
        if pid == 29 {
            let why = &look.passed[0].why;
            assert!(why.starts_with("back-off: started 10 times in "), "{why}");
        }
        story.end(pid);
        story.look();
    }
    assert!(found < 6, "{found}");
    story.start(40, 1, "/srv/llama-server", "llama-server");
    story.change(40, |of| of.cgroup = "/kubepods/pod2/x");
    assert_eq!(story.roots_now(), [(40, "llama.cpp")], "another pod is another kind");
}

#[test]
fn who_lives_on_after_a_loop_is_found() {
    let mut story = Story::new("[]");
    story.look();
    for pid in 20..23 {
        story.start(pid, 1, "/srv/llama-server", "llama-server");
        assert_eq!(story.roots_now().len(), 1);
        story.end(pid);
        story.look();
    }
    story.start(30, 1, "/srv/llama-server", "llama-server");
    assert_eq!((0..12).map(|_| story.roots_now().len()).sum::<usize>(), 3, "10 s after the third crash");
}

#[test]
fn what_is_left_of_a_target_is_no_target_at_once() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/usr/bin/python3", "python3 /opt/bin/vllm serve m");
    story.start(21, 20, "/usr/bin/python3", "VLLM::EngineCore");
    story.change(21, |of| of.comm = "VLLM::EngineCor");
    story.look();
    story.end(20);
    story.change(21, |of| of.parent = 1);
    let look = story.look();
    assert!(look.found.is_empty() && look.passed[0].why.starts_with("left over from target 20"), "{look:?}");
    assert!((0..6).any(|_| story.roots_now() == [(21, "vllm")]));
}

#[test]
fn there_are_not_more_targets_than_wanted_and_the_first_stay() {
    let mut story = Story::new("[]");
    story.discovery.set(Rules::default(), Settings { most_targets: 2 });
    for pid in [40, 30, 20] {
        story.start(pid, 1, "/srv/llama-server", "llama-server");
    }
    let look = story.look();
    assert_eq!(story.roots(&look), [(30, "llama.cpp"), (40, "llama.cpp")]);
    assert!(look.passed[0].pid == 20 && look.passed[0].why.contains("discover.most_targets"), "{look:?}");
    story.end(40);
    assert_eq!(story.roots_now(), [(20, "llama.cpp"), (30, "llama.cpp")]);
}

#[test]
fn another_program_under_a_number_is_another_process() {
    let mut story = Story::new("[]");
    story.start(20, 1, "/srv/llama-server", "llama-server");
    let first = story.look().found;
    // The number is used again between two looks.
    story.end(20);
    story.start(20, 1, "/srv/llama-server", "llama-server");
    let second = story.look().found;
    assert!(first[0].root == second[0].root && first[0].start_ticks < second[0].start_ticks);
    // The same process runs another program.
    story.change(20, |of| {
        (of.comm, of.executable, of.line, of.pages) = ("sleep", "/bin/sleep", "sleep 60", 5)
    });
    assert!(story.look().found.is_empty());
}

#[test]
fn another_program_of_the_same_interpreter_is_seen_by_its_command_line() {
    let serve = "python3 /opt/bin/vllm serve m";
    let mut story = Story::new("[]");
    story.start(20, 1, "/usr/bin/python3", "python3 entry.py");
    (0..12).for_each(|_| assert!(story.look().found.is_empty()));
    story.start(30, 1, "/usr/bin/python3", "python3 entry.py");
    story.look();
    [20, 30].into_iter().for_each(|pid| story.change(pid, |of| (of.line, of.pages) = (serve, 101)));
    assert_eq!(story.roots_now(), [(30, "vllm")], "at once if it is young");
    assert!((0..30).any(|_| story.roots_now().len() == 2), "else within half a minute");
}

#[test]
fn a_quiet_process_costs_its_size() {
    let mut story = Story::new("[]");
    for pid in 100..600 {
        story.start(pid, 1, "/usr/bin/sleep", "sleep 60");
    }
    story.look();
    let before = story.made().counts;
    (0..30).for_each(|_| drop(story.look()));
    let after = story.made().counts;
    assert_eq!(after.examined, before.examined);
    assert_eq!(after.status - before.status, 501, "each is asked once in 30 s");
    assert!(story.most_status_of_a_look < 40, "and not all at once: {}", story.most_status_of_a_look);
    let hinted = 100;
    story.discovery.hint(hinted, Happened::Executed, story.now);
    story.look();
    assert_eq!(story.made().counts.examined, after.examined + 1);
}

/// Any order of anything leaves targets that live, once each, and no more than there may be.
#[test]
fn random_histories_keep_the_invariants() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut story = Story::new("[{match: {command: '*never*'}, action: exclude}]");
        story.discovery.set(Rules::default(), Settings { most_targets: 5 });
        for _ in 0..60 {
            let pid = random.u32(2..40);
            match random.u8(0..7) {
                0 => story.end(pid),
                1 | 2 if !story.made().processes.contains_key(&pid) => {
                    let parent = random.u32(1..40);
                    let programs =
                        [("/srv/llama-server", "llama-server"), ("/bin/sh", "sh"), ("/srv/app", "app")];
                    let (executable, line) = random.choice(programs).unwrap();
                    story.start(pid, parent, executable, line);
                }
                3 if story.made().processes.contains_key(&pid) => {
                    story.change(pid, |of| {
                        (of.gpu, of.code_kb, of.pages) = (GPU, of.code_kb + 1, of.pages + 1);
                        of.listens.push((u64::from(pid % 7), Address::Tcp(1)));
                    });
                }
                4 => {
                    let happened = if random.bool() { Happened::Executed } else { Happened::Listens };
                    story.discovery.hint(pid, happened, story.now);
                }
                _ => {
                    let whole = random.bool();
                    let look = if whole { Some(story.look()) } else { story.look_hinted() };
                    let look = look.unwrap_or_default();
                    assert!(look.found.len() <= 5, "seed {seed}");
                    for found in &look.found {
                        let made = story.made();
                        if !whole && !made.processes.contains_key(&found.root) {
                            // Nobody has said that it is gone.
                            continue;
                        }
                        let of = made
                            .processes
                            .get(&found.root)
                            .unwrap_or_else(|| panic!("seed {seed}: {found:?}"));
                        assert!(!whole || of.start_ticks == found.start_ticks, "seed {seed}");
                        assert!(
                            !look.passed.iter().any(|passed| passed.pid == found.root),
                            "seed {seed}: {look:?}"
                        );
                    }
                }
            }
        }
    }
}
