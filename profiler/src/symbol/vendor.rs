//! Whether a file is NVIDIA's own, whose code is not read: its licence forbids to disassemble it.
//!
//! In: a file's names. Out: yes or no. Symbol tables of such a file may be read, as any linker does.

use super::image::Image;
use object::elf;

/// What NVIDIA's libraries are called, up to the version. `libcublas` stands for `libcublasLt` too.
const NAMES: [&str; 27] = [
    "libcuda.",
    "libcudart",
    "libcudadebugger",
    "libcublas",
    "libcudnn",
    "libcufft",
    "libcufile",
    "libcupti",
    "libcurand",
    "libcusolver",
    "libcusparse",
    "libcutensor",
    "libcudss",
    "libcuquantum",
    "libcustatevec",
    "libnccl",
    "libnpp",
    "libnvblas",
    "libnvJitLink",
    "libnvToolsExt",
    "libnvcuvid",
    "libnvfatbin",
    "libnvidia-",
    "libnvinfer",
    "libnvjpeg",
    "libnvrtc",
    "libnvshmem",
];

/// By the library's own name, and by what the file is called, which a wheel may have changed.
#[must_use]
pub fn is_nvidias(image: &Image, file_name: &str) -> bool {
    let own = soname(image);
    let is = |name: &str| NAMES.iter().any(|prefix| name.starts_with(prefix));
    own.as_deref().is_some_and(is) || is(file_name)
}

fn soname(image: &Image) -> Option<String> {
    let dynamic = image.dynamic();
    let value = |tag: elf::DynamicTag| {
        dynamic.iter().find(|(t, _)| *t == tag.0.cast_unsigned()).map(|(_, value)| *value)
    };
    image.text(value(elf::DT_STRTAB)?.checked_add(value(elf::DT_SONAME)?)?, 256)
}
