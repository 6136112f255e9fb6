//! Questions in PromQL to a backend on loopback. In: an expression. Out: the series that answer it, with numbers.
//! Absent: TLS, redirects and keeping connections.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A backend, and the time to ask it about.
#[derive(Clone, Debug)]
pub struct Source {
    port: u16,
    /// Unix time, seconds.
    window: (f64, f64),
    is_victoria: bool,
}

/// Levels without a unit, which VictoriaMetrics takes for ratios.
const RATIOS: [&str; 2] = ["hw_status", "gpuspan_gpu_throttled"];

impl Source {
    pub fn new(port: u16, window: (f64, f64)) -> Self {
        Self { port, window, is_victoria: false }
    }

    pub fn victoria(port: u16, window: (f64, f64)) -> Self {
        Self { is_victoria: true, ..Self::new(port, window) }
    }

    /// An expression, or a list of names, in this backend's words.
    fn said(&self, expression: &str) -> String {
        let renamed = |text: String, name: &&str| text.replace(name, &format!("{name}_ratio"));
        if self.is_victoria {
            RATIOS.iter().fold(expression.to_owned(), renamed)
        } else {
            expression.to_owned()
        }
    }

    /// How many series answer over the window with at least one number.
    pub fn range(&self, expression: &str) -> Result<usize> {
        let (start, end) = self.window;
        let expression = self.said(expression);
        let query = [
            ("query", expression.as_str()),
            ("start", &start.to_string()),
            ("end", &end.to_string()),
            ("step", "1"),
        ];
        let answer = self.get("/api/v1/query_range", &query)?;
        let series = answer["result"].as_array().context("no result")?;
        Ok(series
            .iter()
            .filter(|series| series["values"].as_array().is_some_and(|all| all.iter().any(is_number)))
            .count())
    }

    /// The labels of each series that has a number at the end of the window.
    pub fn now(&self, expression: &str) -> Result<Vec<Value>> {
        let (_, end) = self.window;
        let answer = self
            .get("/api/v1/query", &[("query", self.said(expression).as_str()), ("time", &end.to_string())])?;
        let series = answer["result"].as_array().context("no result")?;
        Ok(series
            .iter()
            .filter(|series| is_number(&series["value"]))
            .map(|series| series["metric"].clone())
            .collect())
    }

    /// Names of everything that is stored.
    pub fn names(&self) -> BTreeSet<String> {
        let answer = self.get("/api/v1/label/__name__/values", &[]).unwrap();
        let plain = |name: &str| {
            RATIOS
                .iter()
                .find(|ratio| name == format!("{ratio}_ratio"))
                .map_or(name, |ratio| ratio)
                .to_owned()
        };
        answer.as_array().unwrap().iter().map(|name| plain(name.as_str().unwrap())).collect()
    }

    /// The field `data` of an answer of Prometheus's API.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        // VictoriaMetrics hides the newest 30 s and remembers answers unless it is told not to; Prometheus ignores both.
        let all = query.iter().chain(&[("latency_offset", "1ms"), ("nocache", "1")]);
        let query: Vec<_> = all.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let (status, body) = get(self.port, &format!("{path}?{}", query.join("&")))?;
        ensure!(status == 200, "{status}: {body}");
        let mut answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"].take())
    }
}

/// A pair of a time and a value that is a number. (Quantiles of nothing are NaN.)
fn is_number(pair: &Value) -> bool {
    pair[1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

/// HTTP/1.0, so that the answer comes whole and ends with the connection.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn encode(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}
