//! What readers of a tree ask.

use super::Tree;
use super::tree::{Call, Id, Items, Node, Text};

/// A value of a tree.
#[derive(Clone, Copy)]
pub struct Value<'t, 'a> {
    tree: &'t Tree<'a>,
    id: Id,
}

impl<'t, 'a> Value<'t, 'a> {
    pub(super) fn new(tree: &'t Tree<'a>, id: Id) -> Self {
        Self { tree, id }
    }

    pub(super) fn node(&self) -> Option<&'t Node<'a>> {
        self.tree.nodes.get(self.id.index())
    }

    fn with(&self, id: Id) -> Self {
        Self::new(self.tree, id)
    }

    /// Names the node: the same for every place where a value stands.
    #[must_use]
    pub fn identity(&self) -> usize {
        self.id.index()
    }

    /// Whether it is `None`.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.node(), Some(Node::None))
    }

    /// A bool.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.node()? {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self.node()? {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        u64::try_from(self.as_i64()?).ok()
    }

    /// A larger integer: two's complement, little-endian.
    #[must_use]
    pub fn as_long(&self) -> Option<&'a [u8]> {
        match self.node()? {
            Node::Long(text) => whole(text),
            _ => None,
        }
    }

    /// A float, or an integer as one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self.node()? {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Whether it is a float.
    #[must_use]
    pub fn is_float(&self) -> bool {
        matches!(self.node(), Some(Node::Float(_)))
    }

    /// Text, if all of it is here.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        match self.node()? {
            Node::Str(text) => str::from_utf8(whole(text)?).ok(),
            _ => None,
        }
    }

    /// Bytes, if all of them are here.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self.node()? {
            Node::Bytes(text) => whole(text),
            _ => None,
        }
    }

    /// Text or bytes as far as they were copied.
    #[must_use]
    pub fn as_part(&self) -> Option<&'a [u8]> {
        self.text().map(|text| text.bytes)
    }

    fn text(&self) -> Option<&'t Text<'a>> {
        match self.node()? {
            Node::Str(text) | Node::Bytes(text) | Node::Long(text) => Some(text),
            _ => None,
        }
    }

    /// Length of text or bytes as it was before a cut, of a tuple, list or set, or pairs of a dict.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a number has no length")]
    pub fn len(&self) -> Option<u64> {
        if let Some(text) = self.text() {
            return Some(text.length);
        }
        match self.node()? {
            Node::Tuple(_) | Node::List(_) | Node::Set(_) => Some(self.items().count() as u64),
            Node::Dict(_) => Some(self.pairs().count() as u64),
            _ => None,
        }
    }

    /// Whether it is a list or a tuple.
    #[must_use]
    pub fn is_sequence(&self) -> bool {
        matches!(self.node(), Some(Node::List(_) | Node::Tuple(_)))
    }

    /// Whether it is a set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        matches!(self.node(), Some(Node::Set(_)))
    }

    /// Whether it is a dict.
    #[must_use]
    pub fn is_dict(&self) -> bool {
        matches!(self.node(), Some(Node::Dict(_)))
    }

    /// Items of a tuple, list or set, or of an object that is filled like a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> Links<'t, 'a> {
        let items = match self.node() {
            Some(Node::Tuple(items) | Node::List(items) | Node::Set(items)) => *items,
            Some(Node::Object(call)) if !call.pairs => call.items,
            _ => Items::default(),
        };
        Links::new(self.tree, items)
    }

    /// The item at a place.
    #[must_use]
    pub fn item(&self, place: usize) -> Option<Self> {
        self.items().nth(place)
    }

    /// Keys and values of a dict, or of an object that is filled like one; none of anything else.
    #[must_use]
    pub fn pairs(&self) -> Pairs<'t, 'a> {
        let items = match self.node() {
            Some(Node::Dict(items)) => *items,
            Some(Node::Object(call)) if call.pairs => call.items,
            _ => Items::default(),
        };
        Pairs(Links::new(self.tree, items))
    }

    /// The value of a key of a dict: the last, as the others were overwritten.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Self> {
        self.pairs().filter(|(name, _)| name.is_text(key)).last().map(|(_, value)| value)
    }

    fn is_text(&self, text: &str) -> bool {
        matches!(self.node(), Some(Node::Str(own)) if whole(own) == Some(text.as_bytes()))
    }

    fn call(&self) -> Option<&'t Call> {
        match self.node()? {
            Node::Object(call) => Some(call),
            _ => None,
        }
    }

    /// Module and name, of a class or function.
    #[must_use]
    pub fn global(&self) -> Option<(&'a str, &'a str)> {
        match self.node()? {
            Node::Global(module, name) => Some((self.with(*module).as_str()?, self.with(*name).as_str()?)),
            _ => None,
        }
    }

    /// Whether it is an object: what a call would have made.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.call().is_some()
    }

    /// What would have been called.
    #[must_use]
    pub fn callee(&self) -> Option<Self> {
        Some(self.with(self.call()?.callee))
    }

    /// With what: a tuple.
    #[must_use]
    pub fn arguments(&self) -> Option<Self> {
        Some(self.with(self.call()?.arguments))
    }

    /// What would have been set on the object.
    #[must_use]
    pub fn state(&self) -> Option<Self> {
        self.call()?.state.map(|state| self.with(state))
    }

    /// Module and name of an object's class; where a function is called to rebuild it (`msgspec._utils.rebuild`,
    /// `copyreg._reconstructor`), the class is its first argument.
    #[must_use]
    pub fn class(&self) -> Option<(&'a str, &'a str)> {
        let callee = self.callee()?.global()?;
        let is_function =
            matches!(callee, (_, "rebuild" | "_reconstructor" | "__newobj__" | "__newobj_ex__"));
        if is_function && let Some(class) = self.arguments().and_then(|all| all.item(0)?.global()) {
            return Some(class);
        }
        Some(callee)
    }

    /// A field of an object by its name: from its state (a dict, or a tuple of dicts as classes with `__slots__` have
    /// it), from arguments by name, or from a dict among its arguments, as `msgspec` has it.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<Self> {
        let call = self.call()?;
        let state = call.state.map(|id| self.with(id));
        let arguments = self.with(call.arguments).items();
        let named = call.named.map(|id| self.with(id));
        let states = state.into_iter().flat_map(|state| state.states());
        states.chain(named).chain(arguments).find_map(|fields| fields.get(name))
    }

    /// A state itself, and the two parts of one of a class with `__slots__`.
    fn states(self) -> impl Iterator<Item = Self> + use<'t, 'a> {
        let parts = matches!(self.node(), Some(Node::Tuple(_))).then(|| self.items());
        std::iter::once(self).chain(parts.into_iter().flatten().take(2))
    }

    /// All fields that have names, in order.
    pub fn attrs(&self) -> impl Iterator<Item = (&'a str, Self)> + use<'t, 'a> {
        let call = self.call();
        let this = *self;
        let state = call.and_then(|call| call.state).map(|id| this.with(id));
        let named = call.and_then(|call| call.named).map(|id| this.with(id));
        let states = state.into_iter().flat_map(|state| state.states());
        let arguments = call.into_iter().flat_map(move |call| this.with(call.arguments).items());
        let dicts = states.chain(named).chain(arguments);
        dicts.flat_map(|dict| dict.pairs()).filter_map(|(name, value)| Some((name.as_str()?, value)))
    }
}

fn whole<'a>(text: &Text<'a>) -> Option<&'a [u8]> {
    (text.length == text.bytes.len() as u64).then_some(text.bytes)
}

/// Items in their order.
#[derive(Clone)]
pub struct Links<'t, 'a> {
    tree: &'t Tree<'a>,
    run: std::slice::Iter<'t, Id>,
    /// Place of the next segment, plus one; 0 for none.
    next: u32,
}

impl<'t, 'a> Links<'t, 'a> {
    fn new(tree: &'t Tree<'a>, items: Items) -> Self {
        Self { tree, run: [].iter(), next: items.first }
    }

    fn next_run(&mut self) -> Option<()> {
        let segment = self.tree.segments.get(self.next.checked_sub(1)? as usize)?;
        self.next = segment.next;
        let (start, length) = (segment.start as usize, segment.length as usize);
        self.run = self.tree.links.get(start..start.checked_add(length)?)?.iter();
        Some(())
    }
}

impl<'t, 'a> Iterator for Links<'t, 'a> {
    type Item = Value<'t, 'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(id) = self.run.next() {
                return Some(Value::new(self.tree, *id));
            }
            self.next_run()?;
        }
    }
}

/// Keys and values in their order.
#[derive(Clone)]
pub struct Pairs<'t, 'a>(Links<'t, 'a>);

impl<'t, 'a> Iterator for Pairs<'t, 'a> {
    type Item = (Value<'t, 'a>, Value<'t, 'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}
