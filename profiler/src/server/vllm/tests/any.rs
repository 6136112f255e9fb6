//! Any bytes at all: nothing panics, grows without bound or takes long.

use proptest::prelude::*;

use super::versions::{LAYOUTS, ms};
use super::*;

/// A conversation of one version: (sent, socket, more, bytes).
fn conversation(version: usize) -> Vec<(bool, u64, bool, Vec<u8>)> {
    let layout = &LAYOUTS[version % LAYOUTS.len()];
    let mut frames = Vec::new();
    let ids = ["chatcmpl-a-00000001", "cmpl-b-0-00000002"];
    for id in ids {
        frames.push((false, INPUT, true, vec![0]));
        frames.push((false, INPUT, false, layout.request(id, 5, 4).bytes()));
    }
    for step in 1..=4 {
        let finish = (step == 4).then_some(1);
        let items = ids.iter().map(|id| layout.output(id, 1, finish, step == 1, ms(step * 10 - 5))).collect();
        let stats = Some((if step == 4 { 0 } else { 2 }, 0, 0.5));
        frames.push((true, OUTPUT, false, layout.outputs(items, stats, ms(step * 10)).bytes()));
    }
    frames
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic_and_never_invent_requests(
        version in 0..LAYOUTS.len(),
        flips in prop::collection::vec((0..8_usize, any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(0..400_usize),
    ) {
        let mut play = Play::default();
        let mut frames = conversation(version);
        for (frame, place, byte) in flips {
            let bytes = &mut frames[frame].3;
            let place = place.index(bytes.len());
            bytes[place] ^= byte;
        }
        for (number, (sent, socket, more, bytes)) in frames.iter().enumerate() {
            play.cut(ms(11 * number as u64), *sent, *socket, *more, bytes, cut.unwrap_or(usize::MAX));
        }
        // Checks that what is said makes sense.
        prop_assert!(play.stories().len() <= 4 + 4 * 2);
    }

    #[test]
    fn any_frames_end(frames in prop::collection::vec(
        (any::<bool>(), 0..3_u64, any::<bool>(), prop::collection::vec(any::<u8>(), 0..120)), 0..40,
    )) {
        let mut play = Play::default();
        for (number, (sent, socket, more, bytes)) in frames.iter().enumerate() {
            play.frame(ms(number as u64), *sent, *socket, *more, bytes);
            play.ring(ms(number as u64), 0, bytes);
        }
        play.stories();
    }

    #[test]
    fn any_messages_end(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0x96_u8..=0x9f, is_cut: bool) {
        let bytes = [&[head], &bytes[..]].concat();
        _ = message::outputs(&bytes, is_cut, message::Known::default());
        _ = ask::add(&bytes, is_cut, None);
        _ = ask::abort(&bytes, is_cut);
        _ = ask::ready(&bytes, is_cut);
        _ = ring::schedule(&bytes);
    }
}
