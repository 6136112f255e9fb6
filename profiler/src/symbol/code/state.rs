//! What is known of registers and stack at one place of a function.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Stack words that are remembered; a function that spills more is beyond what is read.
const MOST_WORDS: usize = 128;
/// Jumps forward that are remembered at a time.
const MOST_PENDING: usize = 1024;
/// A stack whose distance from the entry is not known starts this much further down.
const REGION: i64 = 1 << 32;

/// What is known of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    #[default]
    Unknown,
    /// It is this number, or this address of the file.
    Known(u64),
    /// It is what the loader wrote into this slot.
    Slot(u64),
    /// It is the stack pointer at entry plus this.
    Stack(i64),
}

impl Value {
    /// The number.
    #[must_use]
    pub fn known(self) -> Option<u64> {
        if let Self::Known(number) = self { Some(number) } else { None }
    }

    /// This and a number.
    #[must_use]
    pub fn plus(self, number: u64) -> Self {
        match self {
            Self::Known(known) => Self::Known(known.wrapping_add(number)),
            Self::Stack(distance) => Self::Stack(distance.wrapping_add_unsigned(number)),
            Self::Unknown | Self::Slot(_) => Self::Unknown,
        }
    }
}

/// Registers and stack.
#[derive(Clone, Debug)]
pub struct State {
    /// General registers by number.
    registers: [Value; 32],
    /// Vector registers that are known to be zero, one bit each.
    pub zero_vectors: u32,
    /// Eight-byte words of the stack, by distance from the stack pointer at entry.
    stack: BTreeMap<i64, Value>,
    stack_pointer: usize,
}

impl State {
    /// At a place that nothing is known of but that there is a stack.
    #[must_use]
    pub fn unknown(stack_pointer: usize) -> Self {
        let mut state =
            Self { registers: [Value::Unknown; 32], zero_vectors: 0, stack: BTreeMap::new(), stack_pointer };
        state.set(stack_pointer, Value::Stack(0));
        state
    }

    /// A register.
    #[must_use]
    pub fn get(&self, register: usize) -> Value {
        self.registers.get(register).copied().unwrap_or_default()
    }

    /// Writes a register. A stack pointer that becomes unknown points to a stack of its own from here on.
    pub fn set(&mut self, register: usize, value: Value) {
        let value = match value {
            Value::Stack(_) => value,
            _ if register == self.stack_pointer => {
                let lowest = self.stack.keys().next().copied().unwrap_or(0);
                Value::Stack(lowest.saturating_sub(REGION))
            }
            _ => value,
        };
        if let Some(slot) = self.registers.get_mut(register) {
            *slot = value;
        }
    }

    /// Forgets registers.
    pub fn forget(&mut self, registers: impl IntoIterator<Item = usize>) {
        registers.into_iter().for_each(|register| self.set(register, Value::Unknown));
    }

    /// The stack's word at a distance from the stack pointer at entry.
    #[must_use]
    pub fn load(&self, at: i64) -> Value {
        self.stack.get(&at).copied().unwrap_or_default()
    }

    /// Writes `size` bytes of the stack; `value` is kept when they are whole words.
    pub fn store(&mut self, at: i64, size: i64, value: Value) {
        let first = at.saturating_sub(7);
        let touched: Vec<i64> =
            self.stack.range(first..at.saturating_add(size.max(1))).map(|(at, _)| *at).collect();
        for at in touched {
            self.stack.remove(&at);
        }
        if size % 8 == 0 && value != Value::Unknown {
            for word in 0..size / 8 {
                if self.stack.len() < MOST_WORDS {
                    self.stack.insert(at.saturating_add(word * 8), value);
                }
            }
        }
    }

    /// The word at a distance from the stack pointer now.
    #[must_use]
    pub fn argument(&self, distance: i64) -> Value {
        match self.get(self.stack_pointer) {
            Value::Stack(top) => self.load(top.saturating_add(distance)),
            _ => Value::Unknown,
        }
    }

    /// After a call: what it may change is unknown.
    pub fn called(&mut self, clobbered: impl IntoIterator<Item = usize>) {
        self.forget(clobbered);
        self.zero_vectors = 0;
        if let Value::Stack(top) = self.get(self.stack_pointer) {
            self.stack = self.stack.split_off(&top);
        }
    }

    /// What holds on both of two ways to a place.
    fn meet(&mut self, other: &Self) {
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            if mine != theirs {
                *mine = Value::Unknown;
            }
        }
        self.zero_vectors &= other.zero_vectors;
        self.stack.retain(|at, value| other.stack.get(at) == Some(value));
        self.set(self.stack_pointer, self.get(self.stack_pointer));
    }
}

/// The states with which code goes on elsewhere.
pub struct Flow {
    /// What holds here; none where no way leads to by going on.
    here: Option<State>,
    pending: HashMap<u64, State>,
    /// Places that are jumped to from further down: what their predecessors know does not hold there.
    loops: HashSet<u64>,
    stack_pointer: usize,
}

impl Flow {
    /// At a function's entry. `loops` are the targets of its backward jumps.
    #[must_use]
    pub fn new(stack_pointer: usize, loops: HashSet<u64>) -> Self {
        Self { here: Some(State::unknown(stack_pointer)), pending: HashMap::new(), loops, stack_pointer }
    }

    /// The state before the instruction at `address`.
    pub fn enter(&mut self, address: u64) -> &mut State {
        let jumped = self.pending.remove(&address);
        let mut state = match (self.here.take(), jumped) {
            (Some(mut state), Some(jumped)) => {
                state.meet(&jumped);
                state
            }
            (Some(state), None) | (None, Some(state)) => state,
            (None, None) => State::unknown(self.stack_pointer),
        };
        if self.loops.contains(&address) {
            let top = state.get(self.stack_pointer);
            state = State::unknown(self.stack_pointer);
            state.set(self.stack_pointer, top);
        }
        self.here.insert(state)
    }

    /// The instruction may jump to `target`.
    pub fn jump(&mut self, from: u64, target: u64) {
        let Some(state) = self.here.as_ref().filter(|_| target > from) else { return };
        let has_room = self.pending.len() < MOST_PENDING;
        match self.pending.get_mut(&target) {
            Some(pending) => pending.meet(state),
            None if has_room => _ = self.pending.insert(target, state.clone()),
            // Nothing is known where it goes, which is what a loop's start says.
            None => _ = self.loops.insert(target),
        }
    }

    /// The code does not go on to the next instruction.
    pub fn stop(&mut self) {
        self.here = None;
    }
}
