//! Nothing is said before the schema has proved right.
//!
//! In: what an engine's messages say, and how far they agreed. Out: the same, held back until there is proof; dropped
//! if a message fails before that.

use super::message::Known;
use super::request::Agreement;
use super::schema::{Match, Version};
use crate::server::said::Said;

/// What is held back. With 256 requests that is some seconds of an engine.
const MOST_HELD: usize = 65_536;

/// Outputs of known requests that must agree where nothing is stamped.
const ENOUGH_OUTPUTS: u32 = 32;

/// Holds back what is said.
#[derive(Debug, Default)]
pub struct Gate {
    held: Vec<Said>,
    is_open: bool,
    /// The version by which outputs are read.
    version: Option<(&'static Version, Match)>,
    /// The version that the engine named.
    named: Option<&'static Version>,
    /// The version by which requests are read.
    asked: Option<&'static Version>,
    /// Outputs of requests whose beginning was heard.
    known: u32,
    has_first: bool,
    has_life: bool,
}

impl Gate {
    /// The engine named its version.
    pub fn name(&mut self, version: &'static Version) {
        self.named = Some(version);
    }

    /// By which version messages are read.
    #[must_use]
    pub fn version(&self) -> Option<&'static Version> {
        self.version.map(|(version, _)| version).or(self.asked).or(self.named)
    }

    /// What is shown as the schema, once it is settled.
    #[must_use]
    pub fn schema(&self) -> Option<&'static str> {
        let (version, fit) = self.version.filter(|_| self.is_open)?;
        Some(match fit {
            Match::Listed => version.name,
            Match::Longer => version.beyond,
        })
    }

    /// What is known of the version.
    #[must_use]
    pub fn known(&self) -> Known {
        Known { settled: self.version, asked: self.asked }
    }

    /// A request was read by this version. Where outputs do not tell it from others, requests do.
    pub fn asked(&mut self, version: &'static Version) {
        self.asked = Some(version);
        if let Some((settled, _)) = &mut self.version
            && settled.answers_like(version)
        {
            *settled = version;
        }
    }

    /// Outputs were read, by this version if they have any.
    pub fn settle(&mut self, version: Option<(&'static Version, Match)>) {
        self.version = self.version.or(version);
    }

    /// How far outputs agreed with what is known.
    pub fn agree(&mut self, agreement: Agreement) {
        let Some((version, fit)) = self.version else { return };
        self.known += u32::from(agreement.known);
        self.has_first |= agreement.first_output;
        self.has_life |= agreement.life;
        let is_named = self.named.is_some_and(|named| std::ptr::eq(named, version));
        self.is_open |= match fit {
            Match::Listed => {
                self.has_first || self.has_life || self.known >= ENOUGH_OUTPUTS || is_named && self.known > 0
            }
            // Nothing but its content speaks for it: it takes a beginning and an end.
            Match::Longer => self.has_first && self.has_life,
        };
    }

    /// A message failed. Whether all that was held is dropped, and what is known should be forgotten with it.
    pub fn fail(&mut self) -> bool {
        if !self.is_open {
            *self = Self { named: self.named, ..Self::default() };
        }
        !self.is_open
    }

    /// Whether what was said is let through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Lets through what may be said.
    pub fn pass(&mut self, said: &mut Vec<Said>, out: &mut Vec<Said>) {
        if self.is_open {
            out.append(&mut self.held);
            out.append(said);
            return;
        }
        self.held.append(said);
        let excess = self.held.len().saturating_sub(MOST_HELD);
        self.held.drain(..excess);
    }
}
