//! The fields of a message's head that are asked for, gathered from header blocks.
//!
//! In: fields as HPACK tells them. Out: [`Fields`], bounded, with what is not known. Fields that the profiler has no
//! use for (cookies, credentials) never come here.

use super::hpack::{Name, Receiver, Value};

/// Values longer than this are not kept: a cut value would be another value. Paths are cut later.
const MAX_VALUE: usize = 8 * 1024;
/// Fields of one block that are kept.
const MAX_FIELDS: usize = 48;

macro_rules! headers {
    ($($id:ident = $name:literal,)*) => {
        /// A field that is asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Header {
            $(#[doc = $name] $id,)*
        }

        impl Header {
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }

            /// Names are lower case in HTTP/2 (RFC 9113, section 8.2.1).
            pub(super) fn from_name(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() {
                    return Some(Self::$id);
                })*
                None
            }
        }
    };
}

headers! {
    Method = ":method",
    Path = ":path",
    Status = ":status",
    Scheme = ":scheme",
    Authority = ":authority",
    Host = "host",
    ContentType = "content-type",
    ContentLength = "content-length",
    ContentEncoding = "content-encoding",
    UserAgent = "user-agent",
    RequestId = "x-request-id",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    GrpcEncoding = "grpc-encoding",
    Te = "te",
}

/// What a header block says.
#[derive(Clone, Default)]
pub(super) struct Fields {
    kept: Vec<(Header, Box<[u8]>)>,
    /// Fields whose value is unknown although their name is known.
    unknown_values: Vec<Header>,
    /// Fields whose name is unknown.
    unknown_names: u32,
    /// The block was lost: everything is unknown.
    lost: bool,
}

/// What is known of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    Value(&'a [u8]),
    Absent,
    Unknown,
}

impl<'a> Seen<'a> {
    pub(super) fn value(self) -> Option<&'a [u8]> {
        match self {
            Self::Value(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_unknown(self) -> bool {
        self == Self::Unknown
    }
}

impl Fields {
    /// Those of a block that was lost.
    pub(super) fn lost() -> Self {
        Self { lost: true, ..Self::default() }
    }

    /// A field's first value.
    pub(super) fn get(&self, header: Header) -> Seen<'_> {
        match self.kept.iter().find(|(kept, _)| *kept == header) {
            Some((_, value)) => Seen::Value(value),
            None if self.lost || self.unknown_names > 0 || self.unknown_values.contains(&header) => {
                Seen::Unknown
            }
            None => Seen::Absent,
        }
    }

    /// The block has a pseudo-header that only requests have.
    pub(super) fn begins_request(&self) -> bool {
        let pseudo = [Header::Method, Header::Path, Header::Scheme, Header::Authority];
        pseudo
            .iter()
            .any(|header| matches!(self.get(*header), Seen::Value(_)) || self.unknown_values.contains(header))
    }

    /// Every field that is kept, as name and value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.kept.iter().map(|(header, value)| (header.name(), &**value))
    }

    #[cfg(test)]
    pub(super) fn unknown(&self) -> (usize, u32) {
        (self.unknown_values.len(), self.unknown_names)
    }
}

impl Receiver for Fields {
    fn field(&mut self, name: Name, value: Value<'_>) {
        match (name, value) {
            (Name::Known(_), _) if self.kept.len() + self.unknown_values.len() >= MAX_FIELDS => {
                self.unknown_names = self.unknown_names.saturating_add(1);
            }
            (Name::Known(header), Value::Known(value)) if value.len() <= MAX_VALUE => {
                self.kept.push((header, value.into()));
            }
            (Name::Known(header), _) => self.unknown_values.push(header),
            (Name::Unknown, _) => self.unknown_names = self.unknown_names.saturating_add(1),
            (Name::Other, _) => {}
        }
    }
}

/// Names only: values are not ours to show.
impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kept.iter().map(|(header, _)| header)).finish()
    }
}
