//! The load that schedulers publish: `/dev/shm/sglang_loads_NAME_HASH.shm` (`sglang/srt/managers/load_snapshot.py`).
//!
//! In: the file's bytes. Out: numbers of each data-parallel rank. A header `<4sHHI` (`SLNS`, version 2, ranks, size of a
//! slot), and for each rank a slot: a length, and a msgpack map in which zeros are left out. A slot whose length is 0 is
//! being written.

use crate::server::codec::msgpack::{Item, Reader};
use crate::server::said::Gauges;

const HEADER: usize = 12;
const MAGIC: &[u8; 4] = b"SLNS";
const VERSION: u16 = 2;
/// No machine has more.
const MAX_RANKS: u16 = 1024;

/// How the names of these files begin, in `/dev/shm`.
pub const FILE_PREFIX: &str = "sglang_loads_";

/// What each rank said of itself; nothing if it is no such file, or of another version.
#[must_use]
pub fn read(file: &[u8]) -> Option<Vec<Gauges>> {
    let (header, slots) = file.split_first_chunk::<HEADER>()?;
    let [m0, m1, m2, m3, v0, v1, r0, r1, s0, s1, s2, s3] = *header;
    let (ranks, slot) = (u16::from_le_bytes([r0, r1]), u32::from_le_bytes([s0, s1, s2, s3]));
    let is_known =
        [m0, m1, m2, m3] == *MAGIC && u16::from_le_bytes([v0, v1]) == VERSION && ranks <= MAX_RANKS;
    if !is_known || slot < 4 {
        return None;
    }
    let slots = slots.chunks(slot as usize).take(ranks.into());
    Some((0..).zip(slots).filter_map(|(rank, slot)| of_slot(rank, slot)).collect())
}

fn of_slot(rank: u64, slot: &[u8]) -> Option<Gauges> {
    let (length, rest) = slot.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let data = rest.get(..length).filter(|data| !data.is_empty())?;
    let mut reader = Reader::new(data, false);
    let Ok(Item::Map(pairs)) = reader.item() else { return None };
    let mut said = Load::default();
    for _ in 0..pairs {
        let Ok(Item::Str(name)) = reader.item() else { return None };
        said.take(name, &mut reader)?;
    }
    Some(said.gauges(rank))
}

#[derive(Default)]
struct Load {
    running: u64,
    waiting: u64,
    used: u64,
    capacity: u64,
    usage: Option<f64>,
}

impl Load {
    fn take(&mut self, name: &str, reader: &mut Reader<'_>) -> Option<()> {
        let value = reader.item().ok()?;
        let field = match name {
            "num_running_reqs" => &mut self.running,
            "num_waiting_reqs" => &mut self.waiting,
            "num_used_tokens" => &mut self.used,
            "max_total_num_tokens" => &mut self.capacity,
            "token_usage" => {
                self.usage = match value {
                    Item::Float(usage) => Some(usage),
                    Item::Uint(usage) => Some(usage as f64),
                    _ => return None,
                };
                return Some(());
            }
            _ => return reader.skip_inside(value).ok(),
        };
        match value {
            Item::Uint(number) => *field = number,
            _ => return None,
        }
        Some(())
    }

    fn gauges(&self, rank: u64) -> Gauges {
        let computed = (self.capacity > 0).then(|| self.used as f64 / self.capacity as f64);
        let usage = self.usage.or(computed).filter(|usage| (0.0..=1.0).contains(usage));
        Gauges { engine: rank, running: Some(self.running), waiting: Some(self.waiting), kv_usage: usage }
    }
}
