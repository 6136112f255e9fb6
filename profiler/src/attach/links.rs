//! The links of one library in one process: dropping or detaching them takes the probes out.

use super::kernel::{
    ENTER, GROUP, Kernel, KernelError, LEAVE, SERVER_ENTER, SERVER_LEAVE, TLS_ENTER, TLS_LEAVE,
};
use super::library::Library;
use super::multi::{self, Link, MultiError, MultiProgram, Side};
use crate::probe::{self, Family, Results};
use aya::programs::ProgramError;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use std::path::Path;

/// Why a library could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A multi link was refused.
    #[error(transparent)]
    Multi(#[from] MultiError),
    /// A perf link was refused.
    #[error("failed to attach `{symbol}` in {library} (pid {pid})")]
    Perf {
        /// Function.
        symbol: &'static str,
        /// File.
        library: String,
        /// Process.
        pid: u32,
        /// What aya or the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The programs are not there.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Attached probes.
#[derive(Default)]
pub struct Links {
    multi: Vec<Link>,
    perf: Vec<UProbeLink>,
    /// Of a message queue, those on its receives: a program that asks again and again pays for each.
    receives: Option<Box<Self>>,
}

impl Links {
    /// Attaches every point of `library`, which is the file at `path`, in process `pid` alone.
    ///
    /// # Errors
    /// When the kernel refuses; nothing stays attached then.
    pub fn attach(kernel: &mut Kernel, path: &Path, pid: u32, library: &Library) -> Result<Self, LinkError> {
        let mut links = Self::default();
        let [gpu, tls, server] = families(library);
        for (programs, points) in [gpu, tls] {
            links.add(kernel, path, pid, programs, &points)?;
        }
        if kernel.listens_inside() {
            let (receives, others): (Vec<_>, _) =
                server.1.into_iter().partition(|(_, api, _)| api.is_receive());
            links.add(kernel, path, pid, server.0, &others)?;
            if !receives.is_empty() {
                let mut own = Self::default();
                own.add(kernel, path, pid, server.0, &receives)?;
                links.receives = Some(Box::new(own));
            }
        }
        Ok(links)
    }

    /// Takes the probes on receives out; false when there are none.
    pub fn stop_receives(&mut self) -> bool {
        self.receives.take().map(|links| links.stop()).is_some()
    }

    /// Takes all probes out of a process that goes on calling: those on returns first, since a return whose entry was not
    /// seen counts as lost.
    pub fn stop(mut self) {
        if let Some(receives) = &mut self.receives {
            // They were attached last.
            drop((receives.multi.pop(), receives.perf.pop()));
        }
        drop((self.multi.pop(), self.perf.pop()));
        detach(vec![self]);
    }

    fn add(
        &mut self,
        kernel: &mut Kernel,
        path: &Path,
        pid: u32,
        [enter, leave]: [&'static str; 2],
        points: &[Point],
    ) -> Result<(), LinkError> {
        match kernel.multi() {
            Some(programs) => {
                let (enter, leave) = (programs.get(enter)?, programs.get(leave)?);
                self.multi.extend(multi_links(enter, leave, path, pid, points, kernel.results())?);
            }
            None => {
                for (offset, api, index) in points {
                    let programs = [enter, leave].into_iter();
                    for name in programs.take(1 + usize::from(has_return(kernel, api, *index))) {
                        self.perf.push(perf_link(kernel, name, path, pid, *offset, *index)?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A program that does nothing, to measure what probes cost by themselves.
pub struct EmptyProgram(MultiProgram);

impl EmptyProgram {
    /// Loads it.
    ///
    /// # Errors
    /// When the kernel has no multi links, or privileges lack.
    pub fn load() -> Result<Self, LinkError> {
        Ok(Self(MultiProgram::empty()?))
    }

    /// Attaches it as [`Links::attach`] attaches the real ones: at the same points, with the same return probes.
    ///
    /// # Errors
    /// When the kernel refuses; nothing stays attached then.
    pub fn attach(&self, path: &Path, pid: u32, library: &Library) -> Result<Links, LinkError> {
        let multi = multi_links(&self.0, &self.0, path, pid, &points(library), Results::Some)?;
        Ok(Links { multi, ..Links::default() })
    }
}

fn has_return(kernel: &Kernel, api: &probe::Api, index: u16) -> bool {
    api.cookie(index, GROUP, kernel.results()).has_return()
}

/// A probe: offset in the file, catalogue entry and its index.
type Point = (u64, &'static probe::Api, u16);

/// The programs of each family of probes, and their places in the library.
fn families(library: &Library) -> [([&'static str; 2], Vec<Point>); 3] {
    let of =
        |family| points(library).into_iter().filter(|(_, api, _)| api.layer.family() == family).collect();
    [
        ([ENTER, LEAVE], of(Family::Gpu)),
        ([TLS_ENTER, TLS_LEAVE], of(Family::Tls)),
        ([SERVER_ENTER, SERVER_LEAVE], of(Family::Server)),
    ]
}

fn points(library: &Library) -> Vec<Point> {
    let points = library.points.iter();
    points.filter_map(|point| Some((point.offset, probe::api(point.api)?, point.api))).collect()
}

/// One link for all entries and one for all returns; entries first, so that no return finds its entry missing.
fn multi_links(
    enter: &MultiProgram,
    leave: &MultiProgram,
    path: &Path,
    pid: u32,
    points: &[Point],
    results: Results,
) -> Result<Vec<Link>, MultiError> {
    let mut links = Vec::new();
    for (program, side) in [(enter, Side::Entry), (leave, Side::Return)] {
        let cookies = points.iter().map(|(offset, api, index)| (*offset, api.cookie(*index, GROUP, results)));
        let wanted = cookies.filter(|(_, cookie)| side == Side::Entry || cookie.has_return());
        let places: Vec<_> =
            wanted.map(|(offset, cookie)| multi::Point { offset, cookie: cookie.pack() }).collect();
        if !places.is_empty() {
            links.push(Link::attach(program, path, &places, pid, side)?);
        }
    }
    Ok(links)
}

fn perf_link(
    kernel: &mut Kernel,
    program: &'static str,
    path: &Path,
    pid: u32,
    offset: u64,
    index: u16,
) -> Result<UProbeLink, LinkError> {
    let Some(api) = probe::api(index) else { return Err(KernelError::Incomplete(program).into()) };
    let point = UProbeAttachPoint {
        location: UProbeAttachLocation::AbsoluteOffset(offset),
        cookie: Some(api.cookie(index, GROUP, kernel.results()).pack()),
    };
    let refused = |source| LinkError::Perf {
        symbol: api.symbol,
        library: path.display().to_string(),
        pid,
        source: Box::new(source),
    };
    let scope = std::num::NonZero::new(pid).map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
    let uprobe = kernel.uprobe(program)?;
    let id = uprobe.attach(point, path, scope).map_err(refused)?;
    uprobe.take_link(id).map_err(refused)
}

/// Takes all probes out, links in parallel: each waits for the kernel's grace period, and the waits overlap.
pub fn detach(all: Vec<Links>) {
    std::thread::scope(|scope| {
        for mut links in all {
            if let Some(receives) = links.receives.take() {
                links.multi.extend(receives.multi);
                links.perf.extend(receives.perf);
            }
            for link in links.multi {
                scope.spawn(move || drop(link));
            }
            if !links.perf.is_empty() {
                scope.spawn(move || drop(links.perf));
            }
        }
    });
}
