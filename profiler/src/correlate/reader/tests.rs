//! One call after another, as one process makes them.

use super::*;
use crate::correlate::operation::Waited;
use crate::probe::Direction;

const IN_RUNTIME: u64 = 0x5000;
const ELSEWHERE: u64 = 0x9000;

fn reader() -> Reader {
    let mut reader = Reader::new(1);
    reader.set_runtime(vec![(0x4000, 0x6000)]);
    reader
}

fn none() -> Blocks {
    Blocks::default()
}

fn index(symbol: &str) -> u16 {
    probe::CATALOG.iter().position(|api| api.symbol == symbol).unwrap() as u16
}

fn launch(symbol: &str, stream: u64, caller: u64) -> GpuCall {
    let launch = Launch { function: 7, stream, caller, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    GpuCall { api: index(symbol), data: CallData::Launch(launch) }
}

fn six([a, b, c, d, e]: [u64; 5]) -> [u64; 6] {
    [a, b, c, d, e, 0]
}

fn entered(symbol: &str, args: [u64; 5]) -> GpuCall {
    entered_from(symbol, args, 0)
}

fn entered_from(symbol: &str, args: [u64; 5], caller: u64) -> GpuCall {
    GpuCall { api: index(symbol), data: CallData::Entered { caller, args: six(args) } }
}

fn returned(symbol: &str, args: [u64; 5], result: i64, out: u64) -> GpuCall {
    let args = six(args);
    let data = CallData::Returned { entered_ns: 1, caller: 0, args, result, out: [out, 0] };
    GpuCall { api: index(symbol), data }
}

#[test]
fn a_launch_through_both_layers_is_one() {
    let mut reader = reader();
    assert!(reader.read(1, &launch("cudaLaunchKernel", 0, ELSEWHERE), &none()).is_ok());
    assert_eq!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()), Err(Ignored::Nested));
    assert!(reader.read(1, &launch("cuLaunchKernel", 0, ELSEWHERE), &none()).is_ok(), "Triton's own launch");
}

#[test]
fn a_driver_launch_under_an_unprobed_runtime_function_counts() {
    let mut reader = reader();
    assert!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()).is_ok());
}

#[test]
fn nesting_is_per_thread_and_per_class() {
    let mut reader = reader();
    assert!(reader.read(1, &launch("cudaLaunchKernel", 0, ELSEWHERE), &none()).is_ok());
    assert!(reader.read(2, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()).is_ok(), "another thread");
    assert!(
        reader.read(1, &entered_from("cuMemcpyHtoDAsync_v2", [1, 2, 3, 0, 0], IN_RUNTIME), &none()).is_ok(),
        "another class"
    );
    assert_eq!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()), Err(Ignored::Nested));
}

#[test]
fn launches_on_capturing_streams_are_nodes_and_replays_know_them() {
    let mut reader = reader();
    let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0), &none());
    assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()), Err(Ignored::Captured));
    // Another stream joins by waiting for an event recorded in the capture.
    let _ = reader.read(1, &entered("cudaEventRecord", [0xe, 5, 0, 0, 0]), &none());
    let _ = reader.read(1, &entered("cudaStreamWaitEvent", [6, 0xe, 0, 0, 0]), &none());
    assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 6, 0), &none()), Err(Ignored::Captured));
    assert!(
        reader.read(1, &launch("cudaLaunchKernel", 7, 0), &none()).is_ok(),
        "a stream outside the capture"
    );
    let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 0, 0x6a), &none());
    assert!(reader.read(1, &launch("cudaLaunchKernel", 6, 0), &none()).is_ok(), "the capture is over");
    let _ = reader.read(1, &returned("cudaGraphInstantiate", [0, 0x6a, 0, 0, 0], 0, 0xec), &none());
    let Ok(Operation::GraphLaunch { nodes: Some(nodes), stream: 5 }) =
        reader.read(1, &entered("cudaGraphLaunch", [0xec, 5, 0, 0, 0]), &none())
    else {
        panic!("the executable graph is known");
    };
    assert_eq!(nodes.launches(), 2);
    let unknown = reader.read(1, &entered("cudaGraphLaunch", [0xbad, 5, 0, 0, 0]), &none());
    assert_eq!(unknown, Ok(Operation::GraphLaunch { nodes: None, stream: 5 }));
    assert_eq!(reader.captured_launches(), 2);
}

#[test]
fn failed_captures_hide_no_launches() {
    let mut reader = reader();
    let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 35, 0), &none());
    assert!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()).is_ok(), "it never began");
    let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0), &none());
    assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()), Err(Ignored::Captured));
    let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 901, 0), &none());
    assert!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()).is_ok(), "it ended with an error");
}

#[test]
fn copies_know_their_way_and_failures_do_not_count() {
    let mut reader = reader();
    let copy = reader.read(1, &entered("cudaMemcpyAsync", [1, 2, 300, 2, 9]), &none());
    let expected =
        Operation::Copy { direction: Direction::DtoH, count: 1, bytes: 300, stream: 9, blocks: false };
    assert_eq!(copy, Ok(expected));
    let failed = reader.read(1, &returned("cudaMalloc", [1, 64, 0, 0, 0], 2, 0), &none());
    assert_eq!(failed, Ok(Operation::AllocationFailed { bytes: 64, device: None, result: 2 }));
}

#[test]
fn a_wait_for_an_event_knows_the_stream_it_was_recorded_in() {
    let mut reader = reader();
    let _ = reader.read(1, &entered("cudaEventRecord", [0xe, 5, 0, 0, 0]), &none());
    let wait = reader.read(1, &returned("cudaEventSynchronize", [0xe, 0, 0, 0, 0], 0, 0), &none());
    assert_eq!(wait, Ok(Operation::Synchronized { what: Waited::Event(Some((5, 1))), entered_ns: 1 }));
}

fn wide(symbol: &str, args: &[(usize, u64)], pointee: &[(usize, u64)]) -> GpuCall {
    let mut wide = crate::decode::Wide { caller: 0, args: [0; 14], pointee: [0; 30] };
    args.iter().for_each(|(index, value)| wide.args[*index] = *value);
    pointee.iter().for_each(|(index, value)| wide.pointee[*index] = *value);
    GpuCall { api: index(symbol), data: CallData::Wide(Box::new(wide)) }
}

fn with_second(symbol: &str, args: [u64; 5], out: [u64; 2]) -> GpuCall {
    let data = CallData::Returned { entered_ns: 1, caller: 0xca11, args: six(args), result: 0, out };
    GpuCall { api: index(symbol), data }
}

#[test]
fn when_calls_are_counted_the_caller_decides_alone() {
    let mut reader = reader();
    reader.set_counted();
    let inner = reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none());
    assert_eq!(inner, Err(Ignored::Nested), "its outer half was counted in the kernel");
    assert!(reader.read(1, &launch("cuLaunchKernel", 0, ELSEWHERE), &none()).is_ok());
}

#[test]
fn default_streams_have_one_number_each() {
    let mut reader = reader();
    let mut stream = |tid, symbol, handle| match reader.read(tid, &launch(symbol, handle, 0), &none()) {
        Ok(Operation::Launch { stream, .. }) => stream,
        other => panic!("{other:?}"),
    };
    let own = 1 << 63 | 7;
    assert_eq!((stream(7, "cudaLaunchKernel", 0), stream(7, "cudaLaunchKernel", 1)), (0, 0));
    assert_eq!((stream(7, "cudaLaunchKernel", 2), stream(7, "cudaLaunchKernel_ptsz", 0)), (own, own));
    assert_eq!(stream(8, "cudaLaunchKernel_ptsz", 0), 1 << 63 | 8);
    assert_eq!(stream(8, "cudaLaunchKernel_ptsz", 0x55), 0x55);
}

#[test]
fn memory_is_on_the_device_that_the_thread_chose() {
    let mut reader = reader();
    let mut device_after = |call: &GpuCall| {
        let _ = reader.read(1, call, &none());
        match reader.read(1, &returned("cuMemAlloc_v2", [0, 64, 0, 0, 0], 0, 0xa), &none()) {
            Ok(Operation::Allocated { device, bytes: 64, key: 0xa, .. }) => device,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(device_after(&entered("cudaEventRecord", [0; 5])), None);
    assert_eq!(device_after(&entered("cudaSetDevice", [1, 0, 0, 0, 0])), Some(1));
    assert_eq!(device_after(&returned("cuDevicePrimaryCtxRetain", [0, 3, 0, 0, 0], 0, 0xc3)), Some(1));
    assert_eq!(device_after(&entered("cuCtxSetCurrent", [0xc3, 0, 0, 0, 0])), Some(3));
    assert_eq!(device_after(&entered("cuCtxSetCurrent", [0xbad, 0, 0, 0, 0])), None);
}

#[test]
fn sizes_of_unusual_allocations() {
    let mut reader = reader();
    let mut allocated = |call: &GpuCall| match reader.read(1, call, &none()) {
        Ok(Operation::Allocated { key, bytes, kind, device, caller: 0xca11 }) => (key, bytes, kind, device),
        other => panic!("{other:?}"),
    };
    let pitched = with_second("cudaMallocPitch", [0, 0, 100, 8, 0], [0xa, 512]);
    assert_eq!(allocated(&pitched), (0xa, 4096, Memory::Device, None));
    let cube = with_second("cudaMalloc3D", [0, 100, 8, 2, 0], [0xa, 512]);
    assert_eq!(allocated(&cube), (0xa, 8192, Memory::Device, None));
    let created = with_second("cuMemCreate", [0, 1 << 21, 0, 0, 0], [0xe, 2 << 32 | 1]);
    assert_eq!(allocated(&created), (0xe, 1 << 21, Memory::Device, Some(2)));
    let registered = with_second("cudaHostRegister", [0xabc, 4096, 0, 0, 0], [0, 0]);
    assert_eq!(allocated(&registered), (0xabc, 4096, Memory::Pinned, None));
    let failed = reader.read(1, &returned("cudaMallocPitch", [0, 0, 100, 8, 0], 2, 0), &none());
    assert_eq!(failed, Ok(Operation::AllocationFailed { bytes: 800, device: None, result: 2 }));
}

#[test]
fn batches_and_collectives_have_their_sums() {
    let mut reader = reader();
    let batch = wide("cuMemcpyBatchAsync", &[(8, 5)], &[(0, 900), (1, 3), (2, 4)]);
    let copy = reader.read(1, &batch, &none());
    let expected =
        Operation::Copy { direction: Direction::Unknown, count: 4, bytes: 900, stream: 5, blocks: false };
    assert_eq!((copy, reader.cut_batches()), (Ok(expected), 1), "one was not summed");
    let reduce = wide("ncclAllReduce", &[(2, 1000), (3, 7)], &[]);
    assert_eq!(reader.read(1, &reduce, &none()), Ok(Operation::Collective { bytes: 4000 }));
    let send = wide("ncclSend", &[(1, 10), (2, 9)], &[]);
    assert_eq!(reader.read(1, &send, &none()), Ok(Operation::Collective { bytes: 20 }));
}

#[test]
fn a_graph_that_is_built_by_calls_runs_all_of_them() {
    let mut reader = reader();
    let _ = reader.read(1, &returned("cudaGraphCreate", [0; 5], 0, 0x6a), &none());
    let _ = reader.read(1, &with_second("cudaGraphAddKernelNode", [0, 0x6a, 0, 0, 1], [0x0de, 7]), &none());
    let copy = wide("cudaGraphAddMemcpyNode1D", &[(1, 0x6a), (6, 100), (7, 1)], &[]);
    let _ = reader.read(1, &copy, &none());
    let set = wide("cudaGraphAddMemsetNode", &[(1, 0x6a)], &[(2, 1 << 32), (3, 64), (4, 1)]);
    let _ = reader.read(1, &set, &none());
    let _ = reader.read(1, &entered("cudaGraphAddHostNode", [0, 0x6a, 0, 0, 0]), &none());
    // A recording into the same graph adds to it.
    let _ = reader.read(1, &returned("cudaStreamBeginCaptureToGraph", [5, 0x6a, 0, 0, 0], 0, 0), &none());
    assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()), Err(Ignored::Captured));
    let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 0, 0x6a), &none());
    let _ = reader.read(1, &returned("cudaGraphInstantiate", [0, 0x6a, 0, 0, 0], 0, 0xec), &none());
    let run = reader.read(1, &entered("cudaGraphLaunch", [0xec, 5, 0, 0, 0]), &none());
    let Ok(Operation::GraphLaunch { nodes: Some(nodes), .. }) = run else { panic!("{run:?}") };
    assert_eq!((nodes.launches(), nodes.sets, nodes.host_functions), (2, (1, 64), 1));
    assert_eq!(nodes.copies[&Direction::HtoD], (1, 100));
    // One node runs another kernel, in the executable graph alone.
    let changed = with_second("cudaGraphExecKernelNodeSetParams", [0xec, 0x0de, 0, 0, 0], [0, 8]);
    let _ = reader.read(1, &changed, &none());
    let run = reader.read(1, &entered("cudaGraphLaunch", [0xec, 5, 0, 0, 0]), &none());
    let Ok(Operation::GraphLaunch { nodes: Some(nodes), .. }) = run else { panic!("{run:?}") };
    let functions: Vec<u64> = nodes.kernels.keys().map(|kernel| kernel.function).collect();
    assert_eq!(functions, [7, 8]);
}

#[test]
fn one_call_may_launch_on_several_devices() {
    let mut reader = reader();
    let call = wide("cuLaunchCooperativeKernelMultiDevice", &[(1, 2)], &[(0, 7), (5, 3), (7, 8), (12, 4)]);
    let kernel = |function| KernelKey { pid: 1, function };
    let launches = vec![(kernel(7), 3), (kernel(8), 4)];
    assert_eq!(reader.read(1, &call, &none()), Ok(Operation::Launches(launches)));
}

#[test]
fn names_are_passed_on() {
    let mut reader = reader();
    let named = CallData::Named { handle: 9, name: "_Z4spinPf".into(), cut: false };
    let named = reader.read(1, &GpuCall { api: index("cuModuleGetFunction"), data: named }, &none());
    let handle = Naming::Handle { handle: 9, name: "_Z4spinPf".into(), cut: false };
    assert_eq!(named, Ok(Operation::Named(handle)));
    let alias = reader.read(1, &returned("__cudaGetKernel", [0, 0xf00, 0, 0, 0], 0, 9), &none());
    assert_eq!(alias, Ok(Operation::Named(Naming::Alias { handle: 9, of: 0xf00 })));
    let registered = reader.read(1, &entered("__cudaRegisterFunction", [0, 0xf00, 0, 0xabc, 0]), &none());
    let host = Naming::Host { function: 0xf00, name_address: 0xabc };
    assert_eq!(registered, Ok(Operation::Named(host)));
}

#[test]
fn events_without_end_start_anew_and_are_counted() {
    let mut reader = reader();
    for event in 0..MAX_EVENTS as u64 + 1 {
        assert!(reader.read(1, &entered("cudaEventRecord", [event + 1, 5, 0, 0, 0]), &none()).is_ok());
    }
    assert_eq!((reader.events.len(), reader.forgotten().events), (1, MAX_EVENTS as u64));
}

#[test]
fn a_stream_that_was_waited_for_records_nothing() {
    let mut reader = reader();
    reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0), &none()).unwrap_err();
    let captured = reader.read(1, &launch("cudaLaunchKernel", 5, ELSEWHERE), &none());
    assert_eq!(captured, Err(Ignored::Captured));
    reader.read(1, &returned("cudaStreamSynchronize", [5, 0, 0, 0, 0], 0, 0), &none()).unwrap();
    assert!(reader.read(1, &launch("cudaLaunchKernel", 5, ELSEWHERE), &none()).is_ok(), "the end was lost");
    assert_eq!(reader.forgotten().captures, 1);
}
