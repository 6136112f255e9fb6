//! What a client accepts → what it gets. In: the headers `Accept` and `Accept-Encoding`. Out: a format, and whether to
//! compress. Absent: refusal: a client that names nothing that there is gets the oldest format.

/// A format of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0: with exemplars, units and start times.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everything reads.
    Classic,
}

impl Format {
    /// `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// How much a client wants the format, if its media range covers it at all, and how precisely the range says so.
    fn quality_in(self, range: &Weighted) -> Option<(Precision, f32)> {
        let (kind, version) = match self {
            Self::OpenMetrics => ("application/openmetrics-text", "1.0.0"),
            Self::Classic => ("text/plain", "0.0.4"),
        };
        let precision = match range.token.as_str() {
            token if token == kind => Precision::Named,
            "*/*" => Precision::Anything,
            token => {
                let group = token.strip_suffix("/*").filter(|group| !group.is_empty())?;
                kind.split_once('/').filter(|(of, _)| *of == group)?;
                Precision::Group
            }
        };
        let is_ours = range.version.as_deref().is_none_or(|wanted| wanted == version);
        is_ours.then_some((precision, range.quality))
    }
}

/// The more precise of two ranges counts (RFC 9110, 12.5.1).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Precision {
    Anything,
    Group,
    Named,
}

/// The format for an `Accept` header. OpenMetrics only goes to those who name it: many who take anything cannot read it.
pub fn format(accept: &str) -> Format {
    let ranges: Vec<Weighted> = list(accept).collect();
    let wanted = |format: Format| {
        let covering = ranges.iter().filter_map(|range| format.quality_in(range));
        let best = covering.reduce(|best, next| if next > best { next } else { best });
        best.filter(|(_, quality)| *quality > 0.0)
    };
    let classic = wanted(Format::Classic).map_or(0.0, |(_, quality)| quality);
    match wanted(Format::OpenMetrics) {
        Some((Precision::Named, quality)) if quality >= classic => Format::OpenMetrics,
        _ => Format::Classic,
    }
}

/// Whether an `Accept-Encoding` header asks for gzip at least as much as for none.
pub fn gzip(accept_encoding: &str) -> bool {
    let codings: Vec<Weighted> = list(accept_encoding).collect();
    let quality =
        |name: &str| codings.iter().find(|coding| coding.token == name).map(|coding| coding.quality);
    let gzip = quality("gzip").or_else(|| quality("*")).unwrap_or(0.0);
    gzip > 0.0 && gzip >= quality("identity").unwrap_or(0.0)
}

/// One entry of a header that lists what is accepted.
#[derive(Debug)]
struct Weighted {
    /// In lower case.
    token: String,
    version: Option<String>,
    quality: f32,
}

fn list(header: &str) -> impl Iterator<Item = Weighted> + '_ {
    header.split(',').map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let token = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut weighted = Weighted { token, version: None, quality: 1.0 };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                // What is no number is not wanted.
                "q" => {
                    weighted.quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)
                }
                "version" => weighted.version = Some(value.to_owned()),
                _ => {}
            }
        }
        weighted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        use Format::{Classic, OpenMetrics};
        let cases = [
            ("", Classic),
            ("*/*", Classic),
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", Classic),
            ("application/json", Classic),
            ("text/plain", Classic),
            ("application/*", Classic),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=1.0.0", OpenMetrics),
            (r#"application/openmetrics-text; version="1.0.0""#, OpenMetrics),
            // Only a version that there is not.
            ("application/openmetrics-text; version=0.0.1", Classic),
            ("application/openmetrics-text; version=2.0.0, text/plain;q=0.1", Classic),
            ("application/openmetrics-text;q=0", Classic),
            ("application/openmetrics-text;q=0,*/*;q=1", Classic),
            ("application/openmetrics-text;q=x, text/plain;q=0.1", Classic),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.6", Classic),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", OpenMetrics),
            ("text/plain;q=0.5,application/openmetrics-text", OpenMetrics),
            // The precise word for text counts, not that for anything.
            ("*/*,text/plain;q=0.1,application/openmetrics-text;q=0.5", OpenMetrics),
            ("*/*,application/openmetrics-text;q=0.5", Classic),
            // Prometheus 2.53, 3.5 without and with the protobuf format, and VictoriaMetrics.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
                 application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.3",
                OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Classic),
        ];
        for (accept, expected) in cases {
            assert_eq!(format(accept), expected, "{accept}");
        }
    }

    #[test]
    fn encodings() {
        let cases = [
            ("", false),
            ("gzip", true),
            ("GZIP", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("gzip;q=0", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0,*", false),
            ("identity", false),
            ("identity;q=0.5,gzip;q=0.6", true),
            ("identity,gzip;q=0.6", false),
            ("zstd, br", false),
        ];
        for (accept, expected) in cases {
            assert_eq!(gzip(accept), expected, "{accept}");
        }
    }
}
