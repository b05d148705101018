//! A store for tests, in a temporary folder, whose answers can be lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Sqlite;

use super::sql::Sql;
use super::{Answer, Backend, Owner, Request, Result, Store, StoreError};

/// Loses the answer to the next change of a job, once.
#[derive(Clone, Debug, Default)]
pub struct LostAnswer(Arc<AtomicBool>);

impl LostAnswer {
    pub fn lose_next(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct LosesAnswer {
    backend: Sql<Sqlite>,
    lost_answer: LostAnswer,
}

impl Backend for LosesAnswer {
    async fn run(&mut self, requests: &[&Request]) -> Result<Vec<Answer>> {
        let answers = self.backend.run(requests).await?;
        let mut requests = requests.iter();
        let changes = requests.any(|request| matches!(request, Request::Save { .. }));
        if changes && self.lost_answer.0.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Lost("the answer was lost".to_owned()));
        }
        Ok(answers)
    }

    async fn close(self) {
        self.backend.close().await;
    }
}

/// Opens a store for one worker.
pub async fn open(folder: &Path) -> (Store, LostAnswer) {
    let url = format!("sqlite:{}/mail.db", folder.display());
    let owner = Owner {
        name: "worker".to_owned(),
        lease: Duration::from_secs(3600),
    };
    let lost_answer = LostAnswer::default();
    let store = Store::start(LosesAnswer {
        backend: Sql::open(&url, owner).await.unwrap(),
        lost_answer: lost_answer.clone(),
    });
    store.register().await.unwrap();
    (store, lost_answer)
}
