//! One real listener for all simulated instances: whatever is sent comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;

/// An echo server on a loopback port of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl EchoServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// When no loopback port can be had.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(serve(listener, stop.clone(), tasks.clone()));
        Ok(Self {
            address,
            stop,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and waits until that is done.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => match next {
                Some(next) => next,
                None => return,
            },
        };
        // A connection that died before it was accepted is nobody's loss.
        let Ok((mut stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = echo(&mut stream) => {}
            }
            drop(place);
        });
    }
}

async fn echo(stream: &mut TcpStream) {
    let (mut from, mut to) = stream.split();
    // An error is the peer's leaving; there is nothing to do about it.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
