//! Step by step, as test tools talk.

use envoi::{Address, Client, ErrorKind};

use crate::servers::{ALICE, Server, both, lockstep, someone};

#[tokio::test]
#[ignore = "needs real servers"]
async fn single_steps_deliver_a_message() {
    for server in both() {
        for url in server.settings() {
            converse(server, &url).await;
        }
    }
    let server = lockstep();
    converse(&server, &server.starttls(ALICE)).await;
}

async fn converse(server: &Server, url: &str) {
    let mut connection = Client::from_url(url).unwrap().connect().await.unwrap();
    assert!(connection.capabilities().size_limit().unwrap() > 1_000_000_000);
    let alice = Address::new("alice@envoi.test").unwrap();
    let unknown_user = Address::new("nobody@envoi.test").unwrap();

    // A transaction that is given up.
    let dropped = someone("dropped");
    assert_eq!(connection.mail(alice.clone()).await.unwrap().code(), 250);
    assert!(
        connection
            .rcpt(dropped.clone())
            .await
            .unwrap()
            .is_positive()
    );
    assert_eq!(connection.reset().await.unwrap().code(), 250);
    assert_eq!(connection.noop().await.unwrap().code(), 250);
    assert_eq!(
        connection.rcpt(dropped.clone()).await.unwrap_err().kind(),
        ErrorKind::Request
    );

    // One that goes on after a refusal.
    let to = [someone("steps"), someone("steps")];
    assert_eq!(connection.mail(alice.clone()).await.unwrap().code(), 250);
    assert_eq!(connection.rcpt(to[0].clone()).await.unwrap().code(), 250);
    assert_eq!(
        connection.rcpt(unknown_user.clone()).await.unwrap().code(),
        550
    );
    assert_eq!(connection.rcpt(to[1].clone()).await.unwrap().code(), 250);
    let mut writer = connection.data().await.unwrap();
    for piece in [
        "Subject: steps\r",
        "\n",
        "",
        "\r\n.",
        "line\n.",
        "\r\n",
        ".",
        ".\r",
        "\nno end",
    ] {
        writer.write(piece).await.unwrap();
    }
    let reply = writer.finish().await.unwrap();
    assert!(reply.is_positive());
    for to in &to {
        assert_eq!(
            server.delivered(to).await.text(),
            "Subject: steps\r\n\r\n.line\r\n.\r\n..\r\nno end\r\n"
        );
    }

    // One without a recipient: there is nothing to give DATA for.
    assert_eq!(connection.mail(None).await.unwrap().code(), 250);
    assert_eq!(connection.rcpt(unknown_user).await.unwrap().code(), 550);
    assert_eq!(
        connection.data().await.unwrap_err().kind(),
        ErrorKind::Request
    );
    assert_eq!(connection.reset().await.unwrap().code(), 250);

    let reply = connection.command("VRFY alice@envoi.test").await.unwrap();
    assert_eq!(reply.code(), 252, "{reply}");
    for command in ["HELP", "EXPN staff", "ETRN example.org", "VRFY"] {
        // What a server makes of them is its own affair; that they are answered is not.
        let reply = connection.command(command).await.unwrap();
        assert!(reply.code() >= 200, "{command}: {reply}");
    }
    let reply = connection.command("NONSENSE").await.unwrap();
    assert!(reply.is_permanent(), "{reply}");
    assert_eq!(
        connection.command("NOOP\r\nDATA").await.unwrap_err().kind(),
        ErrorKind::Request
    );
    connection.verify().await.unwrap();

    // The writer takes much, and what it sent is a message like any other.
    assert_eq!(connection.mail(alice).await.unwrap().code(), 250);
    assert_eq!(connection.rcpt(dropped.clone()).await.unwrap().code(), 250);
    let mut writer = connection.data().await.unwrap();
    writer.write("Subject: much\r\n\r\n").await.unwrap();
    let lines = ".0123456789\r\n".repeat(10_000);
    for _ in 0..20 {
        writer.write(lines.clone()).await.unwrap();
    }
    writer.finish().await.unwrap();
    connection.quit().await;
    let delivered = server.delivered(&dropped).await;
    assert!(delivered.text() == format!("Subject: much\r\n\r\n{}", lines.repeat(20)));
}
