//! Listed paths of JSON documents, as a tree that a scanner walks down.
//!
//! In: tables of paths, once. Out: the node behind a key or an array's item.

/// What is wanted of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The string, number or literal itself.
    Keep,
    /// Whether it is there and not empty. Its text is never stored.
    Presence,
}

/// Listed paths as a tree.
#[derive(Debug)]
pub(super) struct Paths<F> {
    nodes: Vec<Node<F>>,
}

#[derive(Debug)]
pub(super) struct Node<F> {
    pub(super) field: Option<(F, Want)>,
    pub(super) keys: Vec<(&'static str, u16)>,
    pub(super) element: Option<u16>,
}

impl<F: Copy> Paths<F> {
    /// Builds the tree. A path is keys joined by `.`; `[]` behind a key means each item of the array.
    pub(super) fn new(paths: impl IntoIterator<Item = (&'static str, F, Want)>) -> Self {
        // A list of documents counts as its documents: some servers wrap a lone result in an array.
        let mut tree = Self { nodes: vec![Node { field: None, keys: Vec::new(), element: Some(0) }] };
        tree.extend("", paths);
        tree
    }

    /// Lists paths below another path.
    pub(super) fn extend(
        &mut self,
        prefix: &'static str,
        paths: impl IntoIterator<Item = (&'static str, F, Want)>,
    ) {
        for (path, field, want) in paths {
            let mut at = 0;
            for part in prefix.split('.').chain(path.split('.')).filter(|part| !part.is_empty()) {
                at = self.key(at, part.strip_suffix("[]").unwrap_or(part));
                if part.ends_with("[]") {
                    at = self.element(at);
                }
            }
            if let Some(node) = self.nodes.get_mut(usize::from(at)) {
                node.field = Some((field, want));
            }
        }
    }

    fn add(&mut self) -> u16 {
        self.nodes.push(Node { field: None, keys: Vec::new(), element: None });
        u16::try_from(self.nodes.len() - 1).unwrap_or(u16::MAX)
    }

    fn key(&mut self, at: u16, key: &'static str) -> u16 {
        if let Some(child) = self.child(at, key.as_bytes()) {
            return child;
        }
        let child = self.add();
        if let Some(node) = self.nodes.get_mut(usize::from(at)) {
            node.keys.push((key, child));
        }
        child
    }

    fn element(&mut self, at: u16) -> u16 {
        if let Some(child) = self.node(Some(at)).and_then(|node| node.element) {
            return child;
        }
        let child = self.add();
        if let Some(node) = self.nodes.get_mut(usize::from(at)) {
            node.element = Some(child);
        }
        child
    }

    pub(super) fn node(&self, at: Option<u16>) -> Option<&Node<F>> {
        self.nodes.get(usize::from(at?))
    }

    pub(super) fn child(&self, at: u16, key: &[u8]) -> Option<u16> {
        self.node(Some(at))?.keys.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, child)| *child)
    }
}
