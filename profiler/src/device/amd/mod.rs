//! AMD's devices, by what the amdgpu and KFD drivers show in sysfs.
//!
//! In: the folder where sysfs is. Out: what its devices say. No library of AMD's is loaded. `pcie_bw` is not read: it blocks
//! for a second.

mod card;
mod kfd;
#[cfg(test)]
mod tests;

use super::inventory::Inventory;
use super::model::{Reading, State, What};
use super::rhythm::Tier;
use super::settings::Scope;
use super::whose::Whose;
use card::Card;
use kfd::Kfd;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What notes are about when they are about no device.
const AMDGPU: &str = "amdgpu";

/// What is wrong with a card that was there.
const GONE: &str = "it is not in sysfs any more";

/// The devices of a sysfs.
#[derive(Debug)]
pub struct Source {
    sys: PathBuf,
    cards: Vec<(u32, Card)>,
    kfd: Kfd,
}

impl Source {
    /// Of this sysfs.
    #[must_use]
    pub fn new(sys: &Path) -> Self {
        Self { sys: sys.to_owned(), cards: Vec::new(), kfd: Kfd::default() }
    }

    /// Looks for devices that have come.
    pub fn look(&mut self, inventory: &mut Inventory, reading: &mut Reading) {
        for path in card::folders(&self.sys) {
            if self.cards.iter().any(|(_, card)| card.path == path) {
                continue;
            }
            let Some((device, card)) = Card::of(&path) else { continue };
            let number = inventory.number(device, reading);
            self.cards.push((number, card));
        }
        if !self.cards.is_empty() {
            self.kfd.look(&self.sys);
        }
    }

    /// Reads what a tier reads.
    pub fn round(
        &mut self,
        tier: Tier,
        scope: Scope,
        inventory: &mut Inventory,
        whose: &mut Whose,
        reading: &mut Reading,
    ) {
        if self.cards.is_empty() {
            return;
        }
        if tier >= Tier::Cheap {
            let cards: Vec<_> = self.cards.iter().map(|(number, card)| (*number, card.pci.clone())).collect();
            self.kfd.round(&cards, inventory, whose, reading);
        }
        let used: BTreeSet<u32> = whose.used();
        for (number, card) in &mut self.cards {
            if scope != Scope::All && !used.contains(number) {
                continue;
            }
            let id =
                inventory.devices().get(*number as usize).map(|device| device.id.clone()).unwrap_or_default();
            let said = inventory.listen(*number, reading, |out| {
                let is_there = card.read(tier, out);
                if tier >= Tier::Cheap {
                    out.tell(What::State, if is_there { State::Ok } else { State::Failed } as u64);
                }
                is_there
            });
            let denied = std::mem::take(&mut card.denied);
            for file in denied {
                inventory.wrong(&id, format!("{file} may not be read: run privileged to have it"), reading);
            }
            match said {
                Some(false) => inventory.wrong(&id, GONE.to_owned(), reading),
                _ => {
                    inventory.right(&id, GONE, "it is in sysfs again", reading);
                }
            }
        }
        if self.kfd.is_denied {
            inventory.wrong(
                AMDGPU,
                "the processes of KFD may not be read: run as root to have them".to_owned(),
                reading,
            );
        }
    }
}
