//! Memory of the target: what is live and what was the most, by device and kind, from allocations and frees.

use crate::probe::{Memory, Side};
use std::collections::BTreeMap;

/// A piece of memory that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Size.
    pub bytes: u64,
    /// Whose account it is on.
    pub account: Account,
}

/// What memory is accounted under: its kind and, on a device, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Of which kind.
    pub kind: Memory,
    /// Ordinal of the device, as the process numbers it; `None` when it is not known, or not on a device.
    pub device: Option<u32>,
}

impl Account {
    /// The name in summaries: the device's number, `unknown`, or the kind of memory that is on no device.
    #[must_use]
    pub fn name(self) -> String {
        match (self.kind, self.device) {
            (Memory::Device, Some(device)) => device.to_string(),
            (Memory::Device, None) => "unknown".to_owned(),
            (kind, _) => kind.name().to_owned(),
        }
    }
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

impl MemoryTotals {
    /// Adds another account; the peaks need not have been at one time, so that their sum is the most it can have been.
    pub fn add(&mut self, other: &Self) {
        self.allocated_bytes += other.allocated_bytes;
        self.freed_bytes += other.freed_bytes;
        self.live_bytes += other.live_bytes;
        self.peak_bytes += other.peak_bytes;
        self.allocations += other.allocations;
        self.frees += other.frees;
        self.frees_of_unknown += other.frees_of_unknown;
    }
}

/// What one process holds, by address or handle.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: BTreeMap<u64, Block>,
    /// Every allocation of the process was seen: what is not known is ordinary host memory.
    from_start: bool,
}

/// Blocks of one process that are followed; PyTorch and ggml hold hundreds, no server a million.
const MOST_BLOCKS: usize = 1 << 20;

impl Blocks {
    /// Whether the process was observed from before its first allocation.
    pub fn set_from_start(&mut self, all: bool) {
        self.from_start = all;
    }

    /// On which side an address lies, if that is known. Managed memory moves, so it is on neither.
    #[must_use]
    pub fn side(&self, address: u64) -> Option<Side> {
        let below = self.blocks.range(..=address).next_back();
        match below.filter(|(start, block)| address - *start < block.bytes) {
            Some((_, Block { account: Account { kind: Memory::Device | Memory::Reserved, .. }, .. })) => {
                Some(Side::Device)
            }
            Some((_, Block { account: Account { kind: Memory::Pinned, .. }, .. })) => Some(Side::Host),
            Some((_, Block { account: Account { kind: Memory::Managed, .. }, .. })) => None,
            None => self.from_start.then_some(Side::Host),
        }
    }
}

/// The accounts of all processes.
#[derive(Debug, Default)]
pub struct Accounts {
    totals: BTreeMap<Account, MemoryTotals>,
    forgotten: u64,
}

impl Accounts {
    /// An allocation succeeded.
    pub fn allocated(&mut self, blocks: &mut Blocks, key: u64, block: Block) {
        if blocks.blocks.len() >= MOST_BLOCKS
            && !blocks.blocks.contains_key(&key)
            && let Some((_, lost)) = blocks.blocks.pop_first()
        {
            self.forgotten += 1;
            self.account(lost.account).live_bytes -= lost.bytes;
        }
        // An address handed out twice means that its free was not seen: the old block is gone.
        if let Some(lost) = blocks.blocks.insert(key, block) {
            self.account(lost.account).live_bytes -= lost.bytes;
        }
        let totals = self.account(block.account);
        totals.allocations += 1;
        totals.allocated_bytes += block.bytes;
        totals.live_bytes += block.bytes;
        totals.peak_bytes = totals.peak_bytes.max(totals.live_bytes);
    }

    /// Memory was given back; of an address that was handed out before the attach only that is known, and `otherwise`
    /// says on which account.
    pub fn freed(&mut self, blocks: &mut Blocks, key: u64, otherwise: Account) {
        let block = blocks.blocks.remove(&key);
        let totals = self.account(block.map_or(otherwise, |block| block.account));
        totals.frees += 1;
        match block {
            Some(block) => {
                totals.freed_bytes += block.bytes;
                totals.live_bytes -= block.bytes;
            }
            None => totals.frees_of_unknown += 1,
        }
    }

    /// A process ended, and with it all that it held.
    pub fn forget(&mut self, blocks: &Blocks) {
        for block in blocks.blocks.values() {
            self.account(block.account).live_bytes -= block.bytes;
        }
    }

    /// Blocks that found no room.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Every account that ever had memory.
    pub fn totals(&self) -> impl Iterator<Item = (Account, &MemoryTotals)> {
        self.totals.iter().map(|(account, totals)| (*account, totals))
    }

    fn account(&mut self, account: Account) -> &mut MemoryTotals {
        self.totals.entry(account).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Account = Account { kind: Memory::Device, device: Some(1) };
    const PINNED: Account = Account { kind: Memory::Pinned, device: None };

    fn block(bytes: u64) -> Block {
        Block { bytes, account: DEVICE }
    }

    #[test]
    fn live_and_peak_follow_allocations_and_frees() {
        let (mut accounts, mut one, mut other) = (Accounts::default(), Blocks::default(), Blocks::default());
        accounts.allocated(&mut one, 0x10, block(100));
        accounts.allocated(&mut one, 0x20, block(50));
        accounts.freed(&mut one, 0x10, DEVICE);
        accounts.allocated(&mut one, 0x10, block(20));
        accounts.freed(&mut one, 0x99, DEVICE);
        accounts.allocated(&mut other, 0x10, block(5));
        accounts.forget(&other);
        let expected = MemoryTotals {
            allocated_bytes: 175,
            freed_bytes: 100,
            live_bytes: 70,
            peak_bytes: 150,
            allocations: 4,
            frees: 2,
            frees_of_unknown: 1,
        };
        assert_eq!(accounts.totals().collect::<Vec<_>>(), [(DEVICE, &expected)]);
        assert_eq!(DEVICE.name(), "1");
    }

    #[test]
    fn what_finds_no_room_is_not_live_for_ever() {
        let (mut accounts, mut blocks) = (Accounts::default(), Blocks::default());
        let most = MOST_BLOCKS as u64;
        (0..most + 10).for_each(|key| accounts.allocated(&mut blocks, key, block(2)));
        let live = |accounts: &Accounts| accounts.totals().map(|(_, totals)| totals.live_bytes).sum::<u64>();
        assert_eq!((accounts.forgotten(), live(&accounts)), (10, 2 * most));
        (0..most + 10).for_each(|key| accounts.freed(&mut blocks, key, DEVICE));
        let frees = accounts.totals().map(|(_, totals)| totals.frees_of_unknown).sum::<u64>();
        assert_eq!((live(&accounts), frees), (0, 10));
    }

    #[test]
    fn addresses_inside_a_block_are_on_its_side() {
        let (mut accounts, mut blocks) = (Accounts::default(), Blocks::default());
        accounts.allocated(&mut blocks, 0x1000, block(0x100));
        accounts.allocated(&mut blocks, 0x2000, Block { bytes: 0x10, account: PINNED });
        assert_eq!(blocks.side(0x10ff), Some(Side::Device));
        assert_eq!(blocks.side(0x200f), Some(Side::Host));
        assert_eq!((blocks.side(0x1100), blocks.side(0xfff)), (None, None));
        blocks.set_from_start(true);
        assert_eq!(blocks.side(0x1100), Some(Side::Host), "all of the device's memory is known");
    }
}
