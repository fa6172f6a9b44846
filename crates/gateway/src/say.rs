//! Something small for a client, said in whole or not at all.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{CLIENT_WRITE, LINGER};

/// Writes this; false: the client is gone or takes nothing.
pub(crate) async fn say(client: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(
        timeout(CLIENT_WRITE, client.write_all(bytes)).await,
        Ok(Ok(()))
    )
}

/// Says this as the last thing, and reads over what may still come, up to so many bytes and not for long: a socket closed with unread
/// bytes takes back what it said last.
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
