//! One request over a connection, its answer into the record.

use anyhow::Result;

use super::connection::{Connection, Framing, Head};
use super::event;
use super::record::ClientRecord;
use super::{Api, ClientOptions};

/// A request that is to be aborted is closed after this many tokens.
const TOKENS_BEFORE_ABORT: usize = 2;

/// Sends `body` and reads the answer; `aborts` ends it early.
pub(super) fn run(
    connection: &mut Connection,
    options: &ClientOptions,
    body: &[u8],
    aborts: bool,
    record: &mut ClientRecord,
) -> Result<()> {
    let (head, first_byte_ns) = loop {
        (record.local_port, record.ordinal) = connection.open()?;
        record.sent_ns = connection.send(path(options.api), &headers(options, record), body)?;
        match connection.head()? {
            Some(answer) => break answer,
            // The next round's connection is fresh, so it either answers or fails.
            None => connection.close(),
        }
    };
    record.status = head.status;
    record.first_byte_ns = Some(first_byte_ns);
    if head.ndjson || head.event_stream {
        stream(connection, &head, aborts, record)?;
    } else {
        whole(connection, &head, record)?;
    }
    if head.closes {
        connection.close();
    }
    Ok(())
}

fn stream(connection: &mut Connection, head: &Head, aborts: bool, record: &mut ClientRecord) -> Result<()> {
    let mut left = length(head);
    let mut buffer = Vec::new();
    while let Some(part) = connection.body_part(head.framing, &mut left)? {
        buffer.extend(part);
        event::drain(&mut buffer, head.ndjson, connection.last_read_ns, record);
        if aborts && record.deltas_ns.len() >= TOKENS_BEFORE_ABORT {
            record.aborted = true;
            return Ok(());
        }
    }
    Ok(())
}

fn whole(connection: &mut Connection, head: &Head, record: &mut ClientRecord) -> Result<()> {
    let mut left = length(head);
    let mut body = Vec::new();
    while let Some(part) = connection.body_part(head.framing, &mut left)? {
        body.extend(part);
    }
    event::whole(&body, connection.last_read_ns, record);
    Ok(())
}

fn length(head: &Head) -> usize {
    if let Framing::Length(length) = head.framing { length } else { 0 }
}

fn path(api: Api) -> &'static str {
    match api {
        Api::Chat => "/v1/chat/completions",
        Api::Completions => "/v1/completions",
        Api::Ollama => "/api/generate",
    }
}

fn headers(options: &ClientOptions, record: &ClientRecord) -> String {
    let mut headers = String::new();
    if let (Some(trace), Some(parent)) = (&record.trace_id, &record.parent_id) {
        headers += &format!("traceparent: 00-{trace}-{parent}-01\r\n");
    }
    if let Some(writes) = &options.writes {
        headers += &format!("x-workload-writes: {writes}\r\n");
    }
    headers
}
