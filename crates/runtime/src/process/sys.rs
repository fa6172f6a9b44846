//! The kernel calls that have no safe form: signal handlers and what a child does between fork and exec. The only `unsafe` of
//! this crate; each use says why it holds. Nothing here decides anything.
#![allow(
    unsafe_code,
    reason = "sigaction and pre_exec have no safe binding; each block states why it is sound"
)]

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Written to by the handler; -1 until [`Signals::install`].
static WAKE: AtomicI32 = AtomicI32::new(-1);
static TERM: AtomicBool = AtomicBool::new(false);

/// SIGTERM and SIGCHLD as a readable pipe. One per process.
pub(super) struct Signals {
    wake: PipeReader,
    _writer: PipeWriter,
}

extern "C" fn on_signal(signal: libc::c_int) {
    if signal == libc::SIGTERM {
        TERM.store(true, Ordering::SeqCst);
    }
    let fd = WAKE.load(Ordering::SeqCst);
    // SAFETY: write(2) is async-signal-safe, the buffer is one static byte, and a full pipe (it does not block) is a wake already.
    // errno is saved: the interrupted code may be about to read its own.
    unsafe {
        let saved = *errno();
        let _ = libc::write(fd, b"!".as_ptr().cast(), 1);
        *errno() = saved;
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: always valid for the calling thread.
    unsafe { libc::__errno_location() }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: always valid for the calling thread.
    unsafe { libc::__error() }
}

impl Signals {
    /// Catches SIGTERM and SIGCHLD, ignores what a terminal sends.
    pub(super) fn install() -> io::Result<Self> {
        let (wake, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        WAKE.store(writer.as_raw_fd(), Ordering::SeqCst);
        for signal in [libc::SIGTERM, libc::SIGCHLD] {
            set_handler(
                signal,
                on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t,
            )?;
        }
        for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP] {
            set_handler(signal, libc::SIG_IGN)?;
        }
        Ok(Self {
            wake,
            _writer: writer,
        })
    }

    /// Readable after a signal.
    pub(super) fn fd(&self) -> &PipeReader {
        &self.wake
    }

    /// Forgets the wakes so far.
    pub(super) fn drain(&self) {
        let mut buf = [0u8; 64];
        while matches!(rustix::io::read(&self.wake, &mut buf), Ok(n) if n > 0) {}
    }

    /// Whether SIGTERM came since the last call.
    pub(super) fn take_term(&self) -> bool {
        TERM.swap(false, Ordering::SeqCst)
    }
}

fn set_handler(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: the struct is plain data and zero is a valid value of each field; `handler` is SIG_IGN or a function that does
    // nothing but async-signal-safe calls.
    let rc = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The game gets its own process group, dies with the shim, and enters the control groups before its first instruction.
///
/// `groups` are open `cgroup.procs` files.
pub(super) fn confine(command: &mut Command, groups: Vec<OwnedFd>) {
    #[cfg(target_os = "linux")]
    let parent = rustix::process::getpid();
    let child = move || -> io::Result<()> {
        rustix::process::setpgid(None, None)?;
        for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP] {
            // Ignored signals stay ignored over exec; a game expects the defaults.
            set_handler(signal, libc::SIG_DFL)?;
        }
        for group in &groups {
            // "0" is the writer itself. A limit that cannot be entered must not be silently missing.
            rustix::io::write(group, b"0")?;
        }
        #[cfg(target_os = "linux")]
        {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The shim may have died before the line above took effect.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child of a single-threaded process and makes system calls only: it allocates
    // nothing and takes no lock.
    unsafe {
        command.pre_exec(child);
    }
}

/// When this boot began, Unix microseconds, as the kernel keeps it.
#[cfg(target_os = "macos")]
pub(crate) fn boot_time() -> Option<i64> {
    let mut time = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let mut size = std::mem::size_of::<libc::timeval>();
    // SAFETY: the name is NUL-terminated, and `size` is the size of the buffer that is written.
    let rc = unsafe {
        libc::sysctlbyname(
            c"kern.boottime".as_ptr(),
            (&raw mut time).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    (rc == 0).then(|| time.tv_sec * 1_000_000 + i64::from(time.tv_usec))
}

/// A descriptor of ours as something to await.
#[cfg(target_os = "linux")]
pub(super) fn await_readable(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it exists, answers with the same number each time, and is moved in whole.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(|e| io::Error::other(e.to_string()))
}
