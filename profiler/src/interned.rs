//! Names out of a file as long-lived as those of the program: adapters, schemas, reasons, roles.
//!
//! In: texts. Out: the same, for good. Many types carry such names as `&'static str`, since there are a few hundred of
//! them and all stand in the program; a recording brings those of the program that made it. What a hostile file can
//! have kept is bounded, in number and in length.

use serde::{Deserialize, Deserializer};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// A name that lives as long as the program. The alias keeps serde from borrowing it from what it reads.
pub type Name = &'static str;

/// Names that are kept at most, and bytes of each: the program has a few hundred of a sentence each.
const MOST: usize = 4096;
const LONGEST: usize = 512;

/// In the place of what found no room.
const LEFT_OUT: Name = "(a name that found no room)";

static KEPT: Mutex<Option<HashSet<Name>>> = Mutex::new(None);

/// The name, for good.
#[must_use]
pub fn keep(name: &str) -> Name {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_with(HashSet::new);
    match kept.get(name) {
        Some(known) => known,
        None if kept.len() < MOST && name.len() <= LONGEST => {
            let name: Name = Box::leak(name.into());
            kept.insert(name);
            name
        }
        None => LEFT_OUT,
    }
}

/// For `#[serde(deserialize_with)]`.
///
/// # Errors
/// When there is no text.
pub fn one<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
    String::deserialize(from).map(|name| keep(&name))
}

/// Likewise of a name that may be missing.
///
/// # Errors
/// When there is something else than a text.
pub fn maybe<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Name>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(|name| keep(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_what_is_too_long_not_at_all() {
        assert!(std::ptr::eq(keep("llama.cpp"), keep(&["llama", ".cpp"].concat())));
        assert_eq!(keep(&"x".repeat(LONGEST + 1)), LEFT_OUT);
    }
}
