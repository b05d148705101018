//! A [`Directory`] writes messages into files.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempPath;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::{Mailer, SendFuture, Submission};
use crate::message::{Body, PreparedMessage};
use crate::{Envelope, Error, ErrorKind, Message, Phase, Receipt, Result, date};

/// A [`Mailer`] for development: writes each message into a file of a directory instead of sending
/// it.
///
/// A message becomes two files with one name, such as `20261224T180000.123456Z-k3Jq9x.eml`:
///
/// - `….eml` has the bytes that would have been sent. Mail programs open it.
/// - `….json` has the [`Envelope`] as serde writes and reads it, Bcc recipients included:
///   `{"reverse_path":"alice@example.org","recipients":["bob@example.com"]}`; the null reverse-path
///   is `null`.
///
/// The names begin with the time in UTC, so they sort in the order of sending, and end with random
/// characters, so several processes can use one directory. An existing file is never replaced. A
/// file appears when it is complete, `.eml` last; until then its name ends with `.part`. Only the
/// owner can read it (mode 0600). Memory is constant, whatever the size of the message. Nothing is
/// deleted.
///
/// Every message is accepted for all recipients. [`Receipt::queue_id`] is the name without its
/// ending, and [`Receipt::server`] the path of the directory.
///
/// Needs the feature `directory`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> envoi::Result<()> {
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::mailer::Directory;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("outgoing");
/// let directory = Directory::new(path); // such as "target/outgoing"
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .subject("Hello")
///     .text_body("Hello Bob.");
/// let receipt = directory.send(mail).await?;
/// println!("written to {}", directory.file(&receipt).unwrap().display());
/// # assert!(directory.file(&receipt).unwrap().exists());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Directory {
    path: Arc<Path>,
}

/// A file that is being written; deleted when dropped.
struct Part {
    file: File,
    path: TempPath,
}

const PART: &str = ".part";

impl Directory {
    /// Creates a mailer that writes into this directory. The directory is created with the first
    /// message, accessible to the owner only, if it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Directory {
            path: path.into().into(),
        }
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `.eml` file of a message that was sent with this mailer; `None` for a receipt of another
    /// mailer.
    pub fn file(&self, receipt: &Receipt) -> Option<PathBuf> {
        let is_mine = receipt.server == self.path.to_string_lossy();
        let id = receipt.queue_id().filter(|_| is_mine)?;
        Some(self.path.join(format!("{id}.eml")))
    }

    /// Writes a message into the directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the directory or a file in it cannot be written, and as for
    /// [`Message::prepare`], [`Body::chunk`](crate::Body::chunk) and [`Message::on_handover`],
    /// whose callback is awaited before the files get their names. Nothing is left of the message
    /// then, unless the process was killed.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves both files or none.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let started = Instant::now();
        let PreparedMessage {
            envelope, mut body, ..
        } = message.into().prepare().await?;
        let submission = Submission {
            server: self.path.to_string_lossy().into_owned(),
            envelope: &envelope,
            started,
        };
        match self.write(&envelope, &mut body).await {
            Ok((id, bytes)) => {
                let reply = format!("250 2.0.0 Ok: queued as {id}");
                Ok(submission.accepted(&reply, bytes))
            }
            Err(error) => Err(submission.failed(error, body.is_handed_over())),
        }
    }

    /// Writes both files. Returns the common part of their names, and the size of the message.
    async fn write(&self, envelope: &Envelope, body: &mut Body) -> Result<(String, u64)> {
        let cannot_write = |error| cannot_write(&self.path, error);
        let directory = self.path.clone();
        let part = on_blocking_thread(move || Part::create(&directory)).await;
        let Part { file, path } = part.map_err(cannot_write)?;
        let mut file = tokio::fs::File::from_std(file);
        let mut written = 0;
        while let Some(chunk) = body.chunk().await {
            let bytes = chunk?.into_bytes();
            file.write_all(&bytes).await.map_err(cannot_write)?;
            written += bytes.len() as u64;
            body.report_progress(written, false);
        }
        file.flush().await.map_err(cannot_write)?;
        body.hand_over(envelope.recipients(), written).await?;
        let file = file.into_std().await;
        let envelope =
            serde_json::to_string(envelope).map_err(|error| cannot_write(error.into()))?;
        let done = on_blocking_thread(move || Part { file, path }.finish(&envelope)).await;
        let id = done.map_err(cannot_write)?;
        body.report_progress(written, true);
        Ok((id, written))
    }
}

impl Mailer for Directory {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(Directory::send(self, message))
    }
}

impl Part {
    fn create(directory: &Path) -> io::Result<Part> {
        create(directory)?;
        let now = SystemTime::now();
        let micros = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_micros();
        let stamp = date::rfc3339(now).replace(['-', ':'], "");
        let (file, path) = tempfile::Builder::new()
            .prefix(&format!("{}.{micros:06}Z-", stamp.trim_end_matches('Z')))
            .suffix(&format!(".eml{PART}"))
            .tempfile_in(directory)?
            .into_parts();
        Ok(Part { file, path })
    }

    /// Writes the file of the envelope, and gives both their names. Returns the common part.
    fn finish(self, envelope: &str) -> io::Result<String> {
        drop(self.file);
        let message = self.path.with_extension("");
        let json = message.with_extension("json");
        let id = message
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut part = tempfile::Builder::new()
            .prefix(&format!("{id}."))
            .suffix(PART)
            .tempfile_in(self.path.parent().unwrap_or(Path::new(".")))?;
        writeln!(part, "{envelope}")?;
        part.persist_noclobber(&json)?;
        if let Err(error) = self.path.persist_noclobber(message) {
            // The error of the message says more than one of this.
            let _ = fs::remove_file(json);
            return Err(error.into());
        }
        Ok(id)
    }
}

fn create(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

async fn on_blocking_thread<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(call).await?
}

fn cannot_write(directory: &Path, error: io::Error) -> Error {
    let message = format!(
        "a message cannot be written into {}: {error}",
        directory.display()
    );
    Error::new(ErrorKind::Config, Phase::Body, message)
        .with_hint("Give the path of a directory that this program may write.")
        .with_source(error)
}
