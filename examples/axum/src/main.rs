//! The program: settings from the environment, signals, logs and metrics.

use std::env;
use std::error::Error;
use std::net::SocketAddr;

use envoi::{Mailbox, Settings};
use envoi_axum_example::{Limits, Service};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();

    // With buckets, Prometheus can add up the histograms of several instances.
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".to_owned()),
            &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0],
        )?
        .install_recorder()?;
    envoi::describe_metrics();

    let endpoint = Settings::from_env("MAIL_")?.endpoint()?;
    let sender: Mailbox = env::var("SENDER").map_err(|_| "set SENDER")?.parse()?;
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);

    let shutdown = CancellationToken::new();
    let signal = signal()?;
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            signal.await;
            tracing::info!("shutting down");
            shutdown.cancel();
        }
    });
    Service::new(endpoint, sender, Limits::default(), metrics)
        .run(listener, shutdown)
        .await?;
    tracing::info!("ended");
    Ok(())
}

/// Waits for SIGTERM, which systemd, Docker and Kubernetes send, or Ctrl-C. Signals are caught from
/// the call on.
#[cfg(unix)]
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a handler, the system ends the program.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
