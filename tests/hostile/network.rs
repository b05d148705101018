//! Faulty networks, simulated: a wire in memory on a paused clock, whose faults follow a seed.
//! Latency, loss (as a stall until what was lost is sent again), segments of one byte, resets,
//! partitions and half-open connections come at any byte of the session, in clear and inside TLS.
//! In every case, the session ends in time, and the reported outcome is what happened.
//!
//! `ENVOI_NETWORK_SEEDS=5000` sets the number of seeds; `ENVOI_NETWORK_SEED=17` plays that seed and
//! prints its faults.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use envoi::delivery::{DsnReturn, EnvelopeId, Notify};
use envoi::tls::Security;
use envoi::{Connection, DeliveryOptions, Error, Message, Phase, Receipt, Timeouts};
use futures::{StreamExt as _, stream};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
    split,
};
use tokio::time::{Instant, sleep};

use crate::server::{ServerBehavior, ServerState, binary_message, text_message};

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    None,
    /// What was on its way is lost, and each end is told.
    Reset,
    /// No byte passes any more, in either direction, without a sign.
    Partition,
    /// This direction is dead; the other one lives.
    HalfOpen,
    /// This direction ends in good order.
    Close,
    /// Nothing goes until it is sent again, and then all goes on.
    Stall(u64),
}

/// One direction of the wire.
#[derive(Clone, Copy, Debug)]
struct Direction {
    latency_ms: u64,
    segment: usize,
    fault: Fault,
    /// How many bytes go before it.
    after: usize,
}

/// All that a seed decides.
#[derive(Debug)]
struct Plan {
    behavior: ServerBehavior,
    messages: usize,
    bytes: usize,
    hurried: bool,
    up: Direction,
    down: Direction,
}

impl Plan {
    fn of(seed: u64) -> Plan {
        let mut dice = Random(seed);
        // TLS costs time: a third has it.
        let tls = dice.pick(&[
            None,
            None,
            None,
            None,
            Some(Security::Required),
            Some(Security::Implicit),
        ]);
        let lmtp = tls != Some(Security::Implicit) && dice.roll(5) == 0;
        let chunking = dice.roll(3) == 0;
        let behavior = ServerBehavior {
            pipelining: dice.roll(3) > 0,
            chunking,
            binary: chunking && dice.roll(2) == 0,
            prdr: !lmtp && dice.roll(4) == 0,
            dsn: dice.roll(4) == 0,
            lmtp,
            tls,
        };
        let messages = dice.pick(&[1, 1, 1, 2, 5]);
        let bytes = dice.pick(&[50, 1000, 100_000]);
        let up_length = 300 + messages * (bytes + 150) + if tls.is_some() { 900 } else { 0 };
        let down_length = 100 + messages * 80 + if tls.is_some() { 1500 } else { 0 };
        let one_way = dice.roll(2) == 0;
        let mut way = |length: usize, is_faulty: bool| {
            let fault = match dice.roll(12) {
                _ if !is_faulty => Fault::None,
                0..=2 => Fault::Reset,
                3 | 4 => Fault::Partition,
                5 | 6 => Fault::HalfOpen,
                7 | 8 => Fault::Close,
                9 | 10 => Fault::Stall(1 + dice.roll(60)),
                _ => Fault::None,
            };
            // A hundred thousand segments of one byte would only take time.
            let segment = if bytes > 1000 {
                dice.pick(&[536, 1460, 65_536])
            } else {
                dice.pick(&[1, 2, 19, 536, 65_536])
            };
            Direction {
                // One segment after the other: a network that is only slow is to be slow enough for
                // no limit, though TLS makes one record of several messages.
                latency_ms: dice.pick(match segment {
                    0..100 => &[0, 1, 2],
                    100..2000 => &[0, 1, 30, 100],
                    _ => &[0, 1, 30, 1500],
                }),
                segment,
                fault,
                // The many phases of the beginning have few bytes.
                after: match dice.roll(3) {
                    0 => dice.roll(40) as usize,
                    1 => dice.roll(length.min(250) as u64) as usize,
                    _ => dice.roll(length as u64) as usize,
                },
            }
        };
        let (up, down) = (way(up_length, one_way), way(down_length, !one_way));
        Plan {
            behavior,
            messages,
            bytes,
            hurried: dice.roll(2) == 0,
            up,
            down,
        }
    }
}

impl Plan {
    fn message(&self, id: usize, to: &[&str]) -> Message<'static> {
        let message = if self.behavior.binary {
            binary_message(id, to, self.bytes)
        } else {
            text_message(id, to, self.bytes)
        };
        if !self.behavior.dsn {
            return message;
        }
        let wishes = DeliveryOptions::new()
            .notify(Notify::FAILURE)
            .returned(DsnReturn::Headers);
        message.delivery(wishes.envelope_id(EnvelopeId::new("a b").unwrap()))
    }
}

/// An end of the wire, which tells of a reset.
struct End {
    stream: DuplexStream,
    is_reset: Arc<AtomicBool>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let is_end = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if is_end && self.is_reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why a direction carries no more.
enum Ended {
    InOrder,
    ByReset,
    Silently,
}

/// Carries bytes one way.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Direction,
) -> Ended {
    let mut segment = vec![0; way.segment];
    let (mut carried, mut stalled) = (0, false);
    loop {
        let length = match from.read(&mut segment).await {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return Ended::InOrder;
            }
            Ok(length) => length,
        };
        sleep(Duration::from_millis(way.latency_ms)).await;
        let mut end = length;
        if carried + length > way.after {
            match way.fault {
                Fault::None => {}
                Fault::Stall(_) if stalled => {}
                Fault::Stall(seconds) => {
                    stalled = true;
                    sleep(Duration::from_secs(seconds)).await;
                }
                _ => end = way.after.saturating_sub(carried),
            }
        }
        if to.write_all(&segment[..end]).await.is_err() {
            return Ended::InOrder;
        }
        carried += end;
        if end < length {
            match way.fault {
                Fault::Close => {
                    let _ = to.shutdown().await;
                    // What is written still goes somewhere.
                    while from.read(&mut segment).await.is_ok_and(|length| length > 0) {}
                    return Ended::Silently;
                }
                Fault::Reset => return Ended::ByReset,
                Fault::HalfOpen => {
                    while from.read(&mut segment).await.is_ok_and(|length| length > 0) {}
                    return Ended::Silently;
                }
                _ => return Ended::Silently,
            }
        }
    }
}

/// Both directions, until a reset.
async fn network(client: DuplexStream, server: DuplexStream, plan: &Plan, is_reset: &AtomicBool) {
    let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
    let mut up = std::pin::pin!(forward(from_client, to_server, plan.up));
    let mut down = std::pin::pin!(forward(from_server, to_client, plan.down));
    let mut open = (true, true);
    while open != (false, false) {
        let (ended, fault) = tokio::select! {
            ended = &mut up, if open.0 => { open.0 = false; (ended, plan.up.fault) }
            ended = &mut down, if open.1 => { open.1 = false; (ended, plan.down.fault) }
        };
        match (ended, fault) {
            (Ended::ByReset, _) => return is_reset.store(true, Ordering::Relaxed),
            // The halves stay, and nothing moves.
            (Ended::Silently, Fault::Partition) => return std::future::pending().await,
            _ => {}
        }
    }
    std::future::pending().await
}

/// Plays a seed and returns the outcome of each message.
async fn play(seed: u64, endpoint: envoi::Endpoint) -> Vec<Result<Receipt, Error>> {
    let plan = Plan::of(seed);
    let context = format!("seed {seed}: {plan:?}");
    let is_reset = Arc::new(AtomicBool::default());
    let ((client, near), (far, server)) = (duplex(16 * 1024), duplex(16 * 1024));
    let (client, server) = (
        End {
            stream: client,
            is_reset: is_reset.clone(),
        },
        End {
            stream: server,
            is_reset: is_reset.clone(),
        },
    );
    let state = ServerState::default();
    let began = Instant::now();
    let (timeouts, limit) = if plan.hurried {
        (
            Timeouts::uniform(Duration::from_secs(20)),
            Duration::from_secs(20 * 4 * 2 + 60),
        )
    } else {
        (Timeouts::default(), Duration::from_secs(2 * 60 * 60))
    };
    let endpoint = endpoint.timeouts(timeouts);
    let messages = plan.messages;
    let sending = async {
        let mut connection = match Connection::from_stream(client, &endpoint).await {
            Ok(connection) => connection,
            Err(error) => {
                assert!(!error.outcome_unknown(), "{context}: {error}");
                return vec![Err(error)];
            }
        };
        let outcomes: Vec<_> = if messages == 1 {
            vec![
                connection
                    .send(plan.message(
                        0,
                        &["you@example.com", "full@example.com", "all@example.com"],
                    ))
                    .await,
            ]
        } else {
            // PRDR takes two.
            let messages = stream::iter(0..messages)
                .map(|n| plan.message(n, &["you@example.com", "all@example.com"][n % 2..]));
            connection.send_all(messages).collect().await
        };
        connection.quit().await;
        outcomes
    };
    let serving = async {
        let _served = state.serve(server, plan.behavior, usize::MAX).await;
        std::future::pending::<()>().await
    };
    // The network drops both ends of the wire, and then waits with the others for the client.
    let carrying = async {
        network(near, far, &plan, &is_reset).await;
        std::future::pending::<()>().await
    };
    let outcomes = tokio::select! {
        outcomes = sending => outcomes,
        () = serving => unreachable!(),
        () = carrying => unreachable!(),
    };
    let took = began.elapsed();
    let limit = limit * u32::try_from(messages).unwrap();
    assert!(took < limit, "{context}: it took {took:?}: {outcomes:?}");
    let told = outcomes.iter().take_while(|outcome| match outcome {
        Ok(_) => true,
        Err(error) => error
            .receipt()
            .is_some_and(|receipt| !receipt.recipients.is_empty()),
    });
    let mut begun = 0;
    for (id, outcome) in told.enumerate() {
        state.audit(id, outcome, &context);
        begun = id + 1;
    }
    assert!(
        state.records().stored.keys().all(|(id, _)| *id < begun),
        "{context}: more is stored than was reported"
    );
    for command in state
        .records()
        .envelopes
        .iter()
        .filter(|_| plan.behavior.dsn)
    {
        let wishes = if command.starts_with("MAIL") {
            " RET=HDRS ENVID=a+20b"
        } else {
            " NOTIFY=FAILURE"
        };
        assert!(command.contains(wishes), "{context}: {command}");
    }
    if plan.up.fault == Fault::None && plan.down.fault == Fault::None {
        assert!(
            outcomes.iter().all(Result::is_ok),
            "{context}: nothing was in the way: {outcomes:?}"
        );
    }
    outcomes
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[tokio::test(start_paused = true)]
async fn random_network_faults_lose_and_duplicate_nothing() {
    // One for each: it reads its trust store once.
    let mut endpoints = BTreeMap::new();
    let mut endpoint = |behavior: ServerBehavior| {
        endpoints
            .entry((behavior.lmtp, behavior.tls.map(|tls| tls as u8)))
            .or_insert_with(|| behavior.endpoint())
            .clone()
    };
    if let Some(seed) = number("ENVOI_NETWORK_SEED") {
        let plan = Plan::of(seed);
        println!(
            "{plan:#?}\n{:#?}",
            play(seed, endpoint(plan.behavior)).await
        );
        return;
    }
    let seeds = number("ENVOI_NETWORK_SEEDS").unwrap_or(600);
    let (mut classes, mut phases) = (BTreeMap::new(), BTreeMap::new());
    for seed in 0..seeds {
        for outcome in play(seed, endpoint(Plan::of(seed).behavior)).await {
            let class = match &outcome {
                Ok(_) => "sent",
                Err(error) if error.outcome_unknown() => "unknown",
                Err(_) => "not sent",
            };
            *classes.entry(class).or_insert(0) += 1;
            if let Err(error) = outcome {
                *phases.entry(error.phase().as_str()).or_insert(0) += 1;
            }
        }
    }
    println!("{classes:?} {phases:?}");
    assert_eq!(classes.len(), 3, "{classes:?}");
    for phase in [
        Phase::Greeting,
        Phase::Hello,
        Phase::StartTls,
        Phase::Tls,
        Phase::Mail,
        Phase::Rcpt,
        Phase::Data,
        Phase::Body,
        Phase::EndOfData,
    ] {
        assert!(
            phases.contains_key(phase.as_str()),
            "no seed broke in phase {phase}: {phases:?}"
        );
    }
}
