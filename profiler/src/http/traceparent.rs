//! The W3C `traceparent` header, read by the rules of the Recommendation for participants that only observe.
//!
//! In: a header's value. Out: the context, or nothing: one bad field voids the whole header.

/// A caller's trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The caller's span.
    pub parent: [u8; 8],
    /// Flags of version 00: bit 0 sampled, bit 1 random trace id; all others are 0.
    pub flags: u8,
}

/// Flags that version 00 defines. The rest must be treated as 0.
const KNOWN_FLAGS: u8 = 0b11;

impl TraceParent {
    /// Whether the caller records the trace.
    pub fn sampled(self) -> bool {
        self.flags & 1 == 1
    }

    /// Reads a header's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = value.trim_ascii().splitn(5, |byte| *byte == b'-');
        let [version] = hex::<1>(fields.next()?)?;
        let trace_id = hex::<16>(fields.next()?)?;
        let parent = hex::<8>(fields.next()?)?;
        let [flags] = hex::<1>(fields.next()?)?;
        // Later versions may append fields, version 00 may not.
        let more = fields.next().is_some();
        let valid = version != 0xff && !(version == 0 && more) && trace_id != [0; 16] && parent != [0; 8];
        valid.then_some(Self { trace_id, parent, flags: flags & KNOWN_FLAGS })
    }
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Upper case is invalid here.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_recommendation() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = "b7ad6b7169203331";
        let zero = "0".repeat(32);
        let cases = [
            (format!("00-{trace}-{parent}-01"), Some(1)),
            (format!("00-{trace}-{parent}-00"), Some(0)),
            (format!("00-{trace}-{parent}-03"), Some(3)),
            (format!("00-{trace}-{parent}-ff"), Some(3)),
            (format!(" 00-{trace}-{parent}-01\t"), Some(1)),
            (format!("cc-{trace}-{parent}-01-future-fields"), Some(1)),
            (format!("cc-{trace}-{parent}-01"), Some(1)),
            (format!("cc-{trace}-{parent}-01future"), None),
            (format!("00-{trace}-{parent}-01-future"), None),
            (format!("ff-{trace}-{parent}-01"), None),
            (format!("00-{}-{parent}-01", trace.to_uppercase()), None),
            (format!("00-{zero}-{parent}-01"), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{trace}-{parent}-1"), None),
            (format!("00-{trace}-{parent}"), None),
            (format!("00-{}-{parent}-01", &trace[..31]), None),
            (String::new(), None),
        ];
        for (value, flags) in cases {
            let parsed = TraceParent::parse(value.as_bytes());
            assert_eq!(parsed.map(|context| context.flags), flags, "{value}");
            assert!(parsed.is_none_or(|context| context.trace_id[0] == 0x0a && context.parent[7] == 0x31));
        }
    }
}
