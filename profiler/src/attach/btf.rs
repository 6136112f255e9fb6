//! Where members of the kernel's structures lie, from its BTF. In: the bytes of `/sys/kernel/btf/vmlinux`. Out: offsets.
//!
//! aya reads the same bytes and keeps members to itself. Absent: every other kind of type, which is skipped. Total: no
//! bytes stop it. The format is that of the kernel's Documentation/bpf/btf.rst.

/// Kinds of types.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// How deep anonymous structures are looked into: those that randomised layouts put around the members.
const DEEPEST: u32 = 2;
const MAGIC: u32 = 0xeb9f;

/// The types of a kernel.
pub struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// A type and what stands behind its header.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    rest: &'a [u8],
}

/// Where `task->files->fdt->fd` lies, by the kernel's own word. Without it a descriptor that one thread frees while another
/// takes the same number over can end the wrong connection.
pub fn files_layout() -> Option<[u64; 3]> {
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    let types = Types::parse(&bytes)?;
    Some([
        types.offset("task_struct", "files")?,
        types.offset("files_struct", "fdt")?,
        types.offset("fdtable", "fd")?,
    ])
}

/// Where a task has what its user side finds its own variables by: `task->thread.fsbase`, on aarch64
/// `task->thread.uw.tp_value`, the first of its structure.
pub fn thread_pointer() -> Option<u64> {
    const PLACE: &str = if cfg!(target_arch = "aarch64") { "uw" } else { "fsbase" };
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    let types = Types::parse(&bytes)?;
    Some(types.offset("task_struct", "thread")? + types.offset("thread_struct", PLACE)?)
}

impl<'a> Types<'a> {
    /// None if the bytes are no BTF of this machine's byte order.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if word(bytes, 0)? & 0xffff != MAGIC {
            return None;
        }
        let body = bytes.get(word(bytes, 4)? as usize..)?;
        let part = |at: usize| {
            let (from, length) = (word(bytes, at)? as usize, word(bytes, at + 4)? as usize);
            body.get(from..from.checked_add(length)?)
        };
        Some(Self { types: part(8)?, strings: part(16)? })
    }

    /// Offset of a member of a structure, bytes. None if there is no such member, or if it is a bit field.
    #[must_use]
    pub fn offset(&self, structure: &str, member: &str) -> Option<u64> {
        let found = self.iter().find(|of| of.is_composed() && self.is(of.name, structure))?;
        self.member(found, member, DEEPEST)
    }

    fn member(&self, of: Type, member: &str, depth: u32) -> Option<u64> {
        let bits = |at: u32| if of.info >> 31 == 0 { Some(at) } else { (at >> 24 == 0).then_some(at) };
        (0..of.length()).find_map(|index| {
            let (name, id) = (word(of.rest, index * 12)?, word(of.rest, index * 12 + 4)?);
            let at = bits(word(of.rest, index * 12 + 8)?).filter(|at| at % 8 == 0)?;
            if self.is(name, member) {
                return Some(u64::from(at / 8));
            }
            if name != 0 || depth == 0 {
                return None;
            }
            let inner = self.iter().nth(id.checked_sub(1)? as usize).filter(|inner| inner.is_composed())?;
            Some(self.member(inner, member, depth - 1)? + u64::from(at / 8))
        })
    }

    fn is(&self, name: u32, text: &str) -> bool {
        let rest = self.strings.get(name as usize..).and_then(|rest| rest.strip_prefix(text.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0)) && !text.is_empty()
    }

    /// Types in the order of their ids, of which the first is 1.
    fn iter(&self) -> impl Iterator<Item = Type<'a>> {
        let mut left = self.types;
        std::iter::from_fn(move || {
            let found = Type { name: word(left, 0)?, info: word(left, 4)?, rest: left.get(12..)? };
            left = found.rest.get(found.behind()?..)?;
            Some(found)
        })
    }
}

impl Type<'_> {
    fn kind(self) -> u32 {
        self.info >> 24 & 31
    }

    fn is_composed(self) -> bool {
        matches!(self.kind(), STRUCT | UNION)
    }

    fn length(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Bytes behind its header; none for a kind that is not known, behind which nothing can be found.
    fn behind(self) -> Option<usize> {
        let length = self.length();
        Some(match self.kind() {
            // Pointers, forward declarations, names, qualifiers, functions, floats, type tags.
            2 | 7..=12 | 16 | 18 => 0,
            // Integers, variables, declaration tags.
            1 | 14 | 17 => 4,
            3 => 12,
            STRUCT | UNION | 15 | 19 => length * 12,
            6 | 13 => length * 8,
            _ => return None,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

    #[test]
    fn members_of_this_kernel_lie_somewhere() {
        let Ok(bytes) = std::fs::read(VMLINUX) else {
            println!("skipped: the kernel does not tell its types");
            return;
        };
        let types = Types::parse(&bytes).unwrap();
        assert!(types.offset("task_struct", "files").unwrap() > 0);
        assert!(types.offset("files_struct", "fdt").unwrap() > 0);
        assert!(thread_pointer().unwrap() > 0);
        // Behind `unsigned int max_fds`.
        assert_eq!(types.offset("fdtable", "fd"), Some(8));
        // Two words of a list head, the first of which has a structure of its own.
        assert_eq!(types.offset("list_head", "prev"), Some(8));
        assert_eq!(types.offset("fdtable", "no_such_member"), None);
        assert_eq!(types.offset("no_such_structure", "fd"), None);
    }

    /// A structure whose second member stands in an anonymous one, 16 bytes behind its beginning.
    #[test]
    fn members_of_anonymous_structures_are_found() {
        let strings = b"\0outer\0plain\0inside\0";
        let (outer, plain, inside) = (1, 7, 13);
        let types: [u32; 18] = [
            [0, STRUCT << 24 | 1, 8].as_slice(),
            &[inside, 0, 32],
            &[outer, STRUCT << 24 | 2, 32],
            &[plain, 0, 0],
            &[0, 1, 128],
            &[0, 2 << 24, 0],
        ]
        .concat()
        .try_into()
        .unwrap();
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let header = [MAGIC | 1 << 16, 24, 0, 72, 72, strings.len() as u32];
        let whole = [bytes(&header), bytes(&types), strings.to_vec()].concat();
        let types = Types::parse(&whole).unwrap();
        assert_eq!((types.offset("outer", "plain"), types.offset("outer", "inside")), (Some(0), Some(20)));
        assert_eq!(types.iter().count(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_will_do(mut bytes in prop::collection::vec(any::<u8>(), 0..400), is_btf: bool) {
            if is_btf && bytes.len() >= 24 {
                bytes[..2].copy_from_slice(&0xeb9fu16.to_ne_bytes());
                bytes[4..8].copy_from_slice(&24u32.to_ne_bytes());
            }
            if let Some(types) = Types::parse(&bytes) {
                let _ = types.offset("task_struct", "files");
            }
        }
    }
}
