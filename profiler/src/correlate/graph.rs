//! Graphs: what each consists of, however it was made, and what an executable one runs.
//!
//! A graph is recorded from a stream, built node by node, cloned or put together from others; making it executable
//! freezes its content, which updates replace. Of a graph that was made before the attach only its identity is known.

use super::kernel::KernelKey;
use crate::probe::Direction;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a graph runs each time it is launched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Kernel nodes by kernel.
    pub kernels: BTreeMap<KernelKey, u64>,
    /// Copy nodes: count and bytes by direction.
    pub copies: BTreeMap<Direction, (u64, u64)>,
    /// Fill nodes: count and bytes.
    pub sets: (u64, u64),
    /// Host functions.
    pub host_functions: u64,
}

impl Nodes {
    /// Adds a kernel node.
    pub fn add_launch(&mut self, kernel: KernelKey) {
        *self.kernels.entry(kernel).or_default() += 1;
    }

    /// Adds a copy node.
    pub fn add_copy(&mut self, direction: Direction, bytes: u64) {
        let (count, sum) = self.copies.entry(direction).or_default();
        *count += 1;
        *sum += bytes;
    }

    /// Adds a fill node.
    pub fn add_set(&mut self, bytes: u64) {
        self.sets.0 += 1;
        self.sets.1 += bytes;
    }

    /// Kernel nodes.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.kernels.values().sum()
    }

    /// Adds all of another graph's nodes.
    pub fn add(&mut self, other: &Self) {
        for (kernel, count) in &other.kernels {
            *self.kernels.entry(*kernel).or_default() += count;
        }
        for (direction, (count, bytes)) in &other.copies {
            let sums = self.copies.entry(*direction).or_default();
            sums.0 += count;
            sums.1 += bytes;
        }
        self.sets.0 += other.sets.0;
        self.sets.1 += other.sets.1;
        self.host_functions += other.host_functions;
    }

    /// One of a kernel's nodes runs another kernel from now on, or is gone.
    fn replace(&mut self, old: KernelKey, new: Option<KernelKey>) {
        if let Some(count) = self.kernels.get_mut(&old) {
            *count -= 1;
            if *count == 0 {
                self.kernels.remove(&old);
            }
        }
        if let Some(new) = new {
            self.add_launch(new);
        }
    }
}

/// The graphs of one process.
#[derive(Debug, Default)]
pub struct Graphs {
    graphs: HashMap<u64, Arc<Nodes>>,
    executables: HashMap<u64, Arc<Nodes>>,
    /// Kernel nodes that were added by a call: their graph and what they run.
    nodes: HashMap<u64, (u64, KernelKey)>,
    /// Kernel nodes that are switched off, by executable graph and node, and what they would run.
    off: HashMap<(u64, u64), KernelKey>,
    /// What the tables had to forget.
    pub forgotten: u64,
}

/// Handles may be lost sight of: past this many a table starts anew.
const MAX_GRAPHS: usize = 16_384;
/// Likewise for nodes.
const MAX_NODES: usize = 262_144;

impl Graphs {
    /// An empty graph came to be.
    pub fn create(&mut self, graph: u64) {
        self.forgotten += insert_bounded(&mut self.graphs, graph, Arc::default(), MAX_GRAPHS);
    }

    /// A recording ended in `graph`, which may have had nodes before.
    pub fn recorded(&mut self, graph: u64, nodes: &Nodes, into_existing: bool) {
        if into_existing {
            self.change(graph, |content| content.add(nodes));
        } else {
            self.forgotten += insert_bounded(&mut self.graphs, graph, Arc::new(nodes.clone()), MAX_GRAPHS);
        }
    }

    /// `copy` is a clone of `graph`. Of one that is not known nothing is known of the clone.
    pub fn clone_of(&mut self, copy: u64, graph: u64) {
        match self.graphs.get(&graph).cloned() {
            Some(nodes) => self.forgotten += insert_bounded(&mut self.graphs, copy, nodes, MAX_GRAPHS),
            None => drop(self.graphs.remove(&copy)),
        }
    }

    /// A graph is gone; executable ones made from it live on.
    pub fn destroy(&mut self, graph: u64) {
        self.graphs.remove(&graph);
    }

    /// Nodes were added to a graph by a call; nothing changes for a graph that is not known.
    pub fn change(&mut self, graph: u64, change: impl FnOnce(&mut Nodes)) {
        if let Some(nodes) = self.graphs.get_mut(&graph) {
            change(Arc::make_mut(nodes));
        }
    }

    /// A kernel node was added to a graph.
    pub fn add_kernel(&mut self, graph: u64, node: u64, kernel: KernelKey) {
        self.change(graph, |nodes| nodes.add_launch(kernel));
        self.forgotten += insert_bounded(&mut self.nodes, node, (graph, kernel), MAX_NODES);
    }

    /// All of `child` became a part of `graph`. With a child that is not known the whole is not known.
    pub fn add_child(&mut self, graph: u64, child: u64) {
        match self.graphs.get(&child).cloned() {
            Some(nodes) => self.change(graph, |content| content.add(&nodes)),
            None => drop(self.graphs.remove(&graph)),
        }
    }

    /// A node runs another kernel from now on (`Some`), or is gone. Nodes that were recorded are not known one by one.
    pub fn change_node(&mut self, node: u64, kernel: Option<KernelKey>) {
        let Some((graph, old)) = self.nodes.get(&node).copied() else { return };
        self.change(graph, |nodes| nodes.replace(old, kernel));
        match kernel {
            Some(kernel) => drop(self.nodes.insert(node, (graph, kernel))),
            None => drop(self.nodes.remove(&node)),
        }
    }

    /// `graph` was made executable, or `executable` was changed to its likeness. A graph that was not seen makes an
    /// executable that is not known.
    pub fn instantiate(&mut self, graph: u64, executable: u64) {
        self.off.retain(|(of, _), _| *of != executable);
        match self.graphs.get(&graph).cloned() {
            Some(nodes) => {
                self.forgotten += insert_bounded(&mut self.executables, executable, nodes, MAX_GRAPHS);
            }
            None => drop(self.executables.remove(&executable)),
        }
    }

    /// A node of an executable graph runs another kernel from now on.
    pub fn change_executable(&mut self, executable: u64, node: u64, kernel: KernelKey) {
        let Some((_, old)) = self.nodes.get(&node).copied() else { return };
        if let Some(nodes) = self.executables.get_mut(&executable).filter(|_| old != kernel) {
            Arc::make_mut(nodes).replace(old, Some(kernel));
        }
    }

    /// A node of an executable graph is switched on or off. Only kernel nodes that were added by a call are known.
    pub fn enable(&mut self, executable: u64, node: u64, on: bool) {
        let Some(nodes) = self.executables.get_mut(&executable) else { return };
        let known = self.nodes.get(&node).map(|(_, kernel)| *kernel);
        match (on, self.off.get(&(executable, node)).copied()) {
            (true, Some(kernel)) => {
                self.off.remove(&(executable, node));
                Arc::make_mut(nodes).add_launch(kernel);
            }
            (false, None) if self.off.len() < MAX_NODES => {
                let Some(kernel) = known else { return };
                self.off.insert((executable, node), kernel);
                Arc::make_mut(nodes).replace(kernel, None);
            }
            (false, None) => self.forgotten += 1,
            _ => {}
        }
    }

    /// An executable graph is gone.
    pub fn destroy_executable(&mut self, executable: u64) {
        self.off.retain(|(of, _), _| *of != executable);
        self.executables.remove(&executable);
    }

    /// What an executable graph runs, if its making was seen.
    #[must_use]
    pub fn executable(&self, executable: u64) -> Option<Arc<Nodes>> {
        self.executables.get(&executable).cloned()
    }
}

/// Inserts, into a table that starts anew when it is full; how much that forgot.
fn insert_bounded<V>(table: &mut HashMap<u64, V>, key: u64, value: V, most: usize) -> u64 {
    let mut forgotten = 0;
    if table.len() >= most && !table.contains_key(&key) {
        forgotten = table.len() as u64;
        table.clear();
    }
    table.insert(key, value);
    forgotten
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(function: u64) -> KernelKey {
        KernelKey { pid: 1, function }
    }

    fn kernels(graphs: &Graphs, executable: u64) -> Option<Vec<(u64, u64)>> {
        let nodes = graphs.executable(executable)?;
        Some(nodes.kernels.iter().map(|(kernel, count)| (kernel.function, *count)).collect())
    }

    #[test]
    fn a_graph_that_is_built_runs_its_nodes() {
        let mut graphs = Graphs::default();
        graphs.create(1);
        graphs.add_kernel(1, 0xa, kernel(7));
        graphs.add_kernel(1, 0xb, kernel(7));
        graphs.change(1, |nodes| nodes.add_copy(Direction::HtoD, 100));
        graphs.create(2);
        graphs.add_kernel(2, 0xc, kernel(8));
        graphs.add_child(2, 1);
        graphs.clone_of(3, 2);
        graphs.instantiate(3, 0xe);
        assert_eq!(kernels(&graphs, 0xe), Some(vec![(7, 2), (8, 1)]));
        assert_eq!(graphs.executable(0xe).unwrap().copies[&Direction::HtoD], (1, 100));
    }

    #[test]
    fn executables_keep_what_they_were_made_of_until_they_are_updated() {
        let mut graphs = Graphs::default();
        graphs.create(1);
        graphs.add_kernel(1, 0xa, kernel(7));
        graphs.instantiate(1, 0xe);
        graphs.change_node(0xa, Some(kernel(9)));
        assert_eq!(kernels(&graphs, 0xe), Some(vec![(7, 1)]));
        graphs.instantiate(1, 0xe);
        assert_eq!(kernels(&graphs, 0xe), Some(vec![(9, 1)]));
        graphs.change_executable(0xe, 0xa, kernel(10));
        assert_eq!(kernels(&graphs, 0xe), Some(vec![(10, 1)]));
        graphs.change_node(0xa, None);
        graphs.destroy(1);
        assert_eq!(kernels(&graphs, 0xe), Some(vec![(10, 1)]));
        graphs.destroy_executable(0xe);
        assert_eq!(kernels(&graphs, 0xe), None);
    }

    #[test]
    fn a_node_that_is_switched_off_does_not_run() {
        let mut graphs = Graphs::default();
        graphs.create(1);
        graphs.add_kernel(1, 0xa, kernel(7));
        graphs.add_kernel(1, 0xb, kernel(8));
        graphs.instantiate(1, 0xe);
        for _ in 0..2 {
            graphs.enable(0xe, 0xa, false);
            assert_eq!(kernels(&graphs, 0xe), Some(vec![(8, 1)]));
        }
        for _ in 0..2 {
            graphs.enable(0xe, 0xa, true);
            assert_eq!(kernels(&graphs, 0xe), Some(vec![(7, 1), (8, 1)]));
        }
        graphs.enable(0xe, 0xa, false);
        graphs.instantiate(1, 0xe);
        assert_eq!(kernels(&graphs, 0xe), Some(vec![(7, 1), (8, 1)]), "made anew, all nodes run");
    }

    #[test]
    fn graphs_without_end_start_anew_and_are_counted() {
        let mut graphs = Graphs::default();
        for handle in 0..MAX_GRAPHS as u64 + 1 {
            graphs.create(handle);
            graphs.instantiate(handle, handle);
        }
        assert_eq!((graphs.graphs.len(), graphs.executables.len()), (1, 1));
        assert_eq!(graphs.forgotten, 2 * MAX_GRAPHS as u64);
    }

    #[test]
    fn what_is_made_of_the_unknown_is_unknown() {
        let mut graphs = Graphs::default();
        graphs.create(1);
        graphs.add_child(1, 0xbad);
        graphs.clone_of(2, 1);
        graphs.instantiate(2, 0xe);
        assert_eq!(kernels(&graphs, 0xe), None);
    }
}
