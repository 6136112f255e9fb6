//! A device's process, as vLLM's and SGLang's workers are: this program again, which takes orders and answers them, a JSON
//! line each, through pipes. It ends when nobody can order any more.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

use super::cuda::{CudaDevice, Place};
use super::ranks::{Done, Link, Order, done, obey};
use crate::options::ServerOptions;
use crate::truth::DeviceTotals;

/// The front's end.
pub(super) struct ProcessLink {
    child: Child,
    /// None once nothing more is asked.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl ProcessLink {
    pub(super) fn spawn(device: usize, options: &ServerOptions) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(options.to_args()).args(["--rank", &device.to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("failed to start a device's process")?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.context("a device's process has no standard output")?);
        Ok(Self { child, orders, answers })
    }

    fn gone(&self) -> String {
        format!("the process of a device is gone (pid {})", self.child.id())
    }
}

impl Link for ProcessLink {
    fn order(&mut self, order: Order) -> Result<()> {
        let gone = self.gone();
        write_line(self.orders.as_mut().context("a device's process is ending")?, &order).context(gone)
    }

    fn answer(&mut self) -> Result<Done> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).with_context(|| self.gone())?;
        ensure!(read > 0, self.gone());
        serde_json::from_str::<Result<Done, String>>(&line)?.map_err(|error| anyhow!(error))
    }

    fn end(mut self: Box<Self>) -> Result<()> {
        self.orders = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "the process of a device ended with {status}");
        Ok(())
    }
}

impl Drop for ProcessLink {
    fn drop(&mut self) {
        // It ends once nothing can be asked any more; waiting fails only where that has been done before.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// The life of a device's process.
pub(crate) fn serve(options: &ServerOptions, device: usize) -> Result<()> {
    let mut answers = std::io::stdout().lock();
    let place = Place { device: i32::try_from(device)?, samples: device.is_multiple_of(options.devices) };
    let mut opened = match CudaDevice::open(options, place) {
        Ok(opened) => opened,
        Err(error) => return write_line(&mut answers, &Err::<Done, _>(format!("{error:#}"))),
    };
    write_line(&mut answers, &Ok::<_, String>(done(&opened)))?;
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let obeyed = obey(&mut opened, order).map(|()| match order {
            Order::Close => done(&opened),
            _ => brief(&opened),
        });
        write_line(&mut answers, &obeyed.map_err(|error| format!("{error:#}")))?;
    }
    Ok(())
}

/// What a step's line in the truth log needs: names of calls and kernels come at the end.
fn brief(device: &CudaDevice) -> Done {
    let Done { totals, version, thread } = done(device);
    let totals = DeviceTotals { calls: Default::default(), kernels: Default::default(), ..totals };
    Done { totals, version, thread }
}

fn write_line(to: &mut impl Write, value: &impl serde::Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    Ok(to.flush()?)
}
