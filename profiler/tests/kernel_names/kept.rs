//! The cache on disk: what was written comes back, and nothing else does.

use std::fs;
use std::path::Path;

use profiler::symbol::cache::Cache;
use profiler::symbol::image::Image;
use profiler::symbol::table::{self, Table};
use proptest::prelude::*;

use crate::programs::{Build, Nvcc};

const KEY: &[u8] = &[0xab, 0xcd];

fn sample(folder: &Path) -> Option<(Table, table::Identity)> {
    let path = Build::new(Nvcc::Thirteen, &["-O2"]).build(folder, "sample")?;
    let image = Image::open(&path).unwrap();
    Some((Table::of(&image, false), table::identity(&image)))
}

#[test]
fn what_was_kept_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some((table, identity)) = sample(folder.path()) else { return };
    assert_eq!(table.kernels().count(), 20);
    let cache = Cache::at(&folder.path().join("a/b"));
    assert_eq!(cache.load(KEY, &identity), None);
    cache.save(KEY, &identity, &table);
    assert_eq!(cache.load(KEY, &identity), Some(table.clone()));
    assert_eq!(cache.load(&[0xab], &identity), None);
    assert_eq!(Cache::none().load(KEY, &identity), None);
    let other = Table::default();
    cache.save(KEY, &identity, &other);
    assert_eq!(cache.load(KEY, &identity), Some(other), "the newer one replaces");
    let names: Vec<_> =
        fs::read_dir(folder.path().join("a/b")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["abcd"], "nothing is left over");
}

/// A build id says little: two builds may carry the same one by mistake or on purpose.
#[test]
fn another_file_of_the_same_build_id_is_not_named() {
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str, kernels| {
        let flags = ["-O2", "-Wl,--build-id=0x1234567890abcdef"];
        let build = Build { kernels, ..Build::new(Nvcc::Twelve, &flags) };
        build.build(folder.path(), name).map(|path| Image::open(&path).unwrap())
    };
    let (Some(one), Some(other)) = (build("one", 20), build("other", 21)) else { return };
    assert_eq!(one.build_id(), other.build_id());
    assert_ne!(table::identity(&one), table::identity(&other));
    let cache = Cache::at(folder.path());
    let id = one.build_id().unwrap();
    cache.save(&id, &table::identity(&one), &Table::of(&one, false));
    assert!(cache.load(&id, &table::identity(&one)).is_some());
    assert_eq!(cache.load(&id, &table::identity(&other)), None);
}

#[test]
fn a_folder_that_cannot_be_written_is_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let cache = Cache::at(&file.join("kernels"));
    cache.save(KEY, &[1; 32], &Table::default());
    assert_eq!(cache.load(KEY, &[1; 32]), None);
}

#[test]
fn links_and_pipes_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    cache.save(KEY, &[1; 32], &Table::default());
    let (kept, moved) = (folder.path().join("abcd"), folder.path().join("moved"));
    fs::rename(&kept, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &kept).unwrap();
    assert_eq!(cache.load(KEY, &[1; 32]), None);
    fs::remove_file(&kept).unwrap();
    let path = std::ffi::CString::new(kept.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that lives until the call is over.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    assert_eq!(cache.load(KEY, &[1; 32]), None, "and nobody waits for a pipe");
}

#[test]
fn the_oldest_go_when_there_is_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Table::default().to_bytes(&[1; 32]).len() as u64;
    let cache = Cache::at(folder.path()).with_room(3 * empty);
    let age = |key: u8, seconds: u64| {
        let file = fs::File::open(folder.path().join(format!("{key:02x}"))).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(seconds)).unwrap();
    };
    for (key, seconds) in [(1, 300), (2, 200), (3, 100)] {
        cache.save(&[key], &[1; 32], &Table::default());
        age(key, seconds);
    }
    assert!(cache.load(&[1], &[1; 32]).is_some(), "which makes it the newest");
    cache.save(&[4], &[1; 32], &Table::default());
    let kept = |key| cache.load(&[key], &[1; 32]).is_some();
    assert_eq!([1, 2, 3, 4].map(kept), [true, false, true, true]);
}

proptest! {
    /// Cut short, changed or made up: no table, and no harm.
    #[test]
    fn bytes_that_were_not_written_give_nothing(
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        made_up in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let identity = [7; 32];
        let whole = Table::default().to_bytes(&identity);
        prop_assert_eq!(Table::from_bytes(&whole[..cut.index(whole.len())], &identity), None);
        let mut flipped = whole.clone();
        flipped[at.index(whole.len())] ^= 1 << bit;
        prop_assert_eq!(Table::from_bytes(&flipped, &identity), None);
        prop_assert_eq!(Table::from_bytes(&made_up, &identity), None);
        // Counts that promise more than there is, under a digest that holds.
        let mut promised = whole[..whole.len() - 32].to_vec();
        let end = promised.len();
        promised[end - 20 + (bit as usize % 4) * 4..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        promised.extend(&made_up);
        let digest = ring::digest::digest(&ring::digest::SHA256, &promised);
        promised.extend(digest.as_ref());
        prop_assert_eq!(Table::from_bytes(&promised, &identity), None);
    }
}
