//! What the parsers made of bytes: kept for a recording, or taken from one in the place of the bytes.
//!
//! In: what the observers of connections and the adapters of servers say, in order. Out: the same. The bytes never come
//! by here, and nothing here has a place for them: what is kept can be handed to others.

use super::Engine;
use super::connection::Turn;
use super::inside::Speaker;
use crate::http::Signal;
use crate::interned::{self, Name};
use crate::server::registry::Source;
use crate::server::said::Said;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What all parsers made of one event or input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parsed {
    /// The observers of connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Seen>,
    /// The adapters of servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spoke: Vec<Spoke>,
}

impl Parsed {
    /// Nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.spoke.is_empty()
    }

    /// How many words were said.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len() + self.spoke.len()
    }
}

/// What the observer of a connection made of its bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Which.
    pub connection: u64,
    /// What happened in its exchanges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Signal>,
    /// What it turned out to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
}

/// When an adapter spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Occasion {
    /// It heard something.
    Heard,
    /// Time passed.
    Ticked,
    /// A process was gone.
    Gone,
}

/// What an adapter said, and how its checks stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spoke {
    /// Its number among those that listen.
    pub speaker: usize,
    /// What it listens to.
    pub source: Source,
    /// Its name.
    #[serde(deserialize_with = "interned::one")]
    pub adapter: Name,
    /// The version of formats that it has settled on.
    #[serde(default, deserialize_with = "interned::maybe", skip_serializing_if = "Option::is_none")]
    pub schema: Option<Name>,
    /// When it spoke.
    pub occasion: Occasion,
    /// Process that it heard.
    pub pid: u32,
    /// What it should have understood so far.
    pub checked: u64,
    /// Of this, what failed a check.
    pub failed: u64,
    /// Why the last one failed.
    #[serde(default, deserialize_with = "interned::maybe", skip_serializing_if = "Option::is_none")]
    pub why: Option<Name>,
    /// What it said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Said>,
}

/// Where the words of parsers pass by.
#[derive(Debug, Default)]
pub enum Tap<T> {
    /// They are not wanted elsewhere.
    #[default]
    Off,
    /// They are kept for a recording.
    Record(Vec<T>),
    /// They come from one, and no parser runs.
    Replay(VecDeque<T>),
}

impl<T> Tap<T> {
    /// Whether the words come from a recording.
    pub fn is_replay(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    fn take(&mut self) -> Vec<T> {
        match self {
            Self::Record(kept) => std::mem::take(kept),
            Self::Off | Self::Replay(_) => Vec::new(),
        }
    }

    /// Gives the words of the next event or input; returns how many of the last ones nobody asked for.
    fn give(&mut self, words: Vec<T>) -> usize {
        match std::mem::replace(self, Self::Replay(words.into())) {
            Self::Replay(left) => left.len(),
            Self::Off | Self::Record(_) => 0,
        }
    }
}

impl Tap<Seen> {
    /// Lets an observer look at something, or says what it saw when the recording was made.
    pub fn look(
        &mut self,
        connection: u64,
        signals: &mut Vec<Signal>,
        look: impl FnOnce(&mut Vec<Signal>) -> Option<Turn>,
    ) -> Option<Turn> {
        match self {
            Self::Off => look(signals),
            Self::Record(kept) => {
                let turn = look(signals);
                if !signals.is_empty() || turn.is_some() {
                    kept.push(Seen { connection, signals: signals.clone(), turn });
                }
                turn
            }
            Self::Replay(words) => {
                let index = words.iter().position(|seen| seen.connection == connection)?;
                let seen = words.remove(index)?;
                signals.extend(seen.signals);
                seen.turn
            }
        }
    }

    /// The connections of which there are words to come.
    pub fn connections(&self) -> Option<Vec<u64>> {
        match self {
            Self::Replay(words) => Some(words.iter().map(|seen| seen.connection).collect()),
            Self::Off | Self::Record(_) => None,
        }
    }
}

/// How a speaker stands: what it must tell when it changes.
pub type Standing = (u64, u64, Option<Name>, Option<Name>, bool);

impl Tap<Spoke> {
    /// A speaker has had an occasion to say something. `before` is how it stood until then.
    pub fn spoke(
        &mut self,
        index: usize,
        speaker: &Speaker,
        before: Standing,
        on: (Occasion, u32),
        said: &[Said],
    ) {
        let Self::Record(kept) = self else { return };
        let now @ (checked, failed, why, schema, _) = speaker.standing();
        if said.is_empty() && now == before {
            return;
        }
        let (occasion, pid) = on;
        let (source, adapter) = (speaker.source, speaker.name());
        let said = said.to_vec();
        kept.push(Spoke {
            speaker: index,
            source,
            adapter,
            schema,
            occasion,
            pid,
            checked,
            failed,
            why,
            said,
        });
    }

    /// What is to be said next on an occasion.
    pub fn next(&mut self, occasion: Occasion) -> Option<Spoke> {
        match self {
            Self::Replay(words) => words.pop_front_if(|spoke| spoke.occasion == occasion),
            Self::Off | Self::Record(_) => None,
        }
    }
}

impl Engine {
    /// From here on what the parsers say is kept for a recording.
    pub fn record(&mut self) {
        self.connections.tap = Tap::Record(Vec::new());
        self.inside.tap = Tap::Record(Vec::new());
    }

    /// What the parsers have said since the last time.
    pub fn take_parsed(&mut self) -> Parsed {
        Parsed { seen: self.connections.tap.take(), spoke: self.inside.tap.take() }
    }

    /// From here on no parser runs: this is what they make of the next event or input. Returns how many of the last
    /// words nobody asked for: none, unless the recording is of another program's.
    pub fn replay(&mut self, parsed: Parsed) -> usize {
        self.connections.tap.give(parsed.seen) + self.inside.tap.give(parsed.spoke)
    }
}
