//! Requests and iterations that wait for each other. In: finished requests, iterations that engines told, time. Out:
//! requests whose last iterations are settled, and iterations with their riders.

use super::energy::Purpose;
use super::power::Power;
use super::ride::{BoardCounts, GpuTimes, LAG_NS, LEARNING_NS, Passenger, Sizes};
use super::tap::Occasion;
use super::utilization::Agreement;
use super::{Engine, Outcomes, Payload, Request};
use crate::device::Reading;

/// Requests that wait for their last iterations, a second at most; the oldest go first.
pub(super) const MOST_SETTLING: usize = 16_384;

impl Engine {
    /// What became of GPU work and iterations.
    #[must_use]
    pub fn rides(&self) -> BoardCounts {
        self.board.counts()
    }

    /// Takes what devices said, for the energy of the work on them, and to be held against its time.
    pub fn read_devices(&mut self, reading: &Reading) {
        self.board.energy.take(reading);
        let place = |pid, ordinal| self.board.energy.place(pid, ordinal);
        self.utilization.take(reading, self.board.times(), place);
    }

    /// Other targets have work on the same devices, whose power this is.
    pub fn share_power(&mut self, power: &Power) {
        self.board.energy.share(power);
    }

    /// Work that is under way has its part of the devices' power, too, whoever asks before it is done.
    pub(super) fn claim(&self, now_ns: u64) {
        for step in self.processes.values().flat_map(|process| process.steps.under_way()) {
            self.board.energy.works((step.pid, step.device), step.start_ns, now_ns);
        }
    }

    /// Whether devices say the same of their load as the steps on them, by the device's number.
    pub fn agreements(&self) -> impl Iterator<Item = (u32, Agreement)> {
        self.utilization.agreements()
    }

    /// Energy of all iterations so far, microjoules.
    pub fn energy(&self) -> impl Iterator<Item = (Purpose, u64)> {
        self.board.energy.sums()
    }

    /// How the GPU time of each process passed on each of its devices.
    pub fn gpu_times(&self) -> impl Iterator<Item = ((u32, Option<u32>), GpuTimes)> {
        self.board.times()
    }

    /// Where an engine may tell an iteration now, no step is held back that is of it.
    pub(super) fn hand_over(&mut self, out: &mut Outcomes) {
        if !self.board.hears() {
            return;
        }
        let mut closed = std::mem::take(&mut self.closed);
        self.processes.values_mut().for_each(|process| process.steps.let_go(&mut closed));
        self.join(&mut closed, out);
        self.closed = closed;
    }

    /// Iterations from `from` on that engines told find their GPU work and their riders.
    pub(super) fn seat(&mut self, from: usize, out: &mut Outcomes) {
        let mut let_go = Vec::new();
        for iteration in out.iterations.iter_mut().skip(from) {
            self.board.told(iteration, &mut self.inside, &mut let_go);
        }
        out.iterations.append(&mut let_go);
    }

    /// Work that no engine tells of finds its riders, and requests whose last iterations are settled are let go.
    pub(super) fn settle(&mut self, now_ns: u64, out: &mut Outcomes) {
        let over = self.settling.iter_mut().chain(self.inside.waiting_mut());
        let over = over.map(|request| Passenger::new(request, true));
        let busy = self.connections.under_way_mut().map(|request| Passenger::new(request, false));
        let mut passengers: Vec<_> = over.chain(busy).collect();
        self.board.settle(now_ns, &mut passengers, &mut out.iterations);
        let oldest_ns = self.board.oldest_ns();
        let is_settled = |request: &mut Request| {
            let late = request.ended_ns.saturating_add(2 * LEARNING_NS) < now_ns;
            let open = oldest_ns.is_some_and(|oldest| oldest < request.ended_ns);
            late || !open && request.ended_ns.saturating_add(LAG_NS) < now_ns
        };
        for mut request in self.settling.extract_if(.., is_settled) {
            self.board.release(request.owner(), Sizes::of(&request));
            request.rode();
            out.requests.push(request);
        }
    }

    /// Requests that finished wait for what their server says of them, or for the last of the GPU work that may be theirs.
    pub(super) fn listen(&mut self, from: usize, now_ns: u64, out: &mut Outcomes) {
        self.board.busy(now_ns, self.connections.is_busy());
        let told = out.iterations.len();
        for fact in out.shards.drain(..) {
            self.inside.shard(&fact, &mut out.iterations);
        }
        for frame in out.frames.drain(..) {
            if !self.inside.frame(&frame, &mut out.iterations) {
                out.payload.push((frame.connection, Payload::Nothing));
            }
        }
        self.inside.answer(Occasion::Heard, &mut out.iterations);
        self.seat(told, out);
        self.inside.screen(&mut out.requests, from, now_ns);
        self.depart(from, out);
    }

    /// Requests of which the servers say nothing more wait for the last of the work that may be theirs, unless their
    /// engine told its iterations itself.
    pub(super) fn depart(&mut self, from: usize, out: &mut Outcomes) {
        let uses_gpu = self.totals.steps > 0 || self.board.oldest_ns().is_some();
        if !self.board.hears() && uses_gpu {
            let inference = |request: &mut Request| request.is_inference();
            self.settling.extend(out.requests.extract_if(from.., inference));
            let beyond = self.settling.len().saturating_sub(MOST_SETTLING);
            self.totals.forgotten.settling += beyond as u64;
            for mut request in self.settling.drain(..beyond) {
                self.board.release(request.owner(), Sizes::of(&request));
                request.rode();
                out.requests.push(request);
            }
            return;
        }
        for request in out.requests.iter_mut().skip(from) {
            self.board.release(request.owner(), Sizes::of(request));
            request.ride.end();
        }
    }
}
