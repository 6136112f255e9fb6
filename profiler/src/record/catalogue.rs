//! The functions of a recording → those of this program: numbers change from release to release, names do not.

use crate::decode::{Body, Event};
use crate::probe::{self, Api, Only};
use profiler_common::event::CountKey;
use std::collections::HashMap;

/// The numbers of a recording's functions here.
#[derive(Debug, Default)]
pub struct Catalogue {
    numbers: Vec<Option<u16>>,
}

impl Catalogue {
    /// The names of this program's functions, by number, for a recording.
    #[must_use]
    pub fn names() -> Vec<String> {
        probe::CATALOG.iter().map(name).collect()
    }

    /// For a recording whose functions have these names.
    #[must_use]
    pub fn of(names: &[String]) -> Self {
        let known: HashMap<_, _> =
            (0u16..).zip(probe::CATALOG).map(|(index, api)| (name(api), index)).collect();
        Self { numbers: names.iter().map(|name| known.get(name).copied()).collect() }
    }

    /// Gives a call its number here; none when this program does not know its function.
    #[must_use]
    pub fn event(&self, mut event: Event) -> Option<Event> {
        match &mut event.body {
            Body::Gpu(call) => call.api = self.number(call.api)?,
            Body::Stack(stack) => stack.api = self.number(stack.api)?,
            Body::Server(call) => call.api = self.number(call.api)?,
            Body::Burst(_) | Body::Socket(_) | Body::Process(_) | Body::Context(_) => {}
        }
        Some(event)
    }

    /// Likewise a count.
    #[must_use]
    pub fn key(&self, key: CountKey) -> Option<CountKey> {
        Some(CountKey { api: self.number(key.api)?, ..key })
    }

    fn number(&self, theirs: u16) -> Option<u16> {
        self.numbers.get(usize::from(theirs)).copied().flatten()
    }
}

/// A function's name, its library, and in which versions of that it is meant: a few changed their arguments.
fn name(api: &Api) -> String {
    let versions = match api.only {
        Only::Any => "",
        Only::Before13 => " before 13",
        Only::From13 => " from 13",
    };
    format!("{} {}{versions}", api.symbol, api.layer.library())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{CallData, GpuCall};

    #[test]
    fn numbers_follow_the_names() {
        let mut names = Catalogue::names();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "a name stands for one function");
        names.swap(0, 5);
        names.push("cudaLaunchNothing libcudart".to_owned());
        let catalogue = Catalogue::of(&names);
        let last = u16::try_from(names.len() - 1).unwrap();
        let number = |api| {
            let call = GpuCall { api, data: CallData::Failed { result: 1 } };
            let event = Event { pid: 1, tid: 1, time_ns: 1, body: Body::Gpu(call) };
            catalogue.event(event).map(|event| match event.body {
                Body::Gpu(call) => call.api,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!([number(0), number(5), number(7)], [Some(5), Some(0), Some(7)]);
        assert_eq!([number(last), number(u16::MAX)], [None, None], "no call is taken for another");
    }
}
