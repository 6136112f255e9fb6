//! One kernel, one name: the forms in which compilers write a kernel's name → the name that the device knows.
//!
//! | form | example | what is done |
//! |---|---|---|
//! | device, driver | `_ZN4vllm17rms_normEv` | nothing |
//! | nvcc 13's host stub, always of internal linkage | `_ZN4vllmL17rms_normEv` | the `L` goes |
//! | the stub behind it | `_Z28__device_stub__Z4spinPfiPfi` | what it is the stub of |
//! | gcc's clones and parts | `….cold`, `….part.0`, `….constprop.1` | the suffix goes |
//!
//! Names in anonymous namespaces carry the module's hash on both sides and stay as they are. A template over an extended
//! lambda is called `__nv_hdl_wrapper_t<…, &function, 3>` on the host and by the closure's path on the device; which
//! is which cannot be told from the names, so both stay as they are.
//! Pure: text in, text out.

use super::demangle;
use cpp_demangle::DemangleOptions;
use std::borrow::Cow;

/// What a compiler appends to the name of a copy or a part of a function; the rest is numbers.
const CLONES: [&str; 7] = ["cold", "part", "constprop", "isra", "lto_priv", "llvm", "clone"];

/// The name of the kernel whose host side is called `symbol`.
#[must_use]
pub fn device_name(symbol: &str) -> Cow<'_, str> {
    let symbol = without_clone(symbol);
    if let Some(kernel) = stub_of(symbol) {
        return Cow::Borrowed(kernel);
    }
    without_linkage(symbol)
}

/// gcc appends `.name`, `.number` or both; a mangled name has no dot of its own.
fn without_clone(symbol: &str) -> &str {
    let Some((name, suffix)) = symbol.split_once('.') else { return symbol };
    let is_suffix = |part: &str| CLONES.contains(&part) || part.bytes().all(|byte| byte.is_ascii_digit());
    // `lto_priv` keeps apart two functions of one name: they are two kernels that the device calls alike.
    if !name.is_empty() && suffix.split('.').all(is_suffix) { name } else { symbol }
}

/// `_Z[L]<length>__device_stub_<mangled kernel><parameters>`, or `__device_stub__<kernel>` where it has C linkage.
fn stub_of(symbol: &str) -> Option<&str> {
    let rest = symbol.strip_prefix("_Z")?;
    let rest = rest.strip_prefix('L').unwrap_or(rest);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (length, rest) = rest.split_at_checked(digits)?;
    let kernel = rest.get(..length.parse().ok()?)?.strip_prefix("__device_stub_")?;
    if kernel.starts_with("_Z") {
        Some(kernel)
    } else {
        kernel.strip_prefix('_').filter(|name| !name.is_empty())
    }
}

/// Without the mark of internal linkage before the function's own name.
///
/// An `L` also starts a literal, so the one to remove is that without which the name says the same.
fn without_linkage(symbol: &str) -> Cow<'_, str> {
    let Some(said) = plain(symbol) else { return Cow::Borrowed(symbol) };
    let Some(own) = own_name(&said) else { return Cow::Borrowed(symbol) };
    let marked = format!("L{}{own}", own.len());
    for (at, _) in symbol.match_indices(&marked) {
        let (Some(before), Some(after)) = (symbol.get(..at), symbol.get(at + 1..)) else { continue };
        let without = format!("{before}{after}");
        if plain(&without).as_ref() == Some(&said) {
            return Cow::Owned(without);
        }
    }
    Cow::Borrowed(symbol)
}

fn plain(symbol: &str) -> Option<String> {
    demangle::bounded(symbol, DemangleOptions::new())
}

/// The last name of a demangled function's path, without template arguments and parameters.
fn own_name(said: &str) -> Option<&str> {
    let mut depth = 0_u32;
    let mut end = said.len();
    let mut start = 0;
    for (at, byte) in said.bytes().enumerate() {
        match byte {
            b'<' | b'{' => {
                if depth == 0 && byte == b'<' {
                    end = end.min(at);
                }
                depth += 1;
            }
            b'>' | b'}' => depth = depth.saturating_sub(1),
            b'(' if depth == 0 && !said.get(at..)?.starts_with("(anonymous namespace)") => {
                end = end.min(at);
                break;
            }
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b':' | b' ' if depth == 0 => (start, end) = (at + 1, said.len()),
            _ => {}
        }
    }
    said.get(start..end).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_becomes_the_devices_name() {
        for (form, device) in [
            // nvcc 13.0.48, compiled here: host side and what it registers.
            ("_ZL6hiddenPf", "_Z6hiddenPf"),
            ("_Z26__device_stub__Z7plain_cPfPf", "_Z7plain_cPf"),
            ("_ZL25__device_stub__Z6hiddenPfPf", "_Z6hiddenPf"),
            (
                "_ZN1a35_GLOBAL__N__662700ab_4_t_cu_plain_cL5innerIfLi3EEEvPT_",
                "_ZN1a35_GLOBAL__N__662700ab_4_t_cu_plain_c5innerIfLi3EEEvPT_",
            ),
            // PyTorch 2.15.0, libtorch_cuda: symbol of the host function and what is registered for it.
            (
                "_ZN14at_cuda_detail3cub6detailL11EmptyKernelIvEEvv",
                "_ZN14at_cuda_detail3cub6detail11EmptyKernelIvEEvv",
            ),
            (
                "_ZN2at6nativeL13reduce_kernelILi256ELi2ENS0_8ReduceOpIlNS0_6MaxOpsIlEEjlLi4ELi4EEEEEvT1_",
                "_ZN2at6native13reduce_kernelILi256ELi2ENS0_8ReduceOpIlNS0_6MaxOpsIlEEjlLi4ELi4EEEEEvT1_",
            ),
            // gcc's parts and clones.
            ("_Z4spinPfi.cold", "_Z4spinPfi"),
            ("_Z4spinPfi.part.0.constprop.12", "_Z4spinPfi"),
            // What is the device's name already.
            ("_Z4spinPfi", "_Z4spinPfi"),
            ("plain_c", "plain_c"),
            ("_Z4withIL5Color0EZ4mainEUliE_EvT0_", "_Z4withIL5Color0EZ4mainEUliE_EvT0_"),
            ("", ""),
        ] {
            assert_eq!(device_name(form), device);
            assert_eq!(device_name(device), device, "once is enough");
        }
    }

    #[test]
    fn different_kernels_keep_different_names() {
        let names = [
            // The `L` of a literal is no mark of linkage: an enumerator's value is part of the name.
            "_Z4withIL5Color0EEvv",
            "_Z4withIL5Color1EEvv",
            "_Z4withIL5WidthE0EEvv",
            // Anonymous namespaces of two files.
            "_ZN35_GLOBAL__N__662700ab_4_t_cu_plain_c5innerIfEEvPT_",
            "_ZN35_GLOBAL__N__0badcafe_4_u_cu_plain_c5innerIfEEvPT_",
            // Two extended lambdas of one function.
            "_Z4withIL5Color1E17__nv_dl_wrapper_tI11__nv_dl_tagIPFiiPPcEXadL_Z4mainEELj1EEJPfEEEvT0_",
            "_Z4withIL5Color1E17__nv_dl_wrapper_tI11__nv_dl_tagIPFiiPPcEXadL_Z4mainEELj2EEJPfEEEvT0_",
            "_Z4gemmPf",
            "_Z4gemmPd",
            "gemm",
            "gemm.1x",
        ];
        let normal: std::collections::HashSet<_> = names.iter().map(|name| device_name(name)).collect();
        assert_eq!(normal.len(), names.len(), "{normal:#?}");
    }

    #[test]
    fn the_own_name_of_a_function() {
        for (said, own) in [
            ("a::b<int>::gemm<float, (Color)0>(float*)", Some("gemm")),
            ("void a::(anonymous namespace)::inner<float>(float*)", Some("inner")),
            ("spin(float*, int)", Some("spin")),
            ("spin", Some("spin")),
            ("", None),
        ] {
            assert_eq!(own_name(said), own, "{said}");
        }
    }
}
