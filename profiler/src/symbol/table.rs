//! What is known of one file's kernels, compactly, and as bytes that can be kept on disk.
//!
//! In: what the registration code and the symbol table say. Out: names by host function, host functions by the
//! variables that keep handles. The bytes carry a version, the identity of the file they are about and a digest, and
//! every number in them is checked when they are read: bytes that were changed give no table.

use super::Evidence;
use super::image::{Image, long, word};
use super::registration::{self, Registration};
use super::symtab;
use std::collections::BTreeMap;

/// Changes whenever the bytes or their meaning change, so that an old file is never read as a new one.
const MAGIC: &[u8; 16] = b"gpuspan kernels\x01";
const IDENTITY: usize = 32;
const DIGEST: usize = 32;
const KERNEL: usize = 20;
const HANDLE: usize = 12;
/// Longer than the table of any file seen: libtorch_cuda's has 10 MB.
pub const MOST_BYTES: u64 = 128 << 20;

/// Tells one file from any other.
pub type Identity = [u8; IDENTITY];

/// A kernel of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kernel {
    host: u64,
    /// Its name in `text`.
    start: u32,
    length: u32,
    evidence: Evidence,
}

/// A variable that keeps a kernel's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle {
    variable: u64,
    /// Index of the kernel.
    kernel: u32,
}

/// The kernels of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In order of host function; those that only a handle stands for have none, 0, and stand first.
    kernels: Vec<Kernel>,
    /// In order of variable.
    handles: Vec<Handle>,
    /// Host functions that stand for more than one kernel, in order.
    ambiguous: Vec<u64>,
    text: String,
    /// Whether everything that was found was understood.
    pub complete: bool,
}

impl Table {
    /// What `image` says of its kernels. NVIDIA's own code is not read, so there only symbols tell.
    #[must_use]
    pub fn of(image: &Image, nvidias: bool) -> Self {
        let registration = if nvidias { Registration::default() } else { registration::read(image) };
        let mut table = Self { complete: registration.counts.complete(), ..Self::default() };
        table.take(&registration);
        // Where the code was not understood, the names of variables may still tell.
        let lacks_some = registration.counts.asks != registration.counts.answered
            && registration.handles.len() < registration.kernels.len();
        if lacks_some || registration.counts.registers == 0 {
            table.take_variables(symtab::handle_variables(image));
        }
        table
    }

    fn take(&mut self, registration: &Registration) {
        for (host, name) in &registration.kernels {
            self.push(*host, name, Evidence::Registration);
        }
        self.ambiguous = registration.ambiguous.iter().copied().collect();
        self.ambiguous.sort_unstable();
        for (variable, host) in &registration.handles {
            if let Some(kernel) = self.index(*host) {
                self.handles.push(Handle { variable: *variable, kernel });
            }
        }
    }

    fn take_variables(&mut self, variables: BTreeMap<u64, String>) {
        let mut added = Self::default();
        for (variable, name) in variables {
            if self.handles.binary_search_by_key(&variable, |handle| handle.variable).is_err() {
                added.handles.push(Handle { variable, kernel: added.kernels.len() as u32 });
                added.push(0, &name, Evidence::HandleVariable);
            }
        }
        // Kernels without a host function stand first, so that the others stay in order.
        let (shift, start) = (added.kernels.len() as u32, added.text.len() as u32);
        for kernel in &mut self.kernels {
            kernel.start = kernel.start.saturating_add(start);
        }
        for handle in &mut self.handles {
            handle.kernel += shift;
        }
        added.kernels.append(&mut self.kernels);
        added.handles.append(&mut self.handles);
        added.handles.sort_unstable_by_key(|handle| handle.variable);
        added.text.push_str(&self.text);
        (self.kernels, self.handles, self.text) = (added.kernels, added.handles, added.text);
    }

    fn push(&mut self, host: u64, name: &str, evidence: Evidence) {
        let (start, length) = (self.text.len() as u32, name.len() as u32);
        self.text.push_str(name);
        self.kernels.push(Kernel { host, start, length, evidence });
    }

    fn index(&self, host: u64) -> Option<u32> {
        self.kernels.binary_search_by_key(&host, |kernel| kernel.host).ok().map(|index| index as u32)
    }

    /// The kernel whose host function is at `address` of the file.
    #[must_use]
    pub fn kernel(&self, address: u64) -> Option<(&str, Evidence)> {
        self.name(self.index(address).filter(|_| address != 0)?)
    }

    /// Whether more than one kernel has its host function at `address`.
    #[must_use]
    pub fn is_ambiguous(&self, address: u64) -> bool {
        self.ambiguous.binary_search(&address).is_ok()
    }

    fn name(&self, kernel: u32) -> Option<(&str, Evidence)> {
        let kernel = self.kernels.get(kernel as usize)?;
        let (start, length) = (kernel.start as usize, kernel.length as usize);
        Some((self.text.get(start..start.checked_add(length)?)?, kernel.evidence))
    }

    /// The variables that keep handles, in order of address, each with its kernel's name.
    pub fn handles(&self) -> impl Iterator<Item = (u64, &str, Evidence)> {
        self.handles.iter().filter_map(|handle| {
            let (name, evidence) = self.name(handle.kernel)?;
            Some((handle.variable, name, evidence))
        })
    }

    /// Addresses of the variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = u64> {
        self.handles.iter().map(|handle| handle.variable)
    }

    /// The kernels with a host function, as address, name and evidence.
    pub fn kernels(&self) -> impl Iterator<Item = (u64, &str, Evidence)> {
        let hosts = self.kernels.iter().enumerate().filter(|(_, kernel)| kernel.host != 0);
        hosts.filter_map(|(index, kernel)| {
            let (name, evidence) = self.name(index as u32)?;
            Some((kernel.host, name, evidence))
        })
    }

    /// As bytes, for the file that `identity` tells.
    #[must_use]
    pub fn to_bytes(&self, identity: &Identity) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.text.len() + self.kernels.len() * (KERNEL + HANDLE) + 256);
        bytes.extend(MAGIC);
        bytes.extend(identity);
        for count in [self.kernels.len(), self.handles.len(), self.ambiguous.len(), self.text.len()] {
            bytes.extend((count as u32).to_le_bytes());
        }
        bytes.extend(u32::from(self.complete).to_le_bytes());
        for kernel in &self.kernels {
            bytes.extend(kernel.host.to_le_bytes());
            for number in [kernel.start, kernel.length, kernel.evidence as u32] {
                bytes.extend(number.to_le_bytes());
            }
        }
        for handle in &self.handles {
            bytes.extend(handle.variable.to_le_bytes());
            bytes.extend(handle.kernel.to_le_bytes());
        }
        bytes.extend(self.ambiguous.iter().flat_map(|address| address.to_le_bytes()));
        bytes.extend(self.text.as_bytes());
        let digest = digest(&[&bytes]);
        bytes.extend(digest);
        bytes
    }

    /// From bytes; none when they are about another file, of another version, or not as they were written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], identity: &Identity) -> Option<Self> {
        let (body, end) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        let rest = body.strip_prefix(MAGIC)?.strip_prefix(identity)?;
        if digest(&[body]) != *end {
            return None;
        }
        let (counts, rest) = rest.split_at_checked(20)?;
        let count = |index: usize| word(counts, index * 4) as usize;
        let (kernels, rest) = rest.split_at_checked(count(0).checked_mul(KERNEL)?)?;
        let (handles, rest) = rest.split_at_checked(count(1).checked_mul(HANDLE)?)?;
        let (ambiguous, text) = rest.split_at_checked(count(2).checked_mul(8)?)?;
        let table = Self {
            kernels: kernels.chunks_exact(KERNEL).map(kernel).collect::<Option<_>>()?,
            handles: handles
                .chunks_exact(HANDLE)
                .map(|entry| Handle { variable: long(entry, 0), kernel: word(entry, 8) })
                .collect(),
            ambiguous: ambiguous.chunks_exact(8).map(|entry| long(entry, 0)).collect(),
            text: String::from_utf8(text.to_vec()).ok().filter(|text| text.len() == count(3))?,
            complete: word(counts, 16) != 0,
        };
        table.is_sound().then_some(table)
    }

    /// Whether searching it gives what was put in.
    fn is_sound(&self) -> bool {
        let kernels = self.kernels.iter().filter(|kernel| kernel.host != 0);
        kernels.is_sorted_by(|one, next| one.host < next.host)
            && self.kernels.is_sorted_by_key(|kernel| kernel.host)
            && self.handles.is_sorted_by(|one, next| one.variable < next.variable)
            && self.ambiguous.is_sorted()
            && (0..self.kernels.len()).all(|index| self.name(index as u32).is_some())
            && self.handles.iter().all(|handle| (handle.kernel as usize) < self.kernels.len())
    }
}

fn kernel(entry: &[u8]) -> Option<Kernel> {
    let evidence = Evidence::ALL.into_iter().find(|evidence| *evidence as u32 == word(entry, 16))?;
    Some(Kernel { host: long(entry, 0), start: word(entry, 8), length: word(entry, 12), evidence })
}

fn digest(parts: &[&[u8]]) -> Identity {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref().first_chunk::<32>().unwrap_or(&[0; 32]));
    out
}

/// Pages of the file that are part of its identity, spread evenly.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 4096;

/// What tells `image` from any other file, also from one with the same build id: its length, its headers, where its
/// functions start, its dynamic section and pages from all over it.
#[must_use]
pub fn identity(image: &Image) -> Identity {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(&image.length().to_le_bytes());
    context.update(image.headers());
    context.update(&image.build_id().unwrap_or_default());
    if let Some((address, size)) = image.unwind_index {
        context.update(&image.bytes(address, size.min(8 << 20)));
    }
    for (tag, value) in image.dynamic() {
        context.update(&tag.to_le_bytes());
        context.update(&value.to_le_bytes());
    }
    let between = (image.length() / SAMPLES).max(SAMPLE);
    for index in 0..SAMPLES {
        context.update(&image.at_offset(index.saturating_mul(between), SAMPLE));
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref().first_chunk::<32>().unwrap_or(&[0; 32]));
    out
}
