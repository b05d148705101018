//! Whether the mail server can be used.
//!
//! One task checks it, however often `/health` is asked: probes of a load balancer cost no
//! connection and no login, and are answered at once.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use envoi::Pool;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::App;

/// What the last check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The first check has not ended.
    Starting,
    /// Messages can be sent.
    Working,
    /// The mail server could not be reached, or refused the login.
    Failing,
}

#[derive(Serialize)]
pub(crate) struct Body {
    mail: Health,
}

/// `GET /health`: 200 while messages can be sent, else 503.
pub(crate) async fn health(State(app): State<App>) -> (StatusCode, Json<Body>) {
    let mail = *app.health.borrow();
    let status = match mail {
        Health::Working => StatusCode::OK,
        Health::Starting | Health::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    // Why it fails is in the log, not in a public response.
    (status, Json(Body { mail }))
}

/// Checks the mail server again and again, over a connection of the pool: it costs one NOOP while a
/// connection is open. The deadline of the endpoint limits each check.
pub(crate) async fn monitor(
    pool: Pool,
    every: Duration,
    metrics: PrometheusHandle,
    health: watch::Sender<Health>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (found, error) = match pool.check().await {
            Ok(_) => (Health::Working, None),
            Err(error) => (Health::Failing, Some(error)),
        };
        if health.send_replace(found) != found {
            match error {
                None => tracing::info!("the mail server works"),
                Some(error) => tracing::warn!("the mail server fails: {error}"),
            }
        }
        // Bounds the memory of the histograms while Prometheus does not ask.
        metrics.run_upkeep();
    }
}
