//! An SMTP server that loses connections and refuses messages, and knows what it accepted.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the server did with the message of a job, by the local part of its recipient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// How often the server took responsibility for it.
    pub accepted: u32,
    /// When it did so, before its reply.
    pub accepted_at: Option<Instant>,
    /// The connection ended during its transaction, or before another command after it.
    pub cut: bool,
    /// How often its transaction was begun.
    pub tried: u32,
    /// The size of its message.
    pub bytes: usize,
}

/// The faults of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of a thousand messages, those whose reply is lost although they are accepted.
    pub lost_replies: u64,
    /// Of a thousand messages, those that the connection is lost before the end of.
    pub cut_messages: u64,
    /// Of a thousand recipients, those that are refused with 451.
    pub deferred: u64,
    /// How long the server takes to answer a message, or to refuse MAIL with 421.
    pub delay: Duration,
    /// The maximum number of recipients in a transaction.
    pub recipients: Option<usize>,
    /// The maximum is announced (LIMITS, RFC 9422); otherwise it shows as 452.
    pub announces: bool,
    /// The maximum size of a message, which is announced.
    pub size: Option<usize>,
    /// The reply to every login.
    pub login: Option<&'static str>,
    /// The reply to MAIL after this number of messages; the session ends with a 421.
    pub mail: Option<(usize, &'static str)>,
    /// The server offers CHUNKING (RFC 3030).
    pub chunking: bool,
    /// The server speaks LMTP (RFC 2033): the reply to one recipient of a message arrives before
    /// that to the next one is lost.
    pub lmtp: bool,
}

#[derive(Clone)]
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    random: Arc<Mutex<u64>>,
    faults: Faults,
}

impl Server {
    pub fn start(faults: Faults) -> Self {
        Self::serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), faults)
    }

    pub fn serve_on(listener: TcpListener, faults: Faults) -> Self {
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            random: Arc::new(Mutex::new(0x2545_f491_4f6c_dd1d)),
            faults,
        };
        let accepting = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepting.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        let scheme = if self.faults.lmtp { "lmtp" } else { "smtp" };
        format!("{scheme}://127.0.0.1:{}?tls=none", self.port)
    }

    pub fn seen(&self) -> HashMap<String, Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn accepted(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.values().map(|seen| seen.accepted as usize).sum()
    }

    fn change(&self, job: &str, change: impl FnOnce(&mut Seen)) {
        change(self.seen.lock().unwrap().entry(job.to_owned()).or_default());
    }

    /// True for this many of a thousand calls (xorshift).
    fn happens(&self, of_a_thousand: u64) -> bool {
        let mut state = self.random.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % 1000 < of_a_thousand
    }

    fn serve(&self, stream: TcpStream) {
        let mut last = None;
        // Small replies would wait for the acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let ended = self.converse(&stream, &mut last);
        let _ = stream.shutdown(Shutdown::Both);
        if let (Some(job), false) = (last, matches!(ended, Ok(true))) {
            self.change(&job, |seen| seen.cut = true);
        }
    }

    /// Returns whether the client quit. `last` is the job whose transaction may have lost its end.
    fn converse(&self, stream: &TcpStream, last: &mut Option<String>) -> io::Result<bool> {
        let mut input = BufReader::new(stream);
        let mut output = stream;
        output.write_all(b"220 mail.example.com ESMTP\r\n")?;
        let max = self.faults.recipients.unwrap_or(usize::MAX);
        let mut hello = String::from("250-mail.example.com\r\n250-PIPELINING\r\n");
        if self.faults.announces {
            hello += &format!("250-LIMITS RCPTMAX={max}\r\n");
        }
        if self.faults.chunking {
            hello += "250-CHUNKING\r\n";
        }
        if self.faults.login.is_some() {
            hello += "250-AUTH PLAIN\r\n";
        }
        if let Some(size) = self.faults.size {
            hello += &format!("250-SIZE {size}\r\n");
        }
        hello += "250 8BITMIME\r\n";
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Ok(false);
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let command = text.to_ascii_uppercase();
            let reply: &[u8] = match command.get(..4).unwrap_or_default() {
                "EHLO" | "LHLO" => hello.as_bytes(),
                "AUTH" => self.faults.login.unwrap_or_default().as_bytes(),
                "MAIL" => {
                    *last = None;
                    jobs.clear();
                    bytes = 0;
                    match self.faults.mail {
                        Some((after, reply)) if self.accepted() >= after => {
                            if reply.starts_with("421") {
                                thread::sleep(self.faults.delay);
                                // Unread commands would reset the connection before the reply.
                                output.write_all(reply.as_bytes())?;
                                stream.shutdown(Shutdown::Write)?;
                                io::copy(&mut input, &mut io::sink())?;
                                return Ok(true);
                            }
                            reply.as_bytes()
                        }
                        _ => b"250 2.1.0 Ok\r\n",
                    }
                }
                "RCPT" => {
                    let job = text.split(['<', '@']).nth(1).unwrap_or_default().to_owned();
                    self.change(&job, |seen| seen.tried += 1);
                    let is_first = self.seen()[&job].tried == 1;
                    *last = Some(job.clone());
                    if job.starts_with("bad") {
                        b"550 5.1.1 No such user\r\n"
                    } else if job.starts_with("full") {
                        b"552 5.2.2 Mailbox full\r\n"
                    } else if job.starts_with("busy") && is_first {
                        b"452 4.2.2 Mailbox full\r\n"
                    } else if self.happens(self.faults.deferred) {
                        b"451 4.2.1 Later\r\n"
                    } else if jobs.len() >= max {
                        b"452 4.5.3 Too many recipients\r\n"
                    } else {
                        jobs.push(job);
                        b"250 2.1.5 Ok\r\n"
                    }
                }
                "DATA" if jobs.is_empty() => b"554 5.5.1 No recipients\r\n",
                "DATA" => {
                    output.write_all(b"354 Go ahead\r\n")?;
                    if self.happens(self.faults.cut_messages) {
                        return Ok(false);
                    }
                    loop {
                        line.clear();
                        if input.read_until(b'\n', &mut line)? == 0 {
                            return Ok(false);
                        }
                        if line == b".\r\n" {
                            break;
                        }
                        bytes += line.len();
                    }
                    if !self.accept(&jobs, bytes, output)? {
                        return Ok(false);
                    }
                    continue;
                }
                "BDAT" => {
                    let size = text.split_whitespace().nth(1).unwrap_or_default();
                    let mut chunk = vec![0; size.parse().unwrap_or_default()];
                    input.read_exact(&mut chunk)?;
                    bytes += chunk.len();
                    if jobs.is_empty() {
                        b"554 5.5.1 No recipients\r\n"
                    } else if command.contains("LAST") {
                        if !self.accept(&jobs, bytes, output)? {
                            return Ok(false);
                        }
                        continue;
                    } else {
                        b"250 2.0.0 Ok\r\n"
                    }
                }
                "QUIT" => {
                    output.write_all(b"221 2.0.0 Bye\r\n")?;
                    return Ok(true);
                }
                _ => b"250 2.0.0 Ok\r\n",
            };
            output.write_all(reply)?;
        }
    }

    /// Accepts a message, and replies to it. Returns whether no reply was lost.
    fn accept(&self, jobs: &[String], bytes: usize, mut output: &TcpStream) -> io::Result<bool> {
        thread::sleep(self.faults.delay);
        for job in jobs {
            self.change(job, |seen| {
                seen.accepted += 1;
                seen.accepted_at = Some(Instant::now());
                seen.bytes = bytes;
            });
        }
        let replies = if self.faults.lmtp { jobs.len() } else { 1 };
        for number in 1..=replies {
            let can_be_lost = number > 1 || !self.faults.lmtp;
            if can_be_lost && self.happens(self.faults.lost_replies) {
                return Ok(false);
            }
            output.write_all(b"250 2.0.0 Ok\r\n")?;
        }
        Ok(true)
    }
}
