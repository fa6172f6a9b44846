//! When a shim is gone, and that nothing of it stays in the process table.

#[cfg(target_os = "linux")]
pub(super) use pidfd::ShimGone;
#[cfg(not(target_os = "linux"))]
pub(super) use polled::ShimGone;

#[cfg(target_os = "linux")]
mod pidfd {
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use rustix::process::{
        Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions, pidfd_open, waitid, waitpid,
    };
    use tokio::io::unix::AsyncFd;

    use super::super::pages::ProcessId;
    use super::super::{sys, tree};

    /// Where the kernel gives no descriptor (none left, an old kernel), the process is looked at this often.
    const POLL: Duration = Duration::from_millis(20);

    /// Tells when a shim is gone. Exact: a descriptor of the process itself.
    pub(in super::super) struct ShimGone {
        shim: ProcessId,
        fd: Option<AsyncFd<OwnedFd>>,
    }

    impl ShimGone {
        pub(in super::super) fn of(shim: ProcessId) -> Self {
            let fd = Pid::from_raw(shim.pid)
                .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                .filter(|_| tree::stat(shim.pid).is_some_and(|s| s.started == shim.started))
                .and_then(|fd| sys::await_readable(fd).ok());
            Self { shim, fd }
        }

        pub(in super::super) async fn wait(&self) {
            if let Some(fd) = &self.fd
                && fd.readable().await.is_ok()
            {
                // Readiness is not cleared: it stays gone.
                return;
            }
            while tree::alive(self.shim) {
                tokio::time::sleep(POLL).await;
            }
        }

        /// Removes the zombie if it is ours (an adopted shim is init's).
        pub(in super::super) fn reap(&self) {
            if let Some(fd) = &self.fd {
                let _ = waitid(
                    WaitId::PidFd(fd.get_ref().as_fd()),
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
                );
            } else if tree::stat(self.shim.pid)
                .is_some_and(|s| s.zombie && s.started == self.shim.started)
            {
                let _ = waitpid(Pid::from_raw(self.shim.pid), WaitOptions::NOHANG);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod polled {
    use std::time::Duration;

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::super::pages::ProcessId;
    use super::super::tree;

    const POLL: Duration = Duration::from_millis(20);

    /// Tells when a shim is gone, by looking.
    pub(in super::super) struct ShimGone {
        shim: ProcessId,
    }

    impl ShimGone {
        pub(in super::super) fn of(shim: ProcessId) -> Self {
            Self { shim }
        }

        pub(in super::super) async fn wait(&self) {
            loop {
                // A zombie of ours still has its number.
                self.reap();
                if !tree::alive(self.shim) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        }

        pub(in super::super) fn reap(&self) {
            let _ = waitpid(Pid::from_raw(self.shim.pid), WaitOptions::NOHANG);
        }
    }
}
