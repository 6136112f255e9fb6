//! An agent without a target: what stands in the kernel then, what hastens its looks, and what it costs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Agent, Stage, or_skip, wait};
use tempfile::TempDir;
use workload::{ClientOptions, ClientRecord, ServerOptions, load};

use super::{FOUND, client, is_there, options};

/// Only servers whose command line has this are targets: others may run on this machine.
fn only(seed: u64) -> String {
    format!(
        "  rules:\n    - match: {{ command: '*--seed {seed} *' }}\n      action: include\n    - match: {{}}\n      action: exclude\n"
    )
}

/// What the links of a process stand at, by the kernel's own word; uprobes left out.
fn links(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    let field = |text: &str, name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let mut links: Vec<_> = texts
        .filter_map(|text| {
            let kind = field(&text, "link_type:")?;
            Some(field(&text, "tp_name:").unwrap_or(kind))
        })
        .filter(|link| link != "uprobe_multi")
        .collect();
    links.sort();
    links
}

fn descriptors(pid: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let files = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    files.filter(|file| !file.starts_with("/proc")).count()
}

/// Nanoseconds of a system call that does nothing, in this process, which is nobody's target: the best of some rounds.
fn system_call_ns() -> f64 {
    const CALLS: u32 = 20_000;
    let round = |_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: no preconditions.
            let _ = unsafe { libc::syscall(libc::SYS_getppid) };
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..20).map(round).fold(f64::INFINITY, f64::min)
}

const HINTS: [&str; 2] = ["inet_sock_set_state", "sched_process_exec"];

#[test]
fn nothing_is_watched_without_a_target() {
    or_skip!();
    const SEED: u64 = 7_301;
    let yaml = format!(
        "budget: {{ target: 400%, node: 800%, linger: 2s, off_file: OFF_FILE }}\ndiscover:\n{}",
        only(SEED)
    );
    let agent = Agent::start(&yaml).unwrap();
    wait::until("the hints", || Ok((links(agent.pid()) == HINTS).then_some(()))).unwrap();
    let alone_ns = system_call_ns();

    // The first target. Its requests begin as soon as it is one.
    let stage = Stage::start(&ServerOptions { seed: SEED, ..options() }).unwrap();
    let pid = stage.server.pid();
    agent.wait_for(FOUND, pid, is_there).unwrap();
    let records = load(&ClientOptions { url: stage.server.url(), ..client(4, 24) }).unwrap();
    let watched_ns = system_call_ns();
    println!("a system call of a bystander: {alone_ns:.0} ns without a target, {watched_ns:.0} ns with one");
    let watching = links(agent.pid());
    assert!(watching.len() >= HINTS.len() + 4, "{watching:?}");
    agent
        .wait_for(wait::PATIENCE, pid, |target| target.is_some_and(|target| target["requests"] == 24))
        .unwrap();

    // Off: at once, hints too. On again.
    std::fs::write(agent.off_file(), "").unwrap();
    let start = Instant::now();
    wait::within(Duration::from_secs(1), "no link", || Ok(links(agent.pid()).is_empty().then_some(())))
        .unwrap();
    println!("off after {:?}", start.elapsed());
    // Programs that the first target needed stay loaded.
    std::thread::sleep(Duration::from_millis(500));
    let fds = descriptors(agent.pid()) + HINTS.len();
    std::fs::remove_file(agent.off_file()).unwrap();
    agent.wait_for(FOUND, pid, is_there).unwrap();
    assert_eq!(links(agent.pid()), watching);
    let again = load(&ClientOptions { url: stage.server.url(), seed: 9, ..client(4, 24) }).unwrap();

    agent
        .wait_for(wait::PATIENCE, pid, |target| target.is_some_and(|target| target["requests"] == 24))
        .unwrap();

    // The hooks outlast the last target by two seconds, and leave nothing.
    drop(stage);
    let ended = Instant::now();
    wait::until("the hints alone", || Ok((links(agent.pid()) == HINTS).then_some(()))).unwrap();
    println!("taken out {:?} after the last target", ended.elapsed());
    assert!(ended.elapsed() > Duration::from_secs(1), "{:?}", ended.elapsed());
    wait::until("no descriptor left", || Ok((descriptors(agent.pid()) <= fds).then_some(()))).unwrap();

    let spans = agent.stop().unwrap();
    let ids: BTreeSet<_> = spans.iter().filter_map(|span| span.text("gen_ai.response.id")).collect();
    let asked: BTreeSet<_> = records.iter().chain(&again).filter_map(|record| record.id.as_deref()).collect();
    let lost: Vec<_> = asked.difference(&ids).collect();
    assert!(lost.is_empty(), "requests that were asked as soon as the hooks stood: {lost:?}");
    assert!(records.iter().chain(&again).all(ClientRecord::is_ok));
}

#[test]
fn hints_find_servers_long_before_the_next_look() {
    or_skip!();
    const SEED: u64 = 7_302;
    // Without hints nothing would be found for a minute.
    let agent = Agent::start(&format!(
        "budget: {{ target: 400%, node: 800% }}\ndiscover:\n  interval: 60s\n{}",
        only(SEED)
    ))
    .unwrap();
    wait::until("the hints", || Ok((links(agent.pid()) == HINTS).then_some(()))).unwrap();
    let stage = Stage::start(&ServerOptions { seed: SEED, ..options() }).unwrap();
    let listens = Instant::now();
    agent.wait_for(FOUND, stage.server.pid(), is_there).unwrap();
    println!("a server that was started is found {:?} after it listens", listens.elapsed());
    drop(stage);
    agent.stop().unwrap();
}

#[test]
fn a_socket_that_listens_late_is_a_hint() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let Some(late) = Late::start(folder.path()) else { return println!("skipped: no python3 or no libm") };
    let agent = Agent::start("budget: { target: 400%, node: 800% }\ndiscover: { interval: 60s }\n").unwrap();
    let is_late = |of: &serde_json::Value| of["pid"] == late.0.id();
    let passed =
        || Ok(agent.targets()?["passed"].as_array().is_some_and(|all| all.iter().any(is_late)).then_some(()));
    wait::until("that it is passed over", passed).unwrap();
    std::fs::write(folder.path().join("go"), "").unwrap();
    let said = folder.path().join("listens");
    wait::until("its socket", || Ok(said.exists().then_some(()))).unwrap();
    let listens = Instant::now();
    agent.wait_for(Duration::from_secs(1), late.0.id(), is_there).unwrap();
    println!("a socket that listened late was seen {:?} later", listens.elapsed());
    drop(late);
    agent.stop().unwrap();
}

/// A program that maps a runtime, and listens when it is told to; ended when dropped.
struct Late(Child);

impl Late {
    fn start(folder: &Path) -> Option<Self> {
        let libm =
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
        let libm = libm.into_iter().find(|path| Path::new(path).exists())?;
        let library = folder.join("libcudart.so.12");
        std::fs::copy(libm, &library).unwrap();
        let at = folder.display();
        let script = format!(
            "import ctypes, os, socket, time # gpuspan-late\nctypes.CDLL('{}')\nopen('{at}/maps', 'w')\n\
             while not os.path.exists('{at}/go'): time.sleep(0.01)\n\
             s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); open('{at}/listens', 'w'); time.sleep(60)",
            library.display()
        );
        let child = Command::new("python3").args(["-c", &script]).stdin(Stdio::null()).spawn().ok()?;
        let late = Self(child);
        wait::until("its library", || Ok(folder.join("maps").exists().then_some(()))).unwrap();
        Some(late)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
