use mail_send::{SmtpClientBuilder, mail_builder::MessageBuilder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let film = tokio::fs::read("film.mp4").await?;
    let mail = MessageBuilder::new()
        .from("alice@example.org")
        .to("bob@example.com")
        .subject("The film")
        .text_body("Enjoy!")
        .attachment("video/mp4", "film.mp4", film);
    let mut client = SmtpClientBuilder::new("mail.example.org", 587)?
        .implicit_tls(false)
        .credentials(("alice@example.org", "secret"))
        .connect()
        .await?;
    client.send(mail).await?;
    println!("accepted for all");
    Ok(())
}
