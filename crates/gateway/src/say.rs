//! Something small for a client, said in whole or not at all.
//!
//! A socket that is closed while something it received is unread resets its connection, and the kernel of the other side may then throw
//! away what was said last. So who says something last also reads over what still comes, within limits.

use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Inner;
use crate::config::{CLIENT_WRITE, LINGER};

/// Writes this; false: the client is gone or takes nothing.
pub(crate) async fn say(client: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(
        timeout(CLIENT_WRITE, client.write_all(bytes)).await,
        Ok(Ok(()))
    )
}

/// Says this as the last thing, and reads over what may still come, up to so many bytes and not for long.
pub(crate) async fn last_words(mut client: TcpStream, words: &[u8], discard: usize) {
    if !say(&mut client, words).await {
        return;
    }
    let _ = client.shutdown().await;
    let read_over = async {
        let mut left = discard;
        let mut room = vec![0; 4096];
        while left > 0 {
            match client.read(&mut room).await {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    };
    let _ = timeout(LINGER, read_over).await;
}

/// [`last_words`] for somebody who is not let in at all, in a task of their own. When too many are being told, they are told without
/// waiting for what they still send.
pub(crate) fn refuse(inner: &Arc<Inner>, client: TcpStream, words: Vec<u8>, discard: usize) {
    match inner.refusing.clone().try_acquire_owned() {
        Ok(place) => {
            inner.tracker.spawn(async move {
                last_words(client, &words, discard).await;
                drop(place);
            });
        }
        Err(_) => hang_up(&client, &words, discard),
    }
}

/// Says this and reads over what has come by now.
fn hang_up(client: &TcpStream, words: &[u8], discard: usize) {
    let socket = SockRef::from(client);
    // The socket is new: it has room for this.
    let _ = socket.send(words);
    let _ = socket.shutdown(Shutdown::Write);
    let mut room = [MaybeUninit::uninit(); 4096];
    let mut left = discard;
    while left > 0 {
        match socket.recv(&mut room) {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            _ => return,
        }
    }
}
