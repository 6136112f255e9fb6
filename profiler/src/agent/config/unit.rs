//! Values of the configuration that have a unit or stand for one of a few words, from text and back.

use clap::ValueEnum;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// A time: `500ms`, `10s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A share of one core, or of the requests: `3%`. As a number 1 is all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

/// A number of bytes: `400MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Where something is answered: an address and a port, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

/// One of the words that a flag of the command line takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word<T>(pub T);

const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

impl Time {
    /// So many seconds.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Share {
    /// So many hundredths.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        Self(percent / 100.0)
    }
}

impl Size {
    /// So many MiB.
    #[must_use]
    pub fn mebibytes(number: u64) -> Self {
        Self(number << 20)
    }
}

impl Default for Listen {
    /// Where Prometheus' exporters are by convention, for this machine alone.
    fn default() -> Self {
        Self(Some(SocketAddr::from(([127, 0, 0, 1], 9464))))
    }
}

/// A section of which nothing is left but its name, since all of it is commented out, is as it is without one.
pub fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// A number and its unit.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// `number` times the factor of `unit`, a whole number.
fn whole(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text.trim());
    let factor = units.iter().find(|(known, _)| *known == unit).map(|(_, factor)| *factor)?;
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.fract() == 0.0 && value < 1e15).then_some(value as u64)
}

/// With the largest unit that leaves a whole number.
fn with_unit(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let fits = units.iter().filter(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
    let (unit, factor) = fits.max_by_key(|(_, factor)| *factor).copied().unwrap_or((smallest, 1));
    format!("{}{unit}", value / factor)
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = whole(text, &TIMES);
        let wrong = || format!("`{text}` is no time: write a number and a unit (ms, s, m, h), such as 10s");
        millis.map(|millis| Self(Duration::from_millis(millis))).ok_or_else(wrong)
    }
}

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_unit(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIMES, "ms"))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text.trim());
        let share = number.parse().ok().filter(|share: &f64| share.is_finite() && unit == "%");
        share
            .map(Self::percent)
            .ok_or_else(|| format!("`{text}` is no share: write a number and %, such as 3%"))
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was written with a few digits is told with as many.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no size: write a number and a unit (B, KiB, MiB, GiB), such as 400MiB");
        whole(text, &SIZES).map(Self).ok_or_else(wrong)
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_unit(self.0, &SIZES, "B"))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let number = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = number.as_deref().unwrap_or(text).parse();
        address.map(|address| Self(Some(address))).map_err(|_| {
            format!(
                "`{text}` is no place to listen: write an address and a port, such as 127.0.0.1:9464, or off"
            )
        })
    }
}

impl Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl<T: ValueEnum> FromStr for Word<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        T::from_str(text, false).map(Self).map_err(|_| {
            let near = super::read::nearest(text, words::<T>());
            let hint = near.map_or_else(String::new, |word| format!(", did you mean `{word}`?"));
            format!("`{text}` is none of {}{hint}", words::<T>().join(", "))
        })
    }
}

impl<T: ValueEnum> Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// The words that stand for values of a type.
fn words<T: ValueEnum>() -> Vec<String> {
    let word = |value: &T| Some(value.to_possible_value()?.get_name().to_owned());
    T::value_variants().iter().filter_map(word).collect()
}

/// Text in the file, and what the schema says of it.
macro_rules! as_text {
    ($type:ident $(<$of:ident: $bound:ident>)?, $name:expr, $schema:expr) => {
        impl $(<$of: $bound>)? Serialize for $type $(<$of>)? {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de $(, $of: $bound)?> Deserialize<'de> for $type $(<$of>)? {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }

        impl $(<$of: $bound>)? JsonSchema for $type $(<$of>)? {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

as_text!(Time, "Time".into(), json_schema!({"type": "string", "pattern": "^[0-9.]+ *(ms|s|m|h)$"}));
as_text!(Share, "Share".into(), json_schema!({"type": "string", "pattern": "^[0-9.]+ *%$"}));
as_text!(Size, "Size".into(), json_schema!({"type": "string", "pattern": "^[0-9.]+ *(B|KiB|MiB|GiB)$"}));
as_text!(Listen, "Listen".into(), json_schema!({"type": "string", "pattern": "^(off|.+:[0-9]+)$"}));
as_text!(
    Word<T: ValueEnum>,
    words::<T>().join("_or_").into(),
    json_schema!({"type": "string", "enum": words::<T>()})
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::Detail;

    fn check<T: FromStr<Err = String> + Display + PartialEq + fmt::Debug>(texts: &[(&str, T, &str)]) {
        for (text, value, told) in texts {
            assert_eq!(text.parse::<T>().as_ref(), Ok(value), "{text}");
            assert_eq!(value.to_string(), *told);
        }
    }

    #[test]
    fn values_have_units_and_come_back_as_they_were() {
        check(&[
            ("1s", Time::from_secs(1), "1s"),
            ("1500 ms", Time(Duration::from_millis(1500)), "1500ms"),
            ("1.5m", Time::from_secs(90), "90s"),
            ("0s", Time::from_secs(0), "0ms"),
        ]);
        check(&[("3%", Share(0.03), "3%"), ("0.1 %", Share(0.001), "0.1%"), ("250%", Share(2.5), "250%")]);
        check(&[
            ("400MiB", Size(400 << 20), "400MiB"),
            ("1.5GiB", Size(3 << 29), "1536MiB"),
            ("7B", Size(7), "7B"),
        ]);
        check(&[
            ("off", Listen(None), "off"),
            ("localhost:1", Listen(Some(SocketAddr::from(([127, 0, 0, 1], 1)))), "127.0.0.1:1"),
        ]);
        check(&[("aggregate", Word(Detail::Aggregate), "aggregate")]);
    }

    #[test]
    fn what_has_no_unit_is_refused() {
        for text in ["1", "s", "-1s", "1d", "", "1e9s", "0.0001ms", "inf s"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert!(["3", "%", "x%", "-3%"].iter().all(|text| text.parse::<Share>().is_err()));
        assert!(["400", "400MB", "0.3B", "99999999GiB"].iter().all(|text| text.parse::<Size>().is_err()));
        assert!(["9464", "host:80", ""].iter().all(|text| text.parse::<Listen>().is_err()));
        let error = "agregate".parse::<Word<Detail>>().unwrap_err();
        assert_eq!(error, "`agregate` is none of events, aggregate, did you mean `aggregate`?");
    }
}
