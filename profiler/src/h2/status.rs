//! The status codes of gRPC (gRPC, `doc/statuscodes.md`).
//!
//! In: the number in `grpc-status`. Out: its name, and whose fault it is.

/// A status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcStatus {
    /// Done.
    Ok,
    /// The client gave it up.
    Cancelled,
    /// The server is to blame, by OpenTelemetry's conventions for gRPC servers (semantic conventions 1.44,
    /// `docs/rpc/grpc.md`).
    ServerError,
    /// Anything else: the client asked for what it cannot have.
    ClientError,
}

/// By number.
const CODES: [(&str, RpcStatus); 17] = [
    ("OK", RpcStatus::Ok),
    ("CANCELLED", RpcStatus::Cancelled),
    ("UNKNOWN", RpcStatus::ServerError),
    ("INVALID_ARGUMENT", RpcStatus::ClientError),
    ("DEADLINE_EXCEEDED", RpcStatus::ServerError),
    ("NOT_FOUND", RpcStatus::ClientError),
    ("ALREADY_EXISTS", RpcStatus::ClientError),
    ("PERMISSION_DENIED", RpcStatus::ClientError),
    ("RESOURCE_EXHAUSTED", RpcStatus::ClientError),
    ("FAILED_PRECONDITION", RpcStatus::ClientError),
    ("ABORTED", RpcStatus::ClientError),
    ("OUT_OF_RANGE", RpcStatus::ClientError),
    ("UNIMPLEMENTED", RpcStatus::ServerError),
    ("INTERNAL", RpcStatus::ServerError),
    ("UNAVAILABLE", RpcStatus::ServerError),
    ("DATA_LOSS", RpcStatus::ServerError),
    ("UNAUTHENTICATED", RpcStatus::ClientError),
];

impl RpcStatus {
    /// Of an answer with this `grpc-status`. Clients take one without, and numbers that nobody knows, for `UNKNOWN`.
    #[must_use]
    pub fn of(code: Option<u32>) -> Self {
        find(code).map_or(Self::ServerError, |(_, status)| status)
    }
}

/// The value of `rpc.response.status_code`: the code's name, or its number where it has none.
#[must_use]
pub fn status_name(code: u32) -> String {
    find(Some(code)).map_or_else(|| code.to_string(), |(name, _)| name.to_owned())
}

fn find(code: Option<u32>) -> Option<(&'static str, RpcStatus)> {
    CODES.get(usize::try_from(code?).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        for (code, name, status) in [
            (0, "OK", RpcStatus::Ok),
            (1, "CANCELLED", RpcStatus::Cancelled),
            (4, "DEADLINE_EXCEEDED", RpcStatus::ServerError),
            (8, "RESOURCE_EXHAUSTED", RpcStatus::ClientError),
            (12, "UNIMPLEMENTED", RpcStatus::ServerError),
            (14, "UNAVAILABLE", RpcStatus::ServerError),
            (16, "UNAUTHENTICATED", RpcStatus::ClientError),
            (17, "17", RpcStatus::ServerError),
        ] {
            assert_eq!((status_name(code).as_str(), RpcStatus::of(Some(code))), (name, status));
        }
        assert_eq!(RpcStatus::of(None), RpcStatus::ServerError);
    }
}
