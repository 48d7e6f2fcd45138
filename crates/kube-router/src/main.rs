//! The kube-router binary: arguments in, exit status out. Everything else is in the library.

use std::process::ExitCode;

/// musl's own allocator takes a lock per call and costs half of the time of reading a large list.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    linux::memory::give_back_at_once();
    kube_router::run::main(std::env::args_os().collect())
}
