//! How sure a statement is.

/// How sure an edge between a request and GPU work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Evidence {
    /// The same id on both sides.
    E0,
    /// The same message or call.
    E1,
    /// The only candidate.
    E2,
    /// One of several candidates: a share, never a fact.
    E3,
    /// None.
    E4,
}

impl Evidence {
    /// The name in attributes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::E0 => "E0",
            Self::E1 => "E1",
            Self::E2 => "E2",
            Self::E3 => "E3",
            Self::E4 => "E4",
        }
    }
}
