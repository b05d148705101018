use lettre::message::{Attachment, MultiPart, SinglePart, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let credentials = Credentials::new("alice@example.org".to_owned(), "secret".to_owned());
    let transport = AsyncSmtpTransport::<Tokio1Executor>::starttls_relay("mail.example.org")?
        .credentials(credentials)
        .build();
    let film = Attachment::new("film.mp4".to_owned()).body(
        tokio::fs::read("film.mp4").await?,
        ContentType::parse("video/mp4")?,
    );
    let mail = Message::builder()
        .from("alice@example.org".parse()?)
        .to("bob@example.com".parse()?)
        .subject("The film")
        .multipart(
            MultiPart::mixed()
                .singlepart(SinglePart::plain("Enjoy!".to_owned()))
                .singlepart(film),
        )?;
    let response = transport.send(mail).await?;
    println!("accepted: {}", response.is_positive());
    Ok(())
}
