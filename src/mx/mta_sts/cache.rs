//! [`PolicyCache`]: finds the policy of a domain, by DNS, HTTPS and what is stored.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::folder::Folder;
use super::{
    FetchError, FetchErrorKind, Mode, Policy, PolicyFetcher, PolicyState, StoredPolicy, StsRecord,
    StsRecordError,
};
use crate::dns::{Answer, DomainName, LookupError, Resolver};
use crate::mx::tls_report::{AppliedPolicy, ResultType};
use crate::{Error, ErrorKind, Phase};

/// The maximum number of domains whose policies are kept in memory.
const MAX_DOMAINS: usize = 4096;
/// The maximum size of these policies, in bytes. One of 64 KiB takes several times as much.
const MAX_SIZE: usize = 64 * 1024 * 1024;
/// How long a message waits for DNS and HTTPS while a stored policy is valid, of which RFC 8461,
/// 5.1 says that it applies where a newer one cannot be had. A fetch goes on meanwhile.
const REFRESH_WAIT: Duration = Duration::from_secs(5);

/// Finds the policies of domains, and keeps them for the time that they name: in memory, and in a
/// folder if one is given. Clones share what they keep.
///
/// The policies of at most 4096 domains are kept in memory. Beyond that, those whose lifetime ends
/// first make place for others, and remain in the folder. Beyond 64 MiB, the largest do.
///
/// ```no_run
/// use envoi::mx::Resolver;
/// use envoi::mx::mta_sts::{PolicyCache, PolicyFetcher};
/// use envoi::tls::TlsSettings;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = PolicyCache::in_folder("/var/lib/example/mta-sts")?;
/// let fetcher = PolicyFetcher::new(TlsSettings::default());
/// let found = cache.find(&"example.com".parse()?, &Resolver::system()?, &fetcher).await;
/// if let Some(stored) = &found.policy {
///     println!("{}", stored.policy);
/// }
/// if let Some(problem) = &found.problem {
///     eprintln!("{problem}. {}", problem.hint());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct PolicyCache {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    folder: Option<Folder>,
    domains: Mutex<HashMap<DomainName, Kept>>,
}

#[derive(Default)]
struct Kept {
    entry: Entry,
    /// The size of the policy.
    size: usize,
}

type Entry = Arc<Mutex<Known>>;

/// What is known of a domain.
#[derive(Default)]
struct Known {
    state: PolicyState,
    /// Whether the state is at least as new as the folder.
    is_loaded: bool,
    /// Why the last fetch failed.
    failure: Option<FetchError>,
    /// The fetch that was started last, if it has not ended.
    fetch: Option<Fetch>,
}

/// A fetch for all messages that need the policy. It is a task of its own, so that it ends in any
/// case.
#[derive(Clone)]
struct Fetch {
    since: Instant,
    /// Whether the policy could be had and stored, at the end.
    result: watch::Receiver<Option<Result<(), DiscoveryError>>>,
}

impl Fetch {
    /// Whether its task has not ended, nor the runtime that it was started in.
    fn is_under_way(&self) -> bool {
        self.result.has_changed().is_ok()
    }

    /// Waits for the end. `None` if that does not come in time.
    async fn end(mut self, limit: Duration) -> Option<Result<(), DiscoveryError>> {
        let ended = timeout(limit, self.result.wait_for(Option::is_some)).await;
        ended.ok()?.ok()?.clone()
    }
}

/// What was found out about the policy of a domain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Discovery {
    /// The policy to apply; `None` if the domain has none, or none can be had.
    pub policy: Option<Arc<StoredPolicy>>,
    /// Why the policy that the domain has now, or had, could not be had or stored. A stored policy
    /// is applied then, or none.
    pub problem: Option<DiscoveryError>,
}

impl Discovery {
    /// Whether the servers of the domain must meet the policy.
    pub(in crate::mx) fn is_enforced(&self) -> bool {
        let policy = self.policy.as_ref();
        policy.is_some_and(|stored| stored.policy.mode == Mode::Enforce)
    }

    /// The policy to apply, or that there is none, as TLS reports describe it.
    pub(in crate::mx) fn as_applied(&self, domain: &DomainName) -> AppliedPolicy {
        match &self.policy {
            Some(stored) => stored.policy.as_applied(domain),
            None => AppliedPolicy::none(domain.clone()),
        }
    }
}

/// Why the policy that a domain has now, or had, could not be had or stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The lookup of the TXT record failed.
    Lookup(LookupError),
    /// The TXT record cannot be used.
    Record(StsRecordError),
    /// The policy could not be fetched.
    Fetch(FetchError),
    /// The policy could not be read from the folder, or written into it.
    Folder(Arc<io::Error>),
}

impl PolicyCache {
    /// Creates a cache in memory.
    pub fn new() -> Self {
        PolicyCache::default()
    }

    /// Creates a cache whose policies are also kept in this folder, for other processes and later
    /// ones. The folder is created for its owner alone (mode 0700) if it does not exist; several
    /// processes may use it at once.
    ///
    /// It has a file for each domain, which is replaced atomically. A damaged file is ignored, and
    /// its policy fetched anew; a file that cannot be read is a [problem](Discovery::problem), and
    /// tried again with the next message. Files are not removed: those that have not changed for a
    /// year are of no use.
    ///
    /// Blocks on file I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: the folder cannot be created.
    pub fn in_folder(path: impl AsRef<Path>) -> crate::Result<Self> {
        let path = path.as_ref();
        let folder = Folder::open(path).map_err(|error| {
            let message = format!("the folder {} cannot be used: {error}", path.display());
            Error::new(ErrorKind::Config, Phase::Setup, message)
                .with_hint("Give the path of a folder that this program may create or write.")
                .with_source(error)
        })?;
        Ok(PolicyCache {
            shared: Arc::new(Shared {
                folder: Some(folder),
                ..Shared::default()
            }),
        })
    }

    /// Finds the policy of a domain: that of the recipients, after the `@`.
    ///
    /// The TXT record is looked up each time; the resolver has its own cache. The policy is fetched
    /// if it is not stored, if the record has another id, and once a day. If that fails, it is not
    /// tried again for 5 minutes, and a stored policy remains valid to the end of its lifetime.
    ///
    /// Calls for one domain share a fetch. Each waits for it as long as the time-outs of its own
    /// resolver and fetcher say; but where a stored policy is valid, the record is waited for at
    /// most 5 seconds, and the fetch until 5 seconds after its start. The stored policy is returned
    /// then, and what the fetch brings is for later calls.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, a fetch that it has started goes on, and the policy is stored.
    pub async fn find(
        &self,
        domain: &DomainName,
        resolver: &Resolver,
        fetcher: &PolicyFetcher,
    ) -> Discovery {
        let has_policy = self.has_policy(domain, SystemTime::now()).await;
        let record = match has_policy {
            true => find_record(domain, &resolver.within(REFRESH_WAIT)).await,
            false => find_record(domain, resolver).await,
        };
        let wait = resolver.get_timeout().saturating_add(fetcher.get_timeout());
        let (name, resolver, fetcher) = (domain.clone(), resolver.clone(), fetcher.clone());
        let fetching = async move || fetch(&name, &resolver, &fetcher).await;
        self.find_by(domain, SystemTime::now(), record, wait, fetching)
            .await
    }

    /// Whether a stored policy is valid.
    async fn has_policy(&self, domain: &DomainName, now: SystemTime) -> bool {
        let entry = self.entry(domain);
        // A file that cannot be read is a problem later on.
        _ = self.load(domain, &entry).await;
        lock(&entry).state.policy(now).is_some()
    }

    /// Finds the policy at this time, for this record, and with this way to fetch a policy, which
    /// is waited for as long.
    async fn find_by<F>(
        &self,
        domain: &DomainName,
        now: SystemTime,
        record: Result<Option<StsRecord>, DiscoveryError>,
        wait: Duration,
        fetch: impl FnOnce() -> F,
    ) -> Discovery
    where
        F: Future<Output = Result<Policy, FetchError>> + Send + 'static,
    {
        let entry = self.entry(domain);
        let unread = self.load(domain, &entry).await;
        let problem = match record {
            Ok(None) => unread.err(),
            Ok(Some(record)) => {
                let refreshing = self.refresh(domain, &entry, record.id(), now, wait, fetch);
                refreshing.await.unwrap_or(unread).err()
            }
            Err(problem) => Some(problem),
        };
        let (policy, is_needed, size) = {
            let known = lock(&entry);
            let policy = known.state.policy(now).cloned();
            let is_needed = policy.is_some() || known.failure.is_some() || known.fetch.is_some();
            (policy, is_needed, known.state.size())
        };
        match is_needed {
            true => self.limit_size(domain, &entry, size),
            false => self.forget(domain, &entry),
        }
        Discovery { policy, problem }
    }

    /// Fetches the policy with this id, if that is due, and waits for it. `None` if the stored
    /// policy is the one with this id.
    async fn refresh<F>(
        &self,
        domain: &DomainName,
        entry: &Entry,
        id: &str,
        now: SystemTime,
        wait: Duration,
        fetch: impl FnOnce() -> F,
    ) -> Option<Result<(), DiscoveryError>>
    where
        F: Future<Output = Result<Policy, FetchError>> + Send + 'static,
    {
        let (fetch, wait, left, is_current) = {
            let mut known = lock(entry);
            if known.state.has_failed(id, now) {
                let failure = known.failure.clone()?;
                return Some(Err(DiscoveryError::Fetch(failure)));
            }
            if !known.state.must_fetch(id, now) {
                return None;
            }
            let under_way = known.fetch.clone().filter(Fetch::is_under_way);
            let fetch = under_way.unwrap_or_else(|| {
                let started = self.start_fetch(domain, entry, id, now, fetch());
                known.fetch.insert(started).clone()
            });
            match known.state.policy(now) {
                Some(stored) => {
                    let wait = wait.min(REFRESH_WAIT);
                    let left = wait.saturating_sub(fetch.since.elapsed());
                    (fetch, wait, left, stored.id == id)
                }
                None => (fetch, wait, wait, false),
            }
        };
        let ended = fetch.end(left).await;
        if ended.is_none() && !is_current {
            let message = format!("it did not come within {wait:?}");
            let late = FetchError::new(domain, FetchErrorKind::TimedOut, message);
            return Some(Err(DiscoveryError::Fetch(late)));
        }
        ended
    }

    /// Starts to fetch the policy with this id.
    fn start_fetch(
        &self,
        domain: &DomainName,
        entry: &Entry,
        id: &str,
        now: SystemTime,
        fetching: impl Future<Output = Result<Policy, FetchError>> + Send + 'static,
    ) -> Fetch {
        let (sender, result) = watch::channel(None);
        let (cache, domain) = (self.clone(), domain.clone());
        let (entry, id) = (entry.clone(), id.to_owned());
        tokio::spawn(async move {
            let fetched = fetching.await;
            let result = cache.fetched(&domain, entry, &id, now, fetched).await;
            _ = sender.send(Some(result));
        });
        Fetch {
            since: Instant::now(),
            result,
        }
    }

    /// Stores the policy with this id, or why it could not be fetched.
    async fn fetched(
        &self,
        domain: &DomainName,
        entry: Entry,
        id: &str,
        now: SystemTime,
        fetched: Result<Policy, FetchError>,
    ) -> Result<(), DiscoveryError> {
        let stored = {
            let mut known = lock(&entry);
            known.fetch = None;
            match fetched {
                Ok(policy) => {
                    known.failure = None;
                    known.is_loaded = true;
                    known.state.fetched(id, policy, now);
                    known.state.policy(now).cloned()
                }
                Err(error) => {
                    #[cfg(feature = "tracing")]
                    crate::telemetry::policy_not_fetched(domain, &error, &error.hint());
                    known.failure = Some(error.clone());
                    known.state.failed(id, now);
                    return Err(DiscoveryError::Fetch(error));
                }
            }
        };
        match stored {
            Some(stored) => self.save(domain, stored).await,
            None => Ok(()),
        }
    }

    /// Reads the stored policy, once.
    async fn load(&self, domain: &DomainName, entry: &Entry) -> Result<(), DiscoveryError> {
        let folder = self.shared.folder.clone();
        let Some(folder) = folder.filter(|_| !lock(entry).is_loaded) else {
            return Ok(());
        };
        let domain = domain.clone();
        let loading = spawn_blocking(move || folder.load(&domain)).await;
        let loaded = loading.unwrap_or_else(|panic| Err(panic.into()));
        let stored = loaded.map_err(|error| DiscoveryError::Folder(Arc::new(error)))?;
        let mut known = lock(entry);
        // Another call may have read it meanwhile, and fetched a newer one.
        if let Some(stored) = stored.filter(|_| !known.is_loaded) {
            known.state.restore(stored);
        }
        known.is_loaded = true;
        Ok(())
    }

    async fn save(
        &self,
        domain: &DomainName,
        stored: Arc<StoredPolicy>,
    ) -> Result<(), DiscoveryError> {
        let Some(folder) = self.shared.folder.clone() else {
            return Ok(());
        };
        let domain = domain.clone();
        let saving = spawn_blocking(move || folder.save(&domain, &stored)).await;
        let saved = saving.unwrap_or_else(|panic| Err(panic.into()));
        saved.map_err(|error| DiscoveryError::Folder(Arc::new(error)))
    }

    /// What is known of the domain. Where that is too much, another domain is forgotten: one
    /// without a policy, else the one whose policy ends first.
    fn entry(&self, domain: &DomainName) -> Entry {
        let mut domains = self.domains();
        if let Some(kept) = domains.get(domain) {
            return kept.entry.clone();
        }
        if domains.len() >= MAX_DOMAINS {
            let unused =
                unused(&domains).map(|(domain, kept)| (lock(&kept.entry).state.ends_at(), domain));
            let first = unused.min().map(|(_, domain)| domain.clone());
            if let Some(first) = first {
                domains.remove(&first);
            }
        }
        let kept = domains.entry(domain.clone()).or_default();
        kept.entry.clone()
    }

    /// Notes the size of a policy. Where all together are too large, the largest that are not in
    /// use are forgotten: those who make large ones must not displace others.
    fn limit_size(&self, domain: &DomainName, entry: &Entry, size: usize) {
        let mut domains = self.domains();
        let kept = domains.get_mut(domain);
        match kept.filter(|kept| Arc::ptr_eq(&kept.entry, entry) && kept.size != size) {
            Some(kept) => kept.size = size,
            None => return,
        }
        let mut sum: usize = domains.values().map(|kept| kept.size).sum();
        while sum > MAX_SIZE {
            let largest = unused(&domains).max_by_key(|(_, kept)| kept.size);
            let Some(largest) = largest.map(|(domain, _)| domain.clone()) else {
                return;
            };
            sum -= domains.remove(&largest).map_or(0, |kept| kept.size);
        }
    }

    /// Forgets the domain, of which nothing is known, unless another call uses this entry, or it
    /// was replaced.
    fn forget(&self, domain: &DomainName, entry: &Entry) {
        let mut domains = self.domains();
        let is_same =
            |kept: &Kept| Arc::ptr_eq(&kept.entry, entry) && Arc::strong_count(entry) == 2;
        if domains.get(domain).is_some_and(is_same) {
            domains.remove(domain);
        }
    }

    fn domains(&self) -> MutexGuard<'_, HashMap<DomainName, Kept>> {
        // Nothing panics while the lock is held.
        self.shared
            .domains
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(entry: &Entry) -> MutexGuard<'_, Known> {
    // Nothing panics while the lock is held.
    entry.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The domains that no call uses.
fn unused(domains: &HashMap<DomainName, Kept>) -> impl Iterator<Item = (&DomainName, &Kept)> {
    let is_unused = |(_, kept): &(_, &Kept)| Arc::strong_count(&kept.entry) == 1;
    domains.iter().filter(is_unused)
}

impl fmt::Debug for PolicyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyCache")
            .field("folder", &self.shared.folder)
            .finish_non_exhaustive()
    }
}

/// Looks the TXT record up.
async fn find_record(
    domain: &DomainName,
    resolver: &Resolver,
) -> Result<Option<StsRecord>, DiscoveryError> {
    // A domain without room for the label has no record.
    let Ok(name) = DomainName::new(&format!("_mta-sts.{domain}")) else {
        return Ok(None);
    };
    match resolver.txt(&name).await {
        Answer::Secure(records) | Answer::Insecure(Ok(records)) => {
            StsRecord::from_txt(records.iter().map(Vec::as_slice)).map_err(DiscoveryError::Record)
        }
        Answer::SecureAbsence(_) | Answer::Insecure(Err(_)) => Ok(None),
        Answer::Failed(error) => Err(DiscoveryError::Lookup(error)),
    }
}

/// Fetches the policy from the addresses of its server.
pub(crate) async fn fetch(
    domain: &DomainName,
    resolver: &Resolver,
    fetcher: &PolicyFetcher,
) -> Result<Policy, FetchError> {
    let host = format!("mta-sts.{domain}");
    let no_address = |message: String| FetchError::new(domain, FetchErrorKind::NoAddress, message);
    let name = DomainName::new(&host).map_err(|error| no_address(error.to_string()))?;
    match resolver.addresses(&name).await {
        Answer::Secure(found) | Answer::Insecure(Ok(found)) => {
            fetcher.fetch(domain, &found.addresses).await
        }
        Answer::SecureAbsence(absence) | Answer::Insecure(Err(absence)) => {
            Err(no_address(format!("{host} has no address: {absence}")))
        }
        Answer::Failed(error) => {
            let message = error.to_string();
            Err(FetchError::new(domain, FetchErrorKind::Lookup, message).with_source(error))
        }
    }
}

impl DiscoveryError {
    /// The result type of TLS reports (RFC 8460, 4.3); `None` for what does not concern the domain.
    pub fn result_type(&self) -> Option<ResultType> {
        match self {
            DiscoveryError::Lookup(error) if error.is_of_resolver() => None,
            DiscoveryError::Lookup(_) => Some(ResultType::StsPolicyFetchError),
            DiscoveryError::Record(_) => Some(ResultType::StsPolicyInvalid),
            DiscoveryError::Fetch(error) if error.is_of_this_side() => None,
            DiscoveryError::Fetch(error) => Some(error.result_type()),
            DiscoveryError::Folder(_) => None,
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        let hint = match self {
            DiscoveryError::Lookup(_) => "Try again later. Check the resolver.",
            DiscoveryError::Record(_) => {
                "The domain's administrator must correct the TXT record at its name _mta-sts: RFC \
                 8461, 3.1 has the form."
            }
            DiscoveryError::Fetch(error) => return error.hint(),
            DiscoveryError::Folder(_) => {
                "Give a folder whose files this program may read and write, with space left."
            }
        };
        hint.to_owned()
    }
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryError::Lookup(error) => error.fmt(f),
            DiscoveryError::Record(error) => error.fmt(f),
            DiscoveryError::Fetch(error) => error.fmt(f),
            DiscoveryError::Folder(error) => {
                write!(f, "a file of MTA-STS policies cannot be used: {error}")
            }
        }
    }
}

impl std::error::Error for DiscoveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DiscoveryError::Lookup(error) => Some(error),
            DiscoveryError::Record(error) => Some(error),
            DiscoveryError::Fetch(error) => Some(error),
            DiscoveryError::Folder(error) => Some(&**error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures_util::poll;
    use tokio::time::sleep;

    use super::*;
    use crate::dns::LookupErrorKind;

    const DAY: u64 = 24 * 60 * 60;
    const WAIT: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn domain() -> DomainName {
        DomainName::new("example.org").unwrap()
    }

    fn policy(max_age: u64) -> Policy {
        let text = format!("version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: {max_age}");
        text.parse().unwrap()
    }

    fn failure() -> FetchError {
        FetchError::new(&domain(), FetchErrorKind::NotFound, "there is none")
    }

    type Record = Result<Option<StsRecord>, DiscoveryError>;

    fn record(id: &str) -> Record {
        let text = format!("v=STSv1; id={id}");
        Ok(StsRecord::from_txt([text.as_bytes()]).unwrap())
    }

    /// Finds the policy. Returns its id, the problem, and whether it was fetched.
    async fn find(
        cache: &PolicyCache,
        now: SystemTime,
        record: Record,
        fetched: Result<Policy, FetchError>,
    ) -> (Option<String>, Option<String>, bool) {
        let is_fetched = Arc::new(AtomicBool::new(false));
        let seen = is_fetched.clone();
        let fetch = async move || {
            seen.store(true, Ordering::Relaxed);
            fetched
        };
        let found = cache.find_by(&domain(), now, record, WAIT, fetch).await;
        let id = found.policy.map(|stored| stored.id.clone());
        (
            id,
            found.problem.map(|problem| problem.to_string()),
            is_fetched.load(Ordering::Relaxed),
        )
    }

    fn id(id: &str) -> Option<String> {
        Some(id.to_owned())
    }

    #[tokio::test]
    async fn a_policy_is_fetched_once_and_when_its_id_changes() {
        let cache = PolicyCache::new();
        let found = find(&cache, at(0), record("1"), Ok(policy(7 * DAY))).await;
        assert_eq!(found, (id("1"), None, true));
        let found = find(&cache, at(1), record("1"), Ok(policy(1))).await;
        assert_eq!(found, (id("1"), None, false));
        let found = find(&cache, at(2), record("2"), Ok(policy(7 * DAY))).await;
        assert_eq!(found, (id("2"), None, true));
    }

    /// RFC 8461, 8.3: the mode none replaces a policy that is enforced.
    #[tokio::test]
    async fn a_policy_is_withdrawn_by_the_mode_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PolicyCache::in_folder(folder.path()).unwrap();
        let none: Policy = "version: STSv1\nmode: none\nmax_age: 86400"
            .parse()
            .unwrap();
        let mode = async |cache: &PolicyCache, record: Record, fetched| {
            let fetch = async move || fetched;
            let found = cache.find_by(&domain(), at(0), record, WAIT, fetch).await;
            (
                found.policy.as_ref().unwrap().policy.mode,
                found.is_enforced(),
            )
        };
        let enforced = mode(&cache, record("1"), Ok(policy(7 * DAY))).await;
        assert_eq!(enforced, (Mode::Enforce, true));
        let withdrawn = mode(&cache, record("2"), Ok(none)).await;
        assert_eq!(withdrawn, (Mode::None, false));
        // Without a record, and in a later process, the old one does not come back.
        let later = PolicyCache::in_folder(folder.path()).unwrap();
        for cache in [cache, later] {
            let kept = mode(&cache, Ok(None), Err(failure())).await;
            assert_eq!(kept, (Mode::None, false));
        }
    }

    #[test]
    fn what_fails_on_this_side_is_not_reported() {
        for (kind, is_reported) in [
            (LookupErrorKind::Bogus, true),
            (LookupErrorKind::ServerFailure, true),
            (LookupErrorKind::TimedOut, false),
            (LookupErrorKind::Refused, false),
            (LookupErrorKind::Network, false),
        ] {
            let lookup = || LookupError::new(domain(), "TXT", kind, "");
            let fetch = FetchError::new(&domain(), FetchErrorKind::Lookup, "no address");
            for problem in [
                DiscoveryError::Lookup(lookup()),
                DiscoveryError::Fetch(fetch.with_source(lookup())),
            ] {
                let expected = is_reported.then_some(ResultType::StsPolicyFetchError);
                assert_eq!(problem.result_type(), expected, "{problem}");
            }
        }
        let trust = FetchError::new(&domain(), FetchErrorKind::Trust, "there is none");
        assert_eq!(DiscoveryError::Fetch(trust).result_type(), None);
        let expected = Some(ResultType::StsPolicyFetchError);
        assert_eq!(DiscoveryError::Fetch(failure()).result_type(), expected);
    }

    #[test]
    fn the_hint_about_a_fetch_names_the_host() {
        let kinds = [
            FetchErrorKind::NoAddress,
            FetchErrorKind::Connect,
            FetchErrorKind::Certificate,
            FetchErrorKind::Tls,
            FetchErrorKind::TimedOut,
            FetchErrorKind::Http,
            FetchErrorKind::Redirected,
            FetchErrorKind::NotFound,
        ];
        for kind in kinds {
            let error = DiscoveryError::Fetch(FetchError::new(&domain(), kind, "it failed"));
            let hint = error.hint();
            assert!(hint.contains("mta-sts.example.org"), "{hint}");
            assert!(!hint.contains("DOMAIN"), "{hint}");
        }
    }

    /// An attacker who suppresses the record, or the fetch, changes nothing.
    #[tokio::test]
    async fn a_stored_policy_outlives_all_failures() {
        let cache = PolicyCache::new();
        find(&cache, at(0), record("1"), Ok(policy(7 * DAY))).await;
        let lookup = DiscoveryError::Lookup(LookupError::new(
            domain(),
            "TXT",
            LookupErrorKind::Bogus,
            "",
        ));
        for problem in [lookup, DiscoveryError::Record(StsRecordError::NoId)] {
            let text = problem.to_string();
            let found = find(&cache, at(1), Err(problem), Err(failure())).await;
            assert_eq!(found, (id("1"), Some(text), false));
        }
        let found = find(&cache, at(2), Ok(None), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));
        let text = Some(failure().to_string());
        let found = find(&cache, at(3), record("2"), Err(failure())).await;
        assert_eq!(found, (id("1"), text.clone(), true));
        // Not tried again at once, and still a problem.
        let found = find(&cache, at(4), record("2"), Ok(policy(1))).await;
        assert_eq!(found, (id("1"), text.clone(), false));
        // Of the policy that is stored, nothing is missing.
        let found = find(&cache, at(5), record("1"), Ok(policy(1))).await;
        assert_eq!(found, (id("1"), None, false));
        let found = find(&cache, at(7 * DAY + 1), record("2"), Err(failure())).await;
        assert_eq!(found, (None, text, true));
        let found = find(&cache, at(8 * DAY), record("2"), Ok(policy(DAY))).await;
        assert_eq!(found, (id("2"), None, true));
    }

    #[tokio::test]
    async fn domains_without_a_policy_take_no_memory() {
        let cache = PolicyCache::new();
        let found = find(&cache, at(0), Ok(None), Err(failure())).await;
        assert_eq!(found, (None, None, false));
        assert!(cache.domains().is_empty());
        // A lifetime of zero is long enough for one message.
        let found = find(&cache, at(0), record("1"), Ok(policy(0))).await;
        assert_eq!(found, (id("1"), None, true));
        let found = find(&cache, at(1), Ok(None), Err(failure())).await;
        assert_eq!(found, (None, None, false));
        assert!(cache.domains().is_empty());
        for number in 0..MAX_DOMAINS + 10 {
            let other = DomainName::new(&format!("d{number}.example")).unwrap();
            let fetch = async || Ok(policy(DAY));
            let finding = cache.find_by(&other, at(0), record("1"), WAIT, fetch);
            finding.await;
        }
        assert_eq!(cache.domains().len(), MAX_DOMAINS);
    }

    /// What makes place for another domain: one without a policy, then the policy that ends first.
    #[tokio::test]
    async fn the_policies_that_last_longest_are_kept() {
        let cache = PolicyCache::new();
        let find = async |domain: &str, fetched| {
            let domain = DomainName::new(domain).unwrap();
            let fetch = async move || fetched;
            let found = cache.find_by(&domain, at(0), record("1"), WAIT, fetch);
            found.await.policy.is_some()
        };
        for number in 0..MAX_DOMAINS - 2 {
            assert!(find(&format!("d{number}.example"), Ok(policy(3 * DAY))).await);
        }
        assert!(find("short.example", Ok(policy(2 * DAY))).await);
        assert!(!find("failed.example", Err(failure())).await);
        let is_known = |domain: &str| {
            let domain = DomainName::new(domain).unwrap();
            cache.domains().contains_key(&domain)
        };
        assert!(find("one.example", Ok(policy(3 * DAY))).await);
        assert!(is_known("short.example") && !is_known("failed.example"));
        assert!(find("two.example", Ok(policy(3 * DAY))).await);
        assert!(!is_known("short.example"));
        assert!(is_known("one.example") && is_known("two.example"));
        assert!((0..MAX_DOMAINS - 2).all(|number| is_known(&format!("d{number}.example"))));
    }

    #[tokio::test]
    async fn the_largest_policies_make_place_for_others() {
        let cache = PolicyCache::new();
        let find = async |domain: &str, policy: &Policy| {
            let domain = DomainName::new(domain).unwrap();
            let policy = policy.clone();
            let fetch = async move || Ok(policy);
            let found = cache.find_by(&domain, at(0), record("1"), WAIT, fetch);
            assert!(found.await.policy.is_some());
        };
        let hosts: String = (0..5000)
            .map(|number| format!("mx: mx{number}.example\n"))
            .collect();
        let text = format!("version: STSv1\nmode: enforce\n{hosts}max_age: 31557600");
        let large: Policy = text.parse().unwrap();
        let most = MAX_SIZE / large.size();
        let small: Vec<String> = (0..100)
            .map(|number| format!("s{number}.example"))
            .collect();
        for domain in &small {
            find(domain, &policy(DAY)).await;
        }
        for number in 0..most + 10 {
            find(&format!("l{number}.example"), &large).await;
        }
        let domains = cache.domains();
        let size: usize = domains.values().map(|kept| kept.size).sum();
        assert!(size <= MAX_SIZE, "{size}");
        assert!(domains.len() < small.len() + most + 10);
        for domain in &small {
            assert!(domains.contains_key(&DomainName::new(domain).unwrap()));
        }
    }

    /// Each of two calls ends with nothing known, or one of them with a policy: it is kept.
    #[tokio::test]
    async fn a_call_without_a_policy_does_not_forget_that_of_another() {
        let cache = PolicyCache::new();
        let domain = domain();
        let fetched = find(&cache, at(0), record("1"), Ok(policy(DAY)));
        let mut fetched = std::pin::pin!(fetched);
        // It waits for the fetch.
        assert!(poll!(&mut fetched).is_pending());
        let suppressed = find(&cache, at(0), Ok(None), Err(failure())).await;
        assert_eq!(suppressed, (None, None, false));
        assert_eq!(fetched.await, (id("1"), None, true));
        let found = find(&cache, at(1), Ok(None), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));
        // An entry that was replaced is not forgotten, either.
        cache.forget(&domain, &Entry::default());
        assert_eq!(cache.domains().len(), 1);
    }

    #[tokio::test]
    async fn a_policy_is_fetched_once_for_many_messages() {
        let cache = PolicyCache::new();
        let fetches = Arc::new(AtomicUsize::new(0));
        let finding = (0..20).map(|_| async {
            let fetches = fetches.clone();
            let fetch = async move || {
                fetches.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(policy(DAY))
            };
            let domain = domain();
            let found = cache.find_by(&domain, at(0), record("1"), WAIT, fetch);
            assert!(found.await.policy.is_some());
        });
        futures_util::future::join_all(finding).await;
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_leaves_the_policy_to_the_next() {
        let cache = PolicyCache::new();
        let finding = find_slowly(&cache, at(0), "1", 20, WAIT);
        let waited = tokio::time::timeout(Duration::from_secs(1), finding).await;
        assert!(waited.is_err());
        let found = find(&cache, at(0), record("1"), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));
    }

    /// Finds the policy, which takes this many seconds to fetch. Returns its id, the problem, and
    /// the seconds that it took.
    async fn find_slowly(
        cache: &PolicyCache,
        now: SystemTime,
        id: &str,
        seconds: u64,
        wait: Duration,
    ) -> (Option<String>, Option<String>, u64) {
        let started = Instant::now();
        let fetch = async move || {
            sleep(Duration::from_secs(seconds)).await;
            Ok(policy(7 * DAY))
        };
        let found = cache.find_by(&domain(), now, record(id), wait, fetch).await;
        let id = found.policy.map(|stored| stored.id.clone());
        let problem = found.problem.map(|problem| problem.to_string());
        (id, problem, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_fetch_delays_no_message_that_has_a_policy() {
        let cache = PolicyCache::new();
        find(&cache, at(0), record("1"), Ok(policy(7 * DAY))).await;
        // It is a day old.
        let (first, second) = futures_util::future::join(
            find_slowly(&cache, at(2 * DAY), "1", 20, WAIT),
            find_slowly(&cache, at(2 * DAY), "1", 20, WAIT),
        )
        .await;
        assert_eq!(first, (id("1"), None, 5));
        assert_eq!(second, (id("1"), None, 5));
        let third = find_slowly(&cache, at(2 * DAY), "1", 20, WAIT).await;
        assert_eq!(third, (id("1"), None, 0));
        // What the fetch has brought is there.
        sleep(Duration::from_secs(20)).await;
        let found = find(&cache, at(8 * DAY), Ok(None), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));

        // Another one is published.
        let late = "the MTA-STS policy of example.org could not be fetched: it did not come within";
        let found = find_slowly(&cache, at(8 * DAY), "2", 20, WAIT).await;
        assert_eq!(found, (id("1"), Some(format!("{late} 5s")), 5));
        sleep(Duration::from_secs(20)).await;
        let found = find(&cache, at(8 * DAY), record("2"), Err(failure())).await;
        assert_eq!(found, (id("2"), None, false));
        // It never comes in less time than the caller has.
        let short = Duration::from_secs(1);
        let found = find_slowly(&cache, at(8 * DAY), "3", 20, short).await;
        assert_eq!(found, (id("2"), Some(format!("{late} 1s")), 1));
    }

    /// Without a policy, a call waits for the fetch of another as long as it would for its own.
    #[tokio::test(start_paused = true)]
    async fn a_fetch_is_waited_for_as_long_as_each_caller_has() {
        let cache = PolicyCache::new();
        let short = Duration::from_secs(2);
        let (patient, impatient) = futures_util::future::join(
            find_slowly(&cache, at(0), "1", 20, Duration::MAX),
            find_slowly(&cache, at(0), "1", 20, short),
        )
        .await;
        assert_eq!(patient, (id("1"), None, 20));
        let (found, problem, seconds) = impatient;
        assert_eq!((found, seconds), (None, 2));
        assert!(problem.unwrap().ends_with("it did not come within 2s"));
    }

    /// The runtime of the call that has started it ends before the fetch does.
    #[test]
    fn a_fetch_that_was_lost_is_started_again() {
        let cache = PolicyCache::new();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().build().unwrap()
        };
        let wait = Duration::from_millis(10);
        let found = runtime().block_on(find_slowly(&cache, at(0), "1", 3600, wait));
        assert!(found.0.is_none() && found.1.is_some());
        let found = runtime().block_on(find(&cache, at(0), record("1"), Ok(policy(DAY))));
        assert_eq!(found, (id("1"), None, true));
    }

    #[tokio::test]
    async fn a_folder_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let open = || PolicyCache::in_folder(folder.path().join("state")).unwrap();
        find(&open(), at(0), record("1"), Ok(policy(7 * DAY))).await;
        // Another process, whose record is suppressed.
        let found = find(&open(), at(1), Ok(None), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));
        let found = find(&open(), at(2), record("1"), Ok(policy(1))).await;
        assert_eq!(found, (id("1"), None, false));
        let found = find(&open(), at(7 * DAY + 1), Ok(None), Err(failure())).await;
        assert_eq!(found, (None, None, false));
        // Damaged.
        std::fs::write(folder.path().join("state/mta-sts.example.org"), "x").unwrap();
        let found = find(&open(), at(3), record("1"), Ok(policy(7 * DAY))).await;
        assert_eq!(found, (id("1"), None, true));
        let found = find(&open(), at(4), record("1"), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_a_problem_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PolicyCache::in_folder(folder.path()).unwrap();
        find(&cache, at(0), record("1"), Ok(policy(7 * DAY))).await;
        let file = folder.path().join("mta-sts.example.org");
        let kept = folder.path().join("kept");
        std::fs::rename(&file, &kept).unwrap();
        std::fs::create_dir(&file).unwrap();
        let cache = PolicyCache::in_folder(folder.path()).unwrap();
        for _ in 0..2 {
            let (found, problem, _) = find(&cache, at(1), Ok(None), Err(failure())).await;
            assert_eq!(found, None);
            assert!(problem.unwrap().contains("mta-sts.example.org: "));
        }
        std::fs::remove_dir(&file).unwrap();
        std::fs::rename(&kept, &file).unwrap();
        let found = find(&cache, at(2), Ok(None), Err(failure())).await;
        assert_eq!(found, (id("1"), None, false));
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let cache = PolicyCache::in_folder(&path).unwrap();
        std::fs::remove_dir(&path).unwrap();
        let (found, problem, _) = find(&cache, at(0), record("1"), Ok(policy(DAY))).await;
        assert_eq!(found, id("1"));
        assert!(problem.unwrap().contains("cannot be used"));
        std::fs::write(&path, "").unwrap();
        let error = PolicyCache::in_folder(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("state"), "{error}");
    }
}
