//! The example `fuzz_server`, against the server inside the process.

use envoi::testing::Server;
use support::program;

#[tokio::test]
async fn the_test_server_survives_fuzzed_sessions() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let address = format!("{}:{}", server.host(), server.port());
    let fuzz = async |sessions| {
        let arguments = [&address, "me@example.org", "you@example.com", sessions];
        let run = program::run("fuzz_server", &arguments, b"", &[]).await;
        run.exits_with(0);
        run.stdout
    };
    let seen = fuzz("40").await;
    assert_eq!(seen.lines().count(), 40, "{seen}");
    assert_eq!(seen.lines().next(), Some("0: sent"));
    let others = seen.lines().filter(|line| !line.ends_with(": sent"));
    assert!(others.count() > 6, "changes must show: {seen}");
    assert_eq!(fuzz("1").await, "0: sent\n", "the server still serves");
}
