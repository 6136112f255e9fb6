//! Batches of llama.cpp: which sequences, at which positions, who wants an output. Tokens themselves are not copied.
//!
//! The work is done in the record itself: nobody else has a reserved record, while a per-CPU value may be shared with
//! whoever preempts a uprobe. The loops have no branches but their ends, since the verifier keeps each for later.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use profiler_common::{
    cookie::Cookie,
    event::{BATCH_CLASSES, Batch, ELEMENT_WORDS, batch as flag, kind},
};

use crate::{
    arch::Frame,
    emit::{Tally, Task},
    map::LAYOUTS,
    memory::{bounded, read_user},
};

/// `sizeof(llama_token)` is 4, and so is that of positions and of sequence ids (llama.h).
const NUMBER: u64 = 4;

/// A record with columns for `N` tokens, and behind what is of use the room to work in.
#[repr(C)]
struct Filled<const N: usize> {
    batch: Batch,
    sequences: [i32; N],
    counts: [i32; N],
    positions: [i32; N],
    outputs: [u8; N],
    pointers: [u64; N],
    element: [u64; ELEMENT_WORDS],
}

/// A batch whose columns are arrays of the caller's.
struct Columns {
    batch: Batch,
    positions: u64,
    counts: u64,
    sequences: u64,
    outputs: u64,
}

/// A batch whose elements lie in a vector.
struct Elements {
    batch: Batch,
    first: u64,
    size: u64,
    layout: u32,
}

/// `llama_batch` by value (llama.h): n_tokens, token, embd, pos, n_seq_id, seq_id, logits, a word each.
#[inline(always)]
pub fn by_value(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    let Some(words) = read_user::<[u64; 7]>(frame.by_value()) else { return tally.unreadable() };
    let [tokens, _, embeddings, positions, counts, sequences, outputs] = words;
    let given = |column, without| if column == 0 { without } else { 0 };
    let flags = given(positions, flag::NO_POSITIONS)
        | given(sequences, flag::NO_SEQUENCES)
        | given(outputs, flag::LAST_ONLY)
        | if embeddings == 0 { 0 } else { flag::EMBEDDINGS };
    let batch = batch(task, cookie, frame, tokens as u32, flags);
    let columns = Columns { batch, positions, counts, sequences, outputs };
    match batch.tokens as usize {
        tokens if tokens <= BATCH_CLASSES[0] => copy::<{ BATCH_CLASSES[0] }>(tally, columns),
        tokens if tokens <= BATCH_CLASSES[1] => copy::<{ BATCH_CLASSES[1] }>(tally, columns),
        _ => copy::<{ BATCH_CLASSES[2] }>(tally, columns),
    }
}

/// `llama_batch_ext`, whose vector of elements lies where the layout says.
#[inline(always)]
pub fn opaque(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    let [_, _, object, ..] = frame.six();
    let number = u32::from(cookie.words);
    let Some(layout) = LAYOUTS.get(number) else { return };
    let bound = |offset| read_user::<u64>(object + u64::from(offset));
    let (Some(first), Some(last)) = (bound(layout.begin), bound(layout.end)) else {
        return tally.unreadable();
    };
    let size = u64::from(layout.element);
    if size == 0 || size > (ELEMENT_WORDS * 8) as u64 {
        return tally.unreadable();
    }
    let batch = batch(task, cookie, frame, (last.saturating_sub(first) / size) as u32, 0);
    let elements = Elements { batch, first, size, layout: number };
    match batch.tokens as usize {
        tokens if tokens <= BATCH_CLASSES[0] => gather::<{ BATCH_CLASSES[0] }>(tally, elements),
        tokens if tokens <= BATCH_CLASSES[1] => gather::<{ BATCH_CLASSES[1] }>(tally, elements),
        _ => gather::<{ BATCH_CLASSES[2] }>(tally, elements),
    }
}

#[inline(always)]
fn batch(task: Task, cookie: Cookie, frame: &Frame, tokens: u32, flags: u32) -> Batch {
    let [context, ..] = frame.six();
    let head = task.head(kind::BATCH, cookie.api, 0);
    Batch { head, context, tokens, capacity: 0, flags, reserved: 0 }
}

#[inline(always)]
fn copy<const N: usize>(tally: Tally, columns: Columns) {
    let Some(mut entry) = tally.reserve::<Filled<N>>() else { return };
    let filled = entry.as_mut_ptr();
    let Columns { batch, positions, counts, sequences, outputs } = columns;
    // SAFETY: the record is reserved.
    let tokens = unsafe { bounded((&raw mut (*filled).element).cast(), u64::from(batch.tokens), N as u64) };
    // SAFETY: each column has room for N elements, and `tokens` is no more; the helper checks the sources, and fills with
    // zeros what it cannot read.
    unsafe {
        read((&raw mut (*filled).positions).cast(), tokens * NUMBER, positions);
        read((&raw mut (*filled).counts).cast(), tokens * NUMBER, counts);
        read((&raw mut (*filled).outputs).cast(), tokens, outputs);
        read((&raw mut (*filled).pointers).cast(), tokens * 8, sequences);
    }
    for index in 0..N {
        if index as u64 >= tokens {
            break;
        }
        // SAFETY: the index is below N.
        unsafe {
            let pointer = (&raw const (*filled).pointers).cast::<u64>().add(index).read_volatile();
            read((&raw mut (*filled).sequences).cast::<i32>().add(index).cast(), NUMBER, pointer);
        }
    }
    // SAFETY: the record was reserved above.
    unsafe { (&raw mut (*filled).batch).write(Batch { capacity: N as u32, ..batch }) };
    tally.submit(entry);
}

#[inline(always)]
fn gather<const N: usize>(tally: Tally, elements: Elements) {
    let Some(layout) = LAYOUTS.get(elements.layout) else { return };
    let Some(mut entry) = tally.reserve::<Filled<N>>() else { return };
    let filled = entry.as_mut_ptr();
    let Elements { mut batch, first, size, .. } = elements;
    // SAFETY: the record is reserved.
    let (tokens, element) = unsafe {
        let element = &raw mut (*filled).element;
        (bounded(element.cast(), u64::from(batch.tokens), N as u64), element.cast::<u8>())
    };
    // Multiples of 8 inside the element, whatever the table says.
    let place = |offset: u32| offset as usize & (ELEMENT_WORDS * 8 - 8);
    // SAFETY: places lie inside the element.
    let field = |offset: u32| unsafe { element.add(place(offset)).cast::<u64>().read_volatile() };
    let mut tokenless = 0;
    for index in 0..N {
        if index as u64 >= tokens {
            break;
        }
        // SAFETY: the element has room for the size, which has been checked; the index is below N.
        unsafe {
            read(element.cast(), size, first + index as u64 * size);
            let node = field(layout.node).wrapping_add(u64::from(layout.sequence));
            read((&raw mut (*filled).sequences).cast::<i32>().add(index).cast(), NUMBER, node);
            let number = |column: *mut i32, value: u64| column.add(index).write_volatile(value as i32);
            number((&raw mut (*filled).counts).cast(), field(layout.sequences));
            number((&raw mut (*filled).positions).cast(), field(layout.position));
            let output = (&raw mut (*filled).outputs).cast::<u8>().add(index);
            output.write_volatile(field(layout.output) as u8);
            tokenless |= (field(layout.token) as u32) >> 31;
        }
    }
    batch.flags |= tokenless * flag::EMBEDDINGS;
    // SAFETY: the record was reserved above.
    unsafe { (&raw mut (*filled).batch).write(Batch { capacity: N as u32, ..batch }) };
    tally.submit(entry);
}

/// Copies out of the target, and puts zeros where it cannot.
///
/// # Safety
///
/// There must be room for `len` bytes at `to`.
#[inline(always)]
unsafe fn read(to: *mut c_void, len: u64, from: u64) {
    // SAFETY: the caller vouches for the room.
    unsafe { bpf_probe_read_user(to, len as u32, from as *const c_void) };
}
