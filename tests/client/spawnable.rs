//! The future of each async function can be spawned, on a runtime with several threads.

use envoi::mailer::{Directory, Sendmail};
use envoi::testing::{Recorder, Server};
use envoi::{Address, Client, Connection, Credentials, Endpoint, Envelope, Failover, Message};
use envoi::{Mailer, Pool, RateLimiter};
use futures::stream;

/// Fails to compile where a future is not `Send`.
#[test]
fn each_future_can_be_spawned() {
    fn spawnable(_: impl Send) {}
    let _ = |client: Client, pool: Pool, failover: Failover, limiter: RateLimiter| {
        spawnable(client.send(Message::raw("")));
        spawnable(client.connect());
        spawnable(client.check());
        spawnable(client.reload_trust());
        spawnable(pool.send(Message::raw("")));
        spawnable(pool.send_all(stream::empty()));
        spawnable(pool.get());
        spawnable(pool.check());
        spawnable(pool.warm_up(2));
        spawnable(pool.close());
        spawnable(failover.send(Message::raw("")));
        spawnable(failover.check());
        let to = [Address::new("you@example.com").unwrap()];
        spawnable(limiter.acquire(&Envelope::new(None, to).unwrap()));
    };
    let _ = |mut connection: Connection, endpoint: Endpoint, credentials: Credentials| {
        spawnable(envoi::probe(&endpoint));
        spawnable(Connection::connect(&endpoint));
        spawnable(Connection::from_stream(tokio::io::empty(), &endpoint));
        spawnable(connection.send(Message::raw("")));
        spawnable(connection.send_all(stream::empty()));
        spawnable(connection.login(None, &credentials));
        spawnable(connection.mail(Address::new("me@example.org").unwrap()));
        spawnable(connection.rcpt(Address::new("you@example.com").unwrap()));
        spawnable(connection.reset());
        spawnable(connection.noop());
        spawnable(connection.verify());
        spawnable(connection.command("HELP"));
        spawnable(async {
            let mut writer = connection.data().await?;
            writer.write("Subject: a\r\n\r\n").await?;
            writer.finish().await
        });
        spawnable(async {
            let writer = connection.data().await?;
            writer.finish_each(|_, _| {}).await
        });
        spawnable(connection.quit());
    };
    let _ = |directory: Directory, sendmail: Sendmail, mailer: &dyn Mailer| {
        spawnable(directory.send(Message::raw("")));
        spawnable(sendmail.send(Message::raw("")));
        spawnable(mailer.send(Message::raw("")));
        spawnable(Message::raw("").prepare());
    };
    let _ = |server: Server, recorder: Recorder| {
        spawnable(Server::start());
        spawnable(Server::builder().start());
        spawnable(server.next_message());
        spawnable(recorder.send(Message::raw("")));
        spawnable(recorder.next_message());
        spawnable(server.shutdown());
    };
}
