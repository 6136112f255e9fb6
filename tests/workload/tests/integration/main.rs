//! The server and the client as separate processes and threads: what one end counts, the other must have sent.

#[cfg(test)]
mod gpu;
#[cfg(test)]
mod http;
#[cfg(test)]
mod support;
