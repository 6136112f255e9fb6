//! Device memory of the target: live and peak bytes from allocations and frees.

use std::collections::HashMap;

/// Allocations by address, of one process.
#[derive(Debug, Default)]
pub struct Allocations {
    sizes: HashMap<(u32, u64), u64>,
    /// Sums.
    pub totals: MemoryTotals,
}

/// Bytes handed out and given back since the attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryTotals {
    /// Handed out.
    pub allocated_bytes: u64,
    /// Given back, of what was handed out since the attach.
    pub freed_bytes: u64,
    /// Handed out and not yet given back.
    pub live_bytes: u64,
    /// The most that was live at once.
    pub peak_bytes: u64,
    /// Allocations seen.
    pub allocations: u64,
    /// Frees seen.
    pub frees: u64,
    /// Frees of addresses that were handed out before the attach.
    pub frees_of_unknown: u64,
}

impl Allocations {
    /// An allocation succeeded.
    pub fn allocated(&mut self, pid: u32, address: u64, bytes: u64) {
        // An address handed out twice means that its free was not seen: the old block is gone.
        if let Some(lost) = self.sizes.insert((pid, address), bytes) {
            self.totals.live_bytes -= lost;
        }
        self.totals.allocations += 1;
        self.totals.allocated_bytes += bytes;
        self.totals.live_bytes += bytes;
        self.totals.peak_bytes = self.totals.peak_bytes.max(self.totals.live_bytes);
    }

    /// Memory was given back; its size when it was handed out since the attach.
    pub fn freed(&mut self, pid: u32, address: u64) -> Option<u64> {
        self.totals.frees += 1;
        let Some(bytes) = self.sizes.remove(&(pid, address)) else {
            self.totals.frees_of_unknown += 1;
            return None;
        };
        self.totals.freed_bytes += bytes;
        self.totals.live_bytes -= bytes;
        Some(bytes)
    }

    /// The process ended, and with it all that it held.
    pub fn forget_process(&mut self, pid: u32) {
        let live = &mut self.totals.live_bytes;
        self.sizes.retain(|(of, _), bytes| {
            if *of == pid {
                *live -= *bytes;
            }
            *of != pid
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_and_peak_follow_allocations_and_frees() {
        let mut memory = Allocations::default();
        memory.allocated(1, 0x10, 100);
        memory.allocated(1, 0x20, 50);
        assert_eq!(memory.freed(1, 0x10), Some(100));
        memory.allocated(1, 0x10, 20);
        assert_eq!(memory.freed(1, 0x99), None);
        memory.allocated(2, 0x10, 5);
        memory.forget_process(2);
        let expected = MemoryTotals {
            allocated_bytes: 175,
            freed_bytes: 100,
            live_bytes: 70,
            peak_bytes: 150,
            allocations: 4,
            frees: 2,
            frees_of_unknown: 1,
        };
        assert_eq!(memory.totals, expected);
    }
}
