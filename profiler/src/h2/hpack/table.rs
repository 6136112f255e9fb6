//! The static and the dynamic table (RFC 7541, section 2.3 and appendix A), the latter with holes.
//!
//! In: insertions, size changes, losses. Out: what an index stands for, if that is certain.
//!
//! Indices count from the newest entry, so what was inserted since the reader looks is found again with certainty,
//! whatever lies below it: evictions take the oldest, and an entry too large to be inserted empties the table, so that
//! nothing older can be referred to. Everything below the entries seen is unknown until the table was surely empty.
//! Values of headers that nobody asks for are not stored.

use std::collections::VecDeque;

use super::Header;

/// The overhead of an entry (section 4.1).
const OVERHEAD: usize = 32;
/// Initial value of SETTINGS_HEADER_TABLE_SIZE (RFC 9113, section 6.5.2).
const INITIAL_SIZE: usize = 4096;
/// Entries that are remembered: those of a table of 64 KiB, the largest that clients ask for (Chromium).
const MAX_ENTRIES: usize = 2048;
/// Values longer than this are not remembered: no header that is asked for is.
const MAX_VALUE: usize = 2048;

/// What the name of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Name {
    /// One that is asked for.
    Known(Header),
    /// Any other.
    Other,
    /// It stands in a part of the table that was not seen.
    Unknown,
}

/// An entry of the dynamic table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    /// Length of the name, where known.
    pub(super) name_len: Option<usize>,
    /// `None`: not known, or not asked for.
    pub(super) value: Option<Box<[u8]>>,
    pub(super) value_len: usize,
}

impl Entry {
    /// At least this much, and exactly this where the name is known.
    fn size(&self) -> usize {
        self.name_len.unwrap_or(0).saturating_add(self.value_len).saturating_add(OVERHEAD)
    }
}

/// What an index stands for.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Static(&'static str, &'static str),
    Dynamic(&'a Entry),
    Unknown,
    Invalid,
}

#[derive(Debug)]
pub(super) struct Table {
    /// Newest first.
    entries: VecDeque<Entry>,
    /// Sum of the sizes of `entries`.
    size: usize,
    /// The table's maximum size, where known.
    max: Option<usize>,
    /// There is nothing below `entries`.
    complete: bool,
    /// What the decoder allows, where known.
    limit: Option<usize>,
}

impl Table {
    /// `complete`: no header block was missed.
    pub(super) fn new(complete: bool) -> Self {
        let known = complete.then_some(INITIAL_SIZE);
        Self { entries: VecDeque::new(), size: 0, max: known, complete, limit: known }
    }

    /// Header blocks were missed: what they inserted moved everything to an unknown place.
    pub(super) fn forget(&mut self) {
        *self = Self { limit: self.limit, ..Self::new(false) };
    }

    /// The greatest size that the decoder has announced, if it is known.
    pub(super) fn allow(&mut self, limit: Option<usize>) {
        self.limit = limit;
    }

    pub(super) fn get(&self, index: usize) -> Found<'_> {
        let Some(place) = index.checked_sub(1) else { return Found::Invalid };
        if let Some((name, value)) = STATIC.get(place) {
            return Found::Static(name, value);
        }
        match self.entries.get(place - STATIC.len()) {
            Some(entry) => Found::Dynamic(entry),
            None if self.complete => Found::Invalid,
            None => Found::Unknown,
        }
    }

    /// A size update (section 6.3). False if the decoder does not allow it.
    pub(super) fn resize(&mut self, size: usize) -> bool {
        if self.limit.is_some_and(|limit| size > limit) {
            return false;
        }
        self.max = Some(size);
        self.evict();
        // Nothing fits: whatever was not seen is gone.
        self.complete |= size < OVERHEAD;
        true
    }

    pub(super) fn insert(&mut self, mut entry: Entry) {
        let size = entry.size();
        if self.max.is_some_and(|max| size > max) {
            // Section 4.4: it empties the table and is not inserted.
            self.entries.clear();
            self.size = 0;
            self.complete = true;
            return;
        }
        if entry.value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            entry.value = None;
        }
        self.size = self.size.saturating_add(size);
        self.entries.push_front(entry);
        self.evict();
    }

    fn evict(&mut self) {
        while self.max.is_some_and(|max| self.size > max) {
            self.drop_oldest();
        }
        while self.entries.len() > MAX_ENTRIES {
            self.complete = false;
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_back() else {
            self.size = 0;
            return;
        };
        self.size = self.size.saturating_sub(entry.size());
    }

    #[cfg(test)]
    pub(super) fn stored(&self) -> usize {
        self.entries.iter().map(|entry| entry.value.as_ref().map_or(0, |value| value.len()) + OVERHEAD).sum()
    }
}

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name_len: Option<usize>, value: &str) -> Entry {
        let name = if name_len.is_some() { Name::Other } else { Name::Unknown };
        Entry { name, name_len, value: Some(value.as_bytes().into()), value_len: value.len() }
    }

    fn found(table: &Table, index: usize) -> Option<String> {
        match table.get(index) {
            Found::Dynamic(entry) => Some(String::from_utf8(entry.value.clone()?.into_vec()).unwrap()),
            Found::Static(..) => panic!("a dynamic index"),
            Found::Unknown => Some("?".to_owned()),
            Found::Invalid => None,
        }
    }

    #[test]
    fn the_newest_entry_has_index_62() {
        let mut table = Table::new(true);
        table.insert(entry(Some(1), "a"));
        table.insert(entry(Some(1), "b"));
        assert_eq!(
            [62, 63, 64].map(|index| found(&table, index)),
            [Some("b".into()), Some("a".into()), None]
        );
        assert!(matches!(table.get(0), Found::Invalid));
        assert!(matches!(table.get(61), Found::Static("www-authenticate", "")));
    }

    #[test]
    fn evicts_the_oldest() {
        let mut table = Table::new(true);
        assert!(table.resize(70));
        for value in ["a", "b", "c"] {
            table.insert(entry(Some(1), value));
        }
        // 34 bytes each: two fit.
        assert_eq!(
            [62, 63, 64].map(|index| found(&table, index)),
            [Some("c".into()), Some("b".into()), None]
        );
        assert!(table.resize(40));
        assert_eq!(found(&table, 63), None);
        table.insert(entry(Some(1), "too long for the table"));
        assert_eq!(found(&table, 62), None, "it emptied the table");
    }

    #[test]
    fn what_lies_below_the_entries_seen_is_unknown() {
        let mut table = Table::new(false);
        assert_eq!(found(&table, 62).as_deref(), Some("?"));
        table.insert(entry(None, "a"));
        assert_eq!([62, 63].map(|index| found(&table, index)), [Some("a".into()), Some("?".into())]);
        table.forget();
        assert_eq!(found(&table, 62).as_deref(), Some("?"));
        assert!(table.resize(0) && table.resize(4096));
        assert_eq!(found(&table, 62), None, "a size of 0 empties it for sure");
    }

    #[test]
    fn a_size_beyond_the_decoders_is_an_error_where_that_is_known() {
        let mut table = Table::new(true);
        assert!(!table.resize(4097));
        table.allow(Some(65536));
        assert!(table.resize(65536));
        let mut table = Table::new(false);
        assert!(table.resize(1 << 30));
    }

    #[test]
    fn memory_is_bounded_whatever_the_size() {
        let mut table = Table::new(false);
        assert!(table.resize(usize::MAX));
        for _ in 0..10_000 {
            table.insert(entry(Some(1), &"x".repeat(MAX_VALUE + 1)));
            table.insert(entry(Some(1), "x"));
        }
        assert!(table.stored() <= MAX_ENTRIES * (MAX_VALUE + OVERHEAD));
        assert_eq!(found(&table, 62 + MAX_ENTRIES).as_deref(), Some("?"));
    }
}
