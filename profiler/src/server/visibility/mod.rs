//! What is seen of which server: exact, inferred or not visible, with the reason.
//!
//! In: a server's name as [`super::known::recognise`] gives it, and what holds for this one. Out: a [`View`] for each
//! [`Aspect`]. The one source for `gpuspan check --pid` and `docs/servers.md`. Deliberately absent: how it is found out
//! what holds.

mod page;
mod table;
#[cfg(test)]
mod tests;

pub use page::markdown;
pub use table::SERVERS;

/// Something about a request or a step that one may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aspect {
    /// The request arrived at the server.
    Arrival,
    /// It began to wait for the engine.
    QueueStart,
    /// It was taken into a batch.
    QueueEnd,
    /// Its prompt began to be computed.
    PrefillStart,
    /// Its first token was there.
    FirstToken,
    /// Each further one.
    EachToken,
    /// It ended, and why.
    End,
    /// How many requests a step had.
    BatchSize,
    /// Which.
    Members,
    /// Length of its prompt, and how much of it was cached.
    PromptTokens,
    /// Tokens generated.
    GeneratedTokens,
    /// How much of the cache of keys and values is in use.
    KvUsage,
}

impl Aspect {
    /// All of them, in the order of a request's life.
    pub const ALL: [Self; 12] = [
        Self::Arrival,
        Self::QueueStart,
        Self::QueueEnd,
        Self::PrefillStart,
        Self::FirstToken,
        Self::EachToken,
        Self::End,
        Self::BatchSize,
        Self::Members,
        Self::PromptTokens,
        Self::GeneratedTokens,
        Self::KvUsage,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::QueueStart => "queue start",
            Self::QueueEnd => "queue end",
            Self::PrefillStart => "prefill start",
            Self::FirstToken => "first token",
            Self::EachToken => "each token",
            Self::End => "end and reason",
            Self::BatchSize => "batch size",
            Self::Members => "members of a step",
            Self::PromptTokens => "prompt tokens",
            Self::GeneratedTokens => "generated tokens",
            Self::KvUsage => "KV cache use",
        }
    }
}

/// How well something is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sight {
    /// The server says it, or a call shows it.
    Exact,
    /// It follows from what is seen, and can be wrong.
    Inferred,
    /// It is not seen.
    NotVisible,
}

impl Sight {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Inferred => "inferred",
            Self::NotVisible => "not visible",
        }
    }
}

/// How well, and by what or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How well.
    pub sight: Sight,
    /// By what; of what is not visible, why.
    pub how: &'static str,
}

const fn exact(how: &'static str) -> Seen {
    Seen { sight: Sight::Exact, how }
}

const fn inferred(how: &'static str) -> Seen {
    Seen { sight: Sight::Inferred, how }
}

const fn hidden(how: &'static str) -> Seen {
    Seen { sight: Sight::NotVisible, how }
}

/// Something that holds for one server and changes what is seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holds {
    /// Nothing inside is heard: the library has no symbols here, messages go another way, or the adapter was demoted.
    Unheard,
    /// vLLM was started with `--disable-log-stats`.
    NoStatistics,
    /// vLLM has workers of its own processes, and the ring that it speaks to them through is read.
    Ring,
    /// The HTTP front end is written in Rust and runs in a process, or a part of one, without libzmq.
    RustFrontEnd,
    /// SGLang was started with `--enable-metrics`.
    Metrics,
    /// Symbols of llama.cpp's server itself are there, not only those of libllama.
    ServerSymbols,
    /// A backend of Triton runs an engine that batches by itself (vLLM, TensorRT-LLM).
    EngineInside,
}

/// What something that holds changes.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When this holds.
    pub when: Holds,
    /// What it is, for readers.
    pub label: &'static str,
    /// What is seen differently.
    pub seen: &'static [(Aspect, Seen)],
}

/// What a server's adapter was tried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// The real server.
    Real(&'static str),
    /// A program of the tests that speaks the same format.
    StandIn(&'static str),
    /// There is no adapter: what is seen is what HTTP and the GPU show.
    Edge(&'static str),
}

impl Proven {
    /// As a sentence without its full stop.
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::Real(what) => format!("proven on the real server: {what}"),
            Self::StandIn(what) => format!("proven on a program of the tests: {what}"),
            Self::Edge(what) => format!("no adapter: {what}"),
        }
    }
}

/// A server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its name, as it is recognised.
    pub name: &'static str,
    /// How people call it.
    pub title: &'static str,
    /// What its adapter was tried on.
    pub proven: Proven,
    /// What is seen as it usually runs, in the order of [`Aspect::ALL`].
    pub usual: [Seen; 12],
    /// What changes that.
    pub changes: &'static [Change],
}

/// What is seen of one aspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Which.
    pub aspect: Aspect,
    /// How.
    pub seen: Seen,
}

/// The server of this name; the generic one for any other.
#[must_use]
pub fn server(name: &str) -> &'static Server {
    SERVERS.iter().find(|server| server.name == name).unwrap_or(&table::GENERIC)
}

impl Server {
    /// What is seen of it, where these hold.
    #[must_use]
    pub fn views(&self, holds: &[Holds]) -> Vec<View> {
        let usual = if holds.contains(&Holds::Unheard) { &table::GENERIC.usual } else { &self.usual };
        let view = |(aspect, seen): (Aspect, &Seen)| View { aspect, seen: *seen };
        let mut views: Vec<View> = Aspect::ALL.into_iter().zip(usual).map(view).collect();
        for change in self.changes.iter().filter(|change| holds.contains(&change.when)) {
            for (aspect, seen) in change.seen {
                let view = views.iter_mut().find(|view| view.aspect == *aspect);
                if let Some(view) = view {
                    view.seen = *seen;
                }
            }
        }
        views
    }
}
