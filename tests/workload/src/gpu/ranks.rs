//! Several devices as one: a thread for each, which runs every step on its own device, as tensor-parallel engines of one
//! process do. Each thread chooses its device anew for each step, as TensorRT's and ONNX Runtime's do; only the last
//! device copies samples back. Absent: messages between the devices.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};

use super::cuda::{CudaDevice, Place};
use super::{Device, StepWork};
use crate::options::ServerOptions;
use crate::truth::DeviceTotals;

/// What a device's thread is asked to do.
enum Order {
    Submit(StepWork),
    Wait,
    Close,
}

/// What a device has done so far, and what `cudaRuntimeGetVersion` gave.
type Answer = Result<(DeviceTotals, i32)>;

struct Rank {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    totals: DeviceTotals,
}

pub(crate) struct Ranks {
    /// By device.
    ranks: Vec<Rank>,
    totals: DeviceTotals,
    version: i32,
}

impl Ranks {
    /// Opens as many devices as `options` say, one after the other: the first registers the kernels.
    pub(crate) fn open(options: &ServerOptions) -> Result<Self> {
        let mut all = Self { ranks: Vec::new(), totals: DeviceTotals::default(), version: 0 };
        for device in 0..options.devices {
            let place = Place { device: i32::try_from(device)?, samples: device + 1 == options.devices };
            all.ranks.push(Rank::spawn(place, options)?);
            all.gather(device)?;
        }
        all.sum();
        Ok(all)
    }

    fn all(&mut self, order: impl Fn() -> Order) -> Result<()> {
        for rank in &self.ranks {
            rank.orders.send(order()).context("a device's thread is gone")?;
        }
        (0..self.ranks.len()).try_for_each(|device| self.gather(device))?;
        self.sum();
        Ok(())
    }

    /// Waits for a device's answer.
    fn gather(&mut self, device: usize) -> Result<()> {
        let rank = self.ranks.get_mut(device).context("no such device")?;
        let (totals, version) = rank.answers.recv().context("a device's thread ended")??;
        rank.totals = totals;
        self.version = version;
        Ok(())
    }

    fn sum(&mut self) {
        self.totals = DeviceTotals::default();
        self.ranks.iter().for_each(|rank| self.totals.add(&rank.totals));
    }
}

impl Rank {
    fn spawn(place: Place, options: &ServerOptions) -> Result<Self> {
        let (orders, inbox) = channel();
        let (outbox, answers) = channel();
        let options = options.clone();
        let name = format!("device-{}", place.device);
        let thread = Builder::new().name(name).spawn(move || work(place, &options, &inbox, &outbox))?;
        Ok(Self { orders, answers, thread: Some(thread), totals: DeviceTotals::default() })
    }
}

/// A device's thread.
fn work(place: Place, options: &ServerOptions, orders: &Receiver<Order>, answers: &Sender<Answer>) {
    let answer = |device: &CudaDevice| (device.totals().clone(), device.runtime_version());
    let mut device = match CudaDevice::open(options, place) {
        Ok(device) => device,
        Err(error) => return drop(answers.send(Err(error))),
    };
    // Who asks is gone when an answer finds no receiver: the next order does not come either.
    let _ = answers.send(Ok(answer(&device)));
    for order in orders {
        let done = match order {
            Order::Submit(work) => device.submit(work),
            Order::Wait => device.wait(),
            Order::Close => device.close(),
        };
        let _ = answers.send(done.map(|()| answer(&device)));
    }
}

impl Device for Ranks {
    fn submit(&mut self, work: StepWork) -> Result<()> {
        self.all(|| Order::Submit(work))
    }

    fn wait(&mut self) -> Result<()> {
        self.all(|| Order::Wait)
    }

    fn totals(&self) -> &DeviceTotals {
        &self.totals
    }

    fn runtime_version(&self) -> i32 {
        self.version
    }

    fn close(&mut self) -> Result<()> {
        // The first device registered the kernels, and is the last to go.
        for device in (0..self.ranks.len()).rev() {
            let rank = self.ranks.get(device).context("no such device")?;
            rank.orders.send(Order::Close).context("a device's thread is gone")?;
            self.gather(device)?;
        }
        self.sum();
        for mut rank in self.ranks.drain(..) {
            drop(rank.orders);
            let ended = rank.thread.take().map_or(Ok(()), JoinHandle::join);
            ended.map_err(|_| anyhow!("a device's thread panicked"))?;
        }
        Ok(())
    }
}
