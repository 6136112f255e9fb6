//! What a step consists of: counts of launches, copies and sets.

use crate::correlate::graph::Nodes;
use crate::correlate::kernel::KernelKey;
use crate::correlate::operation::Operation;
use crate::probe::Direction;
use std::collections::HashMap;

/// Counts of GPU work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Kernel launches, graphs' nodes not included.
    pub launches: u64,
    /// Graph launches.
    pub graph_launches: u64,
    /// Kernel nodes of those graphs, as far as known.
    pub graph_nodes: u64,
    /// Graph launches whose nodes are not known.
    pub unknown_graphs: u64,
    /// Copies: count and bytes by direction, in the order of [`Direction::ALL`].
    pub copies: [(u64, u64); 5],
    /// Memory sets: count and bytes.
    pub sets: (u64, u64),
    /// Host functions that streams called.
    pub host_functions: u64,
    /// Of these launches, those that were counted in the kernel and are known by kernel only as sums.
    pub counted_launches: u64,
    /// Copies that were counted in the kernel, in any direction: count and bytes. Not in `copies`.
    pub counted_copies: (u64, u64),
    /// Kernel launches by kernel: launched directly, and as graph nodes.
    pub kernels: HashMap<KernelKey, (u64, u64)>,
}

impl Work {
    /// Copies in any direction.
    #[must_use]
    pub fn copy_count(&self) -> u64 {
        self.copies.iter().map(|(count, _)| count).sum::<u64>() + self.counted_copies.0
    }

    /// Bytes copied in any direction.
    #[must_use]
    pub fn copy_bytes(&self) -> u64 {
        self.copies.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.counted_copies.1
    }

    /// Adds the counts of other work to this; its kernels are the caller's business.
    pub fn add_counts(&mut self, other: &Self) {
        self.launches += other.launches;
        self.graph_launches += other.graph_launches;
        self.graph_nodes += other.graph_nodes;
        self.unknown_graphs += other.unknown_graphs;
        self.sets.0 += other.sets.0;
        self.sets.1 += other.sets.1;
        self.host_functions += other.host_functions;
        for (mine, theirs) in self.copies.iter_mut().zip(&other.copies) {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
    }

    /// Adds other work to this.
    pub fn merge(&mut self, other: Self) {
        self.add_counts(&other);
        self.counted_launches += other.counted_launches;
        self.counted_copies.0 += other.counted_copies.0;
        self.counted_copies.1 += other.counted_copies.1;
        for (kernel, (direct, nodes)) in other.kernels {
            let sums = self.kernels.entry(kernel).or_default();
            sums.0 += direct;
            sums.1 += nodes;
        }
    }

    /// Kernels, copies and sets that the GPU runs one after the other, as far as known.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.launches + self.graph_nodes + self.copy_count() + self.sets.0
    }

    /// The kernel that is all of it, where there is one.
    #[must_use]
    pub fn only_kernel(&self) -> Option<KernelKey> {
        let mut kernels = self.kernels.iter();
        let (Some((kernel, (direct, nodes))), None) = (kernels.next(), kernels.next()) else { return None };
        Some(*kernel).filter(|_| self.pieces() == direct + nodes && self.unknown_graphs == 0)
    }

    /// How long that takes beside other work: kernels alike, copies and sets of the sizes that engines send in every
    /// iteration an eighth of one.
    pub(super) fn weight(&self) -> u64 {
        8 * (self.launches + self.graph_nodes) + self.copy_count() + self.sets.0
    }

    pub(super) fn add_operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Launch { kernel, .. } => self.add_launch(*kernel),
            Operation::GraphLaunch { nodes, .. } => {
                self.graph_launches += 1;
                match nodes {
                    Some(nodes) => self.add_nodes(nodes),
                    None => self.unknown_graphs += 1,
                }
            }
            Operation::Copy { direction, count, bytes, .. } => self.add_copy(*direction, *count, *bytes),
            Operation::Set { bytes, .. } => {
                self.sets.0 += 1;
                self.sets.1 += bytes;
            }
            Operation::HostFunction { .. } => self.host_functions += 1,
            Operation::Burst(burst) => {
                self.launches += burst.launches;
                self.counted_launches += burst.launches;
                self.counted_copies.0 += burst.copies;
                self.counted_copies.1 += burst.copy_bytes;
            }
            _ => {}
        }
    }

    fn add_launch(&mut self, kernel: KernelKey) {
        self.launches += 1;
        self.kernels.entry(kernel).or_default().0 += 1;
    }

    fn add_nodes(&mut self, nodes: &Nodes) {
        self.graph_nodes += nodes.launches();
        for (kernel, count) in &nodes.kernels {
            self.kernels.entry(*kernel).or_default().1 += count;
        }
        for (direction, (count, bytes)) in &nodes.copies {
            self.add_copy(*direction, *count, *bytes);
        }
        self.sets.0 += nodes.sets.0;
        self.sets.1 += nodes.sets.1;
        self.host_functions += nodes.host_functions;
    }

    fn add_copy(&mut self, direction: Direction, count: u64, bytes: u64) {
        if let Some(sums) = self.copies.get_mut(direction as usize) {
            sums.0 += count;
            sums.1 += bytes;
        }
    }
}
