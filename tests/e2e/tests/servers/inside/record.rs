//! Real engines recorded: a replay tells what the observation told, what its adapter heard inside too, and neither a
//! word nor a token of a prompt is in the file.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use e2e::{Observation, recording};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::server::{self, Device, Name, Options, Running};

use super::plan::{self, Asked, words};
use super::{SETTLE, asked_for};

#[test]
fn llama_is_told_again() {
    check(Name::Llama, &Options::default(), "llama.cpp");
}

#[test]
fn transformers_is_told_again() {
    check(Name::Transformers, &Options { device: Device::Cpu, ..Options::default() }, "transformers");
}

#[test]
fn vllm_is_told_again() {
    check(Name::Vllm, &Options { device: Device::Cpu, ..Options::default() }, "vllm");
}

fn check(name: Name, options: &Options, server: &str) {
    if !asked_for(server) {
        return;
    }
    e2e::or_skip!();
    let mut running = server::start(name, options).unwrap();
    // Only some have a way to ignore the end of an answer; the models' words seldom are one.
    let chat = |prompt: &str, tokens| match name {
        Name::Transformers => Asked::chat(&running, prompt, tokens).without("ignore_eos"),
        Name::Llama | Name::Vllm => Asked::chat(&running, prompt, tokens),
    };
    let warm = plan::run(&running, &[chat("w1 w2", 4)]);
    assert!(warm.iter().all(plan::Record::is_whole), "{warm:#?}");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let prompts: Vec<String> = (0..6).map(|seed| words(100 + seed, 24)).collect();
    let asked = |(lane, prompt): (usize, &String)| {
        let asked = chat(prompt, 5).on(lane % 3);
        if lane.is_multiple_of(2) { asked.streamed().alone() } else { asked }
    };
    let plan: Vec<_> = prompts.iter().enumerate().map(asked).collect();
    let arguments = ["--record", path.to_str().unwrap(), "--output", "json"];
    let gpuspan = Observation::start(running.pid, &arguments).unwrap();
    let records = plan::run(&running, &plan);
    std::thread::sleep(SETTLE);
    let live = gpuspan.stop().unwrap();
    assert!(records.iter().all(plan::Record::is_whole), "{records:#?}");
    assert_eq!(live.summary.target.server, server);
    recording::assert_same(&recording::replay(&path, "json").unwrap(), &live);
    recording::assert_same(&recording::replay_elsewhere(&path, "json").unwrap(), &live);
    let file = recording::unpack(&path).unwrap();
    let packed = std::fs::metadata(&path).unwrap().len();
    println!("{server}: {packed} bytes of a recording with {} requests", live.summary.requests.total);
    for prompt in &prompts {
        holds_no_text(&file, prompt);
        match tokens(&mut running, prompt) {
            Some(tokens) => holds_no_tokens(&file, &tokens),
            None => {
                assert_eq!(name, Name::Transformers, "only this server does not tell the tokens of a text")
            }
        }
    }
    if std::env::var_os("RECORD").is_some() && name == Name::Llama {
        let kept = recording::kept("llama.gpuspan");
        std::fs::copy(&path, &kept).unwrap();
        recording::neutralise(&kept).unwrap();
    }
}

fn holds(file: &[u8], part: &[u8]) -> bool {
    file.windows(part.len()).any(|window| window == part)
}

/// Two words in a row are the prompt's and nobody else's.
fn holds_no_text(file: &[u8], prompt: &str) {
    let words: Vec<_> = prompt.split(' ').collect();
    for pair in words.windows(2) {
        assert!(!holds(file, pair.join(" ").as_bytes()), "{pair:?}");
    }
}

/// Three tokens in a row, however they would be written.
fn holds_no_tokens(file: &[u8], tokens: &[u64]) {
    assert!(tokens.len() >= 20, "{tokens:?}");
    for some in tokens.windows(3) {
        let texts = [", ", ","]
            .map(|between| some.iter().map(u64::to_string).collect::<Vec<_>>().join(between).into_bytes());
        let packed = rmp_serde::to_vec(some).unwrap();
        let four = some.iter().flat_map(|token| u32::try_from(*token).unwrap().to_le_bytes()).collect();
        let eight = some.iter().flat_map(|token| token.to_le_bytes()).collect();
        for bytes in texts.into_iter().chain([packed.into_iter().skip(1).collect(), four, eight]) {
            // Small numbers in a row are anybody's.
            if bytes.len() >= 6 {
                assert!(!holds(file, &bytes), "{some:?} as {bytes:02x?}");
            }
        }
    }
}

/// The tokens of a text, where the server tells them.
fn tokens(running: &mut Running, text: &str) -> Option<Vec<u64>> {
    let body = json!({"model": running.model, "prompt": text, "content": text}).to_string();
    let host = running.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!(
        "POST /tokenize HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Whoever has no such route may answer and hang up before it has read the body.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    let answer = String::from_utf8_lossy(&answer);
    let json = answer.get(answer.find('{')?..=answer.rfind('}')?)?;
    let answer: Value = serde_json::from_str(json).ok()?;
    answer.get("tokens")?.as_array()?.iter().map(Value::as_u64).collect()
}
