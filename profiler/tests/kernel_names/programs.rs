//! Programs with kernels, built by gcc from what nvcc 12 and 13 generate (crt/host_runtime.h): constructor,
//! registration calls, host functions, handles' variables.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which compiler's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nvcc {
    /// Launches by host function.
    Twelve,
    /// Launches by handle.
    Thirteen,
}

/// How it is built.
#[derive(Clone, Debug)]
pub struct Build {
    pub nvcc: Nvcc,
    pub kernels: usize,
    pub flags: Vec<&'static str>,
    /// A runtime of its own, linked in.
    pub own_runtime: bool,
    pub stripped: bool,
}

impl Build {
    pub fn new(nvcc: Nvcc, flags: &[&'static str]) -> Self {
        Self { nvcc, kernels: 20, flags: flags.to_vec(), own_runtime: false, stripped: true }
    }

    /// Builds it; none, with the reason printed, where there is no C compiler.
    pub fn build(&self, folder: &Path, name: &str) -> Option<PathBuf> {
        let source = folder.join(format!("{name}.c"));
        std::fs::write(&source, self.source()).unwrap();
        let output = folder.join(format!("lib{name}.so"));
        let mut command = Command::new("gcc");
        command.args(["-w", "-Wl,--build-id", "-o"]).arg(&output).arg(&source);
        if !self.flags.contains(&"-no-pie") {
            command.args(["-shared", "-fPIC"]);
        }
        command.args(&self.flags);
        if self.own_runtime {
            let runtime = folder.join(format!("{name}_runtime.c"));
            std::fs::write(&runtime, OWN_RUNTIME).unwrap();
            command.arg(runtime);
        }
        if !self.own_runtime {
            command.arg(runtime(folder)?).arg(format!("-Wl,-rpath,{}", folder.display()));
        }
        if self.stripped {
            command.arg("-s");
        }
        run(&mut command).then_some(output)
    }

    /// Device names, in order.
    pub fn names(&self) -> Vec<String> {
        (0..self.kernels).map(device_name).collect()
    }

    fn source(&self) -> String {
        let mut text = String::from(
            "typedef void *P; typedef const char *S;\n\
             extern P *__cudaRegisterFatBinary(P);\n\
             extern void __cudaRegisterFunction(P *, S, char *, S, int, P, P, P, P, int *);\n\
             extern int __cudaGetKernel(P *, const void *);\n\
             extern int __cudaLaunchKernel(P, long, int, long, int, P *, long, P);\n\
             extern int cudaLaunchKernel(const void *, long, int, long, int, P *, long, P);\n\
             __attribute__((section(\".nv_fatbin\"))) const char fatbin[64] = \"device code\";\n\
             static P *module;\n",
        );
        for kernel in 0..self.kernels {
            self.host_function(&mut text, kernel);
        }
        text.push_str(
            "static void __attribute__((constructor)) register_all(void) {\n  module = __cudaRegisterFatBinary((P)fatbin);\n",
        );
        for kernel in 0..self.kernels {
            let name = device_name(kernel);
            let _ = writeln!(
                text,
                "  __cudaRegisterFunction(module, (S)host_{kernel}, (char *)\"{name}\", \"{name}\", -1, 0, 0, 0, 0, 0);"
            );
        }
        text.push_str("}\n");
        if self.flags.contains(&"-no-pie") {
            text.push_str("int main(void) { return 0; }\n");
        }
        text
    }

    /// Half of them static, as nvcc 13 makes all, with the mark of internal linkage in their names.
    fn host_function(&self, text: &mut String, kernel: usize) {
        let linkage = if kernel.is_multiple_of(2) { "static " } else { "" };
        let symbol = host_symbol(kernel);
        let _ = writeln!(text, "{linkage}void host_{kernel}(float *p) __asm__(\"{symbol}\");");
        let body = match self.nvcc {
            Nvcc::Twelve => {
                format!("P args[] = {{&p}}; cudaLaunchKernel(host_{kernel}, {kernel}, 1, 1, 1, args, 0, 0);")
            }
            Nvcc::Thirteen => format!(
                "static P handle __asm__(\"{}\"); static int made; P args[] = {{&p}};\n  \
                 if (!made) made = __cudaGetKernel(&handle, (const void *)host_{kernel}) == 0;\n  \
                 __cudaLaunchKernel(handle, {kernel}, 1, 1, 1, args, 0, 0);",
                variable(kernel)
            ),
        };
        let _ =
            writeln!(text, "__attribute__((noinline)) {linkage}void host_{kernel}(float *p) {{ {body} }}");
    }
}

/// A runtime that calls functions of its own with -1 in the fifth place too, as the true one does.
const OWN_RUNTIME: &str = "typedef void *P; typedef const char *S;\n\
static int count; static P *kept[8];\n\
__attribute__((noinline)) static void note(P *a, S b, char *c, S d, int e, P f) { kept[e & 7] = a; }\n\
__attribute__((noinline)) P *__cudaRegisterFatBinary(P p) { note(0, 0, 0, \"x\", -1, 0); return kept; }\n\
__attribute__((noinline)) void __cudaRegisterFunction(P *a, S b, char *c, S d, int e, P f, P g, P h, P i, int *j)\n\
{ __asm__ volatile(\"\" : : \"r\"(b), \"r\"(c), \"r\"(d), \"r\"(f), \"r\"(g), \"r\"(h), \"r\"(i), \"r\"(j)); count++; note(a, b, c, d, -1, f); }\n\
__attribute__((noinline)) int __cudaGetKernel(P *h, const void *f) { *h = (char *)f + 1; return 0; }\n\
__attribute__((noinline)) int __cudaLaunchKernel(P f, long g, int z, long b, int t, P *a, long s, P q) { kept[0] = f; return 0; }\n\
__attribute__((noinline)) int cudaLaunchKernel(const void *f, long g, int z, long b, int t, P *a, long s, P q) { kept[0] = (P)f; return 0; }\n";

/// The runtime for those that have none: `__cudaGetKernel` gives an address that is no code, as the true one does.
fn runtime(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("libruntime.so");
    if !library.exists() {
        let source = folder.join("runtime.c");
        std::fs::write(
            &source,
            "#include <stdlib.h>\ntypedef void *P;\nP last_launched;\n\
             P *__cudaRegisterFatBinary(P p) { return calloc(1, 8); }\n\
             void __cudaRegisterFunction(P *a, const char *b, char *c, const char *d, int e, P f, P g, P h, P i, int *j) {}\n\
             int __cudaGetKernel(P *h, const void *f) { *h = malloc(16); return 0; }\n\
             int __cudaLaunchKernel(P f, long g, int z, long b, int t, P *a, long s, P q) { last_launched = f; return 0; }\n\
             int cudaLaunchKernel(const void *f, long g, int z, long b, int t, P *a, long s, P q)\n\
             { last_launched = (P)f; return 0; }\n",
        )
        .unwrap();
        let mut command = Command::new("gcc");
        command.args(["-shared", "-fPIC", "-Wl,-soname,libruntime.so", "-o"]).arg(&library).arg(&source);
        run(&mut command).then_some(())?;
    }
    Some(library)
}

fn run(command: &mut Command) -> bool {
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            println!("skipped: no C compiler (gcc): {error}");
            false
        }
    }
}

/// The name that is registered.
pub fn device_name(kernel: usize) -> String {
    format!("_ZN5tests5spin{}ILi{kernel}EEEvPf", char::from(b'a' + (kernel % 26) as u8))
}

/// The host function's symbol, as nvcc 13 writes it.
pub fn host_symbol(kernel: usize) -> String {
    device_name(kernel).replace("_ZN5tests5", "_ZN5testsL5")
}

fn variable(kernel: usize) -> String {
    let stub = format!("__device_stub_{}", device_name(kernel));
    format!("_ZZL{}{stub}PfE8__handle", stub.len())
}
