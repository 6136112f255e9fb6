//! Files at paths that a target has a say in. In: a path. Out: the file, if it is a regular one. Absent: waiting for it: a
//! target may put a FIFO or a device there, also between two looks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file for reading, and nothing else.
///
/// # Errors
/// When there is none.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |metadata: std::fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    };
    // Merely opening a device can have effects, so a look comes first.
    regular(std::fs::metadata(path)?)?;
    // Without the flag the opening of a FIFO lasts until somebody writes to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::io::Read as _;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn nothing_but_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (file, fifo) = (folder.path().join("file"), folder.path().join("fifo"));
        std::fs::write(&file, "text").unwrap();
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends with a null byte and lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let mut text = String::new();
        open_regular(&file).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        for path in [fifo.as_path(), folder.path(), Path::new("/dev/null"), Path::new("/nowhere")] {
            assert!(open_regular(path).is_err(), "{}", path.display());
        }
    }
}
