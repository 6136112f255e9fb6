//! The uprobe programs of an object for multi links, loaded when they are first wanted.

use super::multi::{MultiError, MultiProgram, relocated};
use aya::Ebpf;
use aya_obj::Object;
use std::cell::OnceCell;
use std::collections::HashMap;

/// Programs that were loaded for uprobe_multi links.
#[derive(Debug)]
pub struct MultiPrograms {
    object: Object,
    /// Those that have been asked for.
    programs: HashMap<&'static str, OnceCell<MultiProgram>>,
}

impl MultiPrograms {
    /// The programs `names` of an object whose maps aya has made. `now` are loaded now, the others when they are first
    /// wanted: the kernel takes half a second to check the largest, which few targets need.
    ///
    /// `object` must be the bytes that `ebpf` was loaded from. Maps must not have been taken out of `ebpf` yet, and
    /// aya must not load the same programs unless they are to be attached by aya as well.
    ///
    /// # Errors
    ///
    /// When the object and `ebpf` do not belong together, or the kernel refuses a program.
    pub fn load(
        object: &[u8],
        ebpf: &Ebpf,
        names: &[&'static str],
        now: &[&'static str],
    ) -> Result<Self, MultiError> {
        let object = relocated(object, ebpf)?;
        let programs = Self { object, programs: names.iter().map(|name| (*name, OnceCell::new())).collect() };
        for name in now {
            programs.get(name)?;
        }
        Ok(programs)
    }

    /// The program of this name, if it has been wanted so far.
    #[must_use]
    pub fn loaded(&self, name: &str) -> Option<&MultiProgram> {
        self.programs.get(name)?.get()
    }

    /// The program of this name.
    ///
    /// # Errors
    ///
    /// When it is not among the names, or the kernel refuses it.
    pub fn get(&self, name: &str) -> Result<&MultiProgram, MultiError> {
        let none = || MultiError::NoProgram(name.to_owned());
        let cell = self.programs.get(name).ok_or_else(none)?;
        if cell.get().is_none() {
            // Nobody else can have set it.
            let _ = cell.set(MultiProgram::load(&self.object, name)?);
        }
        cell.get().ok_or_else(none)
    }
}
