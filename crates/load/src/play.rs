//! A match of lines over TCP, from the game's first word to its last.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::fault::Fault;
use crate::lines::Lines;
use crate::schedule::Beat;
use crate::stats::Times;

/// What a client does in a match.
pub(crate) struct Terms<'a> {
    /// Asked for by whoever finds the match open.
    pub(crate) duration: Duration,
    /// When it has lasted too long.
    pub(crate) deadline: Instant,
    /// When to ask.
    pub(crate) beat: Beat,
    /// Where the answers' times go.
    pub(crate) round_trips: &'a Times,
}

/// How a match ended for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The game said `stop`.
    Stopped,
    /// The connection was closed. Whether the match is over is for the server to say.
    Closed,
    /// It still ran at the deadline.
    Overdue,
}

/// What was asked last and is not answered yet. Every line has one answer, in order.
enum Asked {
    Match,
    State(Instant),
}

/// The first word: what state the match is in. Whoever does not know whether the token line goes to a gateway or to the game itself
/// forgives the game one `ERROR` for it.
pub(crate) async fn first_word(lines: &mut Lines, forgiving: bool) -> Result<String, Fault> {
    tell(lines, "GET_STATE").await?;
    match word(lines.next().await?) {
        Err(fault) if forgiving && fault.class == "game_unknown_command" => {
            word(lines.next().await?)
        }
        told => told,
    }
}

/// Sends a line of the beginning. Where that fails, the other side has said why before it hung up, or nothing.
pub(crate) async fn tell(lines: &mut Lines, line: &str) -> Result<(), Fault> {
    let Err(fault) = lines.send(line).await else {
        return Ok(());
    };
    match lines.next().await {
        Ok(Some(said)) => word(Some(said)).and(Err(fault)),
        Ok(None) | Err(_) => Err(fault),
    }
}

/// Plays on from the state the game last told. A question that was not answered is owed: the beat is left at it.
pub(crate) async fn watch(
    lines: &mut Lines,
    state: &str,
    terms: &mut Terms<'_>,
) -> Result<Over, Fault> {
    let mut asked = None;
    let over = converse(lines, state, terms, &mut asked).await;
    if let Some(Asked::State(intended)) = asked {
        terms.beat.owe(intended);
    }
    over
}

async fn converse(
    lines: &mut Lines,
    state: &str,
    terms: &mut Terms<'_>,
    asked: &mut Option<Asked>,
) -> Result<Over, Fault> {
    let mut running = match state {
        "open" => {
            let line = format!("REQUEST_MATCH {}", terms.duration.as_secs_f64());
            if lines.send(&line).await.is_err() {
                return Ok(Over::Closed);
            }
            *asked = Some(Asked::Match);
            false
        }
        "running" => true,
        "stop" => return Ok(Over::Stopped),
        other => return Err(unexpected(other)),
    };
    loop {
        let ask = async {
            match &*asked {
                None => sleep_until(terms.beat.next()).await,
                Some(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            line = lines.next() => {
                let line = match line {
                    Ok(Some(line)) => line,
                    Ok(None) => return Ok(Over::Closed),
                    // A reset is how a kernel says that the game closed with our question unread.
                    Err(fault) if fault.transient => return Ok(Over::Closed),
                    Err(fault) => return Err(fault),
                };
                if let Some(Asked::State(intended)) = asked.take() {
                    terms.round_trips.record(intended.elapsed());
                }
                match word(Some(line))?.as_str() {
                    "running" => running = true,
                    "stop" => return Ok(Over::Stopped),
                    "open" if running => {
                        return Err(Fault::new("went_back", "a running match was open again"));
                    }
                    other => return Err(unexpected(other)),
                }
            }
            () = ask => {
                *asked = Some(Asked::State(terms.beat.next()));
                terms.beat.asked();
                if lines.send("GET_STATE").await.is_err() {
                    return Ok(Over::Closed);
                }
            }
            () = sleep_until(terms.deadline) => return Ok(Over::Overdue),
        }
    }
}

fn word(line: Option<String>) -> Result<String, Fault> {
    match line {
        None => Err(Fault::transport(
            "closed",
            "the game closed the connection without a word",
        )),
        Some(line) => match line.strip_prefix("ERROR ") {
            Some(error) => {
                let code = error.split([':', ' ']).next().unwrap_or_default();
                Err(Fault::new(format!("game_{code}"), error))
            }
            None => Ok(line),
        },
    }
}

fn unexpected(word: &str) -> Fault {
    let shown: String = word.chars().take(60).collect();
    Fault::new("odd_answer", format!("the game answered {shown:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::either::Either;

    /// A game that answers each line with the next of these words, then closes.
    async fn game(words: &'static [&'static str]) -> (Lines, tokio::task::JoinSet<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut games = tokio::task::JoinSet::new();
        games.spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut heard = vec![];
            for word in words {
                let mut line = vec![];
                while !line.ends_with(b"\n") {
                    line.push(tcp.read_u8().await.unwrap());
                }
                heard.push(String::from_utf8(line).unwrap().trim().to_owned());
                // In two pieces: an answer is a line, not a packet.
                let (a, b) = word.split_at(1);
                tcp.write_all(a.as_bytes()).await.unwrap();
                tcp.flush().await.unwrap();
                tcp.write_all(format!("{b}\r\n").as_bytes()).await.unwrap();
            }
            heard
        });
        let tcp = TcpStream::connect(address).await.unwrap();
        (Lines::new(Either::Left(tcp)), games)
    }

    fn terms(times: &Times, lasts: Duration) -> Terms<'_> {
        let now = Instant::now();
        Terms {
            duration: Duration::from_millis(1500),
            deadline: now + lasts,
            beat: Beat::new(now, Duration::from_millis(1), Duration::from_millis(1)),
            round_trips: times,
        }
    }

    #[tokio::test]
    async fn who_finds_it_open_asks_for_the_match() {
        let (mut lines, mut games) = game(&["open", "running", "running", "stop"]).await;
        let times = Times::default();
        let state = first_word(&mut lines, false).await.unwrap();
        let over = watch(
            &mut lines,
            &state,
            &mut terms(&times, Duration::from_secs(30)),
        )
        .await;
        assert_eq!(over, Ok(Over::Stopped));
        let heard = games.join_next().await.unwrap().unwrap();
        assert_eq!(
            heard,
            ["GET_STATE", "REQUEST_MATCH 1.5", "GET_STATE", "GET_STATE"]
        );
        assert_eq!(times.spread().count, 2);
    }

    #[tokio::test]
    async fn a_match_ends_or_does_not() {
        let times = Times::default();
        for (words, lasts, wanted) in [
            (&["running"][..], 30_000, Ok(Over::Closed)),
            (&["running", "running"], 30_000, Ok(Over::Closed)),
            (&["stop"], 30_000, Ok(Over::Stopped)),
        ] {
            let (mut lines, _games) = game(words).await;
            let state = first_word(&mut lines, false).await.unwrap();
            let mut terms = terms(&times, Duration::from_millis(lasts));
            assert_eq!(
                watch(&mut lines, &state, &mut terms).await,
                wanted,
                "{words:?}"
            );
        }
        let (mut lines, _games) = game(&["running", "running"]).await;
        let mut terms = terms(&times, Duration::ZERO);
        terms.beat = Beat::new(
            Instant::now(),
            Duration::from_secs(60),
            Duration::from_secs(60),
        );
        let state = first_word(&mut lines, false).await.unwrap();
        assert_eq!(
            watch(&mut lines, &state, &mut terms).await,
            Ok(Over::Overdue)
        );
    }

    #[tokio::test]
    async fn what_was_never_answered_counts_with_the_time_it_waited() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stuck, _) = listener.accept().await.unwrap();
        let mut lines = Lines::new(Either::Left(tcp));
        let times = Times::default();
        let mut terms = terms(&times, Duration::from_secs(30));
        terms.beat = Beat::new(Instant::now(), Duration::ZERO, Duration::from_millis(200));
        let hang_up = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stuck.shutdown().await.unwrap();
        };
        let (over, ()) = tokio::join!(watch(&mut lines, "running", &mut terms), hang_up);
        assert_eq!(over, Ok(Over::Closed));
        terms.beat.settle(terms.deadline, &times);
        // Meant for 0, 200, 400, 600 and 800 ms, and the one at the end or not.
        let spread = times.spread();
        assert!((5..=6).contains(&spread.count), "{spread:?}");
        assert!(
            spread.max_ms >= 990.0 && spread.p50_ms >= 390.0,
            "{spread:?}"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_read_also_by_who_cannot_write_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut door, _) = listener.accept().await.unwrap();
        door.write_all(b"ERROR session_not_found\n").await.unwrap();
        door.shutdown().await.unwrap();
        drop(door);
        let mut lines = Lines::new(Either::Left(tcp));
        // The first write is answered by a reset, so that sooner or later one fails.
        let fault = loop {
            if let Err(fault) = tell(&mut lines, "GET_STATE").await {
                break fault;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(fault.class, "game_session_not_found");
        let fault = tell(&mut lines, "GET_STATE").await.unwrap_err();
        assert!(fault.transient, "nothing more was said: {fault}");
    }

    #[tokio::test]
    async fn nonsense_of_a_game_is_named() {
        let times = Times::default();
        for (words, class) in [
            (&["ERROR full: later"][..], "game_full"),
            (&["hello"], "odd_answer"),
            (&["running", "open"], "went_back"),
            (&["open", "ERROR bad_duration: no"], "game_bad_duration"),
        ] {
            let (mut lines, _games) = game(words).await;
            let fault = match first_word(&mut lines, false).await {
                Err(fault) => fault,
                Ok(state) => watch(
                    &mut lines,
                    &state,
                    &mut terms(&times, Duration::from_secs(30)),
                )
                .await
                .unwrap_err(),
            };
            assert_eq!(fault.class, class);
        }
        let (mut lines, _games) = game(&["open"]).await;
        lines.buffer_for_test(b"ERROR unknown_command: x\n");
        assert_eq!(first_word(&mut lines, true).await.unwrap(), "open");
        let (mut lines, _games) = game(&[]).await;
        // Closed, or reset because our question was not read: which of them is the kernel's affair.
        assert!(first_word(&mut lines, false).await.unwrap_err().transient);
    }
}
