//! Opcodes that would import, call or build: each leaves a node that says what it would have done.

use super::End;
use super::machine::{Machine, Step};
use super::opcode as op;
use super::tree::{Call, Id, Items, Node, Text};

impl<'a> Machine<'a> {
    pub(super) fn make(&mut self, opcode: u8) -> Step {
        match opcode {
            op::GLOBAL => self.global_of_lines(),
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                self.push_node(Node::Global(module, name))
            }
            op::BUILD => self.build(),
            op::NEWOBJ_EX => {
                let (named, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callee, arguments, Some(named), true)
            }
            _ => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments, None, opcode == op::NEWOBJ)
            }
        }
    }

    fn call(&mut self, callee: Id, arguments: Id, named: Option<Id>, is_new: bool) -> Step {
        let call =
            Call { callee, arguments, named, state: None, items: Items::default(), pairs: false, is_new };
        self.push_node(Node::Object(call))
    }

    fn build(&mut self) -> Step {
        let state = self.pop()?;
        let built = self.above_mark(1).ok().and_then(|at| self.stack.get(at)).copied();
        let built = built.ok_or(End::Malformed("a state for nothing"))?;
        self.set_state(built, state);
        Ok(())
    }

    /// Of what is no object here, such as an opaque value, the state is dropped.
    pub(super) fn set_state(&mut self, built: Id, state: Id) {
        if let Some(Node::Object(call)) = self.tree.nodes.get_mut(built.index()) {
            call.state = Some(state);
        }
    }

    /// GLOBAL: two lines.
    fn global_of_lines(&mut self) -> Step {
        let (module, name) = (self.line()?, self.line()?);
        let (module, name) = (self.new_node(Node::Str(module))?, self.new_node(Node::Str(name))?);
        self.push_node(Node::Global(module, name))
    }

    fn line(&mut self) -> Step<Text<'a>> {
        let end = memchr::memchr(b'\n', self.rest).ok_or(End::Cut)?;
        let bytes = self.take(end)?;
        self.take(1)?;
        Ok(Text { bytes, length: bytes.len() as u64 })
    }

    pub(super) fn opaque(&mut self, opcode: u8) -> Step {
        match opcode {
            // It says that the buffer below may not be written to.
            op::READONLY_BUFFER => return self.above_mark(1).map(|_| ()),
            op::BINPERSID => self.pop().map(|_| ())?,
            op::EXT1 => self.take(1).map(|_| ())?,
            op::EXT2 => self.take(2).map(|_| ())?,
            op::EXT4 => self.take(4).map(|_| ())?,
            _ => {}
        }
        self.push_node(Node::Opaque)
    }
}
