//! llama.cpp: calls of its library in every form, asked for one by one (`tests/programs/llama`). What the kernel side copies
//! of a batch is put together again and compared with what was given. `llama_process` takes an object of C++: the real
//! server's test has it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use e2e::Observation;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lines::Lines;

/// How long the profiler may take to read what is still in its ring.
const SETTLE: Duration = Duration::from_millis(400);

struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Program {
    fn start() -> Result<Self, String> {
        let folder = TempDir::new().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/llama");
        let here = format!("-L{}", folder.path().display());
        let run_path = format!("-Wl,-rpath,{}", folder.path().display());
        for (source, output, more) in [
            ("library.c", "libllama.so", vec!["-shared", "-fPIC"]),
            ("main.c", "calls", vec![&here, "-lllama", &run_path]),
        ] {
            let mut command = Command::new("cc");
            command.args(["-std=gnu17", "-O2", "-pthread", "-o"]).arg(folder.path().join(output));
            command.arg(sources.join(source)).args(more);
            let done = command.output().map_err(|error| format!("no C compiler: {error}"))?;
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        let mut command = Command::new(folder.path().join("calls"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut program = Self { child, stdin, stdout: BufReader::new(stdout), _folder: folder };
        program.hear();
        Ok(program)
    }

    fn hear(&mut self) {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the program has ended");
    }

    fn call(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        self.hear();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script under the profiler; its steps, and the adapter's account.
fn observe(script: &str) -> Option<(Vec<Value>, Value)> {
    let mut program = match Program::start() {
        Ok(program) => program,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let observation = Observation::start(program.child.id(), &["--output", "json"]).unwrap();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        program.call(line);
    }
    std::thread::sleep(SETTLE);
    let report = observation.stop().unwrap();
    Some((Lines::read(&report.stdout).steps, report.summary.engines["adapters"][0].clone()))
}

/// What a step was: [inner, phase, computed, generated] of each member.
fn members(step: &Value) -> Value {
    let member = |m: &Value| json!([m["inner"], m["phase"], m["computed"], m["generated"]]);
    step["members"].as_array().unwrap().iter().map(member).collect()
}

#[test]
fn edge_34_every_form_of_a_batch() {
    e2e::or_skip!();
    let script = "
        remove 0x11 0 0 -1
        decode 0x10 0 plain 0:0:5:1
        wait 0x10
        remove 0x11 1 0 -1
        decode 0x10 1 plain 0:5:1:1 1:0:900:1
        decode 0x10 0 plain 0:5:1:1 1:0:449:0
        wait 0x10
        decode 0x10 0 plain+ 1:449:451:1
        wait 0x10
        remove 0x11 0 3 -1
        decode 0x10 0 plain+ 1:900:1:1 0:3:4:1
        wait 0x10
        remove 0x11 2 -1 -1
        copy 0x11 0 2
        decode 0x10 0 plain 0:7:1:1 2:7:1:1 1:901:1:1
        wait 0x10
    ";
    let Some((steps, adapter)) = observe(script) else { return };
    let told: Vec<_> = steps.iter().map(|step| (step["failed"] == true, members(step))).collect();
    let (prefill, decode) = ("prefill", "decode");
    let expected = [
        (false, json!([[1, prefill, 5, 1]])),
        (true, json!([[1, decode, 0, 0], [2, prefill, 0, 0]])),
        (false, json!([[1, decode, 1, 1], [2, prefill, 449, 0]])),
        (false, json!([[2, prefill, 451, 1]])),
        (false, json!([[2, decode, 1, 1], [3, prefill, 4, 1]])),
        (false, json!([[3, decode, 1, 1], [4, decode, 1, 1], [2, decode, 1, 1]])),
    ];
    assert_eq!(told, expected);
    let tokens: Vec<_> = steps.iter().map(|step| step["tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [5, 0, 450, 451, 5, 3]);
    assert!(steps.iter().all(|step| step["complete"] == true && step["engine"] == 0x10));
    assert_eq!(
        (&adapter["adapter"], &adapter["seen"], &adapter["failed"]),
        (&json!("llama.cpp"), &json!(6), &json!(0))
    );
}

#[test]
fn edge_34_what_is_not_given_is_what_the_library_takes_it_for() {
    e2e::or_skip!();
    let Some((steps, _)) =
        observe("decode 0x10 0 bare 0:0:6:0\nwait 0x10\ndecode 0x10 0 bare 0:6:1:0\nwait 0x10")
    else {
        return;
    };
    assert_eq!(
        steps.iter().map(members).collect::<Vec<_>>(),
        [json!([[1, "prefill", 6, 1]]), json!([[1, "decode", 1, 1]])]
    );
}

#[test]
fn edge_34_shared_tokens_and_batches_beyond_the_bound_are_incomplete() {
    e2e::or_skip!();
    let Some((steps, _)) = observe(
        "decode 0x10 0 shared 0:0:8:1
         wait 0x10
         decode 0x20 0 plain 5:0:19000:1
         wait 0x20",
    ) else {
        return;
    };
    let (shared, cut) = (&steps[0], &steps[1]);
    assert_eq!((&shared["complete"], members(shared)), (&json!(false), json!([[1, "prefill", 8, 1]])));
    assert_eq!((&cut["complete"], &cut["tokens"]), (&json!(false), &json!(19000)));
    let seen = cut["members"][0]["computed"].as_u64().unwrap();
    assert!((1..19000).contains(&seen), "{cut}");
}

#[test]
fn edge_34_embeddings_and_drafts() {
    e2e::or_skip!();
    let script = "
        remove 0x11 0 0 -1
        remove 0x21 0 0 -1
        decode 0x10 0 plain 0:0:6:1
        wait 0x10
        decode 0x20 0 plain 0:0:6:0
        decode 0x20 0 plain 0:6:1:1
        remove 0x21 0 6 -1
        decode 0x10 0 plain 0:6:3:3
        wait 0x10
        remove 0x11 0 8 -1
        remove 0x21 0 8 -1
        decode 0x10 0 plain 0:8:1:1
        wait 0x10
        remove 0x11 0 0 -1
        decode 0x10 0 embeddings 0:0:7:0
        decode 0x10 0 plain 0:7:2:1
        wait 0x10
    ";
    let Some((steps, adapter)) = observe(script) else { return };
    let of = |engine: u64| {
        steps.iter().filter(move |step| step["engine"] == engine).map(members).collect::<Vec<_>>()
    };
    assert_eq!(
        of(0x10),
        [
            json!([[1, "prefill", 6, 1]]),
            json!([[1, "decode", 3, 2]]),
            json!([[1, "decode", 1, 1]]),
            json!([[2, "prefill", 7, 0]]),
            json!([[2, "prefill", 2, 1]]),
        ]
    );
    assert_eq!(of(0x20), [json!([[1, "decode", 6, 0]]), json!([[1, "decode", 1, 0]])]);
    assert_eq!(adapter["failed"], 0, "{adapter}");
}
