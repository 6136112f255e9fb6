//! The calls of a function of x86-64, and the constants they pass. System V calling convention.

use super::state::{Flow, State, Value};
use super::{Call, Surroundings, Target};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use std::collections::HashSet;

/// Arguments one to six, by register number.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
/// What a called function may change.
const CLOBBERED: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// The wanted calls in `code`, which starts at `address`.
pub fn calls(code: &[u8], address: u64, around: &Surroundings<'_>) -> Vec<Call> {
    let mut flow = Flow::new(number(Register::RSP), loops(code, address));
    let mut info = InstructionInfoFactory::new();
    let mut calls = Vec::new();
    for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        let state = flow.enter(instruction.ip());
        if instruction.is_invalid() {
            // The bytes from here on are no code, or code that this decoder does not know.
            flow.stop();
            continue;
        }
        match instruction.flow_control() {
            FlowControl::Next => step(state, &instruction, &mut info, around),
            FlowControl::Call | FlowControl::IndirectCall => {
                calls.extend(call(state, &instruction, 0, around));
                state.called(CLOBBERED.map(number));
            }
            FlowControl::ConditionalBranch => flow.jump(instruction.ip(), instruction.near_branch_target()),
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                // A jump to a function is a call in last place: its own return address is already on the stack.
                calls.extend(call(state, &instruction, 8, around));
                if instruction.is_jmp_short_or_near() {
                    flow.jump(instruction.ip(), instruction.near_branch_target());
                }
                flow.stop();
            }
            _ => flow.stop(),
        }
    }
    calls
}

/// The targets of backward jumps.
fn loops(code: &[u8], address: u64) -> HashSet<u64> {
    let instructions = Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter();
    let jumps =
        instructions.filter(|i| i.is_jcc_short_or_near() || i.is_jmp_short_or_near() || i.is_jcx_short());
    jumps
        .filter(|jump| jump.near_branch_target() <= jump.ip())
        .map(|jump| jump.near_branch_target())
        .collect()
}

fn call(state: &State, instruction: &Instruction, skipped: i64, around: &Surroundings<'_>) -> Option<Call> {
    let target = target(state, instruction)?;
    around.wanted.is(target).then(|| Call {
        at: instruction.ip(),
        target,
        registers: ARGUMENTS.map(|register| state.get(number(register))),
        further: [0, 8, 16, 24].map(|distance| state.argument(distance + skipped)),
    })
}

fn target(state: &State, instruction: &Instruction) -> Option<Target> {
    match instruction.op0_kind() {
        OpKind::NearBranch64 => Some(Target::Address(instruction.near_branch_target())),
        OpKind::Register => match state.get(number(instruction.op0_register())) {
            Value::Known(address) => Some(Target::Address(address)),
            Value::Slot(slot) => Some(Target::Slot(slot)),
            _ => None,
        },
        OpKind::Memory => place(state, instruction)?.known().map(Target::Slot),
        _ => None,
    }
}

/// One instruction that goes on to the next.
fn step(
    state: &mut State,
    instruction: &Instruction,
    info: &mut InstructionInfoFactory,
    around: &Surroundings<'_>,
) {
    let (kind, source) = (instruction.op0_kind(), instruction.op1_kind());
    let same = source == OpKind::Register && instruction.op0_register() == instruction.op1_register();
    match instruction.mnemonic() {
        Mnemonic::Lea => {
            let address = place(state, instruction).unwrap_or_default();
            write(state, instruction.op0_register(), address);
        }
        Mnemonic::Mov if kind == OpKind::Register => {
            let value = operand(state, instruction, 1, around);
            write(state, instruction.op0_register(), value);
        }
        Mnemonic::Mov if kind == OpKind::Memory => {
            let value = operand(state, instruction, 1, around);
            store(state, instruction, value);
        }
        Mnemonic::Xor | Mnemonic::Sub if kind == OpKind::Register && same => {
            write(state, instruction.op0_register(), Value::Known(0));
        }
        Mnemonic::Add | Mnemonic::Sub if kind == OpKind::Register && source != OpKind::Memory => {
            add(state, instruction, around);
        }
        Mnemonic::Or if kind == OpKind::Register && immediate(instruction) == Some(u64::MAX) => {
            write(state, instruction.op0_register(), Value::Known(u64::MAX));
        }
        Mnemonic::Push => push(state, instruction, around),
        Mnemonic::Pop if kind == OpKind::Register => pop(state, instruction.op0_register()),
        Mnemonic::Leave => {
            state.set(number(Register::RSP), state.get(number(Register::RBP)));
            pop(state, Register::RBP);
        }
        Mnemonic::Pxor | Mnemonic::Xorps | Mnemonic::Xorpd if same => {
            state.zero_vectors |= vector(instruction.op0_register());
        }
        Mnemonic::Vpxor | Mnemonic::Vxorps
            if instruction.op1_register() == instruction.op2_register()
                && instruction.op2_kind() == OpKind::Register =>
        {
            state.zero_vectors |= vector(instruction.op0_register());
        }
        _ if kind == OpKind::Memory
            && source == OpKind::Register
            && instruction.op1_register().is_vector_register() =>
        {
            let zero =
                state.zero_vectors & vector(instruction.op1_register()) != 0 && moves(instruction.mnemonic());
            store(state, instruction, if zero { Value::Known(0) } else { Value::Unknown });
        }
        _ => other(state, instruction, info),
    }
}

/// Instructions that store a whole vector register as it is.
fn moves(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Movaps, Movdqa, Movdqu, Movups, Vmovaps, Vmovdqa, Vmovdqu, Vmovups};
    matches!(mnemonic, Movaps | Movdqa | Movdqu | Movups | Vmovaps | Vmovdqa | Vmovdqu | Vmovups)
}

/// What an instruction writes that has no rule of its own is unknown.
fn other(state: &mut State, instruction: &Instruction, info: &mut InstructionInfoFactory) {
    if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory {
        store(state, instruction, Value::Unknown);
    }
    for used in info.info(instruction).used_registers() {
        let writes = matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        if writes && used.register().is_gpr() {
            state.set(number(used.register()), Value::Unknown);
        } else if writes && used.register().is_vector_register() {
            state.zero_vectors &= !vector(used.register());
        }
    }
}

fn add(state: &mut State, instruction: &Instruction, around: &Surroundings<'_>) {
    let register = instruction.op0_register();
    let number_added = operand(state, instruction, 1, around).known();
    let sum = number_added.map(|added| {
        let added = if instruction.mnemonic() == Mnemonic::Sub { added.wrapping_neg() } else { added };
        state.get(number(register)).plus(added)
    });
    write(state, register, sum.unwrap_or_default());
}

fn push(state: &mut State, instruction: &Instruction, around: &Surroundings<'_>) {
    let value = operand(state, instruction, 0, around);
    let top = state.get(number(Register::RSP)).plus(8_u64.wrapping_neg());
    state.set(number(Register::RSP), top);
    if let Value::Stack(at) = top {
        state.store(at, 8, value);
    }
}

fn pop(state: &mut State, register: Register) {
    let top = state.get(number(Register::RSP));
    let value = if let Value::Stack(at) = top { state.load(at) } else { Value::Unknown };
    state.set(number(Register::RSP), top.plus(8));
    write(state, register, value);
}

/// Writes a register. Writing 32 bits clears the upper half; writing fewer leaves what is not known here.
fn write(state: &mut State, register: Register, value: Value) {
    let value = match (register.size(), value) {
        (8, value) => value,
        (4, Value::Known(number)) => Value::Known(number & u64::from(u32::MAX)),
        _ => Value::Unknown,
    };
    if register.is_gpr() {
        state.set(number(register), value);
    }
}

fn operand(state: &State, instruction: &Instruction, index: u32, around: &Surroundings<'_>) -> Value {
    match instruction.op_kind(index) {
        OpKind::Register if instruction.op_register(index).size() >= 4 => {
            state.get(number(instruction.op_register(index)))
        }
        OpKind::Memory if instruction.memory_size().size() == 8 => match place(state, instruction) {
            Some(Value::Stack(at)) => state.load(at),
            Some(Value::Known(slot)) => {
                around.imports.address_in(around.image, slot).map_or(Value::Slot(slot), Value::Known)
            }
            _ => Value::Unknown,
        },
        _ => immediate_at(instruction, index).map_or(Value::Unknown, Value::Known),
    }
}

fn immediate(instruction: &Instruction) -> Option<u64> {
    immediate_at(instruction, 1)
}

fn immediate_at(instruction: &Instruction, index: u32) -> Option<u64> {
    let is = matches!(
        instruction.op_kind(index),
        OpKind::Immediate8to64
            | OpKind::Immediate8to32
            | OpKind::Immediate32to64
            | OpKind::Immediate32
            | OpKind::Immediate64
    );
    is.then(|| instruction.immediate(index))
}

fn store(state: &mut State, instruction: &Instruction, value: Value) {
    if let Some(Value::Stack(at)) = place(state, instruction) {
        state.store(at, i64::try_from(instruction.memory_size().size()).unwrap_or(0), value);
    }
}

/// The address of the memory operand; none where an index makes it vary.
fn place(state: &State, instruction: &Instruction) -> Option<Value> {
    if instruction.memory_index() != Register::None
        || !matches!(instruction.memory_segment(), Register::DS | Register::SS)
    {
        return None;
    }
    let displacement = instruction.memory_displacement64();
    match instruction.memory_base() {
        Register::None | Register::RIP => Some(Value::Known(displacement)),
        base if base.is_gpr64() => Some(state.get(number(base)).plus(displacement)),
        _ => None,
    }
}

fn number(register: Register) -> usize {
    register.full_register().number()
}

fn vector(register: Register) -> u32 {
    1_u32.checked_shl(u32::try_from(register.number()).unwrap_or(u32::MAX)).unwrap_or(0)
}
