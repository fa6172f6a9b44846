//! The gateway without sockets, for simulation: the same tables, tokens, admission, waiting and reports; only the dial and the bytes
//! are pretended. Nothing that ships has it (feature `simulation`), and nothing here decides.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use spawnpoint_core::PlayerId;
use spawnpoint_wire::close::Close;
use spawnpoint_wire::link::Route;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connect::{Dial, connect, refusal_for};
use crate::decide::{Refusal, Use};
use crate::game::DialError;
use crate::handshake::{admit_player, authorise};
use crate::http_game::entrance::Credentials;
use crate::table::Admission;
use crate::{Gateway, feed, report};

/// Whether a game answers at the address of a route.
pub type Answers = Arc<dyn Fn(&Route, SocketAddr) -> bool + Send + Sync>;

struct DryDial(Answers);

impl Dial for DryDial {
    const USE: Use = Use::Tunnel;
    type Leg = ();

    async fn dial(&self, route: &Route, address: SocketAddr) -> Result<(), DialError> {
        if (self.0)(route, address) {
            Ok(())
        } else {
            Err(DialError::Unreachable)
        }
    }
}

impl Gateway {
    /// Follows routes and reports until told to stop, as [`Gateway::serve`] does.
    pub async fn run_dry(&self, stop: CancellationToken) {
        let mut workers = JoinSet::new();
        workers.spawn(feed::follow(self.inner.clone(), stop.clone()));
        workers.spawn(report::report(self.inner.clone(), stop));
        workers.join_all().await;
    }

    /// One player's WebSocket to `/session/<name>`: parked until the game accepts, then connected.
    ///
    /// # Errors
    /// As the player would be told.
    pub async fn enter(
        &self,
        name: &str,
        token: &str,
        from: SocketAddr,
        answers: Answers,
    ) -> Result<DryTunnel, Refusal> {
        let inner = &self.inner;
        let credentials = Credentials {
            tokens: vec![token.to_owned()],
            bearer_is_ours: false,
            cookies: 0,
        };
        let granted = authorise(inner, name, &credentials, false)?;
        let admission = admit_player(inner, &granted.claims, from.ip(), None, Use::Tunnel).await?;
        let tunnel = admission.shared_tunnel();
        let dial = DryDial(answers);
        let connected = timeout(inner.config.park, connect(admission, &dial, &inner.config));
        let (admission, (), route) = tokio::select! {
            biased;
            close = poll_fn(|cx| tunnel.poll_order(cx)) => return Err(refusal_for(close)),
            connected = connected => connected.map_err(|_| Refusal::StillStarting)??,
        };
        Ok(DryTunnel { admission, route })
    }
}

/// A connected player. Dropping it closes the connection.
pub struct DryTunnel {
    admission: Admission,
    route: Arc<Route>,
}

impl DryTunnel {
    /// What was dialled.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Whose it is.
    #[must_use]
    pub fn player(&self) -> &PlayerId {
        &self.admission.tunnel().player
    }

    /// A data frame of the player.
    pub fn client_data(&self) {
        self.admission.heard_client(64, true);
    }

    /// A data frame of the game.
    pub fn server_data(&self) {
        self.admission.heard_server(64, true);
    }

    /// Waits until the gateway closes it.
    pub async fn closed(&self) -> Close {
        let tunnel = self.admission.tunnel();
        poll_fn(|cx| tunnel.poll_order(cx)).await
    }
}
