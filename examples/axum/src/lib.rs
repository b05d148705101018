//! A web service that sends invitations by mail, as an example of envoi in a program that runs for
//! years. `README.md` describes what it does in each situation.
//!
//! - `lib.rs`: limits, routes, the order of a shutdown
//! - `invitations.rs`: the request that sends, and the status for each outcome
//! - `health.rs`: checks of the mail server, in the background

mod health;
mod invitations;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::routing::{get, post};
use envoi::{Client, Endpoint, Mailbox, Mailer, Pool, PoolConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use health::Health;

/// The limits of the service.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The connections to the mail server.
    pub connections: u16,
    /// The time-out for reading a request. None is needed for the response: it comes after the
    /// deadline of the message at the latest, and has the outcome.
    pub read: Duration,
    /// The deadline of a message: waiting for a connection, connecting and sending it.
    pub send: Duration,
    /// How long messages whose clients have gone may still take when the service shuts down.
    pub close: Duration,
    /// The time between two checks of the mail server.
    pub check_every: Duration,
}

impl Default for Limits {
    /// A shutdown takes at most 25 seconds, of the 30 that Kubernetes grants.
    fn default() -> Self {
        Limits {
            connections: 4,
            read: Duration::from_secs(5),
            send: Duration::from_secs(15),
            close: Duration::from_secs(5),
            check_every: Duration::from_secs(30),
        }
    }
}

/// What the handlers share.
#[derive(Clone)]
struct App {
    mailer: Arc<dyn Mailer>,
    sender: Mailbox,
    /// The time-out for reading a request.
    read: Duration,
    health: watch::Receiver<Health>,
    metrics: PrometheusHandle,
}

/// The service, before it runs.
pub struct Service {
    pool: Pool,
    sender: Mailbox,
    limits: Limits,
    metrics: PrometheusHandle,
}

impl Service {
    /// Creates the service for a mail server. No connection is opened yet.
    pub fn new(
        endpoint: Endpoint,
        sender: Mailbox,
        limits: Limits,
        metrics: PrometheusHandle,
    ) -> Self {
        let mut config = PoolConfig::new(limits.connections);
        config.close = limits.close;
        Service {
            pool: Client::new(endpoint.deadline(limits.send)).pool(config),
            sender,
            limits,
            metrics,
        }
    }

    /// Serves requests until `shutdown` is cancelled, then ends in this order: no new connection is
    /// accepted; open requests get their response; messages whose clients have gone are sent; the
    /// connections to the mail server are closed with QUIT.
    ///
    /// # Errors
    ///
    /// The listener failed.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let Limits {
            read,
            send,
            check_every,
            ..
        } = self.limits;
        let (checked, health) = watch::channel(Health::Starting);
        let (pool, upkeep) = (self.pool.clone(), self.metrics.clone());
        let monitor = tokio::spawn(health::monitor(pool, check_every, upkeep, checked));
        let app = App {
            mailer: Arc::new(self.pool.clone()),
            sender: self.sender,
            read,
            health,
            metrics: self.metrics,
        };
        let serving = axum::serve(listener, router(app))
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        // All responses are ready by then. A client that reads its own slowly is not waited for.
        let limit = async {
            shutdown.cancelled().await;
            sleep(read + send).await;
        };
        let served = tokio::select! {
            served = serving => served,
            () = limit => Ok(()),
        };
        monitor.abort();
        let unfinished = self.pool.close().await;
        if unfinished > 0 {
            tracing::warn!(unfinished, "messages were given up");
        }
        served
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("pool", &self.pool)
            .field("sender", &self.sender)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/invitations", post(invitations::invite))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(16 * 1024))
        .with_state(app)
}

/// The metrics of envoi, in the format of Prometheus.
async fn metrics(State(app): State<App>) -> ([(header::HeaderName, &'static str); 1], String) {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (format, app.metrics.render())
}
