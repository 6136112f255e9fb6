//! Several devices as one: a thread or a process for each, which runs every step on its own device, as tensor-parallel
//! engines do. Threads choose their device anew for each step, as TensorRT's and ONNX Runtime's do, and the last one copies
//! samples back; of processes the first one does, as vLLM's do. Absent: messages between the devices.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::cuda::{CudaDevice, Place};
use super::process::ProcessLink;
use super::{Device, StepWork};
use crate::options::ServerOptions;
use crate::truth::DeviceTotals;

/// What a device's thread or process is asked to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Submit(StepWork),
    Wait,
    Close,
}

/// What a device has done so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) totals: DeviceTotals,
    /// What `cudaRuntimeGetVersion` gave.
    pub(super) version: i32,
    /// That drives it.
    pub(super) thread: u32,
}

/// The way to what drives a device. Each order has an answer, and there is one when it has been opened.
pub(super) trait Link {
    fn order(&mut self, order: Order) -> Result<()>;
    fn answer(&mut self) -> Result<Done>;
    /// Waits for its end, after it was asked to close.
    fn end(self: Box<Self>) -> Result<()>;
}

struct Rank {
    link: Box<dyn Link>,
    done: Done,
}

pub(crate) struct Ranks {
    /// By device.
    ranks: Vec<Rank>,
    totals: DeviceTotals,
}

impl Ranks {
    /// Opens as many devices as `options` say, one after the other.
    pub(crate) fn open(options: &ServerOptions, engine: usize) -> Result<Self> {
        let mut all = Self { ranks: Vec::new(), totals: DeviceTotals::default() };
        for rank in 0..options.devices {
            let device = options.first_device(engine) + rank;
            let link: Box<dyn Link> = if options.rank_processes {
                Box::new(ProcessLink::spawn(device, options)?)
            } else {
                let place = Place { device: i32::try_from(device)?, samples: rank + 1 == options.devices };
                Box::new(ThreadLink::spawn(place, options)?)
            };
            all.ranks.push(Rank { link, done: Done::default() });
            all.gather(rank)?;
        }
        all.sum();
        Ok(all)
    }

    fn all(&mut self, order: Order) -> Result<()> {
        self.ranks.iter_mut().try_for_each(|rank| rank.link.order(order))?;
        (0..self.ranks.len()).try_for_each(|rank| self.gather(rank))?;
        self.sum();
        Ok(())
    }

    /// Waits for a device's answer.
    fn gather(&mut self, rank: usize) -> Result<()> {
        let rank = self.ranks.get_mut(rank).context("no such device")?;
        rank.done = rank.link.answer()?;
        Ok(())
    }

    fn sum(&mut self) {
        self.totals = DeviceTotals::default();
        self.ranks.iter().for_each(|rank| self.totals.add(&rank.done.totals));
    }
}

impl Device for Ranks {
    fn submit(&mut self, work: StepWork) -> Result<()> {
        self.all(Order::Submit(work))
    }

    fn wait(&mut self) -> Result<()> {
        self.all(Order::Wait)
    }

    fn totals(&self) -> &DeviceTotals {
        &self.totals
    }

    fn runtime_version(&self) -> i32 {
        self.ranks.last().map_or(0, |rank| rank.done.version)
    }

    fn threads(&self) -> Vec<u32> {
        self.ranks.iter().map(|rank| rank.done.thread).collect()
    }

    fn close(&mut self) -> Result<()> {
        self.all(Order::Close)?;
        self.ranks.drain(..).try_for_each(|rank| rank.link.end())
    }
}

/// A thread of this process.
struct ThreadLink {
    orders: Sender<Order>,
    answers: Receiver<Result<Done>>,
    thread: JoinHandle<()>,
}

impl ThreadLink {
    fn spawn(place: Place, options: &ServerOptions) -> Result<Self> {
        let (orders, inbox) = channel();
        let (outbox, answers) = channel();
        let options = options.clone();
        let name = format!("device-{}", place.device);
        let thread = Builder::new().name(name).spawn(move || work(place, &options, &inbox, &outbox))?;
        Ok(Self { orders, answers, thread })
    }
}

impl Link for ThreadLink {
    fn order(&mut self, order: Order) -> Result<()> {
        self.orders.send(order).context("a device's thread is gone")
    }

    fn answer(&mut self) -> Result<Done> {
        self.answers.recv().context("a device's thread ended")?
    }

    fn end(self: Box<Self>) -> Result<()> {
        let Self { orders, thread, .. } = *self;
        drop(orders);
        thread.join().map_err(|_| anyhow!("a device's thread panicked"))
    }
}

/// A device's thread.
fn work(place: Place, options: &ServerOptions, orders: &Receiver<Order>, answers: &Sender<Result<Done>>) {
    let mut device = match CudaDevice::open(options, place) {
        Ok(device) => device,
        Err(error) => return drop(answers.send(Err(error))),
    };
    // Who asks is gone when an answer finds no receiver: the next order does not come either.
    let _ = answers.send(Ok(done(&device)));
    for order in orders {
        let _ = answers.send(obey(&mut device, order).map(|()| done(&device)));
    }
}

pub(super) fn obey(device: &mut CudaDevice, order: Order) -> Result<()> {
    match order {
        Order::Submit(work) => device.submit(work),
        Order::Wait => device.wait(),
        Order::Close => device.close(),
    }
}

pub(super) fn done(device: &CudaDevice) -> Done {
    let thread = device.threads().first().copied().unwrap_or(0);
    Done { totals: device.totals().clone(), version: device.runtime_version(), thread }
}
