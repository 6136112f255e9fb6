//! Messages of a version that nobody knows: fields that changed places, types or units. The adapter says so within a
//! hundred messages, and exports nothing wrong meanwhile.

use super::versions::{LAYOUTS, Layout, ms, seconds};
use super::write::{Float, Int, Nil, Write, list, map, text};
use super::*;

/// A change to the messages of an engine.
type Change = fn(&Layout, &mut Write);

/// How messages are changed: requests, outputs of a request, outputs of a step.
struct Altered {
    name: &'static str,
    request: Option<Change>,
    output: Option<Change>,
    outputs: Option<Change>,
}

const fn altered(name: &'static str) -> Altered {
    Altered { name, request: None, output: None, outputs: None }
}

const fn output(name: &'static str, change: Change) -> Altered {
    Altered { output: Some(change), ..altered(name) }
}

const fn outputs(name: &'static str, change: Change) -> Altered {
    Altered { outputs: Some(change), ..altered(name) }
}

const fn request(name: &'static str, change: Change) -> Altered {
    Altered { request: Some(change), ..altered(name) }
}

fn swap(names: &str, message: &mut Write, a: &str, b: &str) {
    let (a, b) = (Layout::place(names, a), Layout::place(names, b));
    message.items().swap(a, b);
}

/// Multiplies all numbers with a fraction inside.
fn scale(message: &mut Write, by: f64) {
    match message {
        Float(value) => *value *= by,
        Write::List(items) => items.iter_mut().for_each(|item| scale(item, by)),
        Write::Map(items) => items.iter_mut().for_each(|(_, item)| scale(item, by)),
        _ => {}
    }
}

/// Makes whole numbers of all that have a fraction.
fn round(message: &mut Write) {
    match message {
        Float(value) => *message = Int((*value * 1e9) as i64),
        Write::List(items) => items.iter_mut().for_each(round),
        Write::Map(items) => items.iter_mut().for_each(|(_, item)| round(item)),
        _ => {}
    }
}

fn place(layout: &Layout, name: &str) -> usize {
    Layout::place(layout.output, name)
}

const ALTERED: [Altered; 24] = [
    output("finish reason and events change places", |layout, output| {
        swap(layout.output, output, "finish_reason", "events")
    }),
    output("finish and stop reason change places", |layout, output| {
        swap(layout.output, output, "finish_reason", "stop_reason")
    }),
    output("tokens and log probabilities change places", |layout, output| {
        swap(layout.output, output, "new_token_ids", "new_logprobs")
    }),
    output("tokens move to the end", |layout, output| {
        let tokens = output.items().remove(place(layout, "new_token_ids"));
        output.items().push(tokens);
    }),
    output("a field in front", |_, output| output.items().insert(0, Nil)),
    output("a field behind the id", |_, output| output.items().insert(1, Nil)),
    output("a field behind the tokens", |_, output| output.items().insert(2, Nil)),
    output("a field before the finish reason", |layout, output| {
        let place = place(layout, "finish_reason");
        output.items().insert(place, Nil);
    }),
    output("a number before the finish reason", |layout, output| {
        let place = place(layout, "finish_reason");
        output.items().insert(place, Int(0));
    }),
    output("a field is gone", |_, output| {
        output.items().remove(2);
    }),
    output("ids are numbers", |_, output| *output.at(0) = Int(17)),
    output("ids are arrays", |_, output| *output.at(0) = list(vec![text("a")])),
    output("tokens are texts", |_, output| *output.at(1) = list(vec![text("a")])),
    output("tokens are a number", |_, output| *output.at(1) = Int(1)),
    output("finish reasons have names", |layout, output| {
        let finish = output.at(place(layout, "finish_reason"));
        if matches!(finish, Int(_)) {
            *finish = text("length");
        }
    }),
    output("finish reasons are of another set", |layout, output| {
        if let Int(finish) = output.at(place(layout, "finish_reason")) {
            *finish += 16;
        }
    }),
    output("events are arrays", |layout, output| {
        if let Write::List(events) = output.at(place(layout, "events")) {
            events.iter_mut().for_each(|event| *event = list(vec![Int(1), Float(1.0)]));
        }
    }),
    output("events have other names", |layout, output| {
        if let Write::List(events) = output.at(place(layout, "events")) {
            events.iter_mut().for_each(|event| *event = map(vec![("kind", Int(1)), ("time", Float(1.0))]));
        }
    }),
    outputs("times in milliseconds", |_, outputs| scale(outputs, 1000.0)),
    outputs("times in whole nanoseconds", |_, outputs| round(outputs)),
    outputs("times on the wall", |layout, outputs| {
        *outputs.at(Layout::place(layout.outputs, "timestamp")) = Float(1_795_337_889.5);
    }),
    outputs("statistics and stamp change places", |layout, outputs| {
        swap(layout.outputs, outputs, "scheduler_stats", "timestamp")
    }),
    outputs("a field in front of a step", |_, outputs| outputs.items().insert(0, Nil)),
    request("requests begin with a number", |_, request| request.items().insert(0, Int(0))),
];

/// Plays an engine with four requests at a time, for so many messages.
fn run(layout: &Layout, altered: &Altered, messages: usize) -> Play {
    let mut play = Play::default();
    let change = |change: Option<Change>, message: &mut Write| {
        if let Some(change) = change {
            change(layout, message);
        }
    };
    let (mut sent, mut time, mut number) = (0, 0, 0);
    while sent < messages {
        let ids: Vec<_> =
            (number..number + 4).map(|number| format!("chatcmpl-{number:04}-{number:08x}")).collect();
        for id in &ids {
            let mut request = layout.request(id, 5, 6);
            change(altered.request, &mut request);
            play.add(ms(time), &request.bytes());
            sent += 1;
        }
        for step in 1..=6 {
            time += 10;
            let items = ids
                .iter()
                .map(|id| {
                    let mut output =
                        layout.output(id, 1, (step == 6).then_some(1), step == 1, ms(time) - 5_000_000);
                    change(altered.output, &mut output);
                    output
                })
                .collect();
            let running = if step == 6 { 0 } else { 4 };
            let mut outputs = layout.outputs(items, Some((running, 0, 0.25)), ms(time));
            change(altered.outputs, &mut outputs);
            play.outputs(ms(time) + 400_000, &outputs.bytes());
            sent += 1;
        }
        (number, time) = (number + 4, time + 5);
        if play.adapter.health().is_bad() {
            break;
        }
    }
    play
}

/// These show at the ends of requests only: what was said of beginnings is right, and no end is said.
const AT_ENDS: [&str; 3] = [
    "finish and stop reason change places",
    "finish reasons have names",
    "finish reasons are of another set",
];

/// What is said of each request is how its true story begins.
fn check_beginnings(play: &Play, plain: &Play) {
    let truth = plain.stories();
    for (inner, story) in play.stories() {
        let truth = &truth[&inner];
        assert_eq!((&story.tie, story.met_ns, story.end), (&truth.tie, truth.met_ns, None));
        assert!(truth.tokens.starts_with(&story.tokens) && truth.moments.starts_with(&story.moments));
        assert!(story.counts.generated.is_none());
    }
}

#[test]
fn edge_27_an_altered_schema_demotes_within_a_hundred_messages_and_says_nothing() {
    let mut other_forms = 0;
    for layout in &LAYOUTS {
        let plain = run(layout, &altered("nothing"), 100);
        assert_eq!((plain.adapter.health().failed, plain.adapter.health().is_bad()), (0, false));
        assert!(plain.stories().values().filter(|story| story.counts.generated == Some(6)).count() >= 36);
        for altered in &ALTERED {
            let play = run(layout, altered, 100);
            let health = play.adapter.health();
            let name = (layout.version, altered.name, health);
            // Some changes make one listed form of another: then all of it is read, and right.
            if health.failed == 0 {
                assert!(play.stories() == plain.stories(), "{name:?}");
                assert_ne!(play.adapter.schema(), Some(layout.schema), "{name:?}");
                other_forms += 1;
                continue;
            }
            assert!(health.is_bad() && health.seen <= 100, "{name:?}");
            assert!(health.why.is_some(), "{name:?}");
            if AT_ENDS.contains(&altered.name) {
                check_beginnings(&play, &plain);
                continue;
            }
            assert_eq!(play.adapter.schema(), None, "{name:?}");
            assert_eq!(play.said.len(), 0, "{name:?}: {:?}", play.said.first());
        }
    }
    assert!(other_forms <= 8, "{other_forms} of {}", ALTERED.len() * LAYOUTS.len());
}

/// A change that shows in the ends of requests only: what was proved by their beginnings stays as it is.
#[test]
fn edge_27_an_engine_that_changes_is_not_believed_on() {
    let layout = &versions::newest();
    let mut play = run(layout, &altered("nothing"), 40);
    let said = play.said.len();
    assert!(said > 0);
    for step in 0..100 {
        let mut output = layout.output("chatcmpl-x-00000000", 1, None, true, ms(999));
        swap(layout.output, &mut output, "finish_reason", "events");
        play.outputs(
            ms(1000 + step),
            &layout.outputs(vec![output], Some((1, 0, 0.5)), ms(1000 + step)).bytes(),
        );
    }
    assert!(play.adapter.health().is_bad());
    assert_eq!(play.said.len(), said);
    // Nothing more, even if it is asked on.
    play.add(ms(2000), &layout.request("chatcmpl-y-00000000", 5, 6).bytes());
    assert_eq!(play.said.len(), said);
}

#[test]
fn edge_27_messages_that_end_early_fail() {
    let layout = &versions::newest();
    let mut play = Play::default();
    play.add(ms(0), &layout.request("chatcmpl-x-00000000", 5, 6).bytes());
    let outputs =
        layout.outputs(vec![layout.output("chatcmpl-x-00000000", 1, None, true, ms(5))], None, ms(10));
    let bytes = outputs.bytes();
    for end in 20..bytes.len() {
        play.outputs(ms(11), &bytes[..end]);
    }
    assert_eq!(play.adapter.health().failed, play.adapter.health().seen - 1);
    assert!(play.said.is_empty() && seconds(1).bytes().len() == 9);
}
