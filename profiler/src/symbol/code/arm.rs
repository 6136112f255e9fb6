//! The calls of a function of aarch64, and the constants they pass. AAPCS64 calling convention.

use super::state::{Flow, State, Value};
use super::{Call, Surroundings, Target};
use std::collections::HashSet;
use yaxpeax_arch::{Arch, Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{ARMv8, Instruction, Opcode, Operand, ShiftStyle, SizeCode};

/// The stack pointer's number among the registers of [`State`]; as an operand 31 can be zero instead.
const SP: usize = 31;
/// What a called function may change: x0 to x18, and the link register.
const CLOBBERED: [usize; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30];

/// The wanted calls in `code`, which starts at `address`.
pub fn calls(code: &[u8], address: u64, around: &Surroundings<'_>) -> Vec<Call> {
    let loops: HashSet<u64> = instructions(code, address)
        .filter_map(|(at, instruction)| jump_target(at, &instruction?).filter(|target| *target <= at))
        .collect();
    let mut flow = Flow::new(SP, loops);
    let mut calls = Vec::new();
    for (at, instruction) in instructions(code, address) {
        let state = flow.enter(at);
        let Some(instruction) = instruction else {
            flow.stop();
            continue;
        };
        match instruction.opcode {
            Opcode::BL | Opcode::BLR => {
                calls.extend(call(state, at, &instruction, around));
                state.called(CLOBBERED);
            }
            Opcode::B | Opcode::BR => {
                calls.extend(call(state, at, &instruction, around));
                if let Some(target) = jump_target(at, &instruction) {
                    flow.jump(at, target);
                }
                flow.stop();
            }
            Opcode::RET | Opcode::BRK | Opcode::UDF | Opcode::HLT | Opcode::ERET => flow.stop(),
            _ => match jump_target(at, &instruction) {
                Some(target) => flow.jump(at, target),
                None => step(state, at, &instruction, around),
            },
        }
    }
    calls
}

fn instructions(code: &[u8], address: u64) -> impl Iterator<Item = (u64, Option<Instruction>)> {
    let decoder = <ARMv8 as Arch>::Decoder::default();
    code.chunks_exact(4).enumerate().map(move |(index, four)| {
        (address.wrapping_add(index as u64 * 4), decoder.decode(&mut U8Reader::new(four)).ok())
    })
}

/// Where a direct jump goes.
fn jump_target(at: u64, instruction: &Instruction) -> Option<u64> {
    let operand = match instruction.opcode {
        Opcode::B | Opcode::Bcc(_) => 0,
        Opcode::CBZ | Opcode::CBNZ => 1,
        Opcode::TBZ | Opcode::TBNZ => 2,
        _ => return None,
    };
    match instruction.operands.get(operand) {
        Some(Operand::PCOffset(distance)) => Some(at.wrapping_add_signed(*distance)),
        _ => None,
    }
}

fn call(state: &State, at: u64, instruction: &Instruction, around: &Surroundings<'_>) -> Option<Call> {
    let target = match *instruction.operands.first()? {
        Operand::PCOffset(distance) => Target::Address(at.wrapping_add_signed(distance)),
        Operand::Register(_, register) => match state.get(usize::from(register)) {
            Value::Known(address) => Target::Address(address),
            Value::Slot(slot) => Target::Slot(slot),
            _ => return None,
        },
        _ => return None,
    };
    around.wanted.is(target).then(|| Call {
        at,
        target,
        registers: [0, 1, 2, 3, 4, 5].map(|register| state.get(register)),
        further: [state.get(6), state.get(7), state.argument(0), state.argument(8)],
    })
}

/// One instruction that goes on to the next.
fn step(state: &mut State, at: u64, instruction: &Instruction, around: &Surroundings<'_>) {
    let [first, second, third, _] = instruction.operands;
    match (instruction.opcode, second) {
        (Opcode::ADRP, Operand::PCOffset(pages)) => {
            write(state, first, Value::Known((at & !0xfff).wrapping_add_signed(pages)));
        }
        (Opcode::ADR, Operand::PCOffset(distance)) => {
            write(state, first, Value::Known(at.wrapping_add_signed(distance)));
        }
        (Opcode::ADD | Opcode::SUB, _) => {
            let added = read(state, third).known();
            let negative = instruction.opcode == Opcode::SUB;
            let sum = added.map(|n| read(state, second).plus(if negative { n.wrapping_neg() } else { n }));
            write(state, first, sum.unwrap_or_default());
        }
        (Opcode::ORR, Operand::Register(_, 31)) => {
            let value = read(state, third);
            write(state, first, value);
        }
        (Opcode::MOVZ, _) => write(state, first, read(state, second)),
        (Opcode::MOVN, _) => {
            let value = read(state, second).known().map_or(Value::Unknown, |number| Value::Known(!number));
            write(state, first, value);
        }
        (Opcode::MOVK, Operand::ImmShift(bits, shift)) => insert(state, first, bits, shift),
        (Opcode::LDR | Opcode::LDUR, _) => load(state, &[first], second, around),
        (Opcode::LDP, _) => load(state, &[first, second], third, around),
        (Opcode::STR | Opcode::STUR, _) => store(state, &[first], second),
        (Opcode::STP, _) => store(state, &[first, second], third),
        _ => other(state, instruction),
    }
}

/// What an instruction may write that has no rule of its own is unknown: any register it names, and memory it names.
fn other(state: &mut State, instruction: &Instruction) {
    for operand in instruction.operands {
        match operand {
            Operand::Register(_, register) if register < 31 => {
                state.set(usize::from(register), Value::Unknown)
            }
            Operand::RegisterPair(_, register) if register < 30 => {
                state.forget([usize::from(register), usize::from(register) + 1]);
            }
            Operand::RegisterOrSP(_, register) if register < 31 => {
                state.set(usize::from(register), Value::Unknown);
            }
            Operand::RegPreIndex(..) | Operand::RegPostIndex(..) => {
                if let Value::Stack(at) = access(state, operand) {
                    // Nothing stores more at once than four vector registers.
                    state.store(at, 64, Value::Unknown);
                }
            }
            Operand::RegPostIndexReg(base, _) => state.set(usize::from(base), Value::Unknown),
            _ => {}
        }
    }
}

/// The value of a register or an immediate.
fn read(state: &State, operand: Operand) -> Value {
    match operand {
        Operand::Register(_, 31) => Value::Known(0),
        Operand::Register(_, register) | Operand::RegisterOrSP(_, register) => {
            state.get(usize::from(register))
        }
        Operand::RegShift(ShiftStyle::LSL, 0, _, 31) => Value::Known(0),
        Operand::RegShift(ShiftStyle::LSL, 0, _, register) => state.get(usize::from(register)),
        Operand::Immediate(number) => Value::Known(u64::from(number)),
        Operand::Imm16(number) => Value::Known(u64::from(number)),
        Operand::Imm64(number) => Value::Known(number),
        Operand::ImmShift(number, shift) => {
            u64::from(number).checked_shl(u32::from(shift)).map_or(Value::Unknown, Value::Known)
        }
        _ => Value::Unknown,
    }
}

/// Writes a register; 32 bits clear the upper half.
fn write(state: &mut State, operand: Operand, value: Value) {
    let (size, register) = match operand {
        Operand::Register(_, 31) => return,
        Operand::Register(size, register) | Operand::RegisterOrSP(size, register) => (size, register),
        _ => return,
    };
    let value = match (size, value) {
        (SizeCode::X, value) => value,
        (SizeCode::W, Value::Known(number)) => Value::Known(number & u64::from(u32::MAX)),
        (SizeCode::W, _) => Value::Unknown,
    };
    state.set(usize::from(register), value);
}

/// `movk`: sixteen bits of a register.
fn insert(state: &mut State, register: Operand, bits: u16, shift: u8) {
    let value = read(state, register).known().filter(|_| shift < 64).map(|number| {
        let mask = u64::from(u16::MAX) << shift;
        Value::Known(number & !mask | u64::from(bits) << shift)
    });
    write(state, register, value.unwrap_or_default());
}

fn load(state: &mut State, to: &[Operand], from: Operand, around: &Surroundings<'_>) {
    let place = access(state, from);
    for (operand, distance) in to.iter().zip([0_u64, 8]) {
        let value = match (operand, place.plus(distance)) {
            (Operand::Register(SizeCode::X, _), Value::Stack(at)) => state.load(at),
            (Operand::Register(SizeCode::X, _), Value::Known(slot)) => {
                around.imports.address_in(around.image, slot).map_or(Value::Slot(slot), Value::Known)
            }
            _ => Value::Unknown,
        };
        write(state, *operand, value);
    }
}

fn store(state: &mut State, from: &[Operand], to: Operand) {
    let Value::Stack(at) = access(state, to) else { return };
    let mut at = at;
    for operand in from {
        let (size, value) = match operand {
            Operand::Register(SizeCode::X, _) => (8, read(state, *operand)),
            Operand::Register(SizeCode::W, _) => (4, Value::Unknown),
            // Vector registers have at most 16 bytes.
            _ => (16, Value::Unknown),
        };
        state.store(at, size, value);
        at = at.saturating_add(size);
    }
}

/// The address of a memory operand, whose base register may move with it. As a base 31 is the stack pointer.
fn access(state: &mut State, operand: Operand) -> Value {
    match operand {
        Operand::RegPreIndex(base, offset, back) => {
            let place = state.get(usize::from(base)).plus(i64::from(offset).cast_unsigned());
            if back {
                state.set(usize::from(base), place);
            }
            place
        }
        Operand::RegPostIndex(base, offset) => {
            let place = state.get(usize::from(base));
            state.set(usize::from(base), place.plus(i64::from(offset).cast_unsigned()));
            place
        }
        Operand::RegPostIndexReg(base, _) => {
            let place = state.get(usize::from(base));
            state.set(usize::from(base), Value::Unknown);
            place
        }
        _ => Value::Unknown,
    }
}
