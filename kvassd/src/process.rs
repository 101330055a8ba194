//! What the process does to itself before anything else: permissions of new files, no core dumps, the system call
//! filter that makes sled sync, and, where a client started it, leaving that client's terminal and descriptors.
//! Must run while there is one thread and nothing is open but what was inherited.

use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Descriptors that many connections and open values may need, where a system refuses its own hard limit.
const DESCRIPTORS: u64 = 8_192;

/// Connections to the server's port that are enough for anybody, where descriptors are many.
const CONNECTIONS: u64 = 10_000;

/// Why the process cannot be made safe to touch a store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ProcessError {
    #[error("core dumps, which would hold secrets, cannot be switched off")]
    Core(#[source] nix::Error),
    #[cfg(target_os = "linux")]
    #[error("the system call filter that makes the store's writes durable cannot be set")]
    Filter(#[source] FilterError),
}

/// Makes this process safe to hold secrets and to open a store.
///
/// # Errors
/// A limit or filter that the system refuses; the daemon must not start then.
pub fn harden() -> Result<(), ProcessError> {
    umask(Mode::from_bits_truncate(0o077));
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(ProcessError::Core)?;
    raise_descriptors();
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_dumpable(false).map_err(ProcessError::Core)?;
        sync_for_real().map_err(ProcessError::Filter)?;
    }
    Ok(())
}

/// Leaves the session, the terminal and the descriptors of the client that started this process.
///
/// A descriptor left open would keep a pipe of the client's caller open for as long as the daemon lives.
pub fn detach() {
    // Fails only where the process leads a group already: then a supervisor has detached it.
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    for descriptor in inherited() {
        // The one that listed them is closed by now.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Sends panics to the log: where, but not what, for a message could quote a name.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name().unwrap_or_default(), "panic");
    }));
}

/// Every descriptor from 3 on.
fn inherited() -> Vec<RawFd> {
    let list = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let Ok(entries) = std::fs::read_dir(list) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect()
}

fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it the daemon serves fewer clients at once; nothing is lost.
        let raise = |wanted| soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
        let _ = raise(hard) || raise(hard.min(DESCRIPTORS));
    }
}

/// How many connections from other machines may take a descriptor: the rest is for clients, values and the store.
#[must_use]
pub fn connections() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(DESCRIPTORS, |(soft, _)| soft);
    (descriptors - descriptors / 4).clamp(1, CONNECTIONS) as usize
}

/// Why the filter could not be set.
#[cfg(target_os = "linux")]
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum FilterError {
    #[error("this processor is not supported: only x86_64, aarch64 and riscv64 are")]
    Processor(#[source] seccompiler::BackendError),
    #[error("the filter does not compile")]
    Compile(#[source] seccompiler::BackendError),
    #[error("the kernel refuses it")]
    Apply(#[source] seccompiler::Error),
}

/// Lets `sync_file_range` fail with ENOSYS, so that sled 0.34 falls back to fsync at every point.
///
/// `sync_file_range` does not make the disk write; with it a power cut loses acknowledged writes.
#[cfg(target_os = "linux")]
fn sync_for_real() -> Result<(), FilterError> {
    use nix::libc::{ENOSYS, SYS_sync_file_range};
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

    let processor = std::env::consts::ARCH.try_into().map_err(FilterError::Processor)?;
    let rules = [(SYS_sync_file_range, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(ENOSYS as u32), processor)
        .map_err(FilterError::Compile)?;
    let program = BpfProgram::try_from(filter).map_err(FilterError::Compile)?;
    seccompiler::apply_filter_all_threads(&program).map_err(FilterError::Apply)
}
