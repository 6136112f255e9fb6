//! Registration code → which host function stands for which kernel, and which variable keeps which kernel's handle.
//!
//! nvcc gives every file with kernels a constructor, `__sti____cudaRegisterAll`, that calls
//! `__cudaRegisterFunction(module, hostFun, deviceFun, deviceName, -1, 0, 0, 0, 0, 0)` for each kernel
//! (crt/host_runtime.h, CUDA 12.9 and 13.0). Since CUDA 13 a launch asks `__cudaGetKernel(&handle, hostFun)` once and
//! keeps the answer in a static variable. Both pass constants, which are read here.
//!
//! In: an [`Image`]. Out: [`Registration`]. What is not exactly as described is counted and left out, never guessed.

use super::code::{self, Bounds, Call, Function, Imports, Surroundings, Target, Value, Wanted};
use super::image::{Image, Machine};
use super::symtab;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Registers a kernel.
pub const REGISTER: &str = "__cudaRegisterFunction";
/// Gives a kernel's handle.
const GET_KERNEL: &str = "__cudaGetKernel";
/// The section of device code: a file without it registers nothing.
const DEVICE_CODE: [&str; 2] = [".nv_fatbin", ".nvFatBinSegment"];
/// The longest kernel name that is read. The longest seen has 4.3 KB (libtorch_cuda 2.15).
pub const MOST_NAME: usize = 32 << 10;
/// What all names together may hold: libtorch_cuda's 24,114 have 9 MB.
const MOST_TEXT: usize = 64 << 20;

/// What the registration code says.
#[derive(Debug, Default)]
pub struct Registration {
    /// Device name by host function.
    pub kernels: BTreeMap<u64, String>,
    /// Host function by the variable that keeps the handle.
    pub handles: BTreeMap<u64, u64>,
    /// Host functions that stand for more than one kernel: a linker has folded them.
    pub ambiguous: HashSet<u64>,
    /// How well it could be read.
    pub counts: Counts,
}

/// How well registration code could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that register a kernel.
    pub registers: u32,
    /// Those that were understood.
    pub registered: u32,
    /// Calls that ask for a handle.
    pub asks: u32,
    /// Those that were understood.
    pub answered: u32,
}

impl Counts {
    /// Everything that was found was understood.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.registers > 0 && self.registers == self.registered && self.asks == self.answered
    }
}

/// Whether kernels can be in `image` at all.
#[must_use]
pub fn has_device_code(image: &Image) -> bool {
    DEVICE_CODE.iter().any(|name| image.section(name).is_some())
}

/// Reads the registration code of `image`.
#[must_use]
pub fn read(image: &Image) -> Registration {
    let imports = Imports::of(image);
    let mut sought = Sought::of(image, &imports);
    if sought.register.is_empty() {
        sought.register.extend(signature::find(image, &imports));
    }
    let mut found = Registration::default();
    if sought.register.is_empty() {
        return found;
    }
    let calls = sought.calls(image, &imports);
    let (registers, asks): (Vec<&Call>, _) =
        calls.iter().partition(|call| sought.register.contains(&call.target));
    found.take_kernels(image, &registers);
    found.take_handles(image, &asks);
    found
}

/// The functions whose calls are sought, in every form in which they can be called.
#[derive(Default)]
struct Sought {
    register: HashSet<Target>,
    get_kernel: HashSet<Target>,
    /// Where stubs begin: their own jumps are no calls.
    stubs: Vec<u64>,
}

/// The longest stub: four instructions of aarch64 and a landing pad.
const STUB: u64 = 20;

impl Sought {
    fn of(image: &Image, imports: &Imports) -> Self {
        let mut sought = Self::default();
        let slots: HashMap<u64, String> =
            imports.slots_of(image, &[REGISTER, GET_KERNEL]).into_iter().collect();
        for (slot, name) in &slots {
            sought.add(name, Target::Slot(*slot));
        }
        for (stub, slot) in code::stubs(image, &slots.keys().copied().collect()) {
            if let Some(name) = slots.get(&slot) {
                sought.add(name, Target::Address(stub));
                sought.stubs.push(stub);
            }
        }
        // A runtime that is linked in.
        for (name, address) in symtab::addresses_of(image, &[REGISTER, GET_KERNEL]) {
            sought.add(&name, Target::Address(address));
        }
        sought
    }

    fn add(&mut self, name: &str, target: Target) {
        let targets = if name == REGISTER { &mut self.register } else { &mut self.get_kernel };
        targets.insert(target);
    }

    fn calls(&self, image: &Image, imports: &Imports) -> Vec<Call> {
        let mut wanted = Wanted::default();
        let mut reached = HashSet::new();
        for target in self.register.iter().chain(&self.get_kernel) {
            let (Target::Address(address) | Target::Slot(address)) = *target;
            reached.insert(address);
            match target {
                Target::Address(_) => wanted.addresses.insert(address),
                Target::Slot(_) => wanted.slots.insert(address),
            };
        }
        let around = Surroundings { image, imports, wanted: &wanted };
        let bounds = Bounds::of(image, &code::mentions(image, &reached));
        let calls = bounds.functions().iter().flat_map(|function| code::calls(*function, &around));
        calls.filter(|call| !self.stubs.iter().any(|stub| call.at.wrapping_sub(*stub) < STUB)).collect()
    }
}

impl Registration {
    fn take_kernels(&mut self, image: &Image, calls: &[&Call]) {
        let mut text = 0;
        for call in calls {
            self.counts.registers += 1;
            let Some((host, name)) = kernel(image, call).filter(|(_, name)| text + name.len() <= MOST_TEXT)
            else {
                continue;
            };
            self.counts.registered += 1;
            text += name.len();
            match self.kernels.get(&host) {
                Some(known) if *known != name => {
                    self.ambiguous.insert(host);
                }
                _ => {
                    self.kernels.insert(host, name);
                }
            }
        }
        self.kernels.retain(|host, _| !self.ambiguous.contains(host));
    }

    fn take_handles(&mut self, image: &Image, calls: &[&Call]) {
        let mut doubtful = HashSet::new();
        let mut variables = Vec::new();
        for call in calls {
            self.counts.asks += 1;
            let [variable, host, ..] = call.registers.map(Value::known);
            let Some(variable) = variable.filter(|variable| image.is_variable(*variable)) else { continue };
            variables.push(variable);
            let is_kernel = |host: &u64| self.kernels.contains_key(host) || self.ambiguous.contains(host);
            if let Some(host) = host.filter(is_kernel)
                && self.handles.insert(variable, host).is_some_and(|known| known != host)
            {
                doubtful.insert(variable);
            }
        }
        self.handles.retain(|variable, _| !doubtful.contains(variable));
        // A variable is asked for wherever its stub was inlined; one place that says whose it is suffices.
        let answered = variables.iter().filter(|variable| self.handles.contains_key(variable)).count();
        self.counts.answered = u32::try_from(answered).unwrap_or(u32::MAX);
    }
}

/// Host function and device name of one registration.
fn kernel(image: &Image, call: &Call) -> Option<(u64, String)> {
    let [_, host, function, name, ..] = call.registers.map(Value::known);
    let (host, name) = (host.filter(|host| image.is_code(*host))?, name?);
    // nvcc passes the name twice; whoever does not is somebody else.
    let text = (function == Some(name)).then(|| image.text(name, MOST_NAME)).flatten()?;
    is_name(&text).then_some((host, text))
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic());
    first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.'))
}

/// Finding `__cudaRegisterFunction` in a stripped file with a runtime of its own, by how it is called.
mod signature {
    use super::{
        Bounds, Call, Function, HashMap, HashSet, Image, Imports, Machine, Surroundings, Target, Wanted,
    };
    use super::{code, kernel};

    /// How far from the constructors registration functions are: the constructor itself, or what it calls.
    const DEPTH: usize = 2;
    /// Functions looked into; libtorch_cuda has 704 constructors.
    const MOST_FUNCTIONS: usize = 1 << 15;

    /// The one function that the constructors call as `__cudaRegisterFunction` is called. Only constructors and what
    /// they call directly are read, and of these only what sets a thread limit of -1.
    pub fn find(image: &Image, imports: &Imports) -> Option<Target> {
        let wanted = Wanted { all: true, ..Wanted::default() };
        let around = Surroundings { image, imports, wanted: &wanted };
        let mut votes: HashMap<Target, u32> = HashMap::new();
        let mut seen = HashSet::new();
        let mut next = constructors(image, imports);
        for depth in 0..DEPTH {
            let bounds = Bounds::of(image, &next);
            let functions: Vec<Function> =
                bounds.functions().iter().copied().filter(|f| seen.insert(*f)).take(MOST_FUNCTIONS).collect();
            let mut further = HashSet::new();
            for function in functions {
                if depth > 0 && !sets_no_limit(image, function) {
                    continue;
                }
                for call in code::calls(function, &around) {
                    if registers(image, &call) {
                        *votes.entry(call.target).or_default() += 1;
                    } else if let Target::Address(address) = call.target {
                        further.insert(address);
                    }
                }
            }
            next = further.into_iter().filter(|address| image.is_code(*address)).collect();
        }
        // Two functions that are called alike cannot be told apart.
        let mut votes = votes.into_keys();
        votes.next().filter(|_| votes.next().is_none())
    }

    /// What the loader calls when it has loaded the file.
    fn constructors(image: &Image, imports: &Imports) -> Vec<u64> {
        let Some(section) = image.section(".init_array") else { return Vec::new() };
        let slots = (0..(section.size / 8).min(MOST_FUNCTIONS as u64))
            .map(|index| section.address.wrapping_add(index * 8));
        let constructor = |slot| imports.address_in(image, slot).or_else(|| image.long(slot));
        slots.filter_map(constructor).filter(|address| image.is_code(*address)).collect()
    }

    /// Whether the function's code has the thread limit's instruction: `mov $-1, %r8d`, `or $-1, %r8d`; `mov w4, #-1`.
    fn sets_no_limit(image: &Image, function: Function) -> bool {
        let code = image.bytes(function.start, (function.end - function.start).min(code::MOST_CODE));
        let has = |pattern: &[u8]| memchr::memmem::find(&code, pattern).is_some();
        match image.machine {
            Machine::X86 => has(&[0x41, 0xb8, 0xff, 0xff, 0xff, 0xff]) || has(&[0x41, 0x83, 0xc8, 0xff]),
            Machine::Arm => has(&0x1280_0004_u32.to_le_bytes()),
        }
    }

    /// Every constraint of a registration: a host function, its name twice, no thread limit, and zeros.
    fn registers(image: &Image, call: &Call) -> bool {
        let number = |value: code::Value| value.known();
        let no_limit = call.registers.get(4).copied().and_then(number) == Some(u64::from(u32::MAX));
        let sixth = call.registers.get(5).copied().and_then(number) == Some(0);
        no_limit
            && sixth
            && call.further.iter().all(|v| number(*v) == Some(0))
            && kernel(image, call).is_some()
    }
}
