//! On real processes: how soon something is found, and what looking costs.

use super::super::*;
use std::process::{Child, Command, Stdio};

/// A child that is ended whatever happens.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python(script: &str) -> Option<Ended> {
    let mut command = Command::new("python3");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    match command.spawn() {
        Ok(child) => Some(Ended(child)),
        Err(error) => {
            println!("skipped: python3 cannot be run: {error}");
            None
        }
    }
}

fn nowhere(_: u32) -> PlaceFacts {
    PlaceFacts::default()
}

/// The time from a moment that a script writes into a file until discovery at one look a second has found it.
fn found_after(script: &str, said: &std::path::Path) -> Option<(Duration, Found)> {
    let mut discovery = Discovery::new(Rules::default(), Settings::default());
    let child = python(script)?;
    let mut happened = None;
    for _ in 0..200 {
        let look = discovery.look(Instant::now(), &BTreeSet::new(), &nowhere);
        let found = look.found.into_iter().find(|found| found.root == child.0.id());
        if let (Some(found), Some(happened)) = (found, happened) {
            return Some((Instant::now().duration_since(happened), found));
        }
        let next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < next {
            if happened.is_none() && said.exists() {
                happened = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    panic!("never found: {script}")
}

#[test]
fn a_late_library_and_a_late_socket_are_seen_within_a_second_and_a_half() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcudart.so.12");
    let Some(libm) = libm() else { return println!("skipped: no libm to call libcudart") };
    std::fs::copy(libm, &library).unwrap();
    let library = library.to_str().unwrap();
    let load = format!("ctypes.CDLL('{library}')");
    let listen = "s.bind(('127.0.0.1', 0)); s.listen()";
    for (name, first, second) in [("library", listen, load.as_str()), ("socket", load.as_str(), listen)] {
        let said = folder.path().join(name);
        let script = format!(
            "import ctypes, socket, time; s = socket.socket(); time.sleep(1.3); {first}; time.sleep(2.4); {second}; \
             open('{}', 'w').close(); time.sleep(60)",
            said.display()
        );
        let Some((time, found)) = found_after(&script, &said) else { return };
        println!("a late {name}: found after {time:?}");
        assert!(time < Duration::from_millis(1500), "a late {name}: {time:?}");
        assert!(found.why.starts_with("libcudart.so.12 is mapped, and it listens on tcp:"), "{found:?}");
    }
}

#[test]
fn a_server_in_namespaces_of_its_own_is_found_by_its_number_here() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcudart.so.12");
    let Some(libm) = libm() else { return println!("skipped: no libm to call libcudart") };
    std::fs::copy(libm, &library).unwrap();
    let script = format!(
        "import ctypes, socket, time; ctypes.CDLL('{}'); s = socket.socket(); s.bind(('', 7777)); s.listen(); time.sleep(60)",
        library.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--mount", "--fork", "--kill-child", "python3", "-c", &script]);
    let Ok(child) = command.stdin(Stdio::null()).spawn() else { return println!("skipped: no unshare") };
    let mut child = Ended(child);
    let mut discovery = Discovery::new(Rules::default(), Settings::default());
    for _ in 0..100 {
        let look = discovery.look(Instant::now(), &BTreeSet::new(), &nowhere);
        let inside = crate::target::children_of(child.0.id());
        if let Some(found) = look.found.iter().find(|found| inside.contains(&found.root)) {
            assert_eq!(found.why, "libcudart.so.12 is mapped, and it listens on tcp:7777");
            return;
        }
        if let Ok(Some(status)) = child.0.try_wait() {
            return println!("skipped: no namespaces can be made: {status}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never found");
}

/// An ordinary library. By another name it is mapped like that one: nothing in it is called.
fn libm() -> Option<&'static str> {
    let ordinary =
        ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
    ordinary.into_iter().find(|path| std::path::Path::new(path).exists())
}

/// Prints what a look costs on a machine with 500 quiet processes more, and fails where it is far from what it should be.
#[test]
fn looking_at_500_processes_costs_little() {
    let children: Vec<Ended> =
        (0..500).map_while(|_| Some(Ended(Command::new("sleep").arg("600").spawn().ok()?))).collect();
    if children.len() < 500 {
        println!("skipped: 500 processes cannot be had");
        return;
    }
    let mut discovery = Discovery::new(Rules::default(), Settings::default());
    let begin = cpu();
    discovery.look(Instant::now(), &BTreeSet::new(), &nowhere);
    let first = cpu() - begin;
    let mut now = Instant::now();
    let begin = cpu();
    const LOOKS: u32 = 60;
    for _ in 0..LOOKS {
        // A minute passes, as far as discovery knows, so that what it does every half a minute is in it.
        now += Duration::from_secs(1);
        discovery.look(now, &BTreeSet::new(), &nowhere);
    }
    let look = (cpu() - begin) / LOOKS;
    let running = Procfs::default().pids().len();
    println!("{running} processes: the first look {first:?}, each further {look:?} of CPU time");
    assert!(look < Duration::from_millis(10), "{look:?}");
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is as the call wants it.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
