//! What no system call shows is said, not guessed.

use e2e::{or_skip, program};

use super::Scene;

#[test]
fn edge_14_a_ring_of_its_own_makes_a_process_blind_and_is_said() {
    or_skip!();
    let mut scene = Scene::start();
    scene.server.call("uring").unwrap();
    let pid = scene.server.pid().to_string();
    let checked = program::run(&["check", "--pid", &pid]).unwrap();
    assert!(checked.stdout.contains("io_uring"), "{}", checked.stdout);
    let exchange = scene.connect().exchange(&mut scene.server, 3);
    let report = scene.saw(&[exchange]);
    let blind: Vec<_> = report.summary.blind.iter().map(|blind| (blind.pid, blind.reason.as_str())).collect();
    assert!(
        blind.iter().any(|(at, reason)| at.to_string() == pid && reason.contains("io_uring")),
        "{blind:?}"
    );
}
