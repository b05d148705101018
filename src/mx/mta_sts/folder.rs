//! The folder in which policies outlive the process.
//!
//! A file for each domain, with the name of its server of policies, which no system takes for a
//! device: `mta-sts.example.org`. It has a checksum, so that damage cannot change a policy: a file
//! that is damaged is as good as none.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};

use super::{MAX_POLICY, Policy, StoredPolicy};
use crate::dns::DomainName;
use crate::file;

/// The first word of each file; the number is the version of the format.
const MAGIC: &str = "envoi-mta-sts-1";

/// The maximum size of what precedes the policy.
const MAX_HEAD: u64 = 1024;

/// A folder of policies.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Uses this folder, and creates it for its owner alone (mode 0700) if it does not exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        Ok(Folder(path.to_owned()))
    }

    fn path(&self, domain: &DomainName) -> PathBuf {
        self.0.join(format!("mta-sts.{domain}"))
    }

    /// Reads the policy of a domain. `None` if there is no file, or it is damaged.
    ///
    /// # Errors
    ///
    /// The file cannot be read, so that it is not known whether there is a policy.
    pub(super) fn load(&self, domain: &DomainName) -> io::Result<Option<StoredPolicy>> {
        let limit = MAX_HEAD + MAX_POLICY as u64;
        let path = self.path(domain);
        match file::read(&path, limit, Instant::now()) {
            Ok(text) => Ok(parse(&String::from_utf8_lossy(&text), domain)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge => Ok(None),
                _ => Err(at(&path, error)),
            },
        }
    }

    /// Writes the policy of a domain. The file is replaced as a whole, when its content is on the
    /// disk.
    pub(super) fn save(&self, domain: &DomainName, stored: &StoredPolicy) -> io::Result<()> {
        let path = self.path(domain);
        let replace = || {
            let mut part = tempfile::Builder::new()
                .prefix(".mta-sts-")
                .tempfile_in(&self.0)?;
            part.write_all(write(domain, stored).as_bytes())?;
            part.as_file().sync_all()?;
            part.persist(&path)?;
            Ok(())
        };
        replace().map_err(|error| at(&path, error))
    }
}

/// The error with the path of its file.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The content of a file: a line with a checksum of the rest, then domain, id and time, and the
/// policy after an empty line.
fn write(domain: &DomainName, stored: &StoredPolicy) -> String {
    let since_1970 = stored
        .fetched_at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (id, seconds, policy) = (&stored.id, since_1970.as_secs(), &stored.policy);
    let rest = format!("domain: {domain}\nid: {id}\nfetched: {seconds}\n\n{policy}");
    format!("{MAGIC} {}\n{rest}", checksum(&rest))
}

fn parse(text: &str, domain: &DomainName) -> Option<StoredPolicy> {
    let (first, rest) = text.split_once('\n')?;
    if first != format!("{MAGIC} {}", checksum(rest)) {
        return None;
    }
    let (head, policy) = rest.split_once("\n\n")?;
    let mut lines = head.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(": ");
    // Where a file was copied or renamed, its policy is of another domain.
    if field("domain")? != domain.as_str() {
        return None;
    }
    let id = field("id")?.to_owned();
    let fetched = Duration::from_secs(field("fetched")?.parse().ok()?);
    Some(StoredPolicy {
        id,
        policy: Policy::parse(policy.as_bytes()).ok()?,
        fetched_at: SystemTime::UNIX_EPOCH.checked_add(fetched)?,
    })
}

fn checksum(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (tempfile::TempDir, Folder, DomainName, StoredPolicy) {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("a/state")).unwrap();
        let policy = "version: STSv1\nmode: enforce\nmx: *.example.com\nmax_age: 86400";
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let stored = StoredPolicy::new("20160831", policy.parse().unwrap(), at);
        (
            parent,
            folder,
            DomainName::new("example.com").unwrap(),
            stored,
        )
    }

    #[test]
    fn a_policy_is_written_and_read() {
        let (_parent, folder, domain, stored) = example();
        let load = |domain| folder.load(domain).unwrap();
        assert_eq!(load(&domain), None);
        folder.save(&domain, &stored).unwrap();
        assert_eq!(load(&domain), Some(stored.clone()));
        let newer = StoredPolicy::new("2", stored.policy, stored.fetched_at);
        folder.save(&domain, &newer).unwrap();
        assert_eq!(load(&domain), Some(newer));
        // Nothing else is left.
        let files: Vec<_> = fs::read_dir(&folder.0).unwrap().collect();
        assert_eq!(files.len(), 1);
        assert_eq!(
            files[0].as_ref().unwrap().file_name(),
            "mta-sts.example.com"
        );
    }

    #[cfg(unix)]
    #[test]
    fn others_have_no_access() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_parent, folder, domain, stored) = example();
        folder.save(&domain, &stored).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.0), 0o700);
        assert_eq!(mode(&folder.path(&domain)), 0o600);
    }

    #[test]
    fn the_longest_domain_has_a_file() {
        let (_parent, folder, _, stored) = example();
        // With `mta-sts.` before it, it is as long as names may be.
        let labels = [
            "a".repeat(61),
            "b".repeat(61),
            "c".repeat(61),
            "d".repeat(59),
        ];
        let domain = DomainName::new(&labels.join(".")).unwrap();
        assert!(DomainName::new(&format!("mta-sts.{domain}")).is_ok());
        folder.save(&domain, &stored).unwrap();
        assert_eq!(folder.load(&domain).unwrap(), Some(stored));
    }

    /// Each byte changed, each end cut off, and files of another domain or kind.
    #[test]
    fn a_damaged_file_is_ignored() {
        let (_parent, folder, domain, stored) = example();
        let intact = write(&domain, &stored).into_bytes();
        let load = |bytes: &[u8]| {
            fs::write(folder.path(&domain), bytes).unwrap();
            folder.load(&domain).unwrap()
        };
        assert_eq!(load(&intact), Some(stored.clone()));
        for at in 0..intact.len() {
            let mut changed = intact.clone();
            changed[at] ^= 1;
            assert_eq!(load(&changed), None, "byte {at}");
            assert_eq!(load(&intact[..at]), None, "the first {at} bytes");
        }
        let other = DomainName::new("example.org").unwrap();
        let huge = vec![b'a'; 1 << 20];
        for bytes in [
            b"".to_vec(),
            b"\xff\xfe".to_vec(),
            [&intact[..], b"\n"].concat(),
            write(&other, &stored).into_bytes(),
            huge,
        ] {
            assert_eq!(load(&bytes), None);
        }
    }

    /// What cannot be read may be a policy.
    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let (_parent, folder, domain, stored) = example();
        fs::create_dir(folder.path(&domain)).unwrap();
        let failures = [
            folder.load(&domain).map(|_| ()),
            folder.save(&domain, &stored),
        ];
        for failure in failures {
            let text = failure.unwrap_err().to_string();
            assert!(text.contains("mta-sts.example.com: "), "{text}");
        }
    }
}
