//! A job: an envelope, the state of each recipient, and what became of the attempts.

use std::fmt;
use std::str::FromStr;

use envoi::proto::Reply;
use envoi::{Address, Envelope, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The states of a job. [`HandingOver`](State::HandingOver) is listed as running.
///
/// ```text
///            claim              hand-over                 reply
/// waiting ─────────► running ─────────────► handing over ───────► sent, failed, or waiting again
///    ▲                  │                        │                              ▲
///    └──────────────────┘                        └────────────► unknown ────────┘
///     not handed over: 4xx,                       lease expired,      resolve, or the reply
///     pause, lease expired                        connection lost     that still came
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is due now or later.
    Waiting,
    /// A worker has it, and nothing that the server could deliver has been written.
    Running,
    /// The last byte of the message may have been written.
    HandingOver,
    /// Every recipient has a final answer, and at least one accepted.
    Sent,
    /// No recipient accepted.
    Failed,
    /// It was handed over, and no answer is known.
    Unknown,
}

impl State {
    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::HandingOver => "handing-over",
            State::Sent => "sent",
            State::Failed => "failed",
            State::Unknown => "unknown",
        }
    }

    /// The name that users see.
    pub fn public(self) -> &'static str {
        match self {
            State::HandingOver => "running",
            state => state.as_str(),
        }
    }

    /// No worker will change it.
    pub fn is_final(self) -> bool {
        matches!(self, State::Sent | State::Failed)
    }

    /// A worker holds a lease on it.
    pub fn is_leased(self) -> bool {
        matches!(self, State::Running | State::HandingOver)
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let states = [
            State::Waiting,
            State::Running,
            State::HandingOver,
            State::Sent,
            State::Failed,
            State::Unknown,
        ];
        let found = states.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| format!("the state {name:?} is not known"))
    }
}

/// A job. The first fields are columns of the store; the others are stored as one JSON document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// A ULID, so that jobs sort by the time of their addition.
    pub id: String,
    /// Every change increments it: a change that is based on an earlier revision is refused.
    #[serde(skip)]
    pub revision: i64,
    #[serde(skip, default = "waiting")]
    pub state: State,
    /// When it is due, in milliseconds since 1970 by the store's clock.
    #[serde(skip)]
    pub due: i64,
    /// It waits for the time of `--at`, and no attempt was made.
    #[serde(skip)]
    pub is_scheduled: bool,

    pub key: Option<String>,
    /// When it was added.
    pub added: i64,
    /// The reverse path; `None` is `<>`.
    pub from: Option<String>,
    pub recipients: Vec<Recipient>,
    /// The number of pieces that the message is stored in, and its size in bytes.
    pub pieces: i64,
    pub size: u64,
    /// The number of attempts that reached the server's reply to MAIL.
    #[serde(default)]
    pub attempts: u32,
    /// The attempts that count against `--retries`.
    #[serde(default)]
    pub used: u32,
    /// The server's last final reply to the message.
    #[serde(default)]
    pub reply: Option<StoredReply>,
    /// Why it failed, is unknown, or still waits.
    #[serde(default)]
    pub reason: Option<String>,
}

fn waiting() -> State {
    State::Waiting
}

/// A recipient, with its last answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recipient {
    pub address: String,
    pub outcome: Answer,
    #[serde(default)]
    pub code: Option<u16>,
    #[serde(default)]
    pub text: Option<String>,
    /// The number of [used](Job::used) retries with which it is due.
    #[serde(default)]
    pub round: u32,
}

/// What a recipient's last attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Accepted,
    Refused,
    /// Refused with 4xx, to be tried again.
    Deferred,
    Unknown,
    NotTried,
}

impl Answer {
    /// The name in the output, where a deferred recipient is a refused one with its 4xx.
    pub fn public(self) -> &'static str {
        match self {
            Answer::Accepted => "accepted",
            Answer::Refused | Answer::Deferred => "refused",
            Answer::Unknown => "unknown",
            Answer::NotTried => "not-tried",
        }
    }

    /// Another attempt is to be made for the recipient.
    pub fn is_open(self) -> bool {
        matches!(self, Answer::Deferred | Answer::NotTried)
    }
}

impl Recipient {
    pub fn new(address: &str) -> Self {
        Recipient {
            address: address.to_owned(),
            outcome: Answer::NotTried,
            code: None,
            text: None,
            round: 0,
        }
    }

    fn answer(&mut self, outcome: Answer, reply: &Reply) {
        self.outcome = outcome;
        self.code = Some(reply.code());
        self.text = Some(reply.text());
    }

    /// An answer to an earlier attempt says nothing about one whose answer is not known.
    fn become_unknown(&mut self) {
        self.outcome = Answer::Unknown;
        self.code = None;
        self.text = None;
    }
}

/// A reply, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredReply {
    pub code: u16,
    pub enhanced: Option<String>,
    pub text: String,
}

impl From<&Reply> for StoredReply {
    fn from(reply: &Reply) -> Self {
        StoredReply {
            code: reply.code(),
            enhanced: reply.enhanced().map(|code| code.to_string()),
            text: reply.text(),
        }
    }
}

impl Job {
    pub fn new(from: Option<&Address>, to: &[Address]) -> Self {
        Job {
            id: ulid::Ulid::generate().to_string(),
            revision: 0,
            state: State::Waiting,
            due: 0,
            is_scheduled: false,
            key: None,
            added: 0,
            from: from.map(|address| address.as_str().to_owned()),
            recipients: to.iter().map(|to| Recipient::new(to.as_str())).collect(),
            pieces: 0,
            size: 0,
            attempts: 0,
            used: 0,
            reply: None,
            reason: None,
        }
    }

    /// The indices of the recipients that are to be tried now. Those that were refused for now are
    /// due again when a retry is used up.
    pub fn due(&self) -> Vec<usize> {
        let recipients = self.recipients.iter().enumerate();
        let due = recipients.filter(|(_, to)| to.outcome.is_open() && to.round <= self.used);
        due.map(|(place, _)| place).collect()
    }

    /// The envelope of some recipients.
    pub fn envelope(&self, recipients: &[usize]) -> envoi::Result<Envelope> {
        let from = self.from.as_ref().map(Address::lenient).transpose()?;
        let to = recipients
            .iter()
            .map(|index| Address::lenient(&self.recipients[*index].address));
        Ok(Envelope::new(from, to.collect::<Result<Vec<_>, _>>()?)?)
    }

    fn count(&self, outcome: Answer) -> usize {
        let recipients = self.recipients.iter();
        recipients.filter(|to| to.outcome == outcome).count()
    }

    /// Records the outcome of an attempt for the recipients at `places`, in the order of `results`.
    pub fn record(&mut self, places: &[usize], results: &[envoi::Recipient]) {
        for (place, result) in places.iter().zip(results) {
            let recipient = &mut self.recipients[*place];
            if !matches!(result.outcome, Outcome::NotTried) {
                recipient.round = self.used + 1;
            }
            match &result.outcome {
                Outcome::Accepted(reply) => recipient.answer(
                    Answer::Accepted,
                    result.final_reply.as_ref().unwrap_or(reply),
                ),
                Outcome::Refused(reply) if result.is_transient() => {
                    recipient.answer(Answer::Deferred, reply)
                }
                Outcome::Refused(reply) => recipient.answer(Answer::Refused, reply),
                Outcome::Unknown => recipient.become_unknown(),
                // What is known of an earlier attempt stays.
                Outcome::NotTried if recipient.outcome == Answer::Unknown => {
                    recipient.outcome = Answer::NotTried
                }
                Outcome::NotTried => {}
            }
        }
    }

    /// The recipients that an attempt found to be too many for a transaction are still to be tried.
    pub fn clear_excess(&mut self, places: &[usize], results: &[envoi::Recipient]) {
        for (place, result) in places.iter().zip(results) {
            if matches!(&result.outcome, Outcome::Refused(reply) if is_recipient_limit(reply)) {
                let recipient = &mut self.recipients[*place];
                *recipient = Recipient::new(&recipient.address);
            }
        }
    }

    /// Marks the recipients that a worker hands the message over for: unless their answer arrives,
    /// this is what is known of them.
    pub fn hand_over(&mut self, places: &[usize]) {
        self.state = State::HandingOver;
        self.attempts += 1;
        for place in places {
            self.recipients[*place].become_unknown();
        }
    }

    /// The message was certainly not sent: what was marked at the hand-over and has no answer is
    /// still to be tried.
    pub fn withdraw(&mut self) {
        for recipient in &mut self.recipients {
            if recipient.outcome == Answer::Unknown {
                recipient.outcome = Answer::NotTried;
            }
        }
    }

    /// Ends the attempts: what is still open is not tried again.
    pub fn give_up(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        for recipient in &mut self.recipients {
            if recipient.outcome == Answer::Deferred {
                recipient.outcome = Answer::Refused;
            }
        }
        self.state = match (self.count(Answer::Unknown), self.count(Answer::Accepted)) {
            (1.., _) => State::Unknown,
            (0, 0) => State::Failed,
            (0, _) => State::Sent,
        };
        if self.state == State::Sent {
            // Every recipient of a sent job has a final answer.
            for recipient in &mut self.recipients {
                if recipient.outcome == Answer::NotTried {
                    recipient.outcome = Answer::Refused;
                    recipient.text = Some(reason.clone());
                }
            }
        }
        self.reason = Some(reason);
    }

    /// The state after an attempt, by the answers of the recipients.
    pub fn settle(&mut self) {
        self.state = if self.count(Answer::Unknown) > 0 {
            State::Unknown
        } else if self.recipients.iter().any(|to| to.outcome.is_open()) {
            State::Waiting
        } else if self.count(Answer::Accepted) > 0 {
            State::Sent
        } else {
            State::Failed
        };
        if self.state == State::Unknown && self.reason.is_none() {
            self.reason = Some("the server's answer is not known for every recipient".to_owned());
        }
        if self.state == State::Sent && self.count(Answer::Accepted) == self.recipients.len() {
            self.reason = None;
        }
    }

    /// The lease expired. Returns whether it waits again.
    pub fn expire(&mut self) -> bool {
        if self.state == State::Running {
            self.state = State::Waiting;
            return true;
        }
        self.state = State::Unknown;
        self.reason = Some(
            "the worker that handed the message over was stopped before it recorded the server's \
             answer"
                .to_owned(),
        );
        false
    }

    /// Resolves an unknown job: its unknown recipients have the message, or will be tried again.
    pub fn resolve(&mut self, was_sent: bool) {
        for recipient in &mut self.recipients {
            if recipient.outcome == Answer::Unknown {
                recipient.outcome = match was_sent {
                    true => Answer::Accepted,
                    false => Answer::NotTried,
                };
            }
        }
        self.begin_anew();
        self.settle();
    }

    /// A failed job waits again, for all recipients.
    pub fn retry(&mut self) {
        for recipient in &mut self.recipients {
            if recipient.outcome != Answer::Accepted {
                recipient.outcome = Answer::NotTried;
            }
        }
        self.begin_anew();
        self.state = State::Waiting;
    }

    /// All retries are left, and all open recipients are due. The reason of earlier attempts is not
    /// one to fail for.
    fn begin_anew(&mut self) {
        self.used = 0;
        self.reason = None;
        for recipient in &mut self.recipients {
            recipient.round = 0;
        }
    }

    /// The job as `list --json` prints it.
    pub fn json(&self) -> Value {
        let recipients = self.recipients.iter().map(|to| {
            json!({
                "address": to.address,
                "outcome": to.outcome.public(),
                "code": to.code,
                "text": to.text,
            })
        });
        json!({
            "id": self.id,
            "key": self.key,
            "state": self.state.public(),
            "recipients": recipients.collect::<Vec<_>>(),
            "attempts": self.attempts,
            "added": rfc3339(self.added),
            "next": (self.state == State::Waiting).then(|| rfc3339(self.due)),
            "reply": self.reply,
            "reason": self.reason,
        })
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.state.public())?;
        if let Some(key) = &self.key {
            write!(f, " key {key:?}")?;
        }
        write!(f, ", added {}", rfc3339(self.added))?;
        if self.state == State::Waiting {
            write!(f, ", next {}", rfc3339(self.due))?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {}", one_line(reason))?;
        }
        for to in &self.recipients {
            write!(f, "\n  {} {}", to.outcome.public(), to.address)?;
            if let Some(text) = &to.text {
                let code = to.code.map(|code| format!("{code} ")).unwrap_or_default();
                write!(f, ": {code}{}", one_line(text))?;
            }
        }
        Ok(())
    }
}

/// The transaction has as many recipients as the server takes in one: 452, and 552 in its place,
/// with X.5.3 or no enhanced code (RFC 5321, 4.5.3.1.10; RFC 3463, 3.6). The same codes also say
/// that a disk or a mailbox is full.
fn is_recipient_limit(reply: &Reply) -> bool {
    let is_about_recipients = reply
        .enhanced()
        .is_none_or(|code| (code.subject, code.detail) == (5, 3));
    matches!(reply.code(), 452 | 552) && is_about_recipients
}

/// Text of a server, for a terminal: without line ends and control characters.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// Whether a text has the form of an id.
pub fn is_id(text: &str) -> bool {
    ulid::Ulid::from_string(text).is_ok()
}

/// A time of the store, in RFC 3339.
pub fn rfc3339(millis: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// The time of `--at`, in milliseconds since 1970.
pub fn parse_rfc3339(text: &str) -> Result<i64, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "--at takes a time in RFC 3339, such as 2027-01-31T08:00:00Z".to_owned())?;
    Ok((time.unix_timestamp_nanos() / 1_000_000) as i64)
}
