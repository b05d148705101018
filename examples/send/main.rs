//! Sends one message from the command line. `send --help` lists the options; the exit code is the
//! result.
//!
//!     cargo run --example send -- --url smtp://alice@mail.example.org --password-file secret.txt \
//!         --from alice@example.org --to bob@example.com --subject Hello --body "Hello Bob." \
//!         --attach film.mp4
//!
//! [`send`] does the work: an endpoint, a message, and one call.

mod mx;
mod options;
#[path = "../password/mod.rs"]
mod password;
mod progress;
mod report;
#[path = "../resolver/mod.rs"]
mod resolver;
#[path = "../trust/mod.rs"]
mod trust;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser as _;
use envoi::delivery::{DeliverBy, EnvelopeId, FutureRelease};
use envoi::dkim::{DkimKey, DkimSigner};
use envoi::mail_builder::MessageBuilder;
use envoi::message::decode_text;
use envoi::proto::ClientName;
use envoi::tls::{ClientCertificate, Trust};
use envoi::{
    Address, Attachment, Client, DeliveryOptions, Endpoint, Envelope, Message, Proxy, RetryPolicy,
    Secret, Timeouts,
};

use options::Options;
use password::is_stdin;
use report::{Failure, Report, Success};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let started = Instant::now();
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut transcript = None;
    let (result, as_json) = match Options::try_parse_from(&args) {
        Ok(options) => (send(&options, &mut transcript).await, options.json),
        // clap returns --help and --version as errors.
        Err(asked) if asked.exit_code() == 0 => asked.exit(),
        Err(error) => (
            Err(options::explain(&error, &args)),
            args.iter().any(|arg| arg == "--json"),
        ),
    };
    let report = Report::new(result, started.elapsed());
    report.print(as_json);
    if let Some(mut file) = transcript {
        // The message was sent, even if the transcript cannot be written.
        let _ = file.write_all(report.transcript().as_bytes());
    }
    // Returning from `main` would wait for a thread that still reads standard input or resolves a
    // name.
    std::process::exit(report.exit_code().into());
}

/// Sends the message, or checks the server. The file of the transcript is created first: if it
/// cannot be written, the request is invalid.
async fn send(
    options: &Options,
    transcript: &mut Option<Box<dyn Write>>,
) -> Result<Success, Failure> {
    options.check()?;
    *transcript = options.transcript.as_deref().map(output).transpose()?;
    let began = Instant::now();
    let base = match &options.url {
        Some(url) => Endpoint::from_url(url)?,
        None => Endpoint::new(""),
    };
    let mut endpoint = settings(options, base)?;
    trust::check(endpoint.get_tls().get_trust())?;
    let mx_client = match options.mx {
        true => Some(mx::client(options, &endpoint)?),
        false => None,
    };
    let retries = RetryPolicy::new(retries(options)?);
    let delivery = delivery(options)?;
    let signers = signers(options)?;
    let deadline = options
        .deadline
        .as_deref()
        .map(|seconds| duration(seconds, "--deadline"))
        .transpose()?;
    if options.check {
        if let Some(limit) = deadline {
            endpoint = endpoint.deadline(left_of(limit, began));
        }
        let report = Client::new(endpoint).check().await?;
        return Ok(Success::Checked(Box::new(report)));
    }
    let reading = message(options);
    let message = match deadline {
        Some(limit) => {
            let left = limit.saturating_sub(began.elapsed());
            timeout(left, reading)
                .await
                .unwrap_or_else(|_| Err(Failure::not_read(limit)))?
        }
        None => reading.await?,
    };
    let mut message = message.delivery(delivery);
    if let Some(limit) = deadline {
        endpoint = endpoint.deadline(left_of(limit, began));
    }
    if options.binary {
        message = message.binary(true);
    }
    for signer in signers {
        message = message.dkim(signer);
    }
    if options.progress {
        message = message.progress(progress::bar());
    }
    if let Some(client) = mx_client {
        return mx::send(client.endpoint(|_| endpoint).retries(retries), message).await;
    }
    let client = Client::new(endpoint).retries(retries);
    let receipt = client.send(message).await?;
    Ok(Success::Sent(Box::new(receipt)))
}

/// The time that is left of a limit, in tenths of a second, as errors print it.
fn left_of(limit: Duration, began: Instant) -> Duration {
    let spent = Duration::from_millis(100)
        * u32::try_from(began.elapsed().as_millis() / 100).unwrap_or(u32::MAX);
    limit.saturating_sub(spent)
}

fn signers(options: &Options) -> Result<Vec<DkimSigner>, Failure> {
    let signer = |option: &String| {
        let mut parts = option.splitn(3, ',');
        let (Some(domain), Some(selector), Some(file)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::request("--dkim takes DOMAIN,SELECTOR,KEYFILE")
                .with_hint("For example --dkim example.org,2026,/etc/dkim/2026.pem."));
        };
        Ok(DkimSigner::new(
            domain,
            selector,
            DkimKey::from_file(file)?,
        )?)
    };
    options.dkim.iter().map(signer).collect()
}

/// Adds the settings of the options.
fn settings(options: &Options, mut endpoint: Endpoint) -> Result<Endpoint, Failure> {
    if !options.trust.is_empty() {
        endpoint = endpoint.trust(options.trust.iter().fold(Trust::empty(), Trust::path));
    }
    if options.system_trust {
        endpoint = endpoint.system_trust();
    }
    let until = Instant::now() + time_for_passwords(options)?;
    let store_password = store_password(options, until)?;
    if let Some(password) = &store_password {
        endpoint = endpoint.trust_password(password.clone());
    }
    if let Some(path) = &options.client_cert {
        endpoint = endpoint.client_certificate(client_certificate(path, options, store_password));
    }
    if let Some(name) = &options.helo {
        endpoint = endpoint.client_name(ClientName::new(name)?);
    }
    if let Some(mechanism) = &options.auth {
        endpoint = endpoint.mechanism(mechanism.parse()?);
    }
    if let Some(password) = password(options, until)? {
        endpoint = endpoint.password(password);
    }
    if options.all_or_nothing {
        endpoint = endpoint.all_or_nothing(true);
    }
    if let Some(url) = &options.proxy {
        endpoint = endpoint.proxy(Proxy::from_url(url)?);
    }
    if let Some(address) = &options.bind {
        let failure = |_| {
            Failure::request("--bind takes an IP address")
                .with_hint("Give one that this machine has.")
        };
        endpoint = endpoint.bind(address.parse::<IpAddr>().map_err(failure)?);
    }
    if let Some(seconds) = &options.timeout {
        endpoint = endpoint.timeouts(Timeouts::uniform(duration(seconds, "--timeout")?));
    }
    Ok(endpoint)
}

fn retries(options: &Options) -> Result<usize, Failure> {
    let number = options.retries.as_deref().map(str::parse).transpose();
    Ok(number
        .map_err(|_| Failure::request("--retries takes a number"))?
        .unwrap_or_default())
}

fn client_certificate(
    path: &Path,
    options: &Options,
    password: Option<Secret>,
) -> ClientCertificate {
    let mut certificate = ClientCertificate::file(path);
    if let Some(key) = &options.client_key {
        certificate = certificate.key(key);
    }
    if let Some(password) = password {
        certificate = certificate.password(password);
    }
    certificate
}

async fn message(options: &Options) -> Result<Message<'_>, Failure> {
    let envelope = envelope(options)?;
    if let Some(path) = &options.message {
        let raw = if is_stdin(path) {
            Message::raw_stream(tokio::io::stdin())
        } else {
            Message::raw_file(path)
        };
        return Ok(raw.envelope(envelope));
    }
    let mut mail = MessageBuilder::new();
    if let Some(sender) = envelope.reverse_path() {
        mail = mail.from(sender.to_string());
    }
    if !options.to.is_empty() {
        mail = mail.to(addresses(&options.to));
    }
    if !options.cc.is_empty() {
        mail = mail.cc(addresses(&options.cc));
    }
    if let Some(subject) = &options.subject {
        mail = mail.subject(subject);
    }
    let text = match (&options.body, &options.body_file) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(path)) => Some(read_text(path, "--body-file").await?),
        (None, None) => None,
    };
    if let Some(path) = &options.html {
        mail = mail.html_body(read_text(path, "--html").await?);
    }
    if text.is_some() || options.html.is_none() {
        mail = mail.text_body(text.unwrap_or_default());
    }
    let attachments = options.attach.iter().map(|path| match is_stdin(path) {
        true => Attachment::reader("attachment", "application/octet-stream", tokio::io::stdin()),
        false => Attachment::file(path),
    });
    Ok(attachments.fold(Message::from(mail).envelope(envelope), Message::attach))
}

/// The ESMTP parameters of the message.
fn delivery(options: &Options) -> Result<DeliveryOptions, Failure> {
    let mut delivery = DeliveryOptions::new();
    if let Some(list) = &options.notify {
        delivery = delivery.notify(list.parse()?);
    }
    if let Some(what) = &options.ret {
        delivery = delivery.returned(what.parse()?);
    }
    if let Some(id) = &options.envid {
        delivery = delivery.envelope_id(EnvelopeId::new(id)?);
    }
    if let Some(seconds) = &options.deliver_by {
        delivery = delivery.deliver_by(DeliverBy::or_return(duration(seconds, "--deliver-by")?)?);
    }
    if let Some(seconds) = &options.hold {
        delivery = delivery.hold(FutureRelease::for_duration(duration(seconds, "--hold")?)?);
    }
    if let Some(number) = &options.priority {
        delivery = delivery.priority(number.parse()?);
    }
    if options.require_tls {
        delivery = delivery.require_tls(true);
    }
    Ok(delivery)
}

/// The sender and the recipients, independent of the headers, so that Bcc recipients stay
/// hidden.
fn envelope(options: &Options) -> Result<Envelope, Failure> {
    let sender = match options.from.as_deref().unwrap_or_default() {
        "" | "<>" => None,
        address => Some(Address::new(address)?),
    };
    let recipients = options.to.iter().chain(&options.cc).chain(&options.bcc);
    let recipients: Vec<Address> = recipients.map(Address::new).collect::<Result<_, _>>()?;
    Ok(Envelope::new(sender, recipients)?)
}

fn addresses(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// The limit for reading all password files.
fn time_for_passwords(options: &Options) -> Result<Duration, Failure> {
    let mut time = Duration::from_secs(5);
    for (seconds, option) in [
        (&options.deadline, "--deadline"),
        (&options.timeout, "--timeout"),
    ] {
        if let Some(seconds) = seconds {
            time = time.min(duration(seconds, option)?);
        }
    }
    Ok(time)
}

fn password(options: &Options, until: Instant) -> Result<Option<Secret>, Failure> {
    if let Some(variable) = &options.password_env {
        // Shows neither the error, which may contain the value, nor the name, which may be the
        // password itself by mistake.
        let failure = |_| {
            Failure::request("the environment variable of --password-env is not set, or not UTF-8")
        };
        return std::env::var(variable)
            .map(|password| Some(password.into()))
            .map_err(failure);
    }
    let Some(path) = &options.password_file else {
        return Ok(None);
    };
    let failure = |error: std::io::Error| match error.kind() {
        ErrorKind::FileTooLarge if is_stdin(path) => Failure::request(
            "--password-file names no password: there are more than 65536 bytes \
                in it",
        ),
        _ => Failure::input(password::unreadable("--password-file", &error)).with_hint(
            "Give the path of a file in UTF-8 that holds the password alone, and that \
                this user may read.",
        ),
    };
    password::read(path, until).map(Some).map_err(failure)
}

/// The password of trust stores and of the client certificate.
fn store_password(options: &Options, until: Instant) -> Result<Option<Secret>, Failure> {
    match (&options.trust_password, &options.trust_password_file) {
        (Some(password), _) => Ok(Some(password.into())),
        (None, Some(path)) => password::read(path, until).map(Some).map_err(|error| {
            Failure::config(password::unreadable("--trust-password-file", &error))
        }),
        (None, None) => Ok(None),
    }
}

/// Creates the file, or returns standard error for `-`.
fn output(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stderr()));
    }
    let failure = |error| {
        Failure::request(format!(
            "the file of --transcript cannot be written: {error}"
        ))
    };
    Ok(Box::new(std::fs::File::create(path).map_err(failure)?))
}

/// Reads a text from a file or from standard input. Files have a time limit, as some in /proc are
/// regular and endless.
async fn read_text(path: &Path, option: &'static str) -> Result<String, Failure> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let source = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_text_now(&source, option));
    let read = match is_stdin(path) {
        true => reading.await,
        false => timeout(PATIENCE, reading).await.map_err(|_| {
            Failure::input(format!(
                "{option} cannot be read as text: its end did not come in {PATIENCE:?}"
            ))
            .with_hint(
                "Copy it into a regular file and send that, or give it as - on standard input.",
            )
        })?,
    };
    read.map_err(|error| Failure::input(format!("{option} cannot be read as text: {error}")))?
}

fn read_text_now(path: &Path, option: &str) -> Result<String, Failure> {
    // The whole text is in memory. Larger ones should be attachments.
    const LIMIT: u64 = 64 * 1024 * 1024;
    let failure =
        |cause: &dyn Display| Failure::input(format!("{option} cannot be read as text: {cause}"));
    let unreadable = |error: std::io::Error| {
        failure(&error)
            .with_hint("Check that there is a file of this name, and that this user may read it.")
    };
    let metadata = |path: &Path| std::fs::metadata(path).map_err(unreadable);
    let source: Box<dyn Read> = if is_stdin(path) {
        Box::new(std::io::stdin())
    } else if metadata(path)?.is_file() {
        Box::new(std::fs::File::open(path).map_err(unreadable)?)
    } else if metadata(path)?.is_dir() {
        return Err(failure(&"it is a directory").with_hint("Name a file in it."));
    } else {
        // Opening a FIFO could block forever.
        return Err(failure(&"it is not a regular file").with_hint(
            "A pipe or a device can be read as a stream, given as - on standard input.",
        ));
    };
    let mut bytes = Vec::new();
    source
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failure(&error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(
            failure(&"it is larger than 64 MiB").with_hint("Send it as an attachment (--attach).")
        );
    }
    decode_text(bytes)
        .map_err(|error| failure(&error.message()).with_hint(error.hint().unwrap_or_default()))
}

fn duration(seconds: &str, option: &str) -> Result<Duration, Failure> {
    // About thirty years.
    let seconds = seconds
        .parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Failure::request(format!("{option} takes a number of seconds"))
            .with_hint("Give one above 0, such as 20 or 0.5.")
    })
}
