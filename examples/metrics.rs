//! Sends messages to a server in the same process, over a pool, and prints the metrics in the
//! format of Prometheus. A web server would return the same text to Prometheus.
//!
//! ```text
//! cargo run --example metrics
//! ```

use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::{Client, describe_metrics};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the first message. With buckets, Prometheus can add up the histograms of several
    // processes.
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".to_owned()),
            &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0],
        )?
        .install_recorder()?;
    describe_metrics();

    let server = Server::builder()
        .refuse_recipient("carol@example.com", "550 5.1.1 No such user")
        .start()
        .await?;
    let pool = Client::from_url(&server.url())?.pool(2);
    for to in ["alice@example.com", "bob@example.com", "carol@example.com"] {
        let mail = MessageBuilder::new()
            .from("me@example.org")
            .to(to)
            .text_body("Hello.");
        if let Err(error) = pool.send(mail).await {
            eprintln!("{error}");
        }
    }
    // Idle connections are still open here.
    println!("{}", prometheus.render());
    pool.close().await;
    Ok(())
}
