//! The commands that change or show the store. [`worker`](crate::worker) sends.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use envoi::{Address, Envelope};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::failure::Failure;
use crate::job::{Job, State, is_id, parse_rfc3339};
use crate::options::{Add, List, Purge, Resolve, Retry, Status, StoreOption};
use crate::store::{Added, Change, Key, Owner, PIECE, Store};

/// The number of jobs that are listed at a time.
const PAGE: usize = 500;

/// Opens the store for a command that claims no jobs.
async fn open(store: &StoreOption) -> Result<Store, Failure> {
    let owner = Owner {
        name: String::new(),
        lease: Duration::ZERO,
    };
    Ok(Store::open(&store.url()?, owner).await?)
}

/// Adds a message, and prints the id of its job.
pub async fn add(options: &Add) -> Result<(), Failure> {
    let request = |error: envoi::Error| Failure::from(error);
    let from = match options.from.as_str() {
        "" | "<>" => None,
        address => Some(Address::new(address).map_err(|error| request(error.into()))?),
    };
    let to = options.to.iter().map(Address::new);
    let to: Vec<Address> = to
        .collect::<Result<_, _>>()
        .map_err(|error| request(error.into()))?;
    // Removes duplicates, and refuses an envelope without recipients.
    let envelope = Envelope::new(from, to).map_err(|error| request(error.into()))?;
    let at = options.at.as_deref().map(parse_rfc3339);
    let at = at.transpose().map_err(Failure::request)?;
    if options.key.as_ref().is_some_and(String::is_empty) {
        return Err(Failure::request("--key takes a text that is not empty"));
    }

    let mut source = input(&options.message).await?;
    let store = open(&options.store).await?;
    let mut job = Job::new(envelope.reverse_path(), envelope.recipients());
    let mut digest = digest(&envelope);
    let mut piece = read_piece(&mut source).await?;
    // A message of one piece is stored with its job, a larger one before it.
    let mut stored = false;
    loop {
        digest.update(&piece);
        job.size += piece.len() as u64;
        let next = match piece.len() {
            PIECE => read_piece(&mut source).await?,
            _ => Bytes::new(),
        };
        if next.is_empty() && !stored {
            break;
        }
        stored = true;
        store.put_piece(&job.id, job.pieces, piece).await?;
        job.pieces += 1;
        piece = next;
        if piece.is_empty() {
            break;
        }
    }
    let message = (!stored).then_some(piece);
    job.pieces += i64::from(message.is_some());
    if job.size == 0 {
        return Err(Failure::new(66, "the message is empty"));
    }
    job.key.clone_from(&options.key);
    let key = options.key.clone().map(|text| Key {
        text,
        digest: hex(&digest.finalize()),
    });
    let mut id = job.id.clone();
    if let Added::Exists { id: first, is_same } = store.add(job, key, at, message).await? {
        store.drop_pieces(&id).await?;
        if !is_same {
            let message = format!("the key belongs to job {first}, which is of another message");
            return Err(Failure::new(65, message)
                .with_hint("Give the same message and addresses, or another key."));
        }
        id = first;
    }
    print(id)
}

/// Opens the file of the message, or standard input.
async fn input(path: &Path) -> Result<Pin<Box<dyn AsyncRead + Send>>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::pin(tokio::io::stdin()));
    }
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    Ok(Box::pin(file))
}

fn unreadable(error: io::Error) -> Failure {
    Failure::new(66, format!("the message cannot be read: {error}"))
        .with_hint("Check that there is a file of this name, and that this user may read it.")
}

/// Reads as much as a piece may have; less only at the end.
async fn read_piece(source: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, Failure> {
    let mut piece = BytesMut::with_capacity(PIECE);
    let mut limited = source.take(PIECE as u64);
    while limited.read_buf(&mut piece).await.map_err(unreadable)? > 0 {}
    Ok(piece.freeze())
}

/// The digest of the envelope, to which that of the message is added. The order of the recipients
/// does not count.
fn digest(envelope: &Envelope) -> Sha256 {
    let mut recipients: Vec<&str> = envelope.recipients().iter().map(Address::as_str).collect();
    recipients.sort_unstable();
    let from = envelope.reverse_path().map_or("", Address::as_str);
    Sha256::new_with_prefix(json!([from, recipients]).to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Counts the jobs in each state.
pub async fn status(options: &Status) -> Result<(), Failure> {
    let counts = open(&options.store).await?.counts().await?;
    if options.json {
        let text = serde_json::to_string(&counts);
        return print(text.map_err(|error| Failure::new(70, error.to_string()))?);
    }
    print(format_args!(
        "waiting {}\nrunning {}\nsent {}\nfailed {}\nunknown {}",
        counts.waiting, counts.running, counts.sent, counts.failed, counts.unknown
    ))
}

/// Lists the jobs of a state, one page after the other.
pub async fn list(options: &List) -> Result<(), Failure> {
    let names = ["waiting", "running", "sent", "failed", "unknown"];
    let state: State = match options.state.as_str() {
        name if names.contains(&name) => name.parse().map_err(Failure::request)?,
        _ => {
            let message = format!("--state takes one of {}", names.join(", "));
            return Err(Failure::request(message));
        }
    };
    let store = open(&options.store).await?;
    let mut last = String::new();
    let mut is_first = true;
    if options.json {
        print("[")?;
    }
    loop {
        let jobs = store.list(state, &last, PAGE).await?;
        for job in &jobs {
            match options.json {
                true if is_first => print(job.json())?,
                true => print(format_args!(",{}", job.json()))?,
                false => print(job)?,
            }
            is_first = false;
        }
        match jobs.last() {
            Some(job) if jobs.len() == PAGE => last.clone_from(&job.id),
            _ => break,
        }
    }
    if options.json {
        print("]")?;
    }
    Ok(())
}

/// Decides about an unknown job.
pub async fn resolve(options: &Resolve) -> Result<(), Failure> {
    let was_sent = match options.outcome.as_str() {
        "sent" => true,
        "again" => false,
        _ => return Err(Failure::request("--as takes sent or again")),
    };
    let store = open(&options.store).await?;
    change(&store, &options.id, State::Unknown, |job| {
        job.resolve(was_sent)
    })
    .await
}

/// Makes a failed job wait again.
pub async fn retry(options: &Retry) -> Result<(), Failure> {
    let store = open(&options.store).await?;
    change(&store, &options.id, State::Failed, Job::retry).await
}

/// Changes a job that is in this state.
pub async fn change(
    store: &Store,
    id: &str,
    state: State,
    apply: impl FnOnce(&mut Job),
) -> Result<(), Failure> {
    let not = || Failure::request(format!("the job is not {}", state.public()));
    let found = match is_id(id) {
        true => store.load(id).await?,
        false => None,
    };
    let Some(mut job) = found else {
        return Err(Failure::request("there is no job with this id"));
    };
    if job.state != state {
        return Err(not().with_hint(format!("It is {}.", job.state.public())));
    }
    apply(&mut job);
    let change = Change {
        delay: (job.state == State::Waiting).then_some(Duration::ZERO),
        needs_lease: false,
    };
    // Another command or a late answer may have changed it meanwhile.
    match store.save(&job, change).await? {
        true => Ok(()),
        false => Err(not()),
    }
}

/// Removes sent and failed jobs.
pub async fn purge(options: &Purge) -> Result<(), Failure> {
    let age = options.age()?;
    let purged = open(&options.store).await?.purge(age).await?;
    print(purged)
}

/// Prints a line. A reader that has gone, such as `head`, is not a failure.
fn print(line: impl Display) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            74,
            format!("the output cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}
