//! One socket: who it is, if somebody says so, then lines in and lines out until either side leaves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::command::{self, Command, Refusal};
use crate::house::House;
use crate::lines::{Line, Lines, MAX_LINE};
use crate::proxy::{self, Header, Introduction};
use crate::token::{self, MAX_PREAMBLE};

/// Bytes taken off a socket at a time. A silent connection holds none of it.
const CHUNK: usize = 1024;
/// Answers collected before they must be written; nothing more is read until they are.
const OUTBOX: usize = 2 * 1024;
/// A client who takes no byte for this long is gone.
const SEND: Duration = Duration::from_secs(10);
/// After our last byte, for the other side to read it before the socket is closed under it.
const FAREWELL: Duration = Duration::from_millis(250);

struct Connection {
    tcp: TcpStream,
    house: Arc<House>,
    number: u64,
    /// Read and not yet looked at; never more than a chunk, or one header.
    inbox: Vec<u8>,
    lines: Lines,
    introduction: Introduction,
    client: bool,
}

/// Why a connection is closed by us.
enum End {
    /// It is gone, or the server stops.
    Quiet,
    /// It is told so.
    Refused(Refusal),
}

/// Serves one accepted socket to its end.
pub(crate) async fn serve(tcp: TcpStream, number: u64, house: Arc<House>) {
    let mut connection = Connection {
        tcp,
        house,
        number,
        inbox: Vec::new(),
        lines: Lines::new(MAX_LINE),
        introduction: Introduction::default(),
        client: false,
    };
    let end = match connection.introduce().await {
        Ok(()) => connection.talk().await,
        refused => refused,
    };
    if let Err(End::Refused(refusal)) = end {
        connection.house.act(|inner, _| inner.tally.errors += 1);
        let _ = connection.write(refusal.line().as_bytes()).await;
    }
    if connection.client {
        connection.house.act(|inner, now| inner.game.leave(now));
    }
    connection.hang_up().await;
}

impl Connection {
    /// PROXY header and token line, where they are asked for.
    async fn introduce(&mut self) -> Result<(), End> {
        if self.house.proxy {
            self.read_proxy_header().await?;
        }
        if self.house.keys.is_some() {
            self.read_token().await?;
        }
        if let Some(player) = &self.introduction.player_id {
            crate::log(&format!(
                "connection {}: player {player:?}, session {:?}, generation {:?}, from {:?}",
                self.number,
                self.introduction.session_id,
                self.introduction.generation,
                self.introduction.from,
            ));
        }
        Ok(())
    }

    async fn read_proxy_header(&mut self) -> Result<(), End> {
        let (introduction, length) = loop {
            self.fill().await?;
            match proxy::parse(&self.inbox) {
                Header::Partial => {}
                Header::Bad => return Err(End::Refused(Refusal::BadProxyHeader)),
                Header::Whole(introduction, length) => break (introduction, length),
            }
        };
        self.inbox.drain(..length);
        if let Some(theirs) = &introduction.session_id
            && let Some(ours) = self.house.session_id().await
            && theirs != ours
        {
            return Err(End::Refused(Refusal::OtherSession));
        }
        self.introduction = introduction;
        Ok(())
    }

    async fn read_token(&mut self) -> Result<(), End> {
        self.lines.set_limit(MAX_PREAMBLE);
        let line = loop {
            let mut input = self.inbox.as_slice();
            let line = self.lines.next(&mut input);
            let rest = input.len();
            self.inbox.drain(..self.inbox.len() - rest);
            match line {
                Some(Line::Whole(line)) => break line,
                Some(Line::TooLong) => return Err(End::Refused(Refusal::TokenRequired)),
                None => self.fill().await?,
            }
        };
        self.lines.set_limit(MAX_LINE);
        let session = self.house.session_id().await;
        let Some(keys) = &self.house.keys else {
            return Ok(());
        };
        let player = keys
            .player(&line, session, token::now())
            .map_err(End::Refused)?;
        self.introduction.player_id = Some(player);
        self.introduction.session_id = session.map(str::to_owned);
        Ok(())
    }

    /// Commands and answers; ends by [`End`] only.
    async fn talk(&mut self) -> Result<(), End> {
        loop {
            while !self.inbox.is_empty() {
                let answers = self.answers();
                self.write(answers.as_bytes())
                    .await
                    .map_err(|_| End::Quiet)?;
            }
            // Nothing is held for a connection that says nothing.
            self.inbox = Vec::new();
            self.fill().await?;
        }
    }

    /// Answers to what is in the inbox, until that is empty or the answers are many.
    fn answers(&mut self) -> String {
        let inbox = std::mem::take(&mut self.inbox);
        let mut input = inbox.as_slice();
        let mut out = String::new();
        while out.len() < OUTBOX
            && let Some(line) = self.lines.next(&mut input)
        {
            match self.answer(&line) {
                Ok(word) => {
                    out.push_str(word);
                    out.push('\n');
                }
                Err(refusal) => {
                    self.house.act(|inner, _| inner.tally.errors += 1);
                    out.push_str(&refusal.line());
                }
            }
        }
        self.inbox = input.to_vec();
        out
    }

    fn answer(&mut self, line: &Line) -> Result<&'static str, Refusal> {
        let Line::Whole(line) = line else {
            return Err(Refusal::LineTooLong);
        };
        let command = command::parse(line, self.house.longest)?;
        let player = self.introduction.player_id.as_deref();
        let joined = self.client;
        let answer = self.house.act(|inner, now| {
            if !joined {
                if !inner.game.join(now) {
                    return Err(Refusal::TooManyClients);
                }
                inner.tally.joined(player, inner.game.clients());
            }
            Ok(match command {
                Command::GetState => inner.game.get_state(now),
                Command::RequestMatch(duration) => inner.game.request(duration, now),
            })
        })?;
        self.client = true;
        Ok(answer.word())
    }

    /// Adds what the socket has to the inbox, waiting for it; ends when there is nothing more to come.
    async fn fill(&mut self) -> Result<(), End> {
        let mut closing = self.house.closing.subscribe();
        loop {
            tokio::select! {
                ready = self.tcp.readable() => ready.map_err(|_| End::Quiet)?,
                _ = closing.wait_for(|closing| *closing) => return Err(End::Quiet),
            }
            // Not held over the wait: ten thousand silent sockets have no buffer.
            let mut chunk = [0u8; CHUNK];
            match self.tcp.try_read(&mut chunk) {
                Ok(0) => return Err(End::Quiet),
                Ok(count) => {
                    self.inbox.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Quiet),
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        timeout(SEND, self.tcp.write_all(bytes))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Closing a socket with unread bytes in it throws away what was just answered: the end is said first, and then a moment is
    /// given to the other side.
    async fn hang_up(mut self) {
        let _ = self.tcp.shutdown().await;
        if !self.client && self.inbox.is_empty() {
            return;
        }
        let drain = async {
            let mut chunk = [0u8; CHUNK];
            while self.tcp.readable().await.is_ok() {
                match self.tcp.try_read(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = timeout(FAREWELL, drain).await;
    }
}
