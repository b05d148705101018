use envoi::Address;
use futures::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::job::Job;
use crate::store::Change;
use crate::store::testing::open;

fn job() -> Job {
    Job::new(None, &[Address::new("job@example.com").unwrap()])
}

/// What sends the jobs of a store; nothing is sent.
fn sender(store: &Store) -> Sender {
    Sender {
        store: store.clone(),
        pool: Client::from_url("smtp://127.0.0.1:1?tls=none")
            .unwrap()
            .pool(1),
        settings: Settings {
            connections: 1,
            lease: Duration::from_secs(3600),
            retries: 0,
            backoff: Duration::from_secs(1),
            max_age: Duration::ZERO,
            timeout: None,
            until_empty: true,
        },
    }
}

fn maintenance(store: &Store) -> Maintenance {
    Maintenance {
        store: store.clone(),
        settings: sender(store).settings,
        totals: Arc::default(),
        pause_reason: PauseReason::default(),
        counting_lock: Arc::default(),
    }
}

async fn claimed(store: &Store) -> Job {
    store.add(job(), None, None, None).await.unwrap();
    store.claim(1).await.unwrap().remove(0)
}

/// An outcome that was stored counts, though the store's answer was lost.
#[tokio::test]
async fn an_outcome_whose_answer_is_lost_counts() {
    let folder = TempDir::new().unwrap();
    let (store, lost_answer) = open(folder.path()).await;
    let mut job = claimed(&store).await;
    job.hand_over(&[0]);
    assert!(store.save(&job, Change::default()).await.unwrap());
    job.revision += 1;
    job.state = State::Sent;
    lost_answer.lose_next();
    let result = sender(&store).store_outcome(job, None).await;
    assert!(
        matches!(result, AttemptResult::Attempted(State::Sent)),
        "{result:?}"
    );
}

/// A job whose hand-over was stored, though the answer was lost, was not sent, and waits again.
#[tokio::test]
async fn a_handover_whose_answer_is_lost_is_taken_back() {
    let folder = TempDir::new().unwrap();
    let (store, lost_answer) = open(folder.path()).await;
    let job = claimed(&store).await;
    let mut handed_over = job.clone();
    handed_over.hand_over(&[0]);
    lost_answer.lose_next();
    let handover = store.save(&handed_over, Change::default()).await;
    assert!(handover.is_err(), "{handover:?}");
    let stored = store.load(&job.id).await.unwrap().unwrap();
    assert_eq!(stored.state, State::HandingOver);
    let result = sender(&store).return_job(job).await;
    assert!(
        matches!(result, AttemptResult::Attempted(State::Waiting)),
        "{result:?}"
    );
    assert_eq!(store.claim(1).await.unwrap().len(), 1);
}

/// Jobs that can be tried, however old, do not hide those that have failed after `--max-age`, and
/// all of these fail in one round.
#[tokio::test]
async fn more_old_jobs_than_are_read_at_a_time_fail() {
    const JOBS: usize = 150;
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).await;
    let adding = (0..2 * JOBS).map(|number| {
        let mut job = job();
        job.id = format!("{number:026}");
        job.reason = (number >= JOBS).then(|| "451 Later".to_owned());
        store.add(job, None, None, None)
    });
    for added in join_all(adding).await {
        added.unwrap();
    }
    // The clock of the store has moved on.
    while store
        .overdue(Duration::ZERO, 2 * JOBS - 1)
        .await
        .unwrap()
        .is_empty()
    {}
    let maintenance = maintenance(&store);
    maintenance.maintain().await.unwrap();
    assert_eq!(
        maintenance.totals.failed.load(Ordering::Relaxed),
        JOBS as u64
    );
}

/// A failed job that is retried is tried first, however long it has waited since: why it failed
/// before is not why it waits.
#[tokio::test]
async fn retried_jobs_are_tried_first() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).await;
    let mut job = claimed(&store).await;
    job.give_up("451 Later");
    assert!(store.save(&job, Change::default()).await.unwrap());
    job.revision += 1;
    job.retry();
    assert!(store.save(&job, Change::default()).await.unwrap());
    // The clock of the store moves on.
    while store.overdue(Duration::ZERO, 0).await.unwrap().is_empty() {}
    maintenance(&store).maintain().await.unwrap();
    let stored = store.load(&job.id).await.unwrap().unwrap();
    assert_eq!(stored.state, State::Waiting);
    assert_eq!(stored.reason, None);
}

/// A worker that finds nothing left waits for the jobs that were ended to be counted, as they
/// decide the exit code.
#[tokio::test]
async fn ended_jobs_are_counted_before_the_end() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).await;
    let worker = Worker {
        sender: sender(&store),
        totals: Arc::default(),
        counting_lock: Arc::default(),
        running: JoinSet::new(),
        jobs: HashMap::new(),
        pause: Pause::default(),
    };
    let counting = worker.counting_lock.lock().await;
    tokio::select! {
        biased;
        is_done = worker.is_done() => panic!("{is_done:?}"),
        // The store answers in the order of the requests.
        counts = store.counts() => drop(counts.unwrap()),
    }
    drop(counting);
    assert!(worker.is_done().await.unwrap());
}
