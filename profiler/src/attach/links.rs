//! The links of one library in one process: dropping or detaching them takes the probes out.

use super::kernel::{ENTER, Kernel, KernelError, LEAVE, SERVER_ENTER, SERVER_LEAVE, TLS_ENTER, TLS_LEAVE};
use super::library::{self, Library};
use super::multi::{self, Link, MultiError, MultiProgram, Side};
use super::site::Cost;
use crate::probe::{self, Family, Results};
use aya::programs::ProgramError;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use profiler_common::cookie::Cookie;
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

/// For whom probes are placed, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The target group.
    pub group: u8,
    /// With those on functions of the GPU's libraries.
    pub gpu: bool,
}

impl Scope {
    /// All probes, for the only target.
    pub const ALL: Self = Self { group: 0, gpu: true };
}

/// Attached probes.
#[derive(Default)]
pub struct Links {
    multi: Vec<Link>,
    perf: Vec<UProbeLink>,
    /// Those on functions of the GPU's libraries: the first to go where probes cost too much.
    gpu: Option<Box<Self>>,
    /// Some of the GPU's functions are not probed though they could be.
    lacks_gpu: bool,
    /// Of a message queue, those on its receives: a program that asks again and again pays for each.
    receives: Option<Box<Self>>,
}

impl Links {
    /// Attaches every point of `library`, which is the file at `path`, in process `pid` alone, for a target group.
    ///
    /// # Errors
    /// When the kernel refuses; nothing stays attached then.
    pub fn attach(
        kernel: &mut Kernel,
        scope: Scope,
        path: &Path,
        pid: u32,
        library: &Library,
    ) -> Result<Self, LinkError> {
        let mut links = Self::default();
        let [gpu, tls, server] = families(&probes(library, scope.group, kernel.results()));
        links.lacks_gpu = !scope.gpu && !gpu.1.is_empty();
        if scope.gpu && !gpu.1.is_empty() {
            let mut own = Self::default();
            own.add(kernel, path, pid, gpu.0, &gpu.1)?;
            links.gpu = Some(Box::new(own));
        }
        links.add(kernel, path, pid, tls.0, &tls.1)?;
        if kernel.listens_inside() {
            let (receives, others): (Vec<_>, _) =
                server.1.into_iter().partition(|probe| probe.api.is_receive());
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

    /// Takes the probes on the GPU's functions out.
    pub fn stop_gpu(&mut self) {
        if let Some(links) = self.gpu.take() {
            self.lacks_gpu = true;
            links.stop();
        }
    }

    /// Whether some of the GPU's functions are not probed though they could be.
    #[must_use]
    pub fn lacks_gpu(&self) -> bool {
        self.lacks_gpu
    }

    /// Takes all probes out of a process that goes on calling: those on returns first, since a return whose entry was not
    /// seen counts as lost.
    pub fn stop(mut self) {
        for links in [&mut self.receives, &mut self.gpu].into_iter().flatten() {
            // They were attached last.
            drop((links.multi.pop(), links.perf.pop()));
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
        probes: &[Probe],
    ) -> Result<(), LinkError> {
        match kernel.multi() {
            Some(programs) => {
                let (enter, leave) = (programs.get(enter)?, programs.get(leave)?);
                self.multi.extend(multi_links(enter, leave, path, pid, probes)?);
            }
            None => {
                for probe in probes {
                    let programs = [enter, leave].into_iter();
                    for name in programs.take(1 + usize::from(probe.cookie.has_return())) {
                        self.perf.push(perf_link(kernel, name, path, pid, *probe)?);
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
        let multi = multi_links(&self.0, &self.0, path, pid, &probes(library, 0, Results::Some))?;
        Ok(Links { multi, ..Links::default() })
    }
}

/// A probe that is to be placed.
#[derive(Clone, Copy)]
struct Probe {
    /// Offset in the file.
    offset: u64,
    api: &'static probe::Api,
    cookie: Cookie,
}

/// The programs of each family of probes, and their places in the library.
fn families(probes: &[Probe]) -> [([&'static str; 2], Vec<Probe>); 3] {
    let of = |family| probes.iter().copied().filter(|probe| probe.api.layer.family() == family).collect();
    [
        ([ENTER, LEAVE], of(Family::Gpu)),
        ([TLS_ENTER, TLS_LEAVE], of(Family::Tls)),
        ([SERVER_ENTER, SERVER_LEAVE], of(Family::Server)),
    ]
}

/// Everything that can be probed in a library, for a target group.
fn probes(library: &Library, group: u8, results: Results) -> Vec<Probe> {
    let probe = |point: &library::Point| {
        let api = probe::api(point.api)?;
        let dear = point.site.cost == Cost::SingleStepped;
        Some(Probe {
            offset: point.offset,
            api,
            cookie: Cookie { dear, ..api.cookie(point.api, group, results) },
        })
    };
    library.points.iter().filter_map(probe).collect()
}

/// One link for all entries and one for all returns; entries first, so that no return finds its entry missing.
fn multi_links(
    enter: &MultiProgram,
    leave: &MultiProgram,
    path: &Path,
    pid: u32,
    probes: &[Probe],
) -> Result<Vec<Link>, MultiError> {
    let mut links = Vec::new();
    for (program, side) in [(enter, Side::Entry), (leave, Side::Return)] {
        let wanted = probes.iter().filter(|probe| side == Side::Entry || probe.cookie.has_return());
        let places: Vec<_> =
            wanted.map(|probe| multi::Point { offset: probe.offset, cookie: probe.cookie.pack() }).collect();
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
    probe: Probe,
) -> Result<UProbeLink, LinkError> {
    let point = UProbeAttachPoint {
        location: UProbeAttachLocation::AbsoluteOffset(probe.offset),
        cookie: Some(probe.cookie.pack()),
    };
    let refused = |source| LinkError::Perf {
        symbol: probe.api.symbol,
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
            for others in [links.receives.take(), links.gpu.take()].into_iter().flatten() {
                links.multi.extend(others.multi);
                links.perf.extend(others.perf);
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
