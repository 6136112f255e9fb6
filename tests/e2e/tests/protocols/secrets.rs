//! What people say to a model stays between them: a secret planted wherever text can be in a request or an answer is in
//! nothing that gpuspan writes, prints, logs or sends.
//!
//! Looked through: standard output (JSON lines, the live table, plain lines), the log at its most talkative, the summary,
//! the OTLP file, OTLP on the wire by both encodings, a recording (unpacked), and every other file that gpuspan leaves.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use e2e::{program, recording, wait};
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Connection, Question, Record, Wire};
use crate::server::{self, Server};

/// A part of the secret this long is as good as the secret; a log line may have cut it anywhere.
const TELLING: usize = 10;

#[test]
fn no_secret_in_plain_http() {
    or_skip_servers!();
    hidden("uvicorn", Wire::PLAIN, || server::uvicorn("asyncio", "h11", false));
}

#[test]
fn no_secret_in_tls() {
    or_skip_servers!();
    hidden("uvicorn", Wire::TLS13, || server::uvicorn("uvloop", "httptools", true));
}

#[test]
fn no_secret_in_http2() {
    or_skip_servers!();
    hidden("node", Wire::H2C, || server::node("h2c"));
}

fn hidden(name: &str, wire: Wire, start: impl Fn() -> Result<Server>) {
    let mut server = match start() {
        Ok(server) => server,
        Err(error) => {
            println!("skipped: {name}: {error:#}");
            return;
        }
    };
    for output in ["json", "table", "terminal"] {
        for protocol in ["http/json", "http/protobuf"] {
            let secret = format!("zq{:030x}", fastrand::u128(1 << 116..1 << 120));
            let outputs = Outputs::gather(&mut server, wire, &secret, output, protocol);
            outputs.tell_of_requests(output);
            outputs.keep(&secret);
        }
    }
}

/// A crash leaves nothing of what was read: no core file is written.
#[test]
fn no_secret_in_a_core_file() {
    or_skip_servers!();
    let crashed = |command: &mut Command, ready: &dyn Fn() -> bool| {
        // SAFETY: setrlimit reads a value that lives through the call; it changes only the child.
        unsafe {
            command.pre_exec(|| {
                let most = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const most);
                Ok(())
            });
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait::until("readiness", || Ok(ready().then_some(()))).unwrap();
        // SAFETY: kill has no pointers; the child is ours and has not been waited for.
        unsafe { libc::kill(child.id().cast_signed(), libc::SIGABRT) };
        child.wait().unwrap().core_dumped()
    };
    let folder = TempDir::new().unwrap();
    let mut bystander = Command::new("sleep");
    if !crashed(bystander.arg("60").current_dir(folder.path()), &|| true) {
        println!("skipped: this machine writes no core files");
        return;
    }
    let server = server::uvicorn("asyncio", "h11", false).unwrap();
    let ready = folder.path().join("ready");
    let mut gpuspan = program::command().unwrap();
    gpuspan.args(["attach", "--output", "none", "--pid", &server.pid.to_string(), "--ready-file"]);
    let dumped = crashed(gpuspan.arg(&ready).current_dir(folder.path()), &|| ready.exists());
    assert!(!dumped, "gpuspan left a core file in {}", folder.path().display());
}

/// A question with the secret wherever text can be.
fn questions(secret: &str) -> Vec<Question> {
    let tool = json!({"type": "function", "function": {
        "name": "look_up", "description": secret, "parameters": {"properties": {secret: {"type": "string"}}},
    }});
    let called = json!({"role": "assistant", "content": secret, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": format!("{{\"key\": \"{secret}\"}}")}},
    ]});
    let messages = json!([
        {"role": "system", "content": format!("the password is {secret}")},
        {"role": "user", "content": secret},
        called,
        {"role": "tool", "tool_call_id": "call_1", "content": secret},
    ]);
    let asked = Question {
        headers: vec![
            ("authorization", format!("Bearer {secret}")),
            ("cookie", format!("session={secret}")),
            ("x-api-key", secret.to_owned()),
        ],
        target: format!("/v1/chat/completions?api_key={secret}"),
        extra: json!({"messages": messages, "tools": [tool], "user": secret}),
        keep_body: true,
        ..Question::new("tiny", 8)
    };
    let whole = Question { stream: false, ..asked.clone() };
    // The answers quote what was asked.
    let no_model = Question { model: "missing".to_owned(), ..whole.clone() };
    let no_json = Question { extra: json!({"messages": secret}), ..whole.clone() };
    vec![asked, whole, no_model, no_json]
}

/// All that came out of one observation.
struct Outputs {
    texts: Vec<(String, Vec<u8>)>,
}

impl Outputs {
    fn gather(server: &mut Server, wire: Wire, secret: &str, output: &str, protocol: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::open();
        let mut gpuspan = start(server.pid, folder.path(), &sink, output, protocol);
        wait::until("the probes' being in place", || Ok(folder.path().join("ready").exists().then_some(())))
            .unwrap();
        for record in ask(server.port, wire, secret) {
            assert_eq!(record.error, None, "{record:?}");
        }
        // The table is drawn a few times a second.
        std::thread::sleep(Duration::from_millis(1500));
        // SAFETY: kill has no pointers; the child is ours and has not been waited for.
        unsafe { libc::kill(pid_of(&gpuspan, folder.path()), libc::SIGINT) };
        let status = wait::until("the end of gpuspan", || Ok(gpuspan.try_wait()?)).unwrap();
        assert!(status.success(), "{status}");
        let mut texts = vec![("OTLP on the wire".to_owned(), sink.taken())];
        read_all(folder.path(), &mut texts);
        Self { texts }
    }

    /// The search would find nothing in nothing.
    fn tell_of_requests(&self, output: &str) {
        let find = |name: &str| {
            let found = self.texts.iter().find(|(text, _)| text == name);
            &found.unwrap_or_else(|| panic!("no {name}")).1
        };
        for (name, word) in [
            ("OTLP on the wire", "gen_ai"),
            ("otlp.jsonl", "/v1/chat/completions"),
            ("summary.json", "by_status"),
            ("recording", "ResponseEnd"),
            ("stderr", "TRACE"),
        ] {
            assert!(holds(find(name), word.as_bytes()), "{name} has no {word}");
        }
        let shown = match output {
            "json" => "\"route\"",
            "table" => "4 done",
            _ => "/v1/chat",
        };
        assert!(holds(find("stdout"), shown.as_bytes()), "{}", String::from_utf8_lossy(find("stdout")));
    }

    fn keep(&self, secret: &str) {
        for (name, text) in &self.texts {
            for part in secret.as_bytes().windows(TELLING) {
                assert!(
                    !holds(text, part),
                    "{name} has {}: {}",
                    String::from_utf8_lossy(part),
                    around(text, part)
                );
            }
        }
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    position(text, part).is_some()
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn around(text: &[u8], part: &[u8]) -> String {
    let at = position(text, part).unwrap_or(0);
    let end = text.len().min(at + 200);
    String::from_utf8_lossy(&text[at.saturating_sub(200)..end]).into_owned()
}

/// `terminal` is the live table, on a terminal that `script` makes; `table` without one is lines.
fn start(pid: u32, folder: &Path, sink: &Sink, output: &str, protocol: &str) -> Child {
    let mut gpuspan = program::command().unwrap();
    let file = |name: &str| folder.join(name);
    gpuspan.args(["attach", "-vvv", "--pid", &pid.to_string(), "--summary"]).arg(file("summary.json"));
    gpuspan.arg("--otlp-file").arg(file("otlp.jsonl")).arg("--ready-file").arg(file("ready"));
    gpuspan.arg("--record").arg(file("recording"));
    gpuspan.args(["--otlp-endpoint", &format!("http://127.0.0.1:{}", sink.port)]);
    gpuspan.args(["--output", if output == "json" { "json" } else { "table" }]);
    let mut command = if output == "terminal" { on_terminal(&gpuspan) } else { gpuspan };
    for name in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"] {
        command.env(name, folder);
    }
    command.env("GPUSPAN_LOG", "trace").env("RUST_LOG", "trace");
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).env("OTEL_EXPORTER_OTLP_COMPRESSION", "none");
    command.current_dir(folder).stdin(Stdio::null());
    let make = |name: &str| std::fs::File::create(file(name)).unwrap();
    command.stdout(make("stdout")).stderr(make("stderr")).spawn().unwrap()
}

/// The same command with a terminal as its standard output, and its log beside.
fn on_terminal(command: &Command) -> Command {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new("script");
    let line = format!("echo $$ > pid; exec {} 2> stderr", words.join(" "));
    script.args(["--quiet", "--return", "--flush", "--command", &line, "typescript"]);
    program::clean(&mut script);
    script
}

/// Of gpuspan itself, where `script` stands between.
fn pid_of(child: &Child, folder: &Path) -> i32 {
    let inner = std::fs::read_to_string(folder.join("pid")).ok().and_then(|pid| pid.trim().parse().ok());
    inner.unwrap_or(child.id().cast_signed())
}

fn ask(port: u16, wire: Wire, secret: &str) -> Vec<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connection = Connection::open(port, wire).await.unwrap();
        let mut records = Vec::new();
        for question in questions(secret) {
            let record = connection.ask(&question).await;
            // The server repeats it, so that there is something to hide in answers too.
            assert!(holds(&record.body, &secret.as_bytes()[..TELLING]), "{record:?}");
            records.push(record);
        }
        records
    })
}

fn read_all(folder: &Path, texts: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, texts);
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = if name == "recording" {
                recording::unpack(&path).unwrap()
            } else {
                std::fs::read(path).unwrap()
            };
            texts.push((name, bytes));
        }
    }
}

/// Takes whatever is posted and says that it was fine.
struct Sink {
    port: u16,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl Sink {
    fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&taken);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || take(stream, &shared));
            }
        });
        Self { port, taken }
    }

    fn taken(&self) -> Vec<u8> {
        self.taken.lock().unwrap().clone()
    }
}

/// Answers each time a body is complete.
fn take(mut stream: TcpStream, taken: &Mutex<Vec<u8>>) {
    let (mut request, mut buffer) = (Vec::new(), [0; 65536]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        taken.lock().unwrap().extend_from_slice(&buffer[..read]);
        request.extend_from_slice(&buffer[..read]);
        while let Some(length) = whole(&request) {
            request.drain(..length);
            // A sender that left needs no answer.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    }
}

/// Bytes of the first request in `bytes`, once all of them are there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = position(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let end = head + length.map_or(0, |length| length.trim().parse().unwrap());
    (bytes.len() >= end).then_some(end)
}
