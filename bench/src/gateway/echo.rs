//! The game of this measurement: it says back what it hears. One process, one thread, behind every relay alike.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::part;

/// The library's default takes 128 KiB for each connection at once.
const READ_BUFFER: usize = 4 * 1024;
/// After `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on as many ports as asked for, so that the connections of one relay never use up the ports of another.
pub(super) fn serve(
    orders: &Value,
    questions: impl Iterator<Item = Result<Value>> + Send + 'static,
) -> Result<()> {
    let ports = orders["ports"].as_u64().context("no ports")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut accepting = JoinSet::new();
        let mut addresses = Vec::new();
        for _ in 0..ports {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            accepting.spawn(accept(listener));
        }
        part::answer(&json!({ "addresses": addresses }))?;
        // There are no questions: what counts is when they end.
        tokio::task::spawn_blocking(move || questions.for_each(drop)).await?;
        Ok(())
    })
}

async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(converse(stream)); }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0);
    let Ok(mut socket) = accept_async_with_config(stream, Some(config)).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        let back = message.is_binary() || message.is_text();
        if back && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// The addresses in the answer.
pub(super) fn addresses(answer: &Value) -> Result<Vec<SocketAddr>> {
    serde_json::from_value(answer["addresses"].clone()).context("addresses of the echo server")
}
