//! What waits for a look at the system, in bounded lists.

use crate::correlate::{Naming, Outcomes, Reservation};

/// What correlation learnt that wants a look at the system and has time until the next sweep: the controlling thread
/// fetches it.
#[derive(Debug, Default)]
pub struct Wants {
    /// What calls told about kernels' names, with their process.
    pub names: Vec<(u32, Naming)>,
    /// Large pieces of device memory.
    pub reservations: Vec<Reservation>,
    /// Models that were named for the first time, and the process that serves them.
    pub models: Vec<(u32, String)>,
    /// Of the first two, what found no room.
    pub beyond: u64,
}

/// A program registers its kernels all at once: PyTorch 2.15 has 24,114.
const MOST_WANTS: usize = 131_072;

impl Wants {
    /// Hands over what waits. What found no room stays counted.
    pub fn fetch(&mut self) -> Self {
        let names = std::mem::take(&mut self.names);
        let reservations = std::mem::take(&mut self.reservations);
        Self { names, reservations, models: std::mem::take(&mut self.models), beyond: 0 }
    }

    /// Takes what an input brought.
    pub(super) fn add(&mut self, out: &mut Outcomes) {
        let room = MOST_WANTS.saturating_sub(self.names.len());
        self.beyond += out.names.len().saturating_sub(room) as u64;
        self.names.extend(out.names.drain(..).take(room));
        let room = MOST_WANTS.saturating_sub(self.reservations.len());
        self.beyond += out.reservations.len().saturating_sub(room) as u64;
        self.reservations.extend(out.reservations.drain(..).take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_stays_counted() {
        let mut wants = Wants::default();
        for _ in 0..2 {
            let alias = |handle| (7, Naming::Alias { handle, of: 1 });
            let mut out =
                Outcomes { names: (0..MOST_WANTS as u64).map(alias).collect(), ..Outcomes::default() };
            wants.add(&mut out);
            assert!(out.names.is_empty());
        }
        assert_eq!((wants.fetch().names.len(), wants.names.len()), (MOST_WANTS, 0));
        assert_eq!(wants.beyond, MOST_WANTS as u64);
    }
}
