//! What an unfinished pickle would have become.
//!
//! In: the machine where its bytes ended. Out: its root. The opcodes that would have closed what is open are not
//! there, so the shape is a guess by the pickler's habits (`Lib/pickle.py`: `save_list`, `_batch_setitems`,
//! `save_reduce`): a MARK right behind a new container is for its items, any other for a tuple; a class with values
//! behind it is an object under construction; a dict behind an object is its state. A tuple of up to three values leaves
//! no trace before it is closed, so these stand in its place. [`End::Cut`](super::End::Cut) marks all of it as incomplete.

use super::machine::{Machine, Step};
use super::tree::{Call, Id, Items, Node};

impl Machine<'_> {
    /// Closes what is open, innermost first.
    pub(super) fn close_open(&mut self) {
        self.drop_names();
        while let Some(mark) = self.marks.pop() {
            self.settle(mark.height);
            let below = mark.height.checked_sub(1).and_then(|at| self.stack.get(at)).copied();
            let filled = below.filter(|below| mark.fills && self.is_container(*below));
            let closed = match filled {
                Some(container) => self.fill_unfinished(container, mark.height),
                None => self.gather_unfinished(mark.height),
            };
            if closed.is_err() {
                self.stack.truncate(mark.height);
            }
        }
        self.settle(0);
        if self.stack.len() > 1 && self.gather_unfinished(0).is_err() {
            self.stack.truncate(1);
        }
        self.tree.root = self.stack.last().copied();
    }

    /// Texts at the very end may be the module and the name of a class rather than values: only the opcode behind them
    /// would tell. One that is alone and itself cut stays, as nobody takes it for a value.
    fn drop_names(&mut self) {
        let floor = self.marks.last().map_or(0, |mark| mark.height);
        let is_text = |machine: &Self, back: usize| {
            let at = machine.stack.len().checked_sub(back).filter(|at| *at >= floor)?;
            match machine.node(*machine.stack.get(at)?)? {
                Node::Str(text) => Some(text.bytes.len() as u64 == text.length),
                _ => None,
            }
        };
        let count = match (is_text(self, 2), is_text(self, 1)) {
            (Some(_), Some(_)) => 2,
            (None, Some(true)) => 1,
            _ => 0,
        };
        self.stack.truncate(self.stack.len() - count);
    }

    fn node(&self, id: Id) -> Option<&Node<'_>> {
        self.tree.nodes.get(id.index())
    }

    fn is_container(&self, id: Id) -> bool {
        matches!(self.node(id), Some(Node::List(_) | Node::Dict(_) | Node::Set(_)))
    }

    fn fill_unfinished(&mut self, container: Id, from: usize) -> Step {
        let pairs = matches!(self.node(container), Some(Node::Dict(_)));
        if pairs && self.stack.len().saturating_sub(from) % 2 == 1 {
            self.stack.pop();
        }
        self.add_items(container, from, pairs)
    }

    fn gather_unfinished(&mut self, from: usize) -> Step {
        let node = self.tuple_from(from)?;
        self.stack.push(node);
        Ok(())
    }

    fn tuple_from(&mut self, from: usize) -> Step<Id> {
        let tuple = self.new_node(Node::List(Items::default()))?;
        self.add_items(tuple, from, false)?;
        if let Some(node) = self.tree.nodes.get_mut(tuple.index())
            && let Node::List(items) = *node
        {
            *node = Node::Tuple(items);
        }
        Ok(tuple)
    }

    /// Joins the values from `from` on that belong to objects under construction.
    fn settle(&mut self, from: usize) {
        let classes = |machine: &Self| {
            let values = machine.stack.get(from..)?;
            values.iter().position(|id| matches!(machine.node(*id), Some(Node::Global(..))))
        };
        if let Some(class) = classes(self).map(|at| at + from)
            && class + 1 < self.stack.len()
        {
            self.settle_states(class + 1);
            self.settle_call(class);
        }
        self.settle_states(from);
    }

    /// A class and the arguments that came.
    fn settle_call(&mut self, class: usize) {
        let Some(callee) = self.stack.get(class).copied() else { return };
        let lone_tuple = match self.stack.get(class + 1..) {
            Some([only]) if matches!(self.node(*only), Some(Node::Tuple(_))) => Some(*only),
            _ => None,
        };
        let arguments = match lone_tuple {
            Some(tuple) => tuple,
            None => match self.tuple_from(class + 1) {
                Ok(tuple) => tuple,
                Err(_) => return,
            },
        };
        self.stack.truncate(class);
        let call = Call {
            callee,
            arguments,
            named: None,
            state: None,
            items: Items::default(),
            pairs: false,
            is_new: false,
        };
        if let Ok(object) = self.new_node(Node::Object(call)) {
            self.stack.push(object);
        }
    }

    /// An object without a state, and a dict behind it, or None and a dict (slots).
    fn settle_states(&mut self, from: usize) {
        let count = self.stack.len().saturating_sub(from);
        let state = match self.stack.get(from..) {
            // The first half of a state of slots, more likely than a value behind an object that has none.
            Some([.., object, none])
                if self.is_bare(*object) && matches!(self.node(*none), Some(Node::None)) =>
            {
                self.stack.pop();
                return;
            }
            Some([.., object, state]) if self.wants_state(*object, *state) => Some((*object, count - 1)),
            Some([.., object, none, state])
                if matches!(self.node(*none), Some(Node::None)) && self.wants_state(*object, *state) =>
            {
                Some((*object, count - 2))
            }
            _ => None,
        };
        let Some((object, kept)) = state else { return };
        let state = if count - kept == 1 {
            self.stack.pop().ok_or(())
        } else {
            self.tuple_from(from + kept).map_err(drop)
        };
        if let Ok(state) = state {
            self.stack.truncate(from + kept);
            self.set_state(object, state);
        }
    }

    /// Made by NEWOBJ, and its state did not come yet.
    fn is_bare(&self, object: Id) -> bool {
        matches!(self.node(object), Some(Node::Object(call)) if call.state.is_none() && call.is_new)
    }

    fn wants_state(&self, object: Id, state: Id) -> bool {
        self.is_bare(object) && matches!(self.node(state), Some(Node::Dict(_)))
    }
}
