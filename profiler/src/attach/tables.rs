//! The kernel side's tables within reach of user space.
//!
//! In: the loaded object. Out: typed handles.

use super::kernel::{KernelError, take};
use super::targets::{self, Targets};
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap};
use profiler_common::counter::Counters;
use profiler_common::event::{BatchLayout, Count, CountKey, Ring, Settings, Thread, Variable};
use profiler_common::stream::{Descriptor, Session, SessionKey, Stream, Wish, map};

/// All of them but the rings.
pub(super) struct Tables {
    pub counters: PerCpuArray<MapData, CountersPod>,
    pub targets: Targets,
    /// Programs that are loaded later must find it.
    _target_bits: aya::maps::Map,
    pub wishes: Array<MapData, WishPod>,
    pub sessions: HashMap<MapData, SessionKeyPod, SessionPod>,
    pub descriptors: HashMap<MapData, DescriptorPod, u64>,
    pub streams: HashMap<MapData, u64, StreamPod>,
    pub settings: Array<MapData, SettingsPod>,
    pub runs: PerCpuArray<MapData, u64>,
    pub counts: PerCpuHashMap<MapData, CountKeyPod, CountPod>,
    pub threads: HashMap<MapData, u64, ThreadPod>,
    pub capturing: HashMap<MapData, u32, u64>,
    pub layouts: Array<MapData, LayoutPod>,
    pub rings: HashMap<MapData, u32, RingPod>,
    pub idle_receives: HashMap<MapData, u32, u64>,
    pub variables: HashMap<MapData, u32, VariablePod>,
    pub publishers: Array<MapData, u64>,
}

macro_rules! pod {
    ($($name:ident of $inner:ty),*) => {$(
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        pub(super) struct $name(pub $inner);
        // SAFETY: contract types are repr(C), made of integers and without padding (profiler_common::layout).
        unsafe impl aya::Pod for $name {}
    )*};
}
pod!(
    CountersPod of Counters, DescriptorPod of Descriptor, StreamPod of Stream, SettingsPod of Settings,
    WishPod of Wish, SessionKeyPod of SessionKey, SessionPod of Session, CountKeyPod of CountKey, CountPod of Count, ThreadPod of Thread,
    LayoutPod of BatchLayout, RingPod of Ring, VariablePod of Variable
);

impl Tables {
    /// Out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        fn table<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
            ebpf: &mut Ebpf,
            name: &'static str,
        ) -> Result<T, KernelError> {
            T::try_from(take(ebpf, name)?).map_err(|error| KernelError::Table(name, error))
        }
        let target_bits = take(ebpf, map::TARGETS)?;
        Ok(Self {
            counters: table(ebpf, map::COUNTERS)?,
            targets: Targets::map(&target_bits, targets::words())
                .map_err(|error| KernelError::Table(map::TARGETS, error))?,
            _target_bits: target_bits,
            wishes: table(ebpf, map::WISHES)?,
            sessions: table(ebpf, map::SESSIONS)?,
            descriptors: table(ebpf, map::DESCRIPTORS)?,
            streams: table(ebpf, map::STREAMS)?,
            settings: table(ebpf, map::SETTINGS)?,
            runs: table(ebpf, map::RUNS)?,
            counts: table(ebpf, map::COUNTS)?,
            threads: table(ebpf, map::THREADS)?,
            capturing: table(ebpf, map::CAPTURING)?,
            layouts: table(ebpf, map::LAYOUTS)?,
            rings: table(ebpf, map::RINGS)?,
            idle_receives: table(ebpf, map::IDLE_RECEIVES)?,
            variables: table(ebpf, map::VARIABLES)?,
            publishers: table(ebpf, map::PUBLISHERS)?,
        })
    }
}
