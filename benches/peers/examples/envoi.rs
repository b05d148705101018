use envoi::{Attachment, Client, Message, mail_builder::MessageBuilder};

#[tokio::main]
async fn main() -> envoi::Result<()> {
    let client = Client::from_url("smtp://alice%40example.org:secret@mail.example.org")?;
    let mail = MessageBuilder::new()
        .from("alice@example.org")
        .to("bob@example.com")
        .subject("The film")
        .text_body("Enjoy!");
    let message = Message::from(mail).attach(Attachment::file("film.mp4"));
    let receipt = client.send(message).await?;
    println!("accepted for all: {}", receipt.all_accepted());
    Ok(())
}
