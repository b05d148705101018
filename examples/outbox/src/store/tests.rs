use bytes::Bytes;
use tempfile::TempDir;

use super::StoreError;
use super::testing::open;

/// Requests that arrive together share a transaction. The store refuses one of them; the others are
/// carried out.
#[tokio::test]
async fn a_bad_request_fails_alone() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path()).await;
    let put = |job| store.put_piece(job, 0, Bytes::from_static(b"Hello."));
    put("taken").await.unwrap();
    let (first, bad, last) = tokio::join!(put("first"), put("taken"), put("last"));
    assert!(matches!(bad, Err(StoreError::Unusable(_))), "{bad:?}");
    first.unwrap();
    last.unwrap();
    assert!(store.piece("first", 0).await.unwrap().is_some());
    assert!(store.piece("last", 0).await.unwrap().is_some());
}
