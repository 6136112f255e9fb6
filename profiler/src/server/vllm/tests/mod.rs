//! Tests of the adapter: recorded frames of a real engine against an independent reading of them (`replay`), messages
//! of all listed versions and ones that were altered (`versions`, `altered`), what no recording has (`cases`), any
//! bytes at all (`any`), and what it costs (`speed`).

mod altered;
mod any;
mod cases;
mod model;
mod replay;
mod speed;
mod versions;
mod write;

use std::collections::BTreeMap;

use super::*;
use crate::evidence::Evidence;
use crate::server::said::{Counts, EngineStep, Gauges, Inner, Moment, Part, Saying, Tie};

/// The engine's process in tests that make their own frames.
const ENGINE: u32 = 100;

/// Its sockets: requests come here, outputs leave there.
const INPUT: u64 = 1;
const OUTPUT: u64 = 2;

/// An adapter, and all that it said.
#[derive(Default)]
struct Play {
    adapter: Vllm,
    said: Vec<Said>,
    /// Process that the frames belong to.
    pid: Option<u32>,
}

/// All that was said of a request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Story {
    tie: Tie,
    generates: bool,
    met_ns: u64,
    moments: Vec<(Moment, u64, Evidence)>,
    tokens: Vec<(u64, u32)>,
    counts: Counts,
    end: Option<(Reason, u64)>,
}

impl Play {
    fn hear(&mut self, time_ns: u64, what: What<'_>) {
        let pid = self.pid.unwrap_or(ENGINE);
        self.adapter.hear(&Heard { pid, tid: pid, time_ns, what }, &mut self.said);
    }

    fn frame(&mut self, time_ns: u64, sent: bool, socket: u64, more: bool, bytes: &[u8]) {
        self.cut(time_ns, sent, socket, more, bytes, bytes.len());
    }

    fn cut(&mut self, time_ns: u64, sent: bool, socket: u64, more: bool, bytes: &[u8], to: usize) {
        let copied = &bytes[..to.min(bytes.len())];
        let frame = Frame { sent, socket, more, bytes: copied, size: bytes.len() as u64 };
        self.hear(time_ns, What::Frame(frame));
    }

    /// The engine receives a request.
    fn add(&mut self, time_ns: u64, request: &[u8]) {
        self.frame(time_ns - 10, false, INPUT, true, &[0]);
        self.frame(time_ns, false, INPUT, false, request);
    }

    /// The engine is told to give requests up.
    fn abort(&mut self, time_ns: u64, ids: &[&str]) {
        self.frame(time_ns - 10, false, INPUT, true, &[1]);
        self.frame(
            time_ns,
            false,
            INPUT,
            false,
            &write::list(ids.iter().map(|id| write::text(id)).collect()).bytes(),
        );
    }

    /// The engine sends outputs.
    fn outputs(&mut self, time_ns: u64, outputs: &[u8]) {
        self.frame(time_ns, true, OUTPUT, false, outputs);
    }

    fn ring(&mut self, time_ns: u64, slot: u32, bytes: &[u8]) {
        self.hear(time_ns, What::Ring(Chunk { slot, bytes }));
    }

    /// Everything that was said, by request. Also checks that what is said makes sense: a request is met once and
    /// first, and nothing is said of it behind its end.
    fn stories(&self) -> BTreeMap<Inner, Story> {
        let mut stories: BTreeMap<Inner, Story> = BTreeMap::new();
        for said in &self.said {
            match &said.saying {
                Saying::Met { inner, tie, generates } => {
                    let story = Story {
                        tie: tie.clone(),
                        generates: *generates,
                        met_ns: said.time_ns,
                        ..Story::default()
                    };
                    assert_eq!(stories.insert(*inner, story), None, "met twice");
                }
                Saying::Reached { inner, moment, at_ns, evidence } => {
                    living(&mut stories, *inner).moments.push((*moment, *at_ns, *evidence));
                }
                Saying::Tokens { inner, count, at_ns } => {
                    living(&mut stories, *inner).tokens.push((*at_ns, *count));
                }
                Saying::Counts { inner, counts } => {
                    let known = &mut living(&mut stories, *inner).counts;
                    known.prompt = counts.prompt.or(known.prompt);
                    known.cached = counts.cached.or(known.cached);
                    known.generated = counts.generated.or(known.generated);
                }
                Saying::Ended { inner, reason, at_ns } => {
                    living(&mut stories, *inner).end = Some((*reason, *at_ns));
                }
                Saying::Step(step) => {
                    let is_known = |inner: &Inner| stories.contains_key(inner);
                    assert!(step.members.iter().all(|member| is_known(&member.inner)), "{step:?}");
                }
                Saying::Gauges(_) | Saying::EngineDead => {}
            }
        }
        stories
    }

    fn steps(&self) -> Vec<&EngineStep> {
        self.said
            .iter()
            .filter_map(|said| match &said.saying {
                Saying::Step(step) => Some(&**step),
                _ => None,
            })
            .collect()
    }

    fn gauges(&self) -> Vec<Gauges> {
        self.said
            .iter()
            .filter_map(|said| match &said.saying {
                Saying::Gauges(gauges) => Some(*gauges),
                _ => None,
            })
            .collect()
    }

    /// The one request that there is.
    fn only(&self) -> Story {
        let stories = self.stories();
        assert_eq!(stories.len(), 1, "{stories:?}");
        stories.into_values().next().unwrap()
    }
}

fn living(stories: &mut BTreeMap<Inner, Story>, inner: Inner) -> &mut Story {
    let story = stories.get_mut(&inner).expect("something of a request that was not met");
    assert_eq!(story.end, None, "something of a request behind its end");
    story
}

/// Lines of a fixture.
fn fixture(name: &str) -> Vec<String> {
    let path = format!("{}/tests/fixtures/vllm/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(&path).expect(&path);
    std::io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap().lines().map(str::to_owned).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
