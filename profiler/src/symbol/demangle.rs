//! Mangled names → what a person reads. In: a symbol. Out: text of bounded length. Absent: anything but C++ names of the
//! Itanium ABI, which is what nvcc writes.

use cpp_demangle::{DemangleOptions, Symbol};
use std::fmt;

/// The most that a name may unfold to: substitutions let a short symbol stand for a text without end. The longest
/// name of a real kernel seen has 9,899 bytes.
const MOST: usize = 64 << 10;

/// A symbol as a person reads it; a name that is not mangled stays as it is.
#[must_use]
pub fn demangle(symbol: &str) -> String {
    bounded(symbol, DemangleOptions::new()).unwrap_or_else(|| symbol.to_owned())
}

/// What the symbol says, if it is mangled and says no more than makes sense.
pub(super) fn bounded(symbol: &str, options: DemangleOptions) -> Option<String> {
    let parsed = Symbol::new(symbol).ok()?;
    let mut text = Bounded(String::new());
    parsed.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MOST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable() {
        assert_eq!(demangle("_Z9flash_fwdPfPKfi"), "flash_fwd(float*, float const*, int)");
        assert_eq!(demangle("plain_c"), "plain_c");
    }

    #[test]
    fn a_name_that_unfolds_without_end_stays_as_it_is() {
        // Each argument is a pair of the one before: 2^40 of them.
        let pairs: String = (0..40)
            .map(|i| format!("1pIS{0}_S{0}_E", if i == 0 { String::new() } else { base36(i - 1) }))
            .collect();
        let bomb = format!("_Z1f1a{pairs}");
        assert!(demangle(&bomb).len() <= MOST);
    }

    fn base36(number: u32) -> String {
        char::from_digit(number % 36, 36).map(|digit| digit.to_ascii_uppercase()).into_iter().collect()
    }
}
