//! Numbers as the formats write them. Absent: a loss of digits: each is the shortest text that reads back as the same
//! double.

/// A sample's value.
pub fn value(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        number.to_string()
    }
}

/// A bound in OpenMetrics, which has one canonical text for each so that they can be compared as labels: `1.0`, `1e+06`.
pub fn canonical_bound(bound: f64) -> String {
    let scientific = format!("{bound:e}");
    let parts =
        scientific.split_once('e').and_then(|(digits, power)| Some((digits, power.parse::<i32>().ok()?)));
    match parts {
        Some((digits, power)) if !(-4..6).contains(&power) && bound != 0.0 => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.unsigned_abs())
        }
        _ => format!("{bound:?}"),
    }
}

/// A Unix time in nanoseconds as seconds, to the millisecond.
pub fn seconds(time_ns: u64) -> String {
    let millis = time_ns / 1_000_000;
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let cases = [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (42.0, "42"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e21, "1000000000000000000000"),
        ];
        for (number, text) in cases {
            assert_eq!(value(number), text);
        }
    }

    #[test]
    fn bounds() {
        let cases = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (2.5, "2.5"),
            (999_999.0, "999999.0"),
            (1e6, "1e+06"),
            (2_097_152.0, "2.097152e+06"),
            (1e100, "1e+100"),
            (-1.0, "-1.0"),
        ];
        for (bound, text) in cases {
            assert_eq!(canonical_bound(bound), text);
        }
    }

    #[test]
    fn times() {
        assert_eq!(seconds(1_700_000_000_012_999_999), "1700000000.012");
    }
}
